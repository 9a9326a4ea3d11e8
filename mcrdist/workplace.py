"""The directory that a run works in: claimed, locked, and found again by the run that goes on in it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mcrdist import begun
from mcrdist.checkpoints import DIRECTORY, Checkpoints
from mcrdist.config import ReconstructConfig
from mcrdist.errors import InputError
from mcrdist.parallel.comm import Comm
from mcrdist.store import checksums, disk, leftovers
from mcrdist.store.checksums import CHECKSUMS
from mcrdist.store.generation import Generation, Generations
from mcrdist.store.lock import Lock
from mcrdist.store.place import writing
from mcrdist.store.run import CONFIG, METRICS, REQUEUE, VOLUME, Run, RunDirectory, ask_for_another_turn
from mcrdist.store.volume import VolumeWriter

#: Where targets that were measured again may differ from those of the run: in what other libraries round otherwise.
_TOLERANCE = 1e-5


class Workplace:
    """Among ranks that have met; the first one touches files, and all learn what came of it.

    Parameters
    ----------
    config : ReconstructConfig
    comm : Comm

    Attributes
    ----------
    path : Path
    begun : ReconstructConfig or None
        The settings that the run to go on with has stored.
    resuming : bool
        Whether there is one.
    finished : bool
        Whether it has come to its end already.

    Raises
    ------
    InputError
        Another job is at work there, the run there has other settings, or something else is there that must not be
        overwritten.
    """

    def __init__(self, config: ReconstructConfig, comm: Comm) -> None:
        self._comm = comm
        self._lock: Lock | None = None
        again = restarted(comm)
        self.path, self.begun, self.finished = comm.first(lambda: self._find(config, again))
        self.resuming = self.begun is not None
        comm.board = self.path
        self.checkpoints = Checkpoints(self.path, comm)

    def _find(self, config: ReconstructConfig, again: bool) -> tuple[Path, ReconstructConfig | None, bool]:
        where = config.run.dir or time.strftime("runs/%Y-%m-%d-%H%M%S")
        path = Path(where).expanduser().absolute()
        if not (config.resume or again) or not (path / CONFIG).is_file():
            return RunDirectory.free(path), None, False
        # Before the lock: what is not this run's stays as it is. torchrun's restarts know its directory's name alone.
        checksums.require(path, CONFIG)
        found = begun.read(Run.open(path).config, path / CONFIG)
        begun.check(path, found, begun.as_begun(config, found), "give the same, or choose another run.dir")
        with writing(path):
            self._lock = Lock(path)
        return path, found, checksums.is_finished(path) if (path / CHECKSUMS).exists() else False

    def prepare(self, fill: Callable[[Path], None], targets: Mapping[str, Any]) -> Generation | None:
        """Make the directory, or see to it that what is in it is that of the same run; every rank calls this.

        Parameters
        ----------
        fill
            Writes, on the first rank, what is known before the work starts, into a directory that is there.
        targets
            The arrays of ``targets.npz`` as `fill` would write them.

        Returns
        -------
        Generation or None
            The checkpoint to go on from; None to start from the beginning.
        """
        self._comm.first(lambda: self._reopen(fill, targets) if self.resuming else self._fill(fill))
        return self.checkpoints.newest() if self.resuming else None

    def _fill(self, fill: Callable[[Path], None]) -> None:
        RunDirectory.claim(self.path)
        self._lock = self._lock or Lock(self.path)
        leftovers.tidy(self.path)
        fill(self.path)
        checksums.seal(self.path, finished=False)

    def _reopen(self, fill: Callable[[Path], None], targets: Mapping[str, Any]) -> None:
        run = RunDirectory(self.path)
        if not (self.path / CHECKSUMS).exists():
            # Killed while it got ready: there is nothing yet to go on with.
            leftovers.clear(self.path)
            self._fill(fill)
            return
        damages = checksums.damages(self.path)
        if damages:
            raise InputError(
                f"{damages[0]}; restore it from a copy or start again in another run.dir"
                + (f" ({len(damages)} files are damaged)" if len(damages) > 1 else "")
            )
        _check_targets(run.targets, Run.open(self.path).targets, targets)
        leftovers.tidy(self.path)
        with writing(self.path):
            Generations(self.path / DIRECTORY).tidy()
        VolumeWriter.open(run.volume).mark(complete=False)
        (self.path / REQUEUE).unlink(missing_ok=True)

    def cut_metrics(self, kept: tuple[int, str] | None) -> None:
        """Forget the iterations after a checkpoint, which come again; on the first rank."""
        told = checksums.cut(self.path / METRICS, kept)
        if told is not None:
            print(f"mcrdist: warning: {told}", file=sys.stderr, flush=True)

    def ask_for_another_turn(self) -> None:
        """Leave the marker that says: saved, and not finished."""
        self._comm.first(lambda: ask_for_another_turn(self.path))

    def finish(self) -> None:
        """Seal what was written, and remove what only an unfinished run needs; every rank calls this."""
        self._comm.first(self._finish)

    def _finish(self) -> None:
        with writing(self.path):
            disk.sync_tree(self.path / VOLUME)
        checksums.seal(self.path, finished=True)
        (self.path / REQUEUE).unlink(missing_ok=True)
        shutil.rmtree(self.path / DIRECTORY, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.release()


def restarted(comm: Comm) -> bool:
    """Whether torchrun has started the ranks again. Where none of a machine failed, they do not count it themselves."""
    return comm.any(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0)


def _check_targets(path: Path, known: Mapping[str, NDArray[Any]], measured: Mapping[str, Any]) -> None:
    """Raise an InputError where a micrograph is another one than that of the run."""
    # What an image looked like before it was segmented changes no run, and runs of before did not keep it.
    for name in sorted(name for name in known.keys() | measured.keys() if not name.endswith("/grey")):
        if name in known and name in measured and _same(known[name], np.asarray(measured[name])):
            continue
        raise InputError(
            f"micrograph: expected the one that the run in run.dir began with, found that {name} differs from "
            f"{path}; restore the image, or start again in another run.dir"
        )


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if a.shape != b.shape or a.dtype.kind != b.dtype.kind:
        return False
    if a.dtype.kind != "f":
        return np.array_equal(a, b)
    return np.allclose(
        a, b, rtol=_TOLERANCE, atol=_TOLERANCE * float(np.abs(a).max(initial=0.0)), equal_nan=True
    )
