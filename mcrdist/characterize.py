"""From a micrograph to the targets of a reconstruction, written with a picture of them; no volume is made."""

from __future__ import annotations

import time
from pathlib import Path

from mcrdist.config import CharacterizeConfig, to_mapping
from mcrdist.parallel.comm import Comm
from mcrdist.store.run import RunDirectory, environment, write_atomically
from mcrdist.targets import load_targets

PICTURE = "targets.png"


def characterize(config: CharacterizeConfig) -> Path:
    """Write ``targets.npz`` and its picture into the run directory; return that directory.

    Every rank may call this; the first does the work, and the others learn what came of it.

    Raises
    ------
    InputError
        For an image that does not work, or a run directory that is in use; the same on every rank.
    """
    with Comm.start("cpu") as comm:
        return comm.first(lambda: _describe(config))


def _describe(config: CharacterizeConfig) -> Path:
    from mcrdist.analysis import targets_figure  # plotting libraries take a second to load

    targets = load_targets(config.micrograph, config.target)
    where = config.run.dir or time.strftime("runs/%Y-%m-%d-%H%M%S")
    run = RunDirectory.create(where, to_mapping(config), environment())
    write_atomically(run.targets, targets.npz())
    targets_figure(run.targets, run.path / PICTURE)
    return run.path
