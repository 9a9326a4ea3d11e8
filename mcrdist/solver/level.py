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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.annealing.volume import anneal_volume
from mcrdist.checkpoints import Saved
from mcrdist.config import ReconstructConfig
from mcrdist.errors import InputError
from mcrdist.journal import Journal
from mcrdist.objective import Evaluation, FlipConstants, Objective, Part, costly, sampled
from mcrdist.optimize.exchange import exchange_descent
from mcrdist.optimize.flips import FlipOptions, FlipResult, FlipState, GainSelector, flip_descent
from mcrdist.optimize.minimizer import Memory, Options, State
from mcrdist.optimize.yeong_torquato import AnnealResult, AnnealState
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.random import plane_noise
from mcrdist.parallel.threads import Workers
from mcrdist.record import Recorder
from mcrdist.sizing.footprint import history_itemsize
from mcrdist.solver import multipliers
from mcrdist.solver.denoise import denoised
from mcrdist.solver.descent import Descent
from mcrdist.solver.grid import Grid
from mcrdist.solver.rounding import contradict, few, goals, settle_all, thresholds

#: The prices of greyness, one after the other. A price of 1 makes the greyness that is left after relaxing as dear as
#: the whole loss, so the same prices suit micrographs that are easy and hard to match.
GREY_PRICES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
#: A field with fewer grey voxels than this share is two phases already.
GREY_LEFT = 2e-3
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
#: Iterations after which the optimiser forgets, where its history is not saved.
FORGET = 50


#: Keeps numbers and fields (rows, planes, ...) of a level that is being solved.
Keep = Callable[[dict[str, Any], dict[str, Tensor]], None]
#: The fields of a minimiser's memory, among those that are kept.
_MEMORY = "memory/"


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
        self._keep_it, self._saved = keep, saved
        self._journal = Journal()
        if saved is not None:
            grid.multipliers.restore(saved.numbers["multipliers"])
            self._journal = Journal(saved.numbers["settled"], _memory(saved, grid))
        self._grid, self._count, self._config, self._recorder = grid, count, config, recorder
        self._comm, self._workers = comm, workers
        self._descent = Descent(config.optimizer, grid.slab.gather_rows, workers.map, self._journal)
        self._iterations = self._evaluations = 0
        #: Iteration, as the records count them.
        self._next = 0 if saved is None else int(saved.numbers.get("next", 0))
        self._loss = float("nan")
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
            rounded, found = self._round(field)
            rounded = slab.seen(rounded)
            if self._saved is not None and "rounded" in self._saved.fields:
                rounded.copy_(self._saved.fields["rounded"][0].view_as(rounded))
            if options.iterations and not self._recorder.interrupted:
                self._mend(field, rounded)
            if not self._recorder.interrupted:
                self._keep(None, field=field, rounded=rounded)
        self._recorder.end()
        if self._recorder.interrupted:
            stop = "interrupted"
        return Outcome(field, rounded, self._loss, self._iterations, self._evaluations, stop, found)

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

    def _keep(self, memory: Memory | None, **fields: Tensor) -> None:
        """Let everything be kept that another process needs to go on from here."""
        numbers = {
            "settled": self._journal.settled,
            "under_way": None if memory is None else memory.numbers,
            "multipliers": self._grid.multipliers.plain(),
            "next": self._next,
        }
        own = {} if memory is None else {_MEMORY + name: part for name, part in memory.fields.items()}
        self._keep_it(numbers, {name: part[None] for name, part in fields.items()} | own)

    def _keep_if_due(self, objective: Objective, memory: Callable[[], Memory], **fields: Tensor) -> None:
        if self._recorder.due:
            known = memory()
            standing = {"standing": self._descent.standing(objective, known.repeats)}
            self._keep(Memory(known.numbers | standing, known.fields), **fields)

    def _unmet(self, objective: Objective, field: Tensor, _: Memory | None) -> bool:
        """Whether constraints are not met yet; then they have other multipliers now."""
        held = self._grid.multipliers
        return held.wanted(objective) and held.update(objective, objective(field, None))

    def _anneal(self, field: Tensor) -> Outcome:
        """Swap voxels of two phases, instead of all stages of a gradient method."""
        objective = self._grid.objective()
        sweeps, level = self._config.optimizer.iterations, self._grid.level
        self._recorder.begin(level, self._count, "anneal", sweeps, objective)

        def note(state: AnnealState, volume: Tensor) -> bool:
            stop = self._recorder.note(state.sweep, state.energy, objective(volume, None), volume, None)
            self._keep_if_due(objective, lambda: Memory(asdict(state)), field=volume)
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

        result = AnnealResult(**self._journal.once(work))
        self._count_in(objective, result.sweeps, result.energy)
        self._recorder.end()
        return Outcome(field, field, self._loss, self._iterations, self._evaluations, result.stop)

    def _descend(self, stage: str, field: Tensor, objective: Objective, options: Options) -> str:
        self._recorder.begin(self._grid.level, self._count, stage, options.iterations, objective)
        last: list[Evaluation] = []

        def function(x: Tensor) -> tuple[float, Tensor]:
            last[:] = [objective(x, self._gradient)]
            return last[0].loss, self._gradient

        def note(state: State) -> bool:
            self._next = self._iterations + state.iteration + 1
            stop = self._recorder.note(self._next - 1, state.loss, last[0], state.x, state.projected_gradient)
            if state.light:
                self._keep_if_due(objective, state.memory, field=state.x)
            return stop

        self._begin_counting()
        with self._finite(objective, field):
            result = self._descent(objective, function, field, options, note)
        self._count_in(objective, result.iterations, result.loss)
        return result.stop

    def _begin_counting(self) -> None:
        if not self._journal.recalls:
            self._next = self._iterations

    @contextmanager
    def _finite(self, objective: Objective, field: Tensor) -> Iterator[None]:
        """Say where numbers stopped being finite; what was saved before is as it was."""
        try:
            yield
        except FloatingPointError as error:
            level = self._grid.level
            shape = "x".join(map(str, level.shape))
            where = objective.broken or objective.blame(field) or f"none ({error})"
            raise InputError(
                f"descriptors: level {level.number} ({shape}), {self._recorder.stage}, iteration {self._next}: "
                f"expected finite numbers, found {where}; mend or leave out that descriptor and go on with resume=true"
            ) from error

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

    def _round(self, field: Tensor) -> tuple[Tensor, list[float]]:
        """The field in phases, as the output settings want it, and the thresholds; `field` is not changed."""
        output, phases = self._config.output, self._grid.phases
        if output.denoise:
            field = denoised(field, output.denoise, self._grid.slab, phases)
            self._grid.impose(field)
        wanted = "exact" if self._exact() else output.threshold
        found = thresholds(field, phases, wanted, self._goals(), self._comm)
        return phases.rounded(field, found), found

    def _mend(self, relaxed: Tensor, field: Tensor) -> None:
        """Bring the rounded field nearer to the targets: what was denoised keeps its interfaces."""
        self._grid.multipliers.stiffness = multipliers.STIFFNESS
        if not self._config.output.denoise:
            self._flip(relaxed, field)
        if self._exact() and not self._recorder.interrupted:
            losses = self._journal.once(lambda _: self._settle(field))
            for loss in losses:
                self._evaluations += 1
                self._loss = loss

    def _exact(self) -> bool:
        """Whether phases get their exact numbers of voxels."""
        wanted = self._config.output.threshold
        fractions = [by_direction.values() for by_direction in self._grid.fractions()]
        return wanted == "exact" or (wanted == "auto" and any(map(contradict, fractions)))

    def _goals(self) -> list[int]:
        means = [float(np.mean(list(wanted.values()))) for wanted in self._grid.fractions()]
        return goals(means, math.prod(self._grid.slab.shape))

    def _mending(self) -> Objective:
        """By which voxels are flipped: without what looks at few slices, if the rest says enough.

        A voxel is in three slices. Where one of them is looked at and two are not, flips would serve the one. Of a
        copolymer at 64³ with Gram matrices of every eighth slice, they left E(G) at 12 % and E(V) at 4.7 %; without
        it, at 10.6 and 1.8 %.
        """
        return self._grid.objective(smoothing=math.inf, without=sampled if self._grid.mends_whole else None)

    def _settle(self, field: Tensor) -> list[float]:
        """Give every phase its exact number of voxels; the losses before each round."""
        objective, grid = self._mending(), self._grid

        def look() -> tuple[float, Tensor]:
            evaluation = objective(field, self._gradient)
            return evaluation.loss, self._gains(field, objective.flip_constants(evaluation))

        rounds = COSTLY_SETTLING_ROUNDS if objective.costly else SETTLING_ROUNDS
        most = few(math.prod(grid.slab.shape))
        return settle_all(field, look, grid.phases, self._goals(), grid.fixed, self._comm, rounds, most)

    def _flip(self, relaxed: Tensor, field: Tensor) -> None:
        objective = self._mending()
        look = self._descent.watching(objective)
        slab, seed = self._grid.slab, self._config.seed
        rounds = self._config.optimizer.flip_rounds
        if rounds is None:
            rounds = COSTLY_FLIP_ROUNDS if objective.costly else FLIP_ROUNDS
        self._recorder.begin(self._grid.level, self._count, "flip", rounds, objective)
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
            self._next = self._iterations + state.iteration + 1
            stop = self._recorder.note(self._next - 1, state.loss, last[0], field, None)
            self._keep_if_due(objective, state.memory, field=relaxed, rounded=field)
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

            told = self._journal.once(work)
            self._descent.recall(objective, told["standing"])
            return told["loss"], told["iterations"]

        self._begin_counting()
        with self._finite(objective, field):
            loss, iterations = mended(
                lambda memory: flip_descent(function, tall, selector, options, note, memory)
            )
        if flat and not objective.costly and not self._recorder.interrupted:
            self._iterations += iterations
            loss, iterations = mended(
                lambda memory: exchange_descent(function, tall, EXCHANGES, note, memory)
            )
        self._count_in(objective, iterations, loss)

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

    def _count_in(self, objective: Objective, iterations: int, loss: float) -> None:
        self._recorder.level_done(objective)
        self._iterations += iterations
        self._evaluations += objective.evaluations
        self._loss = loss


def _memory(saved: Saved, grid: Grid) -> Memory | None:
    """What the minimiser had in mind that was at work when the level was kept."""
    numbers: Mapping[str, Any] | None = saved.numbers["under_way"]
    if numbers is None:
        return None
    planes, *plane = grid.slab.local_shape
    like = (planes, *plane) if grid.phases.variables == 1 else (planes, grid.phases.variables, *plane)
    own = {name: saved.fields.pop(name) for name in list(saved.fields) if name.startswith(_MEMORY)}
    fields = {name.removeprefix(_MEMORY): part.view(len(part), *like) for name, part in own.items()}
    return Memory(dict(numbers), fields)
