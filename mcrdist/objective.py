"""The loss of a volume and its gradient: every slice of every direction against its target (Eqs. 3 and 9).

The work on a slice is single-threaded; threads, like ranks, take different slices. What crosses slices is
summed in float64 in the order of the slices, so the loss does not depend, to the last bit, on how many of
either there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.conditioning.border import Border, Factors
from mcrdist.descriptors.base import Term
from mcrdist.descriptors.joint import JointTerm
from mcrdist.directions import Direction
from mcrdist.look import LANES, Held, Look
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.phases import Phases

#: Voxels a thread works on at a time: enough for the calls not to count beside the work (eight slices at 256²).
BATCH_VOXELS = 2**19


#: A summand of the loss.
Part = Term | JointTerm


def costly(part: Part) -> bool:
    """Whether it takes long beside the correlations."""
    return part.costly


def sampled(part: Part) -> bool:
    """Whether it is costly, and looks at a part of the slices at a time."""
    return part.costly and part.every > 1


@dataclass(frozen=True)
class Evaluation:
    """A loss, and where it comes from.

    Attributes
    ----------
    loss : float
    misfit : float
        The loss without what it has where all targets are met: a variation that is minimised, say.
    errors : mapping of direction to {descriptor name: array (slices, channels)}
        What `Term.accumulate` returned for every slice of the volume, the same on every rank; NaN for slices that
        were not looked at. Descriptors of all phases together have one channel.
    border : sequence of sequence of float
        What `Border` wants to know again when voxels are flipped.
    """

    loss: float
    misfit: float
    errors: Mapping[str, Mapping[str, NDArray[np.float64]]]
    border: Factors = ()


class FlipConstants:
    """Per channel, what a change of one voxel adds to the loss beyond its gradient; made a plane at a time.

    Parameters
    ----------
    start : int
        The first plane of this rank.
    lines : sequence of sequence of Tensor (nz,), (ny,), (nx,)
        Per channel, what the slices through a voxel add, along each axis.
    rest : sequence of Tensor (planes, ny, nx)
        Per channel, what is added besides; may be empty.
    """

    def __init__(self, start: int, lines: Sequence[Sequence[Tensor]], rest: Sequence[Tensor] = ()) -> None:
        self._start, self._lines, self._rest = start, lines, rest

    def __call__(self, plane: int) -> list[Tensor]:
        """The constants (ny, nx) of a plane of this rank, one a channel."""
        found = [z[self._start + plane] + y[:, None] + x for z, y, x in self._lines]
        for constants, rest in zip(found, self._rest, strict=False):
            constants += rest[plane]
        return found


class Objective:
    """Loss and gradient of the field of one level.

    Attributes
    ----------
    broken : str or None
        In the last evaluation, which descriptor of which slice had an error that is no finite number.

    Parameters
    ----------
    slab : Slab
        Who owns which planes.
    phases : Phases
        What the field's variables mean.
    held : mapping of Direction to Held
        What its slices must reach; the same descriptors for all directions.
    comm, workers
        The ranks, and the threads of each.
    fixed : bool Tensor (planes, ny, nx), optional
        Voxels that are given: nothing moves them.
    seed : int
        Of the order in which costly descriptors look at slices.
    border : Border, optional
        Of the voxels that are given.
    lanes : int, optional
        Blocks of `LANES` slices that are under way at a time; one a thread by default, and never more, on the rank
        that has the fewest.
    """

    def __init__(
        self,
        slab: Slab,
        phases: Phases,
        held: Mapping[Direction, Held],
        comm: Comm,
        workers: Workers,
        fixed: Tensor | None = None,
        seed: int = 0,
        border: Border | None = None,
        lanes: int | None = None,
    ) -> None:
        # Ranks take the same slices at a time, for they send each other's parts of them; their threads may be more.
        own = min(lanes or workers.count, workers.count)
        self._lanes = int(comm.gather_rows(np.array([[own]], dtype=np.float64)).min())
        self._border = border
        self.slab, self.phases, self.held = slab, phases, held
        self.fixed = fixed
        self.evaluations = 0
        self.broken: str | None = None
        self._comm, self._workers = comm, workers
        self._seed, self._round = seed, 0
        slices = sum(direction.slices(slab.shape) for direction in held)
        self.share = 1.0 / (slices * len(phases.labels))
        self._slopes: list[Tensor] = []

    @property
    def rotates(self) -> bool:
        """Whether some descriptor looks at a part of the slices only, or has random parts to draw anew."""
        return any(
            part.every > 1 or (isinstance(part, Term) and part.redraws)
            for held in self.held.values()
            for part, _ in held.parts
        )

    @property
    def turns(self) -> int:
        """Rounds after which every slice has been looked at."""
        return max(part.every for held in self.held.values() for part, _ in held.parts)

    @property
    def costly(self) -> bool:
        """Whether an evaluation takes long beside that of the correlations."""
        return any(part.costly for held in self.held.values() for part, _ in held.parts)

    def suffices_without(self, some: Callable[[Part], bool]) -> bool:
        """Whether there are such parts, and the rest says enough of the structure to do with that alone.

        The volume fraction and the amount of boundary do not: minimised alone, the variation leaves an even grey.
        """
        parts = [part for held in self.held.values() for part, _ in held.parts]
        rest = {part.name.partition("@")[0] for part in parts if not some(part)}
        return any(map(some, parts)) and bool(rest - {"variation", "volume_fraction"})

    def rotate(self, round: int) -> None:
        """Let costly descriptors look at other slices, and random ones draw anew; the same on every rank."""
        self._round = round
        for held in self.held.values():
            for part, _ in held.parts:
                if isinstance(part, Term):
                    part.redraw(round)

    def __call__(self, field: Tensor, gradient: Tensor | None) -> Evaluation:
        """Evaluate the loss; overwrite `gradient`, shaped as `field`, with its derivative if given."""
        self.evaluations += 1
        channels = self.phases.channels(field, partial(self._room, "channel"))
        slopes = None if gradient is None else self._slopes_for(channels, gradient)
        errors: dict[str, dict[str, NDArray[np.float64]]] = {}
        loss = misfit = 0.0
        self.broken = None
        found: list[tuple[int, NDArray[np.float64]]] = []
        for number, (direction, held) in enumerate(self.held.items()):
            own = np.empty((len(self.slab.owned(direction.axis)), len(held.parts)))
            self._visit(number, direction, held, channels, slopes, own)
            found.append((direction.axis, own))
        every = self.slab.gather_slices(found)
        for number, ((direction, held), rows) in enumerate(zip(self.held.items(), every, strict=True)):
            parts = held.parts
            self.broken = self.broken or self._broken(number, direction, rows)
            for column, (part, _) in zip(rows.T, parts, strict=True):
                loss += _over_slices(part.loss, column)
                misfit += _over_slices(part.misfit, column)
            errors[direction.name] = _by_name(parts, rows)
        loss, misfit = loss * self.share, misfit * self.share
        if self.broken is not None:
            loss = misfit = float("nan")
        border: Factors = ()
        if self._border is not None:
            joint, border = self._border.accumulate(channels, slopes)
            loss, misfit = loss + joint, misfit + joint
        if gradient is not None and slopes is not None:
            self.phases.pull(field, slopes, gradient)
            if self.fixed is not None:
                hold = self.fixed if gradient.ndim == self.fixed.ndim else self.fixed[:, None]
                gradient.masked_fill_(hold, 0.0)
        return Evaluation(loss, misfit, errors, border)

    def _broken(self, number: int, direction: Direction, rows: NDArray[np.float64]) -> str | None:
        """Which descriptor failed in which slice of those that it looked at, if any."""
        for column, (part, _) in zip(rows.T, self.held[direction].parts, strict=True):
            seen = slice(self._offset(number, part.every), None, part.every)
            failed = np.flatnonzero(~np.isfinite(column[seen]))
            if len(failed):
                index = range(len(column))[seen][failed[0]]
                return f"{column[index]} from {part.name} of slice {index} normal to {direction.name}"
        return None

    def blame(self, field: Tensor) -> str | None:
        """Which slice has a gradient that is no finite number, if any; every rank calls this."""
        channels = self.phases.channels(field)
        for number, (direction, held) in enumerate(self.held.items()):
            slopes = [torch.zeros_like(channel) for channel in channels]
            rows = np.empty((len(self.slab.owned(direction.axis)), len(held.parts)))
            self._visit(number, direction, held, channels, slopes, rows)
            found = torch.stack([~slope.isfinite() for slope in slopes]).any(0)
            at = found.nonzero()[:, direction.axis] + (self.slab.start if direction.axis == 0 else 0)
            first = self._comm.gather_rows(
                np.array([[int(at.min())]] if len(at) else np.empty((0, 1)), float)
            )
            if len(first):
                return f"a gradient of slice {int(first.min())} normal to {direction.name}"
        return None

    def _slopes_for(self, channels: Sequence[Tensor], gradient: Tensor) -> list[Tensor]:
        """Where d loss / d channels goes: of one phase, the gradient itself."""
        if len(channels) == 1:
            return [gradient]
        if not self._slopes:
            self._slopes = [self._room("slope", *channel) for channel in enumerate(channels)]
        return self._slopes

    def _room(self, what: str, number: int, like: Tensor) -> Tensor:
        """Where something of a channel goes that other ranks look at."""
        return self.slab.scratch(f"{what} {number}", like)

    def _visit(
        self,
        number: int,
        direction: Direction,
        held: Held,
        channels: Sequence[Tensor],
        slopes: Sequence[Tensor] | None,
        rows: NDArray[np.float64],
    ) -> None:
        start = self.slab.start
        if direction.by is None:
            self._stack(number, direction, held, channels, slopes, rows)
            return
        seen = [
            direction.sheared(channel, start, self._room("sheared channel", k, channel))
            for k, channel in enumerate(channels)
        ]
        if slopes is None:
            self._stack(number, direction, held, seen, None, rows)
            return
        own = [self._room("sheared slope", *slope).zero_() for slope in enumerate(slopes)]
        self._stack(number, direction, held, seen, own, rows)
        for slope, part in zip(slopes, own, strict=True):
            slope += direction.unsheared(part, start)

    def _stack(
        self,
        number: int,
        direction: Direction,
        held: Held,
        channels: Sequence[Tensor],
        slopes: Sequence[Tensor] | None,
        rows: NDArray[np.float64],
    ) -> None:
        axis = direction.axis
        owned = self.slab.owned(axis)
        origin, total = owned.start, direction.slices(self.slab.shape)
        height, width = direction.slice_shape(self.slab.shape)
        size = LANES if axis == 2 else max(1, BATCH_VOXELS // (height * width))
        strides = {part.every for part, _ in held.parts}
        offsets = {every: self._offset(number, every) for every in strides}
        look = Look(held, self.share, owned, total, offsets, number == 0)

        def visit(first: int, slices: list[Tensor], gradients: list[Tensor] | None) -> None:
            count = len(slices[0])
            step = size if axis == 2 else max(1, min(size, -(-count // self._workers.count)))

            def evaluate(block: int) -> None:
                start, stop = max(block, 0), min(block + step, count)
                parts = [channel[start:stop] for channel in slices]
                into = None if gradients is None else [slope[start:stop] for slope in gradients]
                work = look.in_lanes if axis == 2 else look.plain
                rows[first - origin + start : first - origin + stop] = work(parts, into, first + start)

            blocks = range(-(first % size) if axis == 2 else 0, count, step)
            together = self._lanes if axis == 2 else max(1, len(blocks))
            for block in range(0, len(blocks), together):
                self._workers.map(evaluate, blocks[block : block + together])

        self.slab.visit(axis, channels, slopes, visit, width=LANES * self._lanes)

    def _offset(self, number: int, every: int) -> int:
        """The first slice that a descriptor with this stride looks at in this round: each has its turn."""
        if every == 1:
            return 0
        turn, place = divmod(self._round, every)
        order = np.random.default_rng([self._seed, number, turn]).permutation(every)
        return int(order[place])

    def flip_constants(self, evaluation: Evaluation) -> FlipConstants:
        """What a change of one voxel adds to the loss beyond its gradient."""
        slab = self.slab
        lines = [[np.zeros(n) for n in slab.shape] for _ in self.phases.labels]
        for direction, held in self.held.items():
            if direction.by is not None:
                continue  # small, and only a prediction of what the next evaluation will tell
            shape = direction.slice_shape(slab.shape)
            for channel, terms in enumerate(held.channels):
                for term in terms:
                    for part in term.parts:
                        error = np.nan_to_num(evaluation.errors[direction.name][part.name][:, channel])
                        lines[channel][direction.axis] += part.flip_constant(error, shape, self.share)
        rest: list[Tensor] = []
        if self._border is not None:
            rest = [slab.zeros() for _ in self.phases.labels]
            self._border.add_flip_constants(evaluation.border, rest)
        device = self._comm.device
        tensors = [
            [torch.as_tensor(line, dtype=slab.dtype, device=device) for line in axes] for axes in lines
        ]
        return FlipConstants(slab.start, tensors, rest)

    def relative(self, evaluation: Evaluation, channel: int | None = None) -> dict[str, dict[str, float]]:
        """The errors of Eq. 10 by direction and descriptor: means over slices of ‖D_s − D_des‖ / ‖D_des‖.

        Of one channel, or the mean over all of them.
        """
        result: dict[str, dict[str, float]] = {}
        for direction, held in self.held.items():
            found: dict[str, list[float]] = {}
            for part, of in held.parts:
                if channel is not None and of != channel:
                    continue
                errors = evaluation.errors[direction.name][part.name][:, of]
                mean = float(np.nanmean(np.abs(errors))) if not np.isnan(errors).all() else float("nan")
                found.setdefault(part.name, []).append(mean * part.scale / (part.norm or 1.0))
            result[direction.name] = {name: float(np.mean(values)) for name, values in found.items()}
        return result


def _over_slices(
    loss: Callable[[NDArray[np.float64]], NDArray[np.float64]], errors: NDArray[np.float64]
) -> float:
    """Sum of a loss over slices; those that were looked at stand for all."""
    looked_at = errors[~np.isnan(errors)]
    return float(np.sum(loss(looked_at))) * (len(errors) / max(1, len(looked_at)))


def _by_name(
    parts: Sequence[tuple[Term | JointTerm, int]], rows: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Columns of errors by the name of their descriptor, (slices, channels) each."""
    columns: dict[str, list[NDArray[np.float64]]] = {}
    for index, (part, _) in enumerate(parts):
        columns.setdefault(part.name, []).append(rows[:, index])
    return {name: np.stack(found, axis=1) for name, found in columns.items()}
