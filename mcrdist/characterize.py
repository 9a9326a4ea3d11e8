"""From a micrograph to the targets of a reconstruction, written with a picture of them; no volume is made."""

from __future__ import annotations

from pathlib import Path

from mcrdist.config import CharacterizeConfig


def characterize(config: CharacterizeConfig) -> Path:
    """Write ``targets.npz`` and its picture into the run directory; return that directory.

    Raises
    ------
    InputError
        For an image that does not work, or a run directory that is in use.
    """
    # TO BE COMPLETED BY THE CORE: targets from mcrdist.targets, the directory from mcrdist.store.run, a
    # figure.
    raise NotImplementedError("mcrdist characterize")
