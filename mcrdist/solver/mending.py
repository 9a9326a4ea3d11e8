"""Making the relaxed field one of phases, and mending it voxel by voxel.

Flips bring the rounded slices nearer to their targets: first the most promising ones of the whole volume at a time, in
a single plane then exchanges of two voxels. Where the targets contradict each other in the volume fractions, or the
settings ask for it, every phase gets its exact number of voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.config import ReconstructConfig
from mcrdist.objective import Evaluation, FlipConstants, Objective, sampled
from mcrdist.optimize.exchange import exchange_descent
from mcrdist.optimize.flips import FlipOptions, FlipResult, FlipState, GainSelector, flip_descent
from mcrdist.optimize.minimizer import Memory
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.random import plane_noise
from mcrdist.parallel.threads import Workers
from mcrdist.solver import multipliers
from mcrdist.solver.denoise import denoised
from mcrdist.solver.descent import Descent
from mcrdist.solver.grid import Grid
from mcrdist.solver.progress import Progress
from mcrdist.solver.rounding import contradict, few, goals, settle_all, thresholds

#: Rounds of voxel flips, unless the settings say how many.
FLIP_ROUNDS = 100
#: With costly descriptors, of which a round takes as long as a hundred others: most of what flips gain, soon.
COSTLY_FLIP_ROUNDS = 25
#: Times the flips of the first batch, the most of any: four thousandths of the voxels.
MOST_FLIPS = 4
#: Rounds in which a phase gets its exact number of voxels.
SETTLING_ROUNDS, COSTLY_SETTLING_ROUNDS = 32, 2
#: Exchanges of two voxels that are tried in a single plane.
EXCHANGES = 2000


class Mending:
    """Rounds the field of the finest level, and mends it.

    Parameters
    ----------
    gradient : Tensor, shaped as the field
        Room, overwritten.
    """

    def __init__(
        self,
        grid: Grid,
        config: ReconstructConfig,
        progress: Progress,
        descent: Descent,
        gradient: Tensor,
        comm: Comm,
        workers: Workers,
    ) -> None:
        self._grid, self._config, self._progress, self._descent = grid, config, progress, descent
        self._gradient, self._comm, self._workers = gradient, comm, workers

    def rounded(self, field: Tensor) -> tuple[Tensor, list[float]]:
        """The field in phases, as the output settings want it, and the thresholds; `field` is not changed."""
        output, phases = self._config.output, self._grid.phases
        if output.denoise:
            field = denoised(field, output.denoise, self._grid.slab, phases)
            self._grid.impose(field)
        wanted = "exact" if self._exact() else output.threshold
        found = thresholds(field, phases, wanted, self._goals(), self._comm)
        return phases.rounded(field, found), found

    def mend(self, relaxed: Tensor, field: Tensor) -> None:
        """Bring the rounded field nearer to the targets: what was denoised keeps its interfaces."""
        self._grid.multipliers.stiffness = multipliers.STIFFNESS
        if not self._config.output.denoise:
            self._flip(relaxed, field)
        if self._exact() and not self._progress.interrupted:
            losses = self._progress.journal.once(lambda _: self._settle(field))
            for loss in losses:
                self._progress.evaluations += 1
                self._progress.loss = loss

    def _exact(self) -> bool:
        """Whether phases get their exact numbers of voxels."""
        wanted = self._config.output.threshold
        fractions = [by_direction.values() for by_direction in self._grid.fractions()]
        return wanted == "exact" or (wanted == "auto" and any(map(contradict, fractions)))

    def _goals(self) -> list[int]:
        means = [float(np.mean(list(wanted.values()))) for wanted in self._grid.fractions()]
        return goals(means, math.prod(self._grid.slab.shape))

    def _objective(self) -> Objective:
        """By which voxels are flipped: without what looks at few slices, if the rest says enough.

        A voxel is in three slices. Where one of them is looked at and two are not, flips would serve the one. Of a
        copolymer at 64³ with Gram matrices of every eighth slice, they left E(G) at 12 % and E(V) at 4.7 %; without
        it, at 10.6 and 1.8 %.
        """
        return self._grid.objective(smoothing=math.inf, without=sampled if self._grid.mends_whole else None)

    def _settle(self, field: Tensor) -> list[float]:
        """Give every phase its exact number of voxels; the losses before each round."""
        objective, grid = self._objective(), self._grid

        def look() -> tuple[float, Tensor]:
            evaluation = objective(field, self._gradient)
            return evaluation.loss, self._gains(field, objective.flip_constants(evaluation))

        rounds = COSTLY_SETTLING_ROUNDS if objective.costly else SETTLING_ROUNDS
        most = few(math.prod(grid.slab.shape))
        return settle_all(field, look, grid.phases, self._goals(), grid.fixed, self._comm, rounds, most)

    def _flip(self, relaxed: Tensor, field: Tensor) -> None:
        objective = self._objective()
        look = self._descent.watching(objective)
        slab, seed = self._grid.slab, self._config.seed
        rounds = self._config.optimizer.flip_rounds
        if rounds is None:
            rounds = COSTLY_FLIP_ROUNDS if objective.costly else FLIP_ROUNDS
        last: list[Evaluation] = []

        def function(x: Tensor) -> tuple[float, Tensor]:
            evaluation = look(x.view_as(field), self._gradient)
            last[:] = [evaluation]
            gains = self._gains(field, objective.flip_constants(evaluation))
            return evaluation.loss, gains.view_as(x)

        # Every row of every variable is a row of one tall plane.
        rows = (slab.shape[1] * self._grid.phases.variables, slab.shape[2])
        tall = field.view(slab.planes, *rows)

        def draw(plane: int, iteration: int) -> NDArray[np.float64]:
            return plane_noise(seed, self._grid.level.number, slab.start + plane, rows, "uniform", iteration)

        def note(state: FlipState) -> bool:
            stop = self._progress.note(state.iteration, state.loss, last[0], field, None)
            self._progress.keep_if_due(
                lambda: self._descent.kept(objective, state.memory()), field=relaxed, rounded=field
            )
            return stop

        selector = GainSelector(
            self._comm.sum_integers, draw, (slab.start, slab.shape[0]), planes_map=self._workers.map
        )
        # All flips of a single plane are in one slice, where only few at a time do not get in each other's way.
        flat = slab.shape[0] == 1
        first = few(math.prod(slab.shape))
        options = FlipOptions(
            count=first, smallest=1 if flat else 20, iterations=rounds, largest=MOST_FLIPS * first
        )

        def mended(descend: Callable[[Memory | None], FlipResult]) -> tuple[float, int]:
            def work(memory: Memory | None) -> dict[str, Any]:
                if memory is not None:
                    self._descent.recall(objective, memory.numbers["standing"])
                found = descend(memory)
                standing = self._descent.standing(objective)
                return {"loss": found.loss, "iterations": found.iterations, "standing": standing}

            told = self._progress.journal.once(work)
            self._descent.recall(objective, told["standing"])
            return told["loss"], told["iterations"]

        with self._progress.stage("flip", rounds, objective, field):
            loss, iterations = mended(
                lambda memory: flip_descent(function, tall, selector, options, note, memory)
            )
            if flat and not objective.costly and not self._progress.interrupted:
                self._progress.iterations += iterations
                loss, iterations = mended(
                    lambda memory: exchange_descent(function, tall, EXCHANGES, note, memory)
                )
        self._progress.over(objective, iterations, loss)

    def _gains(self, field: Tensor, constants: FlipConstants) -> Tensor:
        """By how much the flip of each variable would lower the loss; overwrites the gradient."""
        gains, phases = self._gradient, self._grid.phases

        def work(plane: int) -> None:
            sign = field[plane].mul(2.0).sub_(1.0)
            gains[plane].mul_(sign).sub_(phases.exchanged(field[plane], constants(plane)))

        self._workers.map(work, range(len(field)))
        if self._grid.fixed is not None:
            fixed = self._grid.fixed
            gains.masked_fill_(fixed if gains.ndim == fixed.ndim else fixed[:, None], -math.inf)
        return gains
