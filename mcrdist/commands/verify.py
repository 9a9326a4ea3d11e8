"""``mcrdist verify``: whether a run is what was written."""

from __future__ import annotations

from collections.abc import Sequence

from mcrdist.commands.compose import compose
from mcrdist.commands.terminal import relative, say
from mcrdist.config import verify_from_mapping

BROKEN = 1


def run(overrides: Sequence[str]) -> int:
    """Say what is broken, a line each, and how much was read; return 1 when something is."""
    path = verify_from_mapping(compose("verify", overrides))
    from mcrdist.store.verify import verify

    found = verify(path)
    for problem in found.problems:
        say(problem)
    good = f"{len(found.problems)} broken" if found.problems else "all good"
    if found.targets_only:
        use = f"for reconstruct target.path={relative(path / 'targets.npz')}"
        say(f"verify  {path}  (targets only, {use}; {found.files} files read; {good})")
    else:
        state = "complete" if found.finished else "not finished"
        say(f"verify  {path}  ({state}; {found.files} files and {found.chunks} chunks read; {good})")
    return BROKEN if found.problems else 0
