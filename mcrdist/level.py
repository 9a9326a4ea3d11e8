"""Solving one level: relax the field, drive it to two phases, and mend the rounded one voxel by voxel.

1. *Relax*: minimise the distance to the targets in the box [0, 1].
2. *Binarize* (finest level only): the same, with a growing price on grey voxels, until hardly any is left. Two
   phases cost little that way, while rounding a grey field costs what its grey voxels were worth.
3. *Flip* (finest level only): round, and flip single voxels as long as that brings the slices nearer to their
   targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.config import ReconstructConfig
from mcrdist.descriptors.base import Term
from mcrdist.descriptors.correlation import LagWindow, TwoPointCorrelation
from mcrdist.descriptors.variation import Variation
from mcrdist.descriptors.volume_fraction import Greyness, VolumeFraction
from mcrdist.gaussian import two_phases
from mcrdist.multigrid import Level
from mcrdist.objective import Evaluation, Objective
from mcrdist.optimize.flips import FlipOptions, FlipState, GainSelector, flip_descent
from mcrdist.optimize.lbfgsb import Options, State, minimize
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.products import Products
from mcrdist.parallel.random import plane_noise
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.record import Recorder
from mcrdist.targets import AXES, Target

#: What a weight of 1 in the configuration means in the loss. Squared relative errors of S2 settle near 1e-4; a
#: tenth of the variation's, more of which would only stiffen the problem, brings it below 1 %.
BALANCE = {"s2": 1.0, "variation": 0.1, "volume_fraction": 1.0}
#: ε of the smoothed variation while there are grey voxels. The mean square of the steps equals Eq. 5 on two phases,
#: has no kink to stall on, and costs nothing beside S2, of which it is a part.
SMOOTHING = math.inf
#: The prices of greyness, one after the other, and the iterations at each. A price of 1 makes the greyness that is
#: left after relaxing as dear as the whole loss, so the same prices suit micrographs that are easy and hard to match.
GREY_PRICES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
GREY_ITERATIONS = 25
#: A field with fewer grey voxels than this share is two phases already.
GREY_LEFT = 2e-3
#: Rounds of voxel flips.
FLIP_ROUNDS = 100


@dataclass(frozen=True)
class Outcome:
    """How a level ended.

    Attributes
    ----------
    relaxed : Tensor (planes, ny, nx)
        The field.
    rounded : Tensor (planes, ny, nx)
        Its two phases, after the flips; on coarse levels the field itself.
    """

    relaxed: Tensor
    rounded: Tensor
    loss: float
    iterations: int
    evaluations: int
    stop: str


class Grid:
    """A level with its slabs and objective: all that the stages share."""

    def __init__(
        self,
        level: Level,
        slab: Slab,
        targets: Mapping[str, Target],
        config: ReconstructConfig,
        comm: Comm,
        workers: Workers,
    ) -> None:
        self.level = level
        self.slab = slab
        self._targets = targets
        self._weights = {name: w * BALANCE[name] for name, w in config.descriptors.weights.items()}
        self._comm, self._workers = comm, workers

    @property
    def fractions(self) -> dict[str, float]:
        """Volume fraction wanted in each direction."""
        return {name: target.fraction for name, target in self._targets.items()}

    def objective(self, smoothing: float, greyness: float | None = None, every: bool = False) -> Objective:
        """The loss with a smoothing of the variation; `greyness` adds that term, `every` those of weight 0."""
        terms = {
            name: self._terms(axis, self._targets[name], smoothing, greyness, every)
            for axis, name in enumerate(AXES)
        }
        return Objective(self.slab, terms, self._comm, self._workers)

    def _terms(
        self, axis: int, target: Target, smoothing: float, greyness: float | None, every: bool
    ) -> list[Term]:
        height, width = (n for i, n in enumerate(self.level.shape) if i != axis)
        terms: list[Term] = []
        variation = Variation(target.variation, self._weights["variation"], smoothing)
        if every or self._weights["s2"]:
            window = LagWindow((height, width), target.lags, self.slab.dtype, self._comm.device)
            s2 = TwoPointCorrelation(target.s2, target.fraction, self._weights["s2"], window)
            # A rare phase makes the errors of S2 loom larger: keep the two in step.
            variation.weight *= s2.norm / s2.scale
            terms.append(s2)
        if every or self._weights["variation"]:
            if self._weights["s2"] and math.isinf(smoothing):
                s2.variation = variation
            else:
                terms.append(variation)
        terms.append(VolumeFraction(target.fraction, BALANCE["volume_fraction"]))
        if greyness is not None:
            terms.append(Greyness(target.fraction, greyness))
        return terms


class LevelSolver:
    """Runs the stages of one level on a field."""

    def __init__(
        self,
        grid: Grid,
        count: int,
        config: ReconstructConfig,
        recorder: Recorder,
        comm: Comm,
        workers: Workers,
    ) -> None:
        self._grid, self._count, self._config, self._recorder = grid, count, config, recorder
        self._comm, self._workers = comm, workers
        self._products = Products(comm, workers)
        self._iterations = self._evaluations = 0
        self._loss = float("nan")
        self._gradient = grid.slab.empty()

    def solve(self, field: Tensor, finest: bool) -> Outcome:
        """Solve the level from `field` (planes, ny, nx) in [0, 1], which is overwritten."""
        options = self._config.optimizer
        stop = self._descend(
            "relax",
            field,
            self._grid.objective(SMOOTHING),
            Options(
                history=options.history,
                iterations=options.iterations,
                relative_decrease=options.relative_decrease,
                # a voxel's share of the gradient shrinks as the volume grows
                projected_gradient=options.projected_gradient / math.prod(self._grid.slab.shape),
            ),
        )
        rounded = field
        if finest:
            if options.iterations and not self._recorder.interrupted:
                self._binarize(field)
            rounded = two_phases(field)
            if options.iterations and not self._recorder.interrupted:
                self._flip(rounded)
        self._recorder.end()
        if self._recorder.interrupted:
            stop = "interrupted"
        return Outcome(field, rounded, self._loss, self._iterations, self._evaluations, stop)

    def _descend(self, stage: str, field: Tensor, objective: Objective, options: Options) -> str:
        self._recorder.begin(self._grid.level, self._count, stage, options.iterations, objective)
        last: list[Evaluation] = []

        def function(x: Tensor) -> tuple[float, Tensor]:
            last[:] = [objective(x, self._gradient)]
            return last[0].loss, self._gradient

        def note(state: State) -> bool:
            return self._recorder.note(
                self._iterations + state.iteration, state.loss, last[0], state.x, state.projected_gradient
            )

        result = minimize(function, field, self._products, options, note, self._workers.map)
        self._count_in(objective, result.iterations, result.loss)
        return result.stop

    def _binarize(self, field: Tensor) -> None:
        options = Options(
            history=self._config.optimizer.history,
            iterations=GREY_ITERATIONS,
            relative_decrease=self._config.optimizer.relative_decrease,
            projected_gradient=0.0,
        )
        objective = self._grid.objective(SMOOTHING, greyness=0.0)
        before = objective(field, None)
        greyness = float(np.mean([before.errors[axis]["greyness"].mean() for axis in AXES]))
        if greyness == 0.0:
            return
        for price in GREY_PRICES:
            weight = price * before.loss / greyness
            self._descend("binarize", field, self._grid.objective(SMOOTHING, greyness=weight), options)
            if self._recorder.interrupted or self._recorder.grey < GREY_LEFT:
                return

    def _flip(self, field: Tensor) -> None:
        objective = self._grid.objective(smoothing=math.inf)
        slab, seed = self._grid.slab, self._config.seed
        self._recorder.begin(self._grid.level, self._count, "flip", FLIP_ROUNDS, objective)
        last: list[Evaluation] = []

        def function(x: Tensor) -> tuple[float, Tensor]:
            evaluation = objective(x, self._gradient)
            last[:] = [evaluation]
            return evaluation.loss, self._gains(x, objective.flip_constants(evaluation))

        def draw(plane: int, iteration: int) -> NDArray[np.float64]:
            return plane_noise(
                seed, self._grid.level.number, slab.start + plane, slab.shape[1:], "uniform", iteration
            )

        def note(state: FlipState) -> bool:
            return self._recorder.note(self._iterations + state.iteration, state.loss, last[0], field, None)

        selector = GainSelector(
            self._comm.sum_integers, draw, (slab.start, slab.shape[0]), planes_map=self._workers.map
        )
        options = FlipOptions(count=max(40, math.prod(slab.shape) // 1000), iterations=FLIP_ROUNDS)
        result = flip_descent(function, field, selector, options, note)
        self._count_in(objective, result.iterations, result.loss)

    def _gains(self, field: Tensor, constants: list[NDArray[np.float64]]) -> Tensor:
        """By how much the flip of each voxel would lower the loss; overwrites the gradient."""
        z, y, x = (torch.as_tensor(c, dtype=field.dtype, device=field.device) for c in constants)
        z = z[self._grid.slab.start : self._grid.slab.stop]
        return (
            self._gradient.mul_(field.mul(2.0).sub_(1.0))
            .sub_(z[:, None, None])
            .sub_(y[None, :, None])
            .sub_(x[None, None, :])
        )

    def _count_in(self, objective: Objective, iterations: int, loss: float) -> None:
        self._recorder.level_done(objective)
        self._iterations += iterations
        self._evaluations += objective.evaluations
        self._loss = loss
