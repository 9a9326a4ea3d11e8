"""The problem that the benchmarks of the numerical core take: S2, V and φ of a Gaussian micrograph."""

from __future__ import annotations

import math

import numpy as np

from mcrdist.descriptors.base import SliceGrid
from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.descriptors.variation import Variation
from mcrdist.descriptors.volume_fraction import VolumeFraction
from mcrdist.directions import ORTHOGONAL
from mcrdist.objective import Held, Objective
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.phases import Phases
from mcrdist.synthetic import micrograph


def problem(size: int, lags: int, comm: Comm, workers: Workers) -> Objective:
    """The loss of a cube of `size` voxels a side, as in the first stages of every level."""
    image = (micrograph("gaussian") == 1).astype(np.float64)
    s2, variation, fraction = TwoPointCorrelation(lags), Variation(math.inf), VolumeFraction()
    values = {d.name: d.describe(image, False)[None] for d in (s2, variation, fraction)}
    grid = SliceGrid((size, size))
    term = s2.term(values, 1.0, grid)
    term.riders = tuple(d.term(values, weight, grid) for d, weight in ((variation, 0.1), (fraction, 1.0)))
    held = dict.fromkeys(ORTHOGONAL, Held(((term,),)))
    return Objective(Slab((size, size, size), comm, workers), Phases((1,), workers), held, comm, workers)
