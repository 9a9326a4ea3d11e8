"""Discrete descent of a binary field: batches of voxel flips, guided by the gradient.

Yeong and Torquato's annealing judges one swap at a time. Where the gradient predicts the gain of every single
flip, thousands can be judged by one evaluation, as long as they hardly know of one another: they are drawn
from a random subset of the voxels and limited in number in each slice, since flips in one slice correct the
same error twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.optimize.minimizer import Memory
from mcrdist.optimize.planes import Map, serial_map

GROW, SHRINK = 1.3, 0.5  # of the batch, after success and failure
ROOM = 4  # times the flips that were left of a batch, the most that the next one asks for

#: What is remembered of a batch beside the loss and the gains.
_COUNTS = ("count", "flips", "iteration", "evaluations")
TOGETHER = 16  # planes whose histograms are held at once

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
    """

    count: int = 2000
    smallest: int = 20
    iterations: int = 100


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
    """Voxels to flip: bool (planes, ny, nx) on this rank, and how many there are on all ranks."""

    mask: Tensor
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
    next one is half as large. Memory: besides `x` and what `function` owns, one field and one bool field.

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
        The loss is not finite at the start.
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

    state = FlipState(0, loss, evaluations, 0, True, remember)
    told = memory is not None  # of this batch, by the call that was cut short
    while True:
        if not told and callback is not None and callback(state):
            stop = "interrupted"
            break
        told = False
        if count < options.smallest:
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
        _flip(x, chosen.mask)
        new_loss, new_gain = function(x)
        evaluations += 1
        accepted = new_loss < loss  # NaN is no decrease
        if accepted:
            loss = new_loss
            gain.copy_(new_gain)
            flips += chosen.count
            # As asked for, not as thinned out; but no more than the candidates can nearly give.
            count = math.ceil(GROW * min(count, ROOM * chosen.count))
        else:
            _flip(x, chosen.mask)
            count = int(SHRINK * min(count, ROOM * chosen.count))
        state = FlipState(iteration, loss, evaluations, chosen.count, accepted, remember)
    return FlipResult(x, loss, iteration, evaluations, flips, stop)


def _flip(x: Tensor, mask: Tensor) -> None:
    for p in range(x.shape[0]):
        torch.where(mask[p], 1 - x[p], x[p], out=x[p])


class GainSelector:
    """The largest positive gains of a random subset of the voxels, the same for any number of ranks.

    The threshold is found digit by digit from histograms of integer keys (the bits of the float32 gain, then
    those of the voxel's noise, which breaks ties): sums of integers are exact, so all ranks agree on one
    threshold.

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
        planes = range(gain.shape[0])
        mask = torch.zeros(gain.shape, dtype=torch.bool, device=gain.device)
        threshold = self._threshold(gain, count, iteration)

        def choose(p: int) -> None:
            if threshold is not None:
                mask[p] = torch.from_numpy(self._keys(gain, p, iteration) >= threshold)

        self.planes_map(choose, planes)
        chosen = self._thin(mask, iteration)
        if chosen == 0 and threshold is not None:  # the dice took the last ones too
            self.planes_map(choose, planes)
            chosen = int(self._counts(mask)[: self.total].sum())
        return Selection(mask, chosen)

    def _subset(self, plane: int, iteration: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Who may be chosen, and among them a uniform number in [0, 1)."""
        uniform = self.noise(plane, iteration) / self.share
        return uniform < 1, uniform

    def _keys(self, gain: Tensor, plane: int, iteration: int) -> NDArray[np.int64]:
        """int64 (ny, nx): order of preference, 0 for voxels that may not be chosen."""
        may, uniform = self._subset(plane, iteration)
        values = gain[plane].to(torch.float32).cpu().contiguous().numpy()
        may &= np.isfinite(values) & (values > 0)
        # Positive floats are ordered as their bits are.
        keys = values.view(np.int32).astype(np.int64) << 16
        keys |= np.where(may, uniform * 65536, 0).astype(np.int64)
        return np.where(may, keys, 0)

    def _threshold(self, gain: Tensor, count: int, iteration: int) -> int | None:
        """The key of the `count`-th best voxel; None without candidates."""
        prefix, wanted = 0, count
        for shift in (32, 16, 0):

            def histogram(p: int, shift: int = shift, prefix: int = prefix) -> NDArray[np.int64]:
                keys = self._keys(gain, p, iteration)
                keys = keys[(keys > 0) & (keys >> (shift + 16) == prefix)]
                return np.bincount((keys >> shift) & 0xFFFF, minlength=65536).astype(np.int64)

            local = np.zeros(65536, dtype=np.int64)
            for first in range(0, gain.shape[0], TOGETHER):  # a histogram is as large as a small plane
                some = range(first, min(first + TOGETHER, gain.shape[0]))
                local += sum(self.planes_map(histogram, some), np.zeros_like(local))
            best_first = np.cumsum(self.sum_integers(local)[::-1])
            if best_first[-1] == 0:
                return None
            if best_first[-1] <= wanted:
                return max(1, prefix << (shift + 16))  # all there are (only in the first round)
            digit = int(np.searchsorted(best_first, wanted))
            wanted -= int(best_first[digit - 1]) if digit else 0
            prefix = (prefix << 16) | (65535 - digit)
        return prefix

    def _thin(self, mask: Tensor, iteration: int) -> int:
        """Drop voxels of crowded slices; the number that is left, on all ranks."""
        nz, (ny, nx) = self.total, mask.shape[1:]
        counts = self._counts(mask)
        per_slice = np.split(counts[: nz + ny + nx], [nz, nz + ny])
        chosen = int(per_slice[0].sum())
        keep = []
        for crowd in per_slice:
            limit = max(1.0, self.crowding * chosen / len(crowd))
            keep.append(limit / np.maximum(crowd, limit))
        if min(k.min() for k in keep) == 1:
            return chosen

        def thin(p: int) -> None:
            _, uniform = self._subset(p, iteration)
            odds = np.minimum(keep[0][self.start + p], np.minimum(keep[1][:, None], keep[2][None, :]))
            # The digits that broke no ties: those who won a tie must not fare worse (or better) here.
            mask[p] &= torch.from_numpy(uniform * 65536 % 1 < odds).to(mask.device)

        self.planes_map(thin, range(mask.shape[0]))
        return int(self._counts(mask)[:nz].sum())

    def _counts(self, mask: Tensor) -> NDArray[np.int64]:
        """Chosen voxels in each slice of each direction: z, then y, then x."""
        nz, (ny, nx) = self.total, mask.shape[1:]
        counts = np.zeros(nz + ny + nx, dtype=np.int64)
        for p in range(mask.shape[0]):
            plane = mask[p].cpu().numpy()
            counts[self.start + p] = np.count_nonzero(plane)
            counts[nz : nz + ny] += plane.sum(axis=1)
            counts[nz + ny :] += plane.sum(axis=0)
        return self.sum_integers(counts)
