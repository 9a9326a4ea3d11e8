"""One evaluation of loss and gradient (S2 and V) against its Fourier transforms alone, in the same run.

    python benchmarks/evaluation.py [--size 256] [--lags 32] [--repeats 7] [--threads N]

The floor is three times `size` real 2-D transforms and their inverses, of slices that lie contiguous in memory, by the
same library and number of threads; both are repeated in turn and the median of the ratios is quoted. Prints one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
from statistics import median

import numpy as np
import torch
from _timing import seconds

from mcrdist.descriptors.base import SliceGrid
from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.descriptors.fft import irfft2, rfft2
from mcrdist.descriptors.variation import Variation
from mcrdist.directions import ORTHOGONAL
from mcrdist.objective import Held, Objective
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import configure
from mcrdist.phases import Phases
from mcrdist.synthetic import micrograph

BATCH = 4  # slices of the floor at a time: the fastest of 1, 2, 4, 8, 16 at 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--lags", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    size, lags = arguments.size, arguments.lags

    workers = configure(arguments.threads)
    comm = Comm.start("cpu")
    slab = Slab((size, size, size), comm, workers)
    image = (micrograph("gaussian") == 1).astype(np.float64)
    s2, variation = TwoPointCorrelation(lags), Variation(math.inf)  # as in the first stages of every level
    values = {d.name: d.describe(image, False)[None] for d in (s2, variation)}
    values["volume_fraction"] = image.mean(keepdims=True)[0]
    grid = SliceGrid((size, size))
    term = s2.term(values, 1.0, grid)
    term.variation = variation.term(values, 0.1, grid)
    held = dict.fromkeys(ORTHOGONAL, Held(((term,),)))
    objective = Objective(slab, Phases((1,), workers), held, comm, workers)
    field = torch.from_numpy(np.random.default_rng(0).random(slab.shape, dtype=np.float32))
    gradient = slab.empty()

    def transform(start: int) -> None:
        irfft2(rfft2(field[start : start + BATCH]), (size, size))

    def floor() -> None:
        for _ in ORTHOGONAL:
            workers.map(transform, range(0, size, BATCH))

    floor(), objective(field, gradient)  # plans, caches, pages
    pairs = [(seconds(floor), seconds(lambda: objective(field, gradient))) for _ in range(arguments.repeats)]
    print(
        json.dumps(
            {
                "benchmark": "evaluation",
                "size": size,
                "lags": lags,
                "threads": workers.count,
                "fft_seconds": median(f for f, _ in pairs),
                "evaluation_seconds": median(e for _, e in pairs),
                "ratio": median(e / f for f, e in pairs),
            }
        )
    )


if __name__ == "__main__":
    main()
