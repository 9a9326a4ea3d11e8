"""What one evaluation of loss and gradient costs with each descriptor, in units of that of S2 and V alone.

    python benchmarks/descriptors.py [--size 64] [--repeats 3] [--threads N] [--only NAME ...]

All slices of a cube, with the default settings of each descriptor beside S2 and V. Every one is timed in turn with
S2 and V alone, and the median of the ratios is quoted. Gram matrices are left out without the network (`mcrdist
weights`). Prints one JSON line a descriptor.
"""

from __future__ import annotations

import argparse
import json
from statistics import median
from typing import Any

import numpy as np
import torch
from _timing import seconds

from mcrdist.config import from_mapping
from mcrdist.directions import ORTHOGONAL
from mcrdist.errors import InputError
from mcrdist.multigrid import Level
from mcrdist.objective import Objective
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers, configure
from mcrdist.phases import Phases
from mcrdist.solver.grid import Grid
from mcrdist.synthetic import micrograph
from mcrdist.targets import load_targets
from mcrdist.targets.measure import measure

ADDED: dict[str, dict[str, Any]] = {
    "s2, variation": {},
    "s2@2": {"s2": {"pooled": [2]}},
    "s3, lags 2": {"s3": {"weight": 1, "lags": 2}},
    "s3, lags 4": {"s3": {"weight": 1}},
    "s3, sparse, lags 16": {"s3": {"weight": 1, "triangles": "sparse", "lags": 16}},
    "lineal_path": {"lineal_path": {"weight": 1}},
    "patches": {"patches": {"weight": 1}},
    "gram": {"gram": {"weight": 1}},
}


def objective(size: int, descriptors: dict[str, Any], comm: Comm, workers: Workers) -> Objective:
    """The loss as in the first stage of a level."""
    image = micrograph("gaussian")
    config = from_mapping({"micrograph": image, "volume": {"size": size}, "descriptors": descriptors})
    targets = load_targets(config.micrograph, config.target, config.interpolate)
    shape = config.volume.shape
    found = measure(targets, config.descriptors, ORTHOGONAL, shape)
    level, slab = Level(0, shape, 1), Slab(shape, comm, workers)
    phases = Phases(targets.phases, workers)
    grid = Grid(level, slab, phases, ORTHOGONAL, found.targets, found.selections, comm, workers)
    return grid.objective()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--only", nargs="+", default=list(ADDED), choices=list(ADDED))
    arguments = parser.parse_args()
    workers, comm = configure(arguments.threads), Comm.start("cpu")
    shape = (arguments.size,) * 3
    field = torch.from_numpy(np.random.default_rng(0).random(shape, dtype=np.float32))
    gradient = torch.empty_like(field)
    plain = objective(arguments.size, {}, comm, workers)
    for name in arguments.only:
        try:
            added = objective(arguments.size, ADDED[name], comm, workers)
        except InputError as error:
            print(json.dumps({"benchmark": "descriptors", "descriptor": name, "left_out": str(error)}))
            continue
        plain(field, gradient), added(field, gradient)  # plans, caches, pages
        pairs = [
            (seconds(lambda: plain(field, gradient)), seconds(lambda added=added: added(field, gradient)))
            for _ in range(arguments.repeats)
        ]
        facts = {
            "benchmark": "descriptors",
            "descriptor": name,
            "size": arguments.size,
            "threads": workers.count,
            "seconds": median(a for _, a in pairs),
            "ratio": median(a / p for p, a in pairs),
        }
        print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
