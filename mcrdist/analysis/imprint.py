"""Whether the volume remembers the grids it was made on: phase boundaries that prefer certain lattice planes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis.material import AXES, plane_axes
from mcrdist.analysis.slices import IN_PLANE, planes, spread
from mcrdist.store.volume import Volume

#: A coarse level has voxels two, four or eight fine ones wide. Nothing is made on grids of the others, so that they
#: show what chance does.
MODULI, CHANCE = (2, 4, 8), (3, 5, 7)
#: Lattice planes that fall on a residue at least.
_FEWEST = 4


def profiles(stacks: Mapping[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.float64]]:
    """The share of phase boundary between lattice planes k and k + 1, for each axis.

    Parameters
    ----------
    stacks : mapping of "z", "y", "x" to (planes, rows, columns) labels
        Planes normal to the axis.
    """
    found: dict[str, list[NDArray[np.float64]]] = {}
    for axis, stack in stacks.items():
        rows, columns = IN_PLANE[axis]
        found.setdefault(rows, []).append((stack[:, 1:] != stack[:, :-1]).mean((0, 2)))
        found.setdefault(columns, []).append((stack[:, :, 1:] != stack[:, :, :-1]).mean((0, 1)))
    return {axis: np.mean(found[axis], axis=0) for axis in AXES if axis in found}


def busiest(found: Mapping[str, NDArray[np.float64]], moduli: Sequence[int] = MODULI) -> float:
    """Boundaries on the busiest residue of the coordinate over their mean: the mean over axes, of the worst modulus.

    1 where none is preferred, or where the volume is too small to tell.
    """
    worst = 1.0
    for modulus in moduli:
        ratios = []
        for profile in found.values():
            whole = profile[: len(profile) // modulus * modulus].reshape(-1, modulus)
            if len(whole) >= _FEWEST and whole.mean() > 0:
                ratios.append(float(whole.mean(0).max() / whole.mean()))
        if ratios:
            worst = max(worst, float(np.mean(ratios)))
    return worst


def measure(volume: Volume, most: int = 64) -> tuple[float, float]:
    """`busiest` of a volume, and what chance makes of it; from at most so many planes of each direction."""
    sizes = dict(zip(AXES, volume.shape, strict=True))
    chosen = {axis: spread(sizes[axis], most) for axis in plane_axes(volume.shape)}
    found = profiles({a: s for a, s in planes(volume, volume.phase(), chosen).items() if a in chosen})
    return busiest(found), busiest(found, CHANCE)
