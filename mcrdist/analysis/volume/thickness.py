"""Local thickness: how wide a phase is around each of its points, by spheres that fit into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis.volume.distance import to_boundary

#: Distances that differ by less, relative, are equal.
_EQUAL = 1e-6


@dataclass(frozen=True)
class Thickness:
    """The distribution of local thickness over the voxels of a phase.

    Attributes
    ----------
    mean, median : float
        Of the diameters, in the unit of length; NaN where there is no voxel, or no boundary.
    counts : list of int
        Voxels whose largest sphere has a radius of 0, 1, 2, ... voxels (of their shortest side).
    """

    mean: float
    median: float
    counts: list[int]


def thickness(phase: NDArray[np.bool_], voxel_size: Sequence[float]) -> Thickness:
    """Describe the local thickness of a phase (nz, ny, nx).

    Radii grow by the shortest side of a voxel, so that a layer of an even number of voxels, whose middle lies between
    two, appears one thinner; one across a longer side, up to one shortest side.
    """
    step = min(voxel_size)
    radii = local_radius(phase, voxel_size)[phase]
    if not len(radii) or phase.all():
        return Thickness(float("nan"), float("nan"), [])
    diameters = 2 * np.maximum(radii.astype(np.float64) - step / 2, 0)
    counts = np.bincount(np.rint(radii / step).astype(np.int64))
    return Thickness(float(diameters.mean()), float(np.median(diameters)), counts.tolist())


def local_radius(phase: NDArray[np.bool_], voxel_size: Sequence[float]) -> NDArray[np.float32]:
    """Find the radius of the largest sphere inside the phase that covers each voxel.

    A sphere fits around a voxel whose distance to the boundary is its radius at least; it covers a voxel whose nearest
    face is nearer than that. So, for one radius after the other, a second distance transform, from the centres, does
    for all spheres at once (Hildebrand & Rüegsegger 1997). PoreSpy does the same, but takes voxels for cubes.

    Parameters
    ----------
    phase : (nz, ny, nx) bool
        What lies outside the array is not known, and no boundary.
    voxel_size : (z, y, x)

    Returns
    -------
    (nz, ny, nx) float32
        To the centres of voxels outside, if these are cubes: half the shortest side of a voxel more than the radius.
        Whole multiples of that side; 0 outside the phase, and everywhere if there is no boundary.
    """
    step = min(voxel_size)
    found = np.zeros(phase.shape, np.float32)
    if phase.all() or not phase.any():
        return found
    inside = _to_faces(phase, voxel_size)
    for count in range(1, int(float(inside.max()) / step + 0.5 + _EQUAL) + 1):
        radius = (count - 0.5) * step * (1 - _EQUAL)
        centres = inside >= radius
        if not centres.any():
            break
        found[_to_faces(~centres, voxel_size) < radius] = count * step
    return found


def _to_faces(inside: NDArray[np.bool_], voxel_size: Sequence[float]) -> NDArray[np.float32]:
    squares, less = to_boundary(inside, voxel_size, "middle.thickness=true")
    return np.asarray(np.sqrt(squares) - less)
