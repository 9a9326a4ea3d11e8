"""Solving one level: relax the field, drive it to two phases, and mend the rounded one voxel by voxel.

1. *Prepare* (where there are costly descriptors and correlations): relax without the former. What correlations can
   settle, they settle in evaluations of a hundredth of the time.
2. *Relax*: minimise the distance to the targets in the box [0, 1].
3. *Binarize* (finest level only): the same, with a growing price on grey voxels, until hardly any is left. Two
   phases cost little that way, while rounding a grey field costs what its grey voxels were worth. Costly descriptors
   are left out again where there are correlations: what is left of them, which slices cannot mend, would set the
   price so high that the others have no say, and voxels move so little that they keep what they had.
4. *Flip* (finest level only): round, and flip single voxels as long as that brings the slices nearer to their
   targets. Costly descriptors that look at a part of the slices at a time are left out again: flips would serve the
   slices that are looked at, and leave specks in those that are not.

A run that was cut short goes through the same stages again. What the journal has settled costs nothing then, and the
work that was under way goes on from what is kept of it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcrdist.annealing.volume import anneal_volume
from mcrdist.checkpoints import Saved
from mcrdist.config import ReconstructConfig
from mcrdist.objective import Evaluation, Objective, Part, costly
from mcrdist.optimize.minimizer import Memory, Options, State
from mcrdist.optimize.yeong_torquato import AnnealResult, AnnealState
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.threads import Workers
from mcrdist.record import Recorder
from mcrdist.sizing.footprint import history_itemsize
from mcrdist.solver import multipliers
from mcrdist.solver.descent import Descent
from mcrdist.solver.grid import Grid
from mcrdist.solver.mending import Mending
from mcrdist.solver.progress import Keep, Progress

#: The prices of greyness, one after the other. A price of 1 makes the greyness that is left after relaxing as dear as
#: the whole loss, so the same prices suit micrographs that are easy and hard to match.
GREY_PRICES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
#: A field with fewer grey voxels than this share is two phases already.
GREY_LEFT = 2e-3
#: Iterations after which the optimiser forgets, where its history is not saved.
FORGET = 50


@dataclass(frozen=True)
class Outcome:
    """How a level ended.

    Attributes
    ----------
    relaxed : Tensor (planes, ny, nx) or (planes, variables, ny, nx)
        The field of variables.
    rounded : Tensor, shaped as `relaxed`
        The variables rounded to 0 and 1, after the flips; on coarse levels the field itself.
    thresholds : sequence of float, optional
        At which each variable was rounded; None on coarse levels.
    """

    relaxed: Tensor
    rounded: Tensor
    loss: float
    iterations: int
    evaluations: int
    stop: str
    thresholds: Sequence[float] | None = None


class LevelSolver:
    """Runs the stages of one level on a field.

    Parameters
    ----------
    keep
        Called with what `saved` must be for a solver of another process to go on from here.
    saved : Saved, optional
        Of an earlier run that was cut short in this level.
    """

    def __init__(
        self,
        grid: Grid,
        count: int,
        config: ReconstructConfig,
        recorder: Recorder,
        comm: Comm,
        workers: Workers,
        keep: Keep = lambda numbers, fields: None,
        saved: Saved | None = None,
    ) -> None:
        self._grid, self._config, self._recorder, self._saved = grid, config, recorder, saved
        self._comm, self._workers = comm, workers
        self._progress = Progress(grid, count, recorder, keep, saved)
        self._journal = self._progress.journal
        self._descent = Descent(config.optimizer, grid.slab.gather_rows, workers.map, self._journal)
        self._gradient = torch.empty(0)
        self._forget = 0 if config.checkpoint.history else FORGET

    def solve(self, field: Tensor, finest: bool) -> Outcome:
        """Solve the level from `field` (planes, ny, nx) in [0, 1], which is overwritten.

        Best one that the other ranks see, if they can (`Slab.seen`). With `saved` it is the field that was kept.
        """
        options = self._config.optimizer
        if options.name == "yeong_torquato":
            return self._anneal(field)
        slab = self._grid.slab
        self._gradient = slab.room(field)
        until = Options(
            history=options.history,
            history_dtype=self._history_dtype(field),
            iterations=options.iterations,
            relative_decrease=options.relative_decrease,
            # a voxel's share of the gradient shrinks as the volume grows
            projected_gradient=options.projected_gradient / math.prod(slab.shape),
            forget=self._forget,
        )
        stop = ""
        if self._grid.prepares:
            stop = self._constrained("prepare", field, None, until)
        if not self._recorder.interrupted:
            stop = self._constrained("relax", field, None, until)
        rounded, found = field, None
        if finest:
            if options.iterations and options.binarize_iterations and not self._recorder.interrupted:
                self._binarize(field)
            mending = Mending(
                self._grid,
                self._config,
                self._progress,
                self._descent,
                self._gradient,
                self._comm,
                self._workers,
            )
            rounded, found = mending.rounded(field)
            rounded = slab.seen(rounded)
            if self._saved is not None and "rounded" in self._saved.fields:
                rounded.copy_(self._saved.fields["rounded"][0].view_as(rounded))
            if options.iterations and not self._recorder.interrupted:
                mending.mend(field, rounded)
            if not self._recorder.interrupted:
                self._progress.keep(None, field=field, rounded=rounded)
        self._recorder.end()
        if self._recorder.interrupted:
            stop = "interrupted"
        return self._outcome(field, rounded, stop, found)

    def _outcome(
        self, field: Tensor, rounded: Tensor, stop: str, found: Sequence[float] | None = None
    ) -> Outcome:
        done = self._progress
        return Outcome(field, rounded, done.loss, done.iterations, done.evaluations, stop, found)

    def _history_dtype(self, field: Tensor) -> torch.dtype:
        """How the optimiser's history is kept: where memory counts, and unless the settings say it, in half."""
        own, wanted = field.element_size(), self._config.optimizer.history_dtype
        kept = history_itemsize(own, wanted, math.prod(self._grid.slab.shape))
        return torch.bfloat16 if kept < own else field.dtype

    def _constrained(self, stage: str, field: Tensor, greyness: float | None, options: Options) -> str:
        """Descend, and go on with other multipliers until the constraints, if there are any, are met."""
        stop = ""
        for _ in range(multipliers.ROUNDS):
            objective = self._grid.objective(
                greyness, without=None if stage == "relax" else self._dispensable
            )
            stop = self._descend(stage, field, objective, options)
            if self._recorder.interrupted:
                break
            unmet = functools.partial(self._unmet, objective, field)
            if not self._journal.once(unmet):
                break
        return stop

    @property
    def _dispensable(self) -> Callable[[Part], bool] | None:
        """What is left out where correlations can do the work."""
        return costly if self._grid.prepares else None

    def _unmet(self, objective: Objective, field: Tensor, _: Memory | None) -> bool:
        """Whether constraints are not met yet; then they have other multipliers now."""
        held = self._grid.multipliers
        return held.wanted(objective) and held.update(objective, objective(field, None))

    def _anneal(self, field: Tensor) -> Outcome:
        """Swap voxels of two phases, instead of all stages of a gradient method."""
        objective = self._grid.objective()
        sweeps, level = self._config.optimizer.iterations, self._grid.level

        def note(state: AnnealState, volume: Tensor) -> bool:
            stop = self._progress.note(state.sweep, state.energy, objective(volume, None), volume, None)
            self._progress.keep_if_due(
                lambda: self._descent.kept(objective, Memory(asdict(state))), field=volume
            )
            return stop

        fraction = float(np.mean(list(self._grid.fractions()[0].values())))

        def work(memory: Memory | None) -> dict[str, Any]:
            start, seed = None, [self._config.seed, level.number]
            if memory is not None:
                numbers = dict(memory.numbers)
                self._descent.recall(objective, numbers.pop("standing"))
                start = AnnealState(**numbers)
                seed.append(start.sweep)
            rng = np.random.default_rng(seed)
            return asdict(anneal_volume(field, objective, fraction, sweeps, rng, note, start))

        with self._progress.stage("anneal", sweeps, objective, field):
            result = AnnealResult(**self._journal.once(work))
        self._progress.over(objective, result.sweeps, result.energy)
        self._recorder.end()
        return self._outcome(field, field, result.stop)

    def _descend(self, stage: str, field: Tensor, objective: Objective, options: Options) -> str:
        last: list[Evaluation] = []

        def function(x: Tensor) -> tuple[float, Tensor]:
            last[:] = [objective(x, self._gradient)]
            return last[0].loss, self._gradient

        def note(state: State) -> bool:
            stop = self._progress.note(
                state.iteration, state.loss, last[0], state.x, state.projected_gradient
            )
            if state.light:
                self._progress.keep_if_due(
                    lambda: self._descent.kept(objective, state.memory()), field=state.x
                )
            return stop

        with self._progress.stage(stage, options.iterations, objective, field):
            result = self._descent(objective, function, field, options, note)
        self._progress.over(objective, result.iterations, result.loss)
        return result.stop

    def _binarize(self, field: Tensor) -> None:
        options = Options(
            history=self._config.optimizer.history,
            history_dtype=self._history_dtype(field),
            iterations=self._config.optimizer.binarize_iterations,
            relative_decrease=self._config.optimizer.relative_decrease,
            projected_gradient=0.0,
            forget=self._forget,
        )
        misfit, greyness = self._journal.once(lambda _: self._greyness(field))
        if greyness == 0.0:
            return
        for price in GREY_PRICES:
            self._constrained("binarize", field, price * misfit / greyness, options)
            if self._recorder.interrupted:
                return
            if self._journal.once(lambda _: self._recorder.grey) < GREY_LEFT:
                return

    def _greyness(self, field: Tensor) -> tuple[float, float]:
        """Misfit and greyness of a field."""
        evaluation = self._grid.objective(greyness=0.0, without=self._dispensable)(field, None)
        greyness = [errors["greyness"].mean() for errors in evaluation.errors.values()]
        return evaluation.misfit, float(np.mean(greyness))
