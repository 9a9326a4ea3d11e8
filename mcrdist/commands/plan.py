"""``mcrdist plan``: what a run would need."""

from __future__ import annotations

from collections.abc import Sequence

from mcrdist.commands.compose import compose
from mcrdist.commands.terminal import say
from mcrdist.config import plan_from_mapping


def run(overrides: Sequence[str]) -> int:
    """Print the plan; return the exit status."""
    config = plan_from_mapping(compose("plan", overrides))
    from mcrdist.plan import plan

    say(str(plan(config)))
    return 0
