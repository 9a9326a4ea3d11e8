"""``mcrdist doctor``: what the machine and the installation offer."""

from __future__ import annotations

from collections.abc import Sequence

from mcrdist.commands.terminal import say


def run(overrides: Sequence[str]) -> int:
    """Print the findings; return 1 when something does not work."""
    from mcrdist.doctor import main

    return 0 if main(say) else 1
