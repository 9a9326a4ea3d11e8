"""Gram matrices on one, two and three ranks, and threads: the same loss and gradient, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from matrix import random_weights
from test_core_ranks import digest

from mcrdist.descriptors.base import SliceGrid
from mcrdist.descriptors.gram import GramMatrices, Vgg19
from mcrdist.descriptors.variation import Variation
from mcrdist.directions import ORTHOGONAL
from mcrdist.objective import Held, Objective
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.random import noise
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import configure
from mcrdist.phases import Phases

Results = dict[str, Any]


def compute(threads: int) -> Results:
    found: Results = {}
    workers = configure(threads)
    vgg = Vgg19(random_weights())
    with Comm.start("cpu", 60.0) as comm:
        # Remainders of one slice on two ranks and on three, and, of every third, ranks that look at none.
        for shape, every in (((17, 16, 19), 1), ((4, 17, 20), 3)):
            held = {}
            for number, direction in enumerate(ORTHOGONAL):
                grid = SliceGrid(direction.slice_shape(shape))
                layers = ["relu1_2", "relu3_1"] if min(grid.shape) >= 16 else ["relu1_1"]
                descriptors = [Variation(), GramMatrices(vgg, layers)]
                image = np.random.default_rng(number).random((24, 24))
                targets = {d.name: d.describe(image, False)[None] for d in descriptors}
                terms = [d.term(targets, 1.0, grid) for d in descriptors]
                terms[1].every = every
                held[direction] = Held((tuple(terms),))
            slab = Slab(shape, comm, workers, torch.float32)
            objective = Objective(slab, Phases((1,), workers), held, comm, workers)
            objective.rotate(1)
            gradient = slab.empty()
            evaluation = objective(noise(slab, 3, 0, "uniform"), gradient)
            found[f"loss {shape}"] = evaluation.loss
            found[f"gradient {shape}"] = digest(comm, gradient)
            for axis, errors in evaluation.errors.items():
                found[f"{axis} {shape}"] = str(errors["gram"].tolist())  # NaN where nobody looked
    workers.close()
    return found


@pytest.fixture(scope="module")
def alone() -> Results:
    return compute(1)


def test_threads(alone: Results) -> None:
    assert compute(2) == alone


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks(ranks: int, alone: Results, run_ranks: Callable[..., list[Results]]) -> None:
    for found in run_ranks(compute, ranks, 1):
        assert found == alone
