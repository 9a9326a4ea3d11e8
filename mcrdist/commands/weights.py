"""``mcrdist weights``: the network for Gram matrices, fetched once and kept."""

from __future__ import annotations

from collections.abc import Sequence

from mcrdist.commands.compose import compose
from mcrdist.commands.terminal import say
from mcrdist.config import weights_from_mapping


def run(overrides: Sequence[str]) -> int:
    """Fetch the network where it is missing and say where it is; return the exit status."""
    config = weights_from_mapping(compose("weights", overrides))
    from mcrdist.weights import fetch

    found = fetch(config)
    say(f"weights {found.path}  (from {found.source}{', already there' if found.already else ''})")
    return 0
