"""What a swap of two voxels does to the slices through them: compiled loops over a window of lags.

The count of pairs at lag r of a slice, C(r) = Σ_x I(x) I(x + r) = N S2(r), changes by

    ΔC(r) = δ (I(p + r) + I(p − r)) + δ² [r = 0]

when pixel p changes by δ: as many additions as the window has lags, whatever the size of the slice. Counts are
integers, so they never drift. Images have a periodic halo as wide as the window: no index has to be wrapped.

Stacks of slices of different shape come as a tuple, one item a direction:

images
    uint8 (S, H + 2L, W + 2L)
counts, targets, residuals
    int32, float64 and float32 (S, 2L+1, L+1): C, N S2 wanted, and their difference
sums
    float64 (S, 2): differences from what is wanted of 4 C(0) − 2 C(one pixel), which is the variation, and of C(0),
    the volume fraction
weights
    float64 (3,): what the squares of residuals and of the two sums cost
changes
    int32 (2, 2L+1, L+1): room for ΔC in the slice of either voxel
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit


@njit(cache=True)
def place(voxel: int, axis: int, shape: Any) -> tuple[int, int, int]:
    """Slice, row and column of a voxel (its index in C order) among the slices normal to `axis`."""
    z, rest = divmod(voxel, shape[1] * shape[2])
    y, x = divmod(rest, shape[2])
    if axis == 0:
        return z, y, x
    if axis == 1:
        return y, z, x
    return x, z, y


@njit(cache=True)
def write(image: Any, lags: int, row: int, column: int, value: int) -> None:
    """Set a pixel, and its copies in the halo."""
    height, width = image.shape[0] - 2 * lags, image.shape[1] - 2 * lags
    for r in range(row + lags - height, image.shape[0], height):
        for c in range(column + lags - width, image.shape[1], width):
            if r >= 0 and c >= 0:
                image[r, c] = value


@njit(cache=True)
def count(image: Any, lags: int, row: int, column: int, step: int, changes: Any) -> None:
    """Add ΔC to `changes` for a pixel that changes by `step`, 1 or −1."""
    sign = np.int32(step)
    for i in range(2 * lags + 1):
        # One row of lags at a time, in 32 bits and without indices that may be negative: the processor takes several
        # lags at once.
        ahead = image[row + i, column + lags : column + 2 * lags + 1]
        back = image[row + 2 * lags - i, column : column + lags + 1]
        own = changes[i]
        for j in range(lags + 1):
            own[j] += sign * (np.int32(ahead[j]) + np.int32(back[np.uint64(lags - j)]))
    changes[lags, 0] += 1


@njit(cache=True, fastmath=True)
def price(residual: Any, sums: Any, weights: Any, changes: Any) -> Any:
    """By how much the energy of a slice changes with its counts."""
    total = np.float32(0.0)
    for i in range(changes.shape[0]):
        for j in range(changes.shape[1]):
            change = np.float32(changes[i, j])
            total += change * (residual[i, j] + residual[i, j] + change)
    lags = changes.shape[1] - 1
    steps = variation(changes)
    here = changes[lags, 0]
    return (
        weights[0] * total
        + weights[1] * steps * (2.0 * sums[0] + steps)
        + weights[2] * here * (2.0 * sums[1] + here)
    )


@njit(cache=True)
def variation(counts: Any) -> Any:
    """N times the mean square of the steps along rows and columns."""
    lags = counts.shape[1] - 1
    return 4.0 * counts[lags, 0] - 2.0 * counts[lags, 1] - 2.0 * counts[lags + 1, 0]


@njit(cache=True)
def swap_price(
    first: int,
    second: int,
    shape: Any,
    axes: Any,
    images: Any,
    residuals: Any,
    sums: Any,
    weights: Any,
    changes: Any,
) -> float:
    """The energy of a swap of `first`, a voxel of 1, with `second`, of 0; fills `changes`, leaves all else."""
    total = 0.0
    for d in range(len(images)):
        axis, lags = axes[d], changes[d].shape[2] - 1
        s, row, column = place(first, axis, shape)
        t, other_row, other_column = place(second, axis, shape)
        changes[d][:] = 0
        count(images[d][s], lags, row, column, -1, changes[d][0])
        if s == t:  # the second pixel no longer finds the first
            write(images[d][s], lags, row, column, 0)
            count(images[d][s], lags, other_row, other_column, 1, changes[d][0])
            write(images[d][s], lags, row, column, 1)
        else:
            count(images[d][t], lags, other_row, other_column, 1, changes[d][1])
            total += price(residuals[d][t], sums[d][t], weights[d], changes[d][1])
        total += price(residuals[d][s], sums[d][s], weights[d], changes[d][0])
    return total


@njit(cache=True)
def accept(
    first: int,
    second: int,
    shape: Any,
    axes: Any,
    images: Any,
    counts: Any,
    targets: Any,
    residuals: Any,
    sums: Any,
    changes: Any,
) -> None:
    """Make the swap whose `changes` were found by `swap_price`."""
    for d in range(len(images)):
        lags = changes[d].shape[2] - 1
        s, row, column = place(first, axes[d], shape)
        t, other_row, other_column = place(second, axes[d], shape)
        write(images[d][s], lags, row, column, 0)
        write(images[d][t], lags, other_row, other_column, 1)
        _update(counts[d][s], targets[d][s], residuals[d][s], sums[d][s], changes[d][0])
        if s != t:
            _update(counts[d][t], targets[d][t], residuals[d][t], sums[d][t], changes[d][1])


@njit(cache=True)
def _update(counts: Any, target: Any, residual: Any, sums: Any, changes: Any) -> None:
    for i in range(counts.shape[0]):
        for j in range(counts.shape[1]):
            counts[i, j] += changes[i, j]
            residual[i, j] = counts[i, j] - target[i, j]
    sums[0] += variation(changes)
    sums[1] += changes[counts.shape[1] - 1, 0]


@njit(cache=True)
def attempt(
    draws: Any,
    temperature: float,
    ones: Any,
    zeros: Any,
    shape: Any,
    axes: Any,
    images: Any,
    counts: Any,
    targets: Any,
    residuals: Any,
    sums: Any,
    weights: Any,
    changes: Any,
) -> int:
    """Try swaps by Metropolis' rule; the number of those made.

    `draws` (attempts, 3) are uniform in [0, 1): a voxel of `ones`, one of `zeros` (int64, kept up to date), luck.
    """
    accepted = 0
    for k in range(len(draws)):
        i, j = int(draws[k, 0] * len(ones)), int(draws[k, 1] * len(zeros))
        first, second = ones[i], zeros[j]
        change = swap_price(first, second, shape, axes, images, residuals, sums, weights, changes)
        if change <= 0.0 or change <= -temperature * math.log(1.0 - draws[k, 2]):
            accept(first, second, shape, axes, images, counts, targets, residuals, sums, changes)
            ones[i], zeros[j] = second, first
            accepted += 1
    return accepted


@njit(cache=True)
def probe(
    draws: Any,
    prices: Any,
    ones: Any,
    zeros: Any,
    shape: Any,
    axes: Any,
    images: Any,
    residuals: Any,
    sums: Any,
    weights: Any,
    changes: Any,
) -> None:
    """Fill `prices` with those of swaps drawn as `attempt` does; none is made."""
    for k in range(len(draws)):
        first, second = ones[int(draws[k, 0] * len(ones))], zeros[int(draws[k, 1] * len(zeros))]
        prices[k] = swap_price(first, second, shape, axes, images, residuals, sums, weights, changes)
