"""How far every voxel is from the nearest one outside, by a library that is fast where it is asked in its own way.

That library knows the distance between centres, of which half a voxel lies beyond the boundary. Where voxels are no
cubes, how much that is depends on the direction, and SciPy tells where the nearest voxel is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mcrdist.extras import library

#: Sides that differ by no more than this, relative, are those of cubes.
_CUBES = 1e-6


def to_boundary(
    inside: NDArray[np.bool_], voxel_size: Sequence[float], asked: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where the boundary is: the way to the nearest voxel outside, and how much of it lies in that voxel.

    Parameters
    ----------
    inside, voxel_size, asked
        See `squared_distances`.

    Returns
    -------
    (nz, ny, nx) float32
        Squared distances between centres of voxels, see `squared_distances`.
    (nz, ny, nx) float32
        Half the width of a voxel along the way, ‖h ∘ u‖/2 (h its sides, u the direction): half a cube's side, and half
        of the side along an axis in that direction. Of several nearest voxels it is that of the one which is widest.
    """
    longest, shortest = max(voxel_size), min(voxel_size)
    if longest <= shortest * (1 + _CUBES):
        half = np.broadcast_to(np.float32(shortest / 2), inside.shape)
        return squared_distances(inside, voxel_size, asked), half
    squares: NDArray[np.float32] = np.zeros(inside.shape, np.float32)
    wide: NDArray[np.float32] = np.zeros(inside.shape, np.float32)
    if inside.all():
        return squares + np.float32(np.inf), wide
    # Long sides a little shorter: too little to find another voxel, unless two are equally far.
    sampling = [side * (1 - 1e-6 * (side / longest) ** 2) for side in voxel_size]
    nearest = ndimage.distance_transform_edt(inside, sampling, return_distances=False, return_indices=True)
    for axis, side in enumerate(voxel_size):
        here = np.arange(inside.shape[axis]).reshape([-1 if k == axis else 1 for k in range(3)])
        way = np.square((nearest[axis] - here).astype(np.float32) * np.float32(side))
        squares += way
        wide += way * np.float32(side**2)
    np.divide(wide, squares, out=wide, where=squares > 0)
    return squares, np.asarray(np.sqrt(wide) / 2, np.float32)


def squared_distances(
    inside: NDArray[np.bool_], voxel_size: Sequence[float], asked: str
) -> NDArray[np.float32]:
    """Squared distances between centres of voxels.

    Parameters
    ----------
    inside : (nz, ny, nx) bool
        Contiguous. What lies beyond the array is not known, and is not outside.
    voxel_size : (z, y, x)
    asked : str
        What needs the library, for the message where it is not installed.

    Returns
    -------
    (nz, ny, nx) float32
        0 outside; infinite where nothing is outside.
    """
    # Of bytes it takes six tenths of the time that it takes of truth values. It keeps the interpreter to itself, so no
    # other thread of this worker gets far meanwhile: it may as well have all of them.
    edt = library("edt", asked, "analysis")
    found: NDArray[np.float32] = edt.edtsq(
        inside.view(np.uint8), anisotropy=tuple(voxel_size), black_border=False, parallel=_threads()
    )
    return found


def _threads() -> int:
    """Of the Dask worker that this runs on; 1 elsewhere."""
    distributed: Any = library("distributed", "mcrdist analyze", "analysis")
    try:
        return int(distributed.get_worker().state.nthreads)
    except ValueError:
        return 1
