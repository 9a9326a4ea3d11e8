"""Swaps a second of the annealing of Yeong and Torquato, attempted and made, in two and in three dimensions.

    python benchmarks/swaps.py [--lags 16] [--sweeps 20] [--seed 0]

A 64 x 64 image and a 32 x 32 x 32 volume of white noise are cooled towards S2, variation and volume fraction of a
built-in micrograph, on one thread. Prints one JSON line each: over the whole schedule, and in its last sweep, when
hardly any swap is made.
"""

from __future__ import annotations

import argparse
import json
import math
import time

import numpy as np
import torch

from mcrdist.annealing.energy import slice_energies
from mcrdist.annealing.swaps import Swaps
from mcrdist.annealing.volume import with_fraction
from mcrdist.descriptors.base import SliceGrid
from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.descriptors.variation import Variation
from mcrdist.descriptors.volume_fraction import VolumeFraction
from mcrdist.directions import directions
from mcrdist.objective import Held, Objective
from mcrdist.optimize.yeong_torquato import AnnealOptions, AnnealState, anneal
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import configure
from mcrdist.phases import Phases
from mcrdist.synthetic import micrograph

SHAPES = ((1, 64, 64), (32, 32, 32))


def system(shape: tuple[int, int, int], lags: int, seed: int) -> Swaps:
    """White noise that is held to the built-in micrograph."""
    image = (micrograph("gaussian") == 1).astype(np.float64)
    measures = [TwoPointCorrelation(lags), Variation(), VolumeFraction()]
    targets = {measure.name: measure.describe(image, periodic=False)[None] for measure in measures}
    held = {}
    for direction in directions(shape, diagonals=False):
        grid = SliceGrid(direction.slice_shape(shape))
        terms = tuple(measure.term(targets, measure.balance, grid) for measure in measures)
        held[direction] = Held((terms,))
    workers, comm = configure(1), Comm.start("cpu")
    objective = Objective(
        Slab(shape, comm, workers, torch.float32), Phases((1,), workers), held, comm, workers
    )
    rng = np.random.default_rng(seed)
    return Swaps(with_fraction(rng.random(shape), float(image.mean()), rng), slice_energies(objective), rng)


def measure(shape: tuple[int, int, int], lags: int, sweeps: int, seed: int) -> dict[str, object]:
    swaps = system(shape, lags, seed)
    swaps.probe(1), swaps.attempt(1, 0.0)  # compiled, or read from the cache
    times: list[float] = []
    states: list[AnnealState] = []

    def note(state: AnnealState) -> None:
        times.append(time.perf_counter())
        states.append(state)

    attempts = max(math.prod(shape), 20000)
    anneal(swaps, AnnealOptions(sweeps, attempts), note)
    made = sum(state.accepted for state in states[1:]) / len(states[1:])
    return {
        "benchmark": "swaps",
        "shape": list(shape),
        "lags": lags,
        "attempted_per_second": round(attempts * (len(states) - 1) / (times[-1] - times[0])),
        "made": round(made, 4),
        "attempted_per_second_cold": round(attempts / (times[-1] - times[-2])),
        "made_cold": round(states[-1].accepted, 4),
        "loss": [states[0].energy, states[-1].energy],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lags", type=int, default=16)
    parser.add_argument("--sweeps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for shape in SHAPES:
        print(json.dumps(measure(shape, arguments.lags, arguments.sweeps, arguments.seed)), flush=True)


if __name__ == "__main__":
    main()
