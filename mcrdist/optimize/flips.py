"""Discrete descent of a binary field: batches of voxel flips, guided by the gradient.

Yeong and Torquato's annealing judges one swap at a time. Where the gradient predicts the gain of every single
flip, thousands can be judged by one evaluation, as long as they hardly know of one another: they are drawn
from a random subset of the voxels and limited in number in each slice, since flips in one slice correct the
same error twice.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.optimize.minimizer import Memory
from mcrdist.optimize.planes import Map, serial_map

GROW, SHRINK = 1.3, 0.5  # of the batch, after success and failure
ROOM = 4  # times the flips that were left of a batch, the most that the next one asks for
# What a plane puts forward: so many times its even share of the batch, and at least some. Where all planes have too
# much of a phase every voxel at an interface would gain; to collect them all would take more memory than the field.
FORWARD, FORWARD_LEAST = 4, 64
# How often it is chosen from the candidates that crowded slices have left, and the share of the batch that is enough:
# the best few are worth more than many.
PASSES, ENOUGH = 4, 0.25

#: What is remembered of a batch beside the loss and the gains.
_COUNTS = ("count", "flips", "iteration", "evaluations")

Function = Callable[[Tensor], tuple[float, Tensor]]
SumIntegers = Callable[[NDArray[np.int64]], NDArray[np.int64]]
Noise = Callable[[int, int], NDArray[np.float64]]


@dataclass(frozen=True)
class FlipOptions:
    """How many voxels to flip at once, and when to stop.

    Attributes
    ----------
    count
        Flips of the first batch.
    smallest
        Stop when batches had to shrink below this.
    iterations
        Cap on batches, rejected ones included; each costs one evaluation.
    largest
        Flips of a batch, at most.
    """

    count: int = 2000
    smallest: int = 20
    iterations: int = 100
    largest: int = sys.maxsize


@dataclass(frozen=True)
class FlipState:
    """One batch: its flips, whether it was accepted, and the loss after it. Iteration 0 is the start.

    `memory()` is what the descent needs to go on from here.
    """

    iteration: int
    loss: float
    evaluations: int
    count: int
    accepted: bool
    memory: Callable[[], Memory] = Memory


@dataclass(frozen=True)
class FlipResult:
    """The field (as given, changed in place); `flips` were kept; `stop` says why no more were tried."""

    x: Tensor
    loss: float
    iterations: int
    evaluations: int
    flips: int
    stop: str


@dataclass(frozen=True)
class Selection:
    """Voxels to flip: for each plane of this rank their places in it, row by row; how many there are on all ranks."""

    places: Sequence[NDArray[np.int64]]
    count: int


Selector = Callable[[Tensor, int, int], Selection]
FlipCallback = Callable[[FlipState], bool | None]


def flip_descent(
    function: Function,
    x: Tensor,
    selector: Selector,
    options: FlipOptions | None = None,
    callback: FlipCallback | None = None,
    memory: Memory | None = None,
) -> FlipResult:
    """Lower `function` over binary fields by flipping voxels, in place.

    A batch that lowers the loss is kept and the next one is larger; otherwise it is undone, exactly, and the
    next one is half as large. Memory: besides `x` and what `function` owns, one field and what the
    selector needs.

    Parameters
    ----------
    function
        ``function(x) -> (loss, gain)``: gain (planes, ny, nx) is the predicted decrease of the loss if this
        voxel alone were flipped. The tensor may be the same each time.
    x
        (planes, ny, nx) of zeros and ones, the planes that this rank holds, perhaps none.
    selector
        ``selector(gain, count, iteration)``, e.g. a `GainSelector`.
    callback
        Called with the `FlipState` at the start and after each batch; returning True, on all ranks, stops.
    memory
        What an earlier call that was cut short had in mind at `x`: goes on from there.

    Returns
    -------
    FlipResult
        Its `stop` is "no candidates", "no further decrease", "iteration cap" or "interrupted".

    Raises
    ------
    FloatingPointError
        The loss is not finite at the start, or at the last of the batches that were tried in vain.
    """
    options = options or FlipOptions()
    if memory is None:
        loss, new_gain = function(x)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is not finite ({loss}) before the first flip")
        gain = new_gain.clone()
        count, flips, iteration, evaluations = options.count, 0, 0, 1
    else:
        gain = memory.fields["gain"][0].view_as(x)
        loss = memory.numbers["loss"]
        count, flips, iteration, evaluations = (memory.numbers[name] for name in _COUNTS)

    def remember() -> Memory:
        counts = dict(zip(_COUNTS, (count, flips, iteration, evaluations), strict=True))
        return Memory({"loss": loss} | counts, {"gain": gain[None]})

    new_loss = loss
    state = FlipState(0, loss, evaluations, 0, True, remember)
    told = memory is not None  # of this batch, by the call that was cut short
    while True:
        if not told and callback is not None and callback(state):
            stop = "interrupted"
            break
        told = False
        if count < options.smallest:
            if not math.isfinite(new_loss):
                raise FloatingPointError(f"the loss is not finite ({new_loss}) after any flip")
            stop = "no further decrease"
            break
        if iteration >= options.iterations:
            stop = "iteration cap"
            break
        iteration += 1
        chosen = selector(gain, count, iteration)
        if chosen.count == 0:
            stop = "no candidates"
            break
        _flip(x, chosen.places)
        new_loss, new_gain = function(x)
        evaluations += 1
        accepted = new_loss < loss  # NaN is no decrease
        if accepted:
            loss = new_loss
            gain.copy_(new_gain)
            flips += chosen.count
            # As asked for, not as thinned out; but no more than the candidates can nearly give.
            count = min(options.largest, math.ceil(GROW * min(count, ROOM * chosen.count)))
        else:
            _flip(x, chosen.places)
            count = int(SHRINK * min(count, ROOM * chosen.count))
        state = FlipState(iteration, loss, evaluations, chosen.count, accepted, remember)
    return FlipResult(x, loss, iteration, evaluations, flips, stop)


def _flip(x: Tensor, places: Sequence[NDArray[np.int64]]) -> None:
    for plane, where in zip(x, places, strict=True):
        if len(where):
            flat, index = plane.view(-1), torch.from_numpy(where).to(x.device)
            flat[index] = 1 - flat[index]


class GainSelector:
    """The largest positive gains of a random subset of the voxels, the same for any number of ranks.

    Of each plane only the best are considered, some times its even share of the batch. Where crowded slices leave
    little of a batch, more is chosen among the others. The threshold of a gain is found digit by digit from histograms
    of integer keys (the bits of the float32 gain, then those of the voxel's noise, which breaks ties): sums of integers
    are exact, so all ranks agree on one threshold.

    Parameters
    ----------
    sum_integers
        Sum of an int64 array over ranks, element by element.
    noise
        ``noise(plane, iteration)``: uniform numbers in [0, 1), float64 (ny, nx), of this rank's `plane`-th
        plane; they must depend on the global plane only.
    planes
        Global index of the first plane that this rank holds, and planes of the whole field: (start, total).
    share
        Fraction of the voxels that may be chosen in one batch.
    crowding
        A slice takes at most this many times its even share of the batch (but always one); what is beyond is
        thinned out at random.
    """

    def __init__(
        self,
        sum_integers: SumIntegers,
        noise: Noise,
        planes: tuple[int, int],
        *,
        share: float = 0.3,
        crowding: float = 1.0,
        planes_map: Map = serial_map,
    ) -> None:
        assert 0 < share <= 1, share
        self.sum_integers, self.noise, self.planes_map = sum_integers, noise, planes_map
        self.start, self.total = planes
        self.share, self.crowding = share, crowding

    def __call__(self, gain: Tensor, count: int, iteration: int) -> Selection:
        """Choose about `count` voxels of `gain` (planes, ny, nx)."""
        most = max(FORWARD_LEAST, math.ceil(FORWARD * self.crowding * count / self.total))
        left = _Candidates.joined(
            self.planes_map(lambda p: self._candidates(gain, p, most, iteration), range(len(gain)))
        )
        crowds = _Crowds(self, (gain.shape[1], gain.shape[2]), count)
        chosen: list[_Candidates] = []
        first: _Candidates | None = None
        number = 0
        for _ in range(PASSES):
            threshold = self._threshold(left.keys, count - number)
            if threshold is None:
                break
            best = left.among(left.keys >= threshold)
            first = first or best
            kept = crowds.admit(best)
            chosen.append(kept)
            number += self._sum(len(kept.keys))
            if number >= ENOUGH * count:
                break
            left = crowds.welcome(left.among(left.keys < threshold))
        if number == 0 and first is not None:  # the dice took all of them
            chosen, number = [first], self._sum(len(first.keys))
        return Selection(_Candidates.joined(chosen).by_plane(len(gain)), number)

    def _sum(self, number: int) -> int:
        return int(self.sum_integers(np.array([number]))[0])

    def _candidates(self, gain: Tensor, plane: int, most: int, iteration: int) -> _Candidates:
        """Of a plane, those of the random subset that gain something, and of them the best."""
        values = gain[plane].to(torch.float32).cpu().contiguous().numpy().ravel()
        places = np.flatnonzero((values > 0) & (values < np.inf))  # most gain nothing
        uniform = self.noise(plane, iteration).ravel()[places] / self.share
        may = uniform < 1
        places, uniform = places[may], uniform[may]
        # Positive floats are ordered as their bits are.
        keys = values[places].view(np.int32).astype(np.int64) << 16
        digits = uniform * 65536
        keys |= digits.astype(np.int64)
        found = _Candidates(np.full(len(places), plane, np.int32), places.astype(np.int32), keys, digits % 1)
        if len(keys) <= most:
            return found
        return found.among(np.sort(np.argpartition(keys, len(keys) - most)[-most:]))

    def _threshold(self, keys: NDArray[np.int64], count: int) -> int | None:
        """The key of the `count`-th best voxel of all ranks; None without candidates."""
        prefix, wanted = 0, count
        for shift in (32, 16, 0):
            alike = keys[keys >> (shift + 16) == prefix]
            histogram = np.bincount((alike >> shift) & 0xFFFF, minlength=65536).astype(np.int64)
            best_first = np.cumsum(self.sum_integers(histogram)[::-1])
            if best_first[-1] == 0:
                return None
            if best_first[-1] <= wanted:
                return max(1, prefix << (shift + 16))  # all there are (only in the first round)
            digit = int(np.searchsorted(best_first, wanted))
            wanted -= int(best_first[digit - 1]) if digit else 0
            prefix = (prefix << 16) | (65535 - digit)
        return prefix


class _Crowds:
    """How many voxels every slice has taken, on all ranks, and how many it may take."""

    def __init__(self, selector: GainSelector, plane: tuple[int, int], count: int) -> None:
        self._start, self._sum = selector.start, selector.sum_integers
        self._sizes = (selector.total, *plane)
        self._limits = [max(1.0, selector.crowding * count / size) for size in self._sizes]
        self._taken = [np.zeros(size, np.int64) for size in self._sizes]

    def admit(self, some: _Candidates) -> _Candidates:
        """Those that the slices have room for: of too many, the dice choose."""
        slices = self._slices(some)
        odds = np.ones(len(some.keys))
        for crowd, limit, taken, index in zip(
            self._counts(slices), self._limits, self._taken, slices, strict=True
        ):
            odds = np.minimum(odds, ((limit - taken) / np.maximum(crowd, 1))[index])
        kept = some.among(some.dice < odds)
        self._taken = [
            taken + more for taken, more in zip(self._taken, self._counts(self._slices(kept)), strict=True)
        ]
        return kept

    def welcome(self, some: _Candidates) -> _Candidates:
        """Those whose slices have room for another one."""
        free = np.ones(len(some.keys), bool)
        for limit, taken, index in zip(self._limits, self._taken, self._slices(some), strict=True):
            free &= (limit - taken >= 1)[index]
        return some.among(free)

    def _slices(self, some: _Candidates) -> tuple[NDArray[np.int32], ...]:
        """The three slices that each voxel is in."""
        return self._start + some.planes, some.places // self._sizes[2], some.places % self._sizes[2]

    def _counts(self, slices: Sequence[NDArray[np.int32]]) -> list[NDArray[np.int64]]:
        own = [np.bincount(index, minlength=size) for index, size in zip(slices, self._sizes, strict=True)]
        found = self._sum(np.concatenate(own).astype(np.int64))
        return np.split(found, np.cumsum(self._sizes[:2]))


@dataclass(frozen=True)
class _Candidates:
    """Voxels that may be flipped, plane by plane, each array (voxels,).

    Attributes
    ----------
    planes, places
        Where they are: the plane among this rank's, and the place in it, row by row.
    keys
        Their order of preference, positive integers.
    dice
        Uniform in [0, 1): the digits of the noise that broke no ties. Those who won a tie must not fare worse,
        or better, when crowded slices are thinned out.
    """

    planes: NDArray[np.int32]
    places: NDArray[np.int32]
    keys: NDArray[np.int64]
    dice: NDArray[np.float64]

    @staticmethod
    def joined(parts: Sequence[_Candidates]) -> _Candidates:
        """Of all planes together."""
        nothing = _Candidates(
            np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0)
        )
        every = [nothing, *parts]
        return _Candidates(
            np.concatenate([part.planes for part in every]),
            np.concatenate([part.places for part in every]),
            np.concatenate([part.keys for part in every]),
            np.concatenate([part.dice for part in every]),
        )

    def among(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> _Candidates:
        """Some of them."""
        return _Candidates(self.planes[which], self.places[which], self.keys[which], self.dice[which])

    def by_plane(self, planes: int) -> list[NDArray[np.int64]]:
        """Their places in each plane."""
        order = np.argsort(self.planes, kind="stable")
        cuts = np.searchsorted(self.planes[order], np.arange(1, planes))
        return np.split(self.places[order].astype(np.int64), cuts) if planes else []
