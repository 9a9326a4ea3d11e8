"""Label pyramids: the most frequent label of 2x2x2 cells, one tile at a time."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.errors import InputError


def halved(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Shape of the next coarser level; an odd last voxel keeps a cell of its own."""
    nz, ny, nx = ((n + 1) // 2 for n in shape)
    return nz, ny, nx


def mode(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Most frequent label of every 2x2x2 cell.

    Among equally frequent labels the one that comes first in the cell (z, y, x order) wins. Unlike the
    smallest label it favours no phase, so a pyramid keeps the volume fractions.

    Parameters
    ----------
    labels
        (nz, ny, nx) uint8; cells at an odd end hold fewer voxels.

    Returns
    -------
    (ceil(nz/2), ceil(ny/2), ceil(nx/2)) uint8
    """
    shape = halved(labels.shape)
    # A label's score is 16 a vote, plus 8, 7, ... 1 for the place of its first voxel: the place decides
    # between equal votes and never outweighs one (8 votes make 136, so uint8 holds it).
    best_score = np.zeros(shape, np.uint8)
    best = np.zeros(shape, np.uint8)
    corners = [labels[dz::2, dy::2, dx::2] for dz, dy, dx in itertools.product((0, 1), repeat=3)]
    for label in np.unique(labels):
        votes = np.zeros(shape, np.uint8)
        bonus = np.zeros(shape, np.uint8)
        for position, corner in enumerate(corners):
            a, b, c = corner.shape
            found = corner == label
            votes[:a, :b, :c] += found
            bonus[:a, :b, :c] = np.maximum(bonus[:a, :b, :c], found * np.uint8(8 - position))
        score = votes * np.uint8(16) + bonus
        wins = score > best_score
        best_score[wins] = score[wins]
        best[wins] = label
    return best


def mode_downsample(fine: Any, coarse: Any, check: int | None = None) -> None:
    """Fill the array `coarse` with the modes of `fine`, a chunk of `coarse` at a time.

    Memory stays at a few chunks whatever the size of the volume.

    Parameters
    ----------
    fine, coarse
        zarr.Array of uint8; the shape of `coarse` is `halved` that of `fine`.
    check
        The fill value: if `fine` holds it, part of the volume was never written.

    Raises
    ------
    InputError
        Part of `fine` is missing.
    """
    starts = (range(0, n, c) for n, c in zip(coarse.shape, coarse.chunks, strict=True))
    for corner in itertools.product(*starts):
        ends = [min(s + c, n) for s, c, n in zip(corner, coarse.chunks, coarse.shape, strict=True)]
        tile = fine[tuple(slice(2 * s, 2 * e) for s, e in zip(corner, ends, strict=True))]
        if check is not None and (tile == check).any():
            z, y, x = (2 * s for s in corner)
            raise InputError(
                f"{fine.path}: part of the labels near voxel z={z}, y={y}, x={x} was never written "
                "or has been lost; run again"
            )
        coarse[tuple(slice(s, e) for s, e in zip(corner, ends, strict=True))] = mode(tile)
