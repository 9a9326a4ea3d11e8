"""One evaluation of loss and gradient (S2 and V) against its Fourier transforms alone, in the same run.

    python benchmarks/evaluation.py [--size 256] [--lags 32] [--repeats 7] [--threads N]

The floor is three times `size` real 2-D transforms and their inverses, of slices that lie contiguous in memory, by the
same library and number of threads; both are repeated in turn and the median of the ratios is quoted. Prints one
JSON line.
"""

from __future__ import annotations

import argparse
import json
from statistics import median

import numpy as np
import torch
from _problem import problem
from _timing import seconds

from mcrdist.descriptors.fft import irfft2, rfft2
from mcrdist.directions import ORTHOGONAL
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.threads import configure

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
    objective = problem(size, lags, Comm.start("cpu"), workers)
    slab = objective.slab
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
