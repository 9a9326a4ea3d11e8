"""The loss of a volume, alone; on several ranks and threads see test_core_ranks.py."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mcrdist.descriptors.base import Term
from mcrdist.descriptors.correlation import LagWindow, TwoPointCorrelation, two_point
from mcrdist.descriptors.variation import Variation, variation
from mcrdist.descriptors.volume_fraction import Greyness, VolumeFraction
from mcrdist.objective import BATCH_VOXELS, LANES, Objective
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.targets import AXES, Target, describe

Shape = tuple[int, int, int]
WEIGHTS = {"s2": 0.7, "variation": 0.3, "volume_fraction": 0.5, "greyness": 0.2}


def targets_for(shape: Shape, lags: int) -> dict[str, Target]:
    """Another target in every direction, or exchanged directions would not be found out."""
    rng = np.random.default_rng(5)
    found = {}
    for axis, name in enumerate(AXES):
        sides = [n for i, n in enumerate(shape) if i != axis]
        image = (rng.random((40, 40)) < 0.2 + 0.1 * axis).astype(float)
        found[name] = describe(image, min(lags, min(sides) // 2), False)
    return found


def terms_for(
    shape: Shape, targets: dict[str, Target], smoothing: float, dtype: torch.dtype
) -> dict[str, list[Term]]:
    terms: dict[str, list[Term]] = {}
    for axis, name in enumerate(AXES):
        target = targets[name]
        height, width = (n for i, n in enumerate(shape) if i != axis)
        window = LagWindow((height, width), target.lags, dtype, torch.device("cpu"))
        terms[name] = [
            TwoPointCorrelation(target.s2, target.fraction, WEIGHTS["s2"], window),
            Variation(target.variation, WEIGHTS["variation"], smoothing),
            VolumeFraction(target.fraction, WEIGHTS["volume_fraction"]),
            Greyness(target.fraction, WEIGHTS["greyness"]),
        ]
    return terms


def make(shape: Shape, lags: int = 4, smoothing: float = 0.5, threads: int = 1) -> tuple[Objective, Workers]:
    workers = Workers(threads)
    comm = Comm.start("cpu")  # alone: there is nothing to close
    slab = Slab(shape, comm, workers, torch.float64)
    terms = terms_for(shape, targets_for(shape, lags), smoothing, torch.float64)
    return Objective(slab, terms, comm, workers), workers


def volume(shape: Shape) -> NDArray[np.float64]:
    return np.random.default_rng(0).random(shape)


@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 6, 9), (5, 17, 8), (20, 4, 5)])
@pytest.mark.parametrize("smoothing", [0.5, math.inf])
def test_gradient_of_the_whole_loss(shape: Shape, smoothing: float) -> None:
    objective, _ = make(shape, smoothing=smoothing)
    field = volume(shape)
    gradient = torch.full(shape, 7.0, dtype=torch.float64)  # overwritten
    loss = objective(torch.from_numpy(field), gradient).loss
    assert loss == objective(torch.from_numpy(field), None).loss
    assert objective.evaluations == 2
    step = 1e-5
    for index in np.random.default_rng(1).permutation(field.size)[:30]:
        ends = []
        for sign in (1, -1):
            moved = field.copy()
            moved.flat[index] += sign * step
            ends.append(objective(torch.from_numpy(moved), None).loss)
        wanted = (ends[0] - ends[1]) / (2 * step)
        assert float(gradient.view(-1)[index]) == pytest.approx(wanted, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 6, 9), (4, 33, 18)])
def test_value_is_that_of_the_definition(shape: Shape) -> None:
    """Eqs. 3, 9 and 10 written down once more, slice by slice, in NumPy."""
    objective, _ = make(shape, smoothing=0.0)
    field = volume(shape)
    targets = targets_for(shape, 4)
    evaluation = objective(torch.from_numpy(field), None)
    relative = objective.relative(evaluation)
    loss = 0.0
    for axis, name in enumerate(AXES):
        target = targets[name]
        slices = np.moveaxis(field, axis, 0)
        rarer = min(np.linalg.norm(target.s2), np.linalg.norm(target.s2 - 2 * target.fraction + 1))
        off = {"s2": [], "variation": [], "volume_fraction": []}  # type: dict[str, list[float]]
        for image in slices:
            off["s2"].append(np.linalg.norm(two_point(image[None], target.lags, True)[0] - target.s2))
            off["variation"].append(abs(variation(image[None], True)[0] - target.variation))
            off["volume_fraction"].append(abs(image.mean() - target.fraction))
            loss += WEIGHTS["s2"] * (off["s2"][-1] / rarer) ** 2
            loss += WEIGHTS["variation"] * (off["variation"][-1] / target.variation) ** 2
            least = min(target.fraction, 1 - target.fraction)
            loss += WEIGHTS["volume_fraction"] * (off["volume_fraction"][-1] / least) ** 2
            mixed = target.fraction * (1 - target.fraction)
            loss += WEIGHTS["greyness"] * (image * (1 - image)).mean() / mixed
        sizes = {
            "s2": np.linalg.norm(target.s2),
            "variation": target.variation,
            "volume_fraction": target.fraction,
        }
        for descriptor, values in off.items():
            assert relative[name][descriptor] == pytest.approx(np.mean(values) / sizes[descriptor], rel=1e-10)
            assert evaluation.errors[name][descriptor].shape == (shape[axis],)
    assert evaluation.loss == pytest.approx(loss / sum(shape), rel=1e-10)


@pytest.mark.parametrize("shape", [(7, 6, 9), (5, 17, 8)])
def test_flip_constants_are_added_to_the_gradient(shape: Shape) -> None:
    """What flips of single voxels do to the loss of V alone: all but the square of their own change."""
    workers = Workers(1)
    comm = Comm.start("cpu")
    slab = Slab(shape, comm, workers, torch.float64)
    terms = {name: [Variation(0.5 + 0.1 * axis, 0.7, math.inf)] for axis, name in enumerate(AXES)}
    objective = Objective(slab, terms, comm, workers)
    field = (volume(shape) < 0.4).astype(float)
    gradient = torch.zeros(shape, dtype=torch.float64)
    evaluation = objective(torch.from_numpy(field), gradient)
    constants = objective.flip_constants(evaluation)
    assert [c.shape for c in constants] == [(n,) for n in shape]
    for index in np.ndindex(*shape):
        flipped = field.copy()
        flipped[index] = 1.0 - flipped[index]
        after = objective(torch.from_numpy(flipped), None)
        change = float(gradient[index]) * (1.0 - 2.0 * field[index])
        change += sum(float(c[i]) for c, i in zip(constants, index, strict=True))
        squares = sum(
            0.7 * float(after.errors[name]["variation"][i] - evaluation.errors[name]["variation"][i]) ** 2
            for name, i in zip(AXES, index, strict=True)
        )
        assert after.loss - evaluation.loss == pytest.approx(change + objective.share * squares, abs=1e-12)


@pytest.mark.parametrize("shape", [(7, 6, 9), (5, 40, 33)])
def test_threads_change_nothing(shape: Shape) -> None:
    assert max(shape) > LANES or shape == (7, 6, 9)
    assert math.prod(shape) < BATCH_VOXELS
    field = torch.from_numpy(volume(shape))
    found = []
    for threads in (1, 2, 3):
        objective, workers = make(shape, threads=threads)
        gradient = torch.empty(shape, dtype=torch.float64)
        evaluation = objective(field, gradient)
        found.append((evaluation.loss, gradient))
        workers.close()
    for loss, gradient in found[1:]:
        assert loss == found[0][0]
        assert torch.equal(gradient, found[0][1])
