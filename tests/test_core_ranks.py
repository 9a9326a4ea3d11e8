"""One, two and three ranks, and threads: the same loss, gradient, upsampled field and start, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from objectives import make
from torch import Tensor

from mcrdist import synthetic
from mcrdist.descriptors.correlation import two_point
from mcrdist.gaussian import Wish, box_lags, fit_kernel, gaussian_field, start
from mcrdist.multigrid import perturb, upsample
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.random import noise
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import configure

# Primes, remainders of one slice, fewer planes than ranks.
SHAPES = ((17, 12, 14), (13, 11, 7), (5, 33, 35), (2, 13, 11), (32, 16, 18), (3, 4, 5))
UPSAMPLINGS = (
    ((8, 9, 10), (17, 18, 21)),
    ((2, 5, 4), (5, 9, 8)),
    ((1, 4, 4), (2, 7, 8)),
    ((7, 7, 7), (7, 7, 7)),
)
STARTS = ((17, 12, 14), (2, 16, 9), (8, 8, 8), (20, 9, 9))

VARIANTS: tuple[tuple[tuple[int, int, int], dict[str, Any]], ...] = (
    ((17, 12, 14), {"phases": 3}),
    ((5, 33, 35), {"phases": 3, "every": 3, "smoothing": float("inf")}),
    ((13, 13, 13), {"diagonals": True}),
    ((7, 7, 7), {"diagonals": True, "phases": 4, "every": 2}),
    ((20, 9, 33), {"every": 7}),
)

Results = dict[str, Any]


def digest(comm: Comm, local: Tensor) -> str:
    """A hash of the whole field, the same for any number of ranks that hold it."""
    rows = local.double().flatten(1).numpy()  # exact
    whole = comm.gather_rows(np.ascontiguousarray(rows))
    return hashlib.sha256(whole.tobytes()).hexdigest()


def compute(threads: int, shared: bool = True) -> Results:
    found: Results = {}
    workers = configure(threads)
    with Comm.start("cpu", 60.0, shared_memory=shared) as comm:
        for shape in SHAPES:
            for dtype in (torch.float32, torch.float64):
                for smoothing in (0.5, float("inf")):
                    objective = make(shape, comm, workers, lags=5, smoothing=smoothing, dtype=dtype)
                    field = objective.slab.seen(noise(objective.slab, 3, 0, "uniform"))
                    gradient = objective.slab.room(field)
                    evaluation = objective(field, gradient)
                    key = f"{shape} {dtype} {smoothing}"
                    found[f"loss {key}"] = evaluation.loss
                    found[f"loss without gradient {key}"] = objective(field, None).loss
                    found[f"gradient {key}"] = digest(comm, gradient)
                    for axis, errors in evaluation.errors.items():
                        for name, values in errors.items():
                            found[f"{axis} {name} {key}"] = values.tolist()
                    constants = objective.flip_constants(evaluation)
                    drawn = torch.zeros_like(field)
                    for plane in range(len(field)):
                        drawn[plane] = constants(plane)[0]
                    found[f"constants {key}"] = digest(comm, drawn)
        for shape, options in VARIANTS:
            objective = make(shape, comm, workers, dtype=torch.float32, **options)
            objective.rotate(1)
            drawn = [noise(objective.slab, k, 0, "uniform") for k in range(objective.phases.variables)]
            field = objective.slab.seen(objective.phases.stack(drawn))
            gradient = objective.slab.room(field)
            key = f"{shape} {options}"
            found[f"loss {key}"] = objective(field, gradient).loss
            found[f"gradient {key}"] = digest(comm, gradient)
        for coarse, fine in UPSAMPLINGS:
            small, large = (Slab(shape, comm, workers, torch.float32) for shape in (coarse, fine))
            above = upsample(noise(small, 3, 0, "uniform"), small, large)
            found[f"upsampled {coarse} {fine}"] = digest(comm, above)
            found[f"perturbed {coarse} {fine}"] = digest(comm, perturb(above, large, 3, 1))
        structure = synthetic.ThresholdedGaussian(length=4.0, fraction=0.4)
        image = structure.draw((64, 64), np.random.default_rng(0)).astype(float)
        for shape in STARTS:
            wishes = {
                name: Wish(two_point(image[None], box_lags(shape, axis), True)[0], float(image.mean()))
                for axis, name in enumerate("zyx")
            }
            kernel = fit_kernel(wishes, shape, False)
            slab = Slab(shape, comm, workers, torch.float32)
            found[f"field {shape}"] = digest(comm, gaussian_field(slab, kernel, 3, 0))
            for grey in (False, True):
                begun = start(slab, comm, wishes, kernel, 3, 0, grey=grey)
                found[f"start {shape} {grey}"] = digest(comm, begun.float())
    workers.close()
    return found


@pytest.fixture(scope="module")
def alone() -> Results:
    return compute(1)


def compare(found: Results, wanted: Results) -> None:
    assert list(found) == list(wanted)
    assert not [key for key, value in wanted.items() if found[key] != value]


def test_threads(alone: Results) -> None:
    compare(compute(2), alone)


@pytest.mark.parametrize("shared", [True, False], ids=["shared memory", "sockets"])
@pytest.mark.parametrize(("ranks", "threads"), [(2, 1), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_ranks(
    ranks: int, threads: int, shared: bool, alone: Results, run_ranks: Callable[..., list[Results]]
) -> None:
    for found in run_ranks(compute, ranks, threads, shared):
        compare(found, alone)
