"""Structures whose statistics are known in closed form.

They are the demo's default input (``micrograph.path=synthetic:gaussian``) and the truth that the descriptors
are tested against. Each structure is a small frozen class with three methods:

* ``draw(shape, rng)``: one realisation, uint8 labels 0 and 1, in one, two or three dimensions, periodic;
* ``s2(lags, shape)``: its two-point correlation S2(r) = P(x in phase 1 and x + r in phase 1);
* ``variation(dimension)``: its normalised variation (Eq. 5 of Seibert et al. 2022, per pixel).

Every structure is placed at a uniformly random, *continuous* position and sampled at voxel centres. The
ensemble mean of S2 at whole-voxel lags is then the continuum formula exactly: there is no discretisation
error to allow for, only the sampling error of a finite ensemble.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from mcrdist.errors import InputError
from mcrdist.synthetic.gaussian import ThresholdedGaussian
from mcrdist.synthetic.patterns import Checkerboard, Lamellae
from mcrdist.synthetic.spheres import OverlappingSpheres
from mcrdist.synthetic.structure import Labels, Structure, lag_window

__all__ = [
    "NAMES",
    "STRUCTURES",
    "Checkerboard",
    "Lamellae",
    "OverlappingSpheres",
    "Structure",
    "ThresholdedGaussian",
    "lag_window",
    "micrograph",
]

#: The structures that ``micrograph.path=synthetic:NAME`` offers. Features of 10 to 16 pixels: well
#: resolved, and small enough that a volume of 64 voxels an edge holds a few of them.
STRUCTURES: Mapping[str, Structure] = MappingProxyType(
    {
        "gaussian": ThresholdedGaussian(length=16.0, fraction=0.45, waves=0.85),
        "elongated": ThresholdedGaussian(length=(9.0, 27.0), fraction=0.45, waves=0.5),
        "checkerboard": Checkerboard(square=16.0),
        "discs": OverlappingSpheres(radius=8.0, fraction=0.4),
        "spheres": OverlappingSpheres(radius=9.0, fraction=0.35, dimension=3),
        "lamellae": Lamellae(period=16.0, duty=0.5, direction=(1.0, 0.5)),
    }
)

NAMES: tuple[str, ...] = tuple(STRUCTURES)


def micrograph(name: str, shape: tuple[int, int] = (256, 256), seed: int = 0) -> Labels:
    """A synthetic two-phase micrograph.

    Parameters
    ----------
    name : str
        One of ``NAMES``.
    shape : (int, int)
        Rows and columns in pixels.
    seed : int
        The same seed gives the same micrograph.

    Returns
    -------
    uint8 array (rows, columns)
        Labels 0 and 1.

    Raises
    ------
    InputError
        For a name that is not known or a shape that the structure does not fit into.
    """
    if name not in STRUCTURES:
        known = ", ".join(NAMES)
        raise InputError(f"micrograph.path: expected synthetic:NAME with NAME one of {known}, found {name!r}")
    return STRUCTURES[name].draw(shape, np.random.default_rng(seed))
