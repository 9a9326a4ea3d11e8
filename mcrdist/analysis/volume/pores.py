"""Pore sizes: how far the points of a phase are from its boundary, block by block with a margin around each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis.volume.distance import to_boundary
from mcrdist.analysis.volume.kernels import tally

#: Bins of the distribution, each half a voxel wide (of its shortest side); the last holds what is beyond.
BINS = 512


@dataclass(frozen=True)
class Distances:
    """Distances of the points of a phase to its boundary, of a block or of several together.

    Attributes
    ----------
    total : float
        Their sum, in the unit of length.
    largest : float
        The radius of the largest sphere that fits into the phase.
    counts : (BINS,) int64
        How many there are in each half voxel.
    """

    total: float
    largest: float
    counts: NDArray[np.int64]

    def __add__(self, other: Distances) -> Distances:
        return Distances(
            self.total + other.total, max(self.largest, other.largest), self.counts + other.counts
        )

    @property
    def mean(self) -> float:
        """⟨δ⟩ of Torquato's pore-size function; NaN without a voxel of the phase."""
        count = int(self.counts.sum())
        return self.total / count if count else float("nan")


def distances(
    read: Callable[[tuple[slice, ...]], NDArray[np.bool_]],
    corner: Sequence[int],
    end: Sequence[int],
    shape: Sequence[int],
    voxel_size: Sequence[float],
    periodic: bool,
    margin: int = 8,
) -> Distances:
    """Measure a block.

    Parameters
    ----------
    read : callable
        Gives the phase at three slices, none of them outside the volume.
    corner, end : (z, y, x)
        Of the block.
    shape : (nz, ny, nx)
        Of the volume.
    voxel_size : (z, y, x)
    periodic : bool
        Else what lies outside is not known, and taken for neither phase nor boundary.
    margin : int
        Voxels around the block to begin with; where the phase reaches further, a wider one is taken.

    Returns
    -------
    Distances
        From centres of voxels to the faces of the nearest voxels of another phase: half a voxel less than to their
        centres, measured along the way there.
    """
    shortest = min(voxel_size)
    while True:
        block, inner = _around(read, corner, end, shape, margin, periodic)
        counts = np.zeros(BINS, np.int64)
        if block.all():  # no boundary near: further away, or nowhere
            total, largest, furthest = 0.0, 0.0, math.inf
        else:
            squares, less = to_boundary(block, voxel_size, "mcrdist analyze")
            own = (squares[inner], block[inner], less[inner])
            total, largest, furthest = tally(*own, shortest / 2, counts)
        if furthest <= margin * shortest or margin >= max(shape):
            return Distances(total, largest, counts)
        margin *= 2


def _around(
    read: Callable[[tuple[slice, ...]], NDArray[np.bool_]],
    corner: Sequence[int],
    end: Sequence[int],
    shape: Sequence[int],
    margin: int,
    periodic: bool,
) -> tuple[NDArray[np.bool_], tuple[slice, ...]]:
    """The block with a margin, and where in that it lies."""
    runs, inner = [], []
    for start, stop, n in zip(corner, end, shape, strict=True):
        first, last = start - margin, stop + margin
        if not periodic:
            first, last = max(0, first), min(n, last)
        runs.append(_runs(first, last, n))
        inner.append(slice(start - first, stop - first))
    parts: Any = [[[read((z, y, x)) for x in runs[2]] for y in runs[1]] for z in runs[0]]
    return np.block(parts), tuple(inner)


def _runs(first: int, last: int, n: int) -> list[slice]:
    """Slices of range(n) that make up first, ..., last - 1, modulo n."""
    cuts = [first, *range(-(-(first + 1) // n) * n, last, n), last]
    return [slice(a % n, a % n + b - a) for a, b in itertools.pairwise(cuts)]
