"""The border of what is given: known voxels and their neighbours, held to differ as often as neighbours do elsewhere.

Descriptors of whole slices hardly notice how the one slice that cannot move joins the two beside it. So what they
say of pairs of voxels is asked of the pairs with one known partner too: D(r) = ⟨(x(k) − x(k + r))²⟩ over the known
voxels k, for a few lags r along each axis, must be 2 (φ − S2(r)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.parallel.halo import fetch
from mcrdist.parallel.slab import Slab

#: Lags in voxels, on either side.
REACH = 3
#: Of each lag in the loss. The error of one lag is a single number, so this is the price of a relative error of 100 %.
WEIGHT = 0.01

#: ``wanted(channel, axis, lag)``: D of neighbours `lag` voxels apart along an axis.
Wanted = Callable[[int, int, int], float]
#: d loss / d (one squared step), for each lag and channel.
Factors = Sequence[Sequence[float]]


@dataclass(frozen=True)
class _Pairs:
    """This rank's partners of known voxels at one lag: where they are, in which plane, and the known values."""

    at: Tensor
    planes: Tensor
    known: Sequence[Tensor]
    wanted: Sequence[float]
    count: int


class Border:
    """Part of the loss: pairs of a known voxel and one that is not.

    Parameters
    ----------
    mask : bool Tensor (planes, ny, nx)
        The known voxels.
    channels : sequence of Tensor (planes, ny, nx)
        Indicators of the phases, right where the mask is.
    slab : Slab
    wanted : callable
        See `Wanted`.
    """

    def __init__(self, mask: Tensor, channels: Sequence[Tensor], slab: Slab, wanted: Wanted) -> None:
        self._slab = slab
        self._pairs = [
            pairs
            for axis in range(3)
            for lag in range(-REACH, REACH + 1)
            if lag
            and slab.shape[axis] > 2 * REACH
            and (pairs := _find(mask, channels, slab, wanted, axis, lag)) is not None
        ]

    def accumulate(
        self, channels: Sequence[Tensor], slopes: Sequence[Tensor] | None
    ) -> tuple[float, Factors]:
        """Return this part of the loss, and add its derivative to `slopes` = d loss / d channels; collective.

        The factors are those that `add_flip_constants` asks for.
        """
        loss, factors = self._factors(channels)
        if slopes is not None:
            for pairs, each in zip(self._pairs, factors, strict=True):
                for channel, slope, known, factor in zip(channels, slopes, pairs.known, each, strict=True):
                    steps = channel.flatten()[pairs.at] - known
                    slope.view(-1)[pairs.at] += steps.mul_(2.0 * factor)
        return loss, factors

    def add_flip_constants(self, factors: Factors, costs: Sequence[Tensor]) -> None:
        """Add what a flip changes beyond the gradient: the square of its step."""
        for pairs, each in zip(self._pairs, factors, strict=True):
            for cost, factor in zip(costs, each, strict=True):
                cost.view(-1)[pairs.at] += factor

    def _factors(self, channels: Sequence[Tensor]) -> tuple[float, Factors]:
        """The loss, and for each lag and channel d loss / d (one squared step)."""
        rows = np.zeros((self._slab.planes, len(self._pairs) * len(channels)))
        for i, pairs in enumerate(self._pairs):
            for c, (channel, known) in enumerate(zip(channels, pairs.known, strict=True)):
                squares = (channel.flatten()[pairs.at] - known).to(torch.float64).square().cpu().numpy()
                # Plane by plane, in the order of the voxels: the same on any number of ranks.
                rows[:, i * len(channels) + c] = np.bincount(
                    pairs.planes.cpu().numpy(), squares, minlength=self._slab.planes
                )
        sums = self._slab.gather_rows(rows).sum(0).reshape(len(self._pairs), len(channels))
        loss, factors = 0.0, []
        for pairs, totals in zip(self._pairs, sums, strict=True):
            errors = [float(t) / pairs.count / w - 1.0 for t, w in zip(totals, pairs.wanted, strict=True)]
            loss += WEIGHT * sum(e * e for e in errors)
            factors.append(
                [2.0 * WEIGHT * e / (w * pairs.count) for e, w in zip(errors, pairs.wanted, strict=True)]
            )
        return loss, factors


def _find(
    mask: Tensor, channels: Sequence[Tensor], slab: Slab, wanted: Wanted, axis: int, lag: int
) -> _Pairs | None:
    partners = (_moved(mask.to(torch.uint8), axis, lag, slab) > 0) & ~mask
    count = int(slab.comm.sum_integers(np.array([int(partners.sum())]))[0])
    values = [wanted(channel, axis, abs(lag)) for channel in range(len(channels))]
    known = [_moved(channel, axis, lag, slab).flatten() for channel in channels]
    if not count or min(values) <= 0.0:
        return None
    at = torch.nonzero(partners.flatten()).flatten()
    plane = slab.shape[1] * slab.shape[2]
    return _Pairs(at, torch.div(at, plane, rounding_mode="floor"), [v[at] for v in known], values, count)


def _moved(values: Tensor, axis: int, lag: int, slab: Slab) -> Tensor:
    """The field moved by `lag` voxels along an axis, periodic."""
    if axis:
        return torch.roll(values, lag, axis)
    nz = slab.shape[0]
    planes: list[NDArray[np.int64]] = [(np.arange(own.start, own.stop) - lag) % nz for own in slab.owners[0]]
    return fetch(values, slab, planes)
