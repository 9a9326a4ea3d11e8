"""What a run tells while it goes on: a line an iteration, a progress bar, and whether to stop or to save."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from mcrdist.descriptors.volume_fraction import GreynessTerm
from mcrdist.errors import InputError
from mcrdist.multigrid import Level
from mcrdist.objective import Evaluation, Objective
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.shared import resident
from mcrdist.store.run import MetricsWriter

#: What asks a run to save and to end: Ctrl-C, a batch system that wants the machine back, or its warning before that.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupt:
    """Turns Ctrl-C, SIGTERM and SIGUSR1 into a flag, for the run to end tidily; a second Ctrl-C ends it at once.

    Parameters
    ----------
    abrupt : bool
        Whether the second Ctrl-C ends the process, whatever it is waiting for, as a kill does: for the command line.
        Otherwise it is a KeyboardInterrupt, which must wait until the evaluation under way has ended.
    """

    def __init__(self, abrupt: bool = False) -> None:
        self.requested = False
        self._abrupt = abrupt

    @contextmanager
    def listening(self) -> Iterator[Interrupt]:
        """Handle the signals inside the ``with`` block; outside the main thread there are none to handle."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        if self._abrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


class Recorder:
    """Keeps the records of a run. All ranks call the same methods at the same times.

    Parameters
    ----------
    comm : Comm
    writer : MetricsWriter or None
        Where the lines go; None on every rank but the first.
    interrupt : Interrupt
    every : float
        Seconds after which the run is to be saved again.
    standing : mapping, optional
        What `standing` was when the run was saved that goes on here.

    Attributes
    ----------
    stage : str
        Of the level, as it was announced.
    interrupted, due : bool
        Whether the run shall stop, and whether it shall be saved: the same on all ranks, as of the last `note`.
    """

    def __init__(
        self,
        comm: Comm,
        writer: MetricsWriter | None,
        interrupt: Interrupt,
        every: float = math.inf,
        standing: Mapping[str, Any] | None = None,
    ) -> None:
        self.peak_memory = 0
        self.grey = 1.0
        self.interrupted = self.due = False
        self.stage, self._place = "", "the start"
        self._comm = comm
        self._writer = writer
        self._interrupt = interrupt
        self._started = self._saved = time.perf_counter()
        self._every = every
        self._evaluations_before = 0
        if standing is not None:
            self._started -= standing["seconds"]
            self.peak_memory, self.grey = standing["memory"], standing["grey"]
            self._evaluations_before = standing["evaluations"]
        self._bar: Any = None

    def standing(self, evaluations: int) -> dict[str, Any]:
        """What a recorder of another process needs to go on, `evaluations` having gone by before this level.

        The lines so far are on the disk then.
        """
        told = None
        if self._writer is not None:
            told = self._writer.sync()
        return {
            "seconds": self.seconds,
            "memory": self.peak_memory,
            "grey": self.grey,
            "evaluations": evaluations,
            "metrics": told,
        }

    def saved(self) -> None:
        """Note that the run was saved just now."""
        self.due, self._saved = False, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the recorder was made."""
        return time.perf_counter() - self._started

    def begin(self, level: Level, count: int, stage: str, cap: int, objective: Objective) -> None:
        """Announce a stage of a level that takes at most `cap` iterations."""
        self._level, self.stage, self._objective = level, stage, objective
        self.end()
        shape = "x".join(map(str, level.shape))
        self._place = f"level {level.number} ({shape}), {stage}"
        self._comm.task = f"{self._place}, its beginning"
        if self._comm.rank == 0:
            # disable=None: no bar where standard error is a file
            self._bar = tqdm(
                total=cap, desc=f"level {level.number + 1}/{count} {shape} {stage}", disable=None
            )

    def end(self) -> None:
        """Close the bar of the stage, which may not have begun."""
        self._comm.task = f"{self._place}, its end"
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def level_done(self, objective: Objective) -> None:
        """Count the level's evaluations among those before the next one."""
        self._evaluations_before += objective.evaluations

    def note(
        self,
        iteration: int,
        loss: float,
        evaluation: Evaluation,
        field: Tensor,
        projected_gradient: float | None,
    ) -> bool:
        """Record an iteration; return whether the run shall stop, on all ranks alike.

        Raises
        ------
        InputError
            The line could not be written; on all ranks.
        """
        self._comm.task = f"{self._place}, iteration {iteration}"
        self._gather(field)
        error: InputError | None = None
        if self._writer is not None:
            errors = self._mean_errors(evaluation)
            record = {
                "level": self._level.number,
                "shape": list(self._level.shape),
                "stage": self.stage,
                "iteration": iteration,
                "loss": loss,
                "errors": errors,
                "evaluations": self._evaluations_before + self._objective.evaluations,
                "seconds": self.seconds,
                "memory": self.peak_memory,
                "projected_gradient": projected_gradient,
                "grey": self.grey,
            }
            try:
                self._writer.write(record)
            except InputError as problem:
                error = problem
            if self._bar is not None:
                s2 = f"{errors['s2']:.2%}" if "s2" in errors else "-"
                self._bar.set_postfix_str(f"loss {loss:.3e}, E(S2) {s2}", refresh=False)
                self._bar.update()
        # The clock is the first rank's.
        due = self._comm.rank == 0 and time.perf_counter() - self._saved >= self._every
        flags = self._comm.sum_integers(np.array([self._interrupt.requested, due], dtype=np.int64))
        self.interrupted = bool(flags[0])
        self.due = bool(flags.any())
        self._comm.agree(error)
        self._comm.task = f"{self._place}, iteration {iteration + 1}"
        return self.interrupted

    def _mean_errors(self, evaluation: Evaluation) -> dict[str, float]:
        relative = self._objective.relative(evaluation)
        first = next(iter(relative.values()))
        names = [name for name in first if name != GreynessTerm.name]  # a condition, not a descriptor
        return {name: float(np.mean([errors[name] for errors in relative.values()])) for name in names}

    def _gather(self, field: Tensor) -> None:
        grey = self._objective.phases.grey(field)
        voxels = field.numel() // self._objective.phases.variables
        memory = resident()
        totals = self._comm.gather_rows(np.array([[grey, memory, voxels]], dtype=np.float64)).sum(0)
        self.grey = float(totals[0] / totals[2])
        self.peak_memory = max(self.peak_memory, int(totals[1]))
