"""``mcrdist characterize``: the statistics of a micrograph, with a picture of them."""

from __future__ import annotations

from collections.abc import Sequence

from mcrdist.commands.compose import compose
from mcrdist.commands.terminal import say, together
from mcrdist.config import characterize_from_mapping


def run(overrides: Sequence[str]) -> int:
    """Characterise and say where the results are; return the exit status."""
    with together():
        config = characterize_from_mapping(compose("characterize", overrides))
    from mcrdist.characterize import characterize, in_words

    path = characterize(config, say)
    say("\n".join([f"targets {path}", *in_words(path)]))
    return 0
