"""The problem that the benchmarks of the numerical core take: S2 and V of a Gaussian micrograph."""

from __future__ import annotations

import math

import numpy as np

from mcrdist.descriptors.base import SliceGrid
from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.descriptors.variation import Variation
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
    s2, variation = TwoPointCorrelation(lags), Variation(math.inf)
    values = {d.name: d.describe(image, False)[None] for d in (s2, variation)}
    values["volume_fraction"] = image.mean(keepdims=True)[0]
    grid = SliceGrid((size, size))
    term = s2.term(values, 1.0, grid)
    term.variation = variation.term(values, 0.1, grid)
    held = dict.fromkeys(ORTHOGONAL, Held(((term,),)))
    return Objective(Slab((size, size, size), comm, workers), Phases((1,), workers), held, comm, workers)
