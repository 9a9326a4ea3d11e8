"""Volume, surface, mean curvature and Euler number from counts of 2x2x2 configurations, which add up over blocks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import SphericalVoronoi


def configurations(
    block: NDArray[np.bool_], ends: Sequence[bool] = (False, False, False)
) -> NDArray[np.int64]:
    """How often each of the 256 patterns of 2x2x2 voxels occurs.

    Parameters
    ----------
    block : (p + 1, q + 1, r + 1) bool
        With one voxel more at the end of each axis, which the next block, or the other side, begins with.
    ends : three of bool
        Along which of z, y, x the volume ends with the block, which has no voxel more there.

    Returns
    -------
    (8, 256) int64
        Voxel (dz, dy, dx) of a pattern is bit 4 dz + 2 dy + dx. Row 0 has the patterns that lie inside. Those that
        reach beyond an end, where they are empty, are counted by the axes along which they do, in row 4 z + 2 y + x:
        one for each of the last voxels, so that every voxel is the first one of a pattern.
    """
    # Pairs along x, fours in a plane, eights: each joins two of those before it.
    code = np.pad(block, [(0, int(end)) for end in ends]).astype(np.uint8)
    code = code[:, :, :-1] | code[:, :, 1:] << np.uint8(1)
    code = code[:, :-1] | code[:, 1:] << np.uint8(2)
    y, x = code.shape[1] - ends[1], code.shape[2] - ends[2]
    found = np.zeros((8, 256), np.int64)
    for z, (low, high) in enumerate(itertools.pairwise(code), 2):
        eight = low | high << np.uint8(4)
        over = 4 if ends[0] and z == len(code) else 0
        for row, part in enumerate((eight[:y, :x], eight[:y, x:], eight[y:, :x], eight[y:, x:]), over):
            if part.size:  # bincount makes eight bytes of each
                found[row] += np.bincount(part.ravel(), minlength=256)
    return found


# (256, 2, 2, 2): the voxels of every pattern.
_BITS = np.array([[(code >> bit) & 1 for bit in range(8)] for code in range(256)], bool).reshape(256, 2, 2, 2)


def _counts(axes: Sequence[int], all_of: bool) -> NDArray[np.float64]:
    """The share of the cells of the grid that are flat along `axes`, of those in a pattern, which belong to the phase.

    A vertex, in the middle of the pattern, is flat along all three axes, a voxel along none. Along the other axes a
    cell lies on the low side or on the high one: each of them counts the same, so that a volume and its mirror image
    count alike. A cell touches the voxels on both sides along `axes`: any of them must be of the phase, or all.
    """
    both = tuple(1 + axis for axis in axes)
    cells = _BITS.all(both) if all_of else _BITS.any(both)
    return np.asarray(cells.reshape(256, -1).mean(1), np.float64)


def _euler(axes: Sequence[int], all_of: bool) -> NDArray[np.float64]:
    """Euler number of the cells spanned along `axes`: cells of even dimension count, of odd dimension discount.

    With `all_of` the phase is joined through faces only (4, 6), else through edges and corners too (8, 26).
    """
    terms = []
    for count in range(len(axes) + 1):
        for flat in itertools.combinations(axes, count):
            dimension = count if all_of else len(axes) - count
            terms.append((-1) ** dimension * _counts(flat, all_of))
    return np.asarray(sum(terms), np.float64)


def directions(
    voxel_size: Sequence[float],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """The 13 lattice directions of a pattern: steps (13, 3), lengths, and the share of the sphere nearest to each."""
    steps = [s for s in itertools.product((-1, 0, 1), repeat=3) if s > (0, 0, 0)]
    vectors = np.array(steps) * np.array(voxel_size)
    lengths = np.linalg.norm(vectors, axis=1)
    unit = vectors / lengths[:, None]
    areas = SphericalVoronoi(np.concatenate([unit, -unit])).calculate_areas()
    return np.array(steps), lengths, 2 * areas[:13] / areas.sum()


def _differs(step: Sequence[int]) -> NDArray[np.int64]:
    """Whether the two voxels of a pattern that a step joins differ; of several such pairs, the one at the low side."""
    first = [1 if s < 0 else 0 for s in step]
    z, y, x = first
    dz, dy, dx = (f + s for f, s in zip(first, step, strict=True))
    return np.asarray(_BITS[:, z, y, x] != _BITS[:, dz, dy, dx], np.int64)


def _density(counts: NDArray[np.int64], axes: Sequence[int], table: NDArray[Any]) -> float:
    """Mean of a table over the patterns that have voxels on both sides along `axes`."""
    there = [row for row in range(8) if not any(row & 4 >> axis for axis in axes)]
    return float(counts[there].sum(0) @ table) / float(counts[there].sum())


def euler_of_sections(counts: NDArray[np.int64], axis: int) -> float:
    """Euler number a pixel of planes normal to an axis: the mean of 4- and 8-connectivity."""
    inside = [other for other in range(3) if other != axis]
    return _density(counts, range(3), _euler(inside, False) + _euler(inside, True)) / 2


def functionals(counts: NDArray[np.int64], voxel_size: Sequence[float]) -> dict[str, float]:
    """Densities of the four Minkowski functionals.

    Parameters
    ----------
    counts : (8, 256) int64
        See `configurations`. Every voxel and every pair of neighbours that there is counts once; Euler numbers are of
        the patterns inside, whose outermost cells are shared with what lies beyond and count for less.
    voxel_size : (z, y, x)

    Returns
    -------
    dict
        ``volume_fraction``; ``specific_surface``, S_V = 2 Σ c_i P_L,i over 13 directions (Cauchy and Crofton; P_L,i
        crossings a unit of length, c_i the share of the sphere); ``mean_curvature``, the integral of (κ₁ + κ₂)/2 per
        volume, 2π χ_A from planes of three normals; ``euler_6`` and ``euler_26``, the Euler number per volume of
        the phase joined through faces, or through edges and corners too; ``crossings_z`` and so on, phase boundaries
        a unit of length along the axes.
    """
    voxel = float(np.prod(voxel_size))
    euler = [euler_of_sections(counts, axis) / voxel * voxel_size[axis] for axis in range(3)]
    steps, lengths, shares = directions(voxel_size)
    differ = [_density(counts, np.flatnonzero(step).tolist(), _differs(step)) for step in steps.tolist()]
    crossings = np.array(differ) / lengths
    result = {
        "volume_fraction": _density(counts, (), _BITS[:, 0, 0, 0]),
        "specific_surface": float(2 * shares @ crossings),
        "mean_curvature": 2 * np.pi * float(np.mean(euler)),
        "euler_6": _density(counts, range(3), _euler(range(3), True)) / voxel,
        "euler_26": _density(counts, range(3), _euler(range(3), False)) / voxel,
    }
    for name, step in (("z", (1, 0, 0)), ("y", (0, 1, 0)), ("x", (0, 0, 1))):
        result[f"crossings_{name}"] = float(crossings[steps.tolist().index(list(step))])
    return result
