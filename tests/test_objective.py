"""The loss of a volume, alone; on several ranks and threads see test_core_ranks.py."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from objectives import LABELS, WEIGHTS, make, of_labels, values_for

from mcrdist.descriptors.base import SliceGrid
from mcrdist.descriptors.correlation import two_point
from mcrdist.descriptors.variation import VariationTerm, variation
from mcrdist.directions import AXES, DIAGONAL, ORTHOGONAL, directions
from mcrdist.objective import BATCH_VOXELS, LANES, Held, Objective
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.phases import Phases

Shape = tuple[int, int, int]


def alone() -> tuple[Comm, Workers]:
    return Comm.start("cpu"), Workers(1)  # alone: there is nothing to close


def volume(shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.random.default_rng(0).random(shape)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((8, 8, 8), {}),
        ((7, 6, 9), {"smoothing": math.inf}),
        ((5, 17, 8), {"every": 3}),
        ((20, 4, 5), {"every": 7, "smoothing": math.inf}),
        ((7, 6, 9), {"phases": 3}),
        ((5, 17, 8), {"phases": 4, "every": 2}),
        ((6, 6, 6), {"diagonals": True}),
        ((7, 7, 7), {"diagonals": True, "phases": 3, "every": 3}),
        ((1, 17, 8), {}),
        ((1, 9, 12), {"phases": 3}),
    ],
)
def test_gradient_of_the_whole_loss(shape: Shape, options: dict[str, object]) -> None:
    objective = make(shape, *alone(), **options)  # type: ignore[arg-type]
    objective.rotate(2)
    variables = objective.phases.variables
    field = volume(shape if variables == 1 else (shape[0], variables, *shape[1:]))
    gradient = torch.full(field.shape, 7.0, dtype=torch.float64)  # overwritten
    loss = objective(torch.from_numpy(field), gradient).loss
    assert loss == objective(torch.from_numpy(field), None).loss
    assert objective.evaluations == 2
    step = 1e-5
    for index in np.random.default_rng(1).permutation(field.size)[:25]:
        ends = []
        for sign in (1, -1):
            moved = field.copy()
            moved.flat[index] += sign * step
            ends.append(objective(torch.from_numpy(moved), None).loss)
        wanted = (ends[0] - ends[1]) / (2 * step)
        assert float(gradient.view(-1)[index]) == pytest.approx(wanted, rel=1e-5, abs=1e-9)


def test_voxels_that_are_given_have_no_gradient() -> None:
    fixed = torch.from_numpy(volume((7, 6, 9)) < 0.3)
    for phases in (1, 3):
        objective = make((7, 6, 9), *alone(), phases=phases, fixed=fixed)
        free = make((7, 6, 9), *alone(), phases=phases)
        field = torch.from_numpy(volume((7, 6, 9) if phases == 1 else (7, 2, 6, 9)))
        gradient, wanted = torch.empty_like(field), torch.empty_like(field)
        assert objective(field, gradient).loss == free(field, wanted).loss
        mask = fixed if phases == 1 else fixed[:, None].expand_as(field)
        assert not gradient[mask].any() and torch.equal(gradient[~mask], wanted[~mask])


def test_a_costly_descriptor_looks_at_every_slice_in_turn() -> None:
    shape, every = (9, 10, 11), 4
    objective = make(shape, *alone(), every=every)
    full = make(shape, *alone())
    field = torch.from_numpy(volume(shape))
    wanted = full(field, None).errors
    seen = {name: np.zeros(n, dtype=int) for name, n in zip(AXES, shape, strict=True)}
    for turn in range(2 * every):
        objective.rotate(turn)
        errors = objective(field, None).errors
        for name in AXES:
            looked = ~np.isnan(errors[name]["s2"][:, 0])
            assert np.allclose(errors[name]["s2"][looked], wanted[name]["s2"][looked], rtol=1e-12)
            assert not np.isnan(errors[name]["variation"]).any()
            seen[name] += looked
    assert all((counts == 2).all() for counts in seen.values())


@pytest.mark.parametrize("direction", DIAGONAL, ids=lambda d: d.name)
def test_diagonal_slices_are_lattice_planes(direction: object) -> None:
    n = 6
    field = torch.from_numpy(volume((n, n, n)))
    sheared = direction.sheared(field, 0)  # type: ignore[attr-defined]
    assert torch.equal(direction.unsheared(sheared, 0), field)  # type: ignore[attr-defined]
    z, y, x = np.indices((n, n, n))
    first, sign, second = direction.name  # type: ignore[attr-defined]
    coordinate = {"z": z, "y": y, "x": x}
    number = (coordinate[first] + (1 if sign == "+" else -1) * coordinate[second]) % n
    for s in range(n):
        plane = sheared.movedim(direction.axis, 0)[s]  # type: ignore[attr-defined]
        assert sorted(plane.flatten().tolist()) == sorted(field.numpy()[number == s].tolist())
    # the planes of a rank know where they are
    assert torch.equal(direction.sheared(field[2:4], 2), sheared[2:4])  # type: ignore[attr-defined]


def test_one_plane_has_one_direction() -> None:
    assert directions((1, 20, 30), False) == ORTHOGONAL[:1]


@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 6, 9), (4, 33, 18)])
def test_value_is_that_of_the_definition(shape: Shape) -> None:
    """Eqs. 3, 9 and 10 written down once more, slice by slice, in NumPy."""
    objective = make(shape, *alone(), smoothing=0.0)
    field = volume(shape)
    targets = values_for(shape, ORTHOGONAL)
    evaluation = objective(torch.from_numpy(field), None)
    relative = objective.relative(evaluation)
    loss = 0.0
    for axis, name in enumerate(AXES):
        s2, wanted, fraction = (targets[name][0][key][0] for key in ("s2", "variation", "volume_fraction"))
        slices = np.moveaxis(field, axis, 0)
        rarer = min(np.linalg.norm(s2), np.linalg.norm(s2 - 2 * fraction + 1))
        lags = s2.shape[1] - 1
        off = {"s2": [], "variation": [], "volume_fraction": []}  # type: dict[str, list[float]]
        for image in slices:
            off["s2"].append(np.linalg.norm(two_point(image[None], lags, True)[0] - s2))
            off["variation"].append(abs(variation(image[None], True)[0] - wanted))
            off["volume_fraction"].append(abs(image.mean() - fraction))
            loss += WEIGHTS["s2"] * (off["s2"][-1] / rarer) ** 2
            loss += WEIGHTS["variation"] * (off["variation"][-1] / wanted) ** 2
            least = min(fraction, 1 - fraction)
            loss += WEIGHTS["volume_fraction"] * (off["volume_fraction"][-1] / least) ** 2
            mixed = fraction * (1 - fraction)
            loss += WEIGHTS["greyness"] * (image * (1 - image)).mean() / mixed
        sizes = {
            "s2": np.linalg.norm(s2),
            "variation": wanted,
            "volume_fraction": fraction,
        }
        for descriptor, values in off.items():
            assert relative[name][descriptor] == pytest.approx(np.mean(values) / sizes[descriptor], rel=1e-10)
            assert evaluation.errors[name][descriptor].shape == (shape[axis], 1)
    assert evaluation.loss == pytest.approx(loss / sum(shape), rel=1e-10)


@pytest.mark.parametrize("shape", [(7, 6, 9), (5, 17, 8)])
def test_flip_constants_are_added_to_the_gradient(shape: Shape) -> None:
    """What flips of single voxels do to the loss of V alone: all but the square of their own change."""
    comm, workers = alone()
    slab = Slab(shape, comm, workers, torch.float64)
    held = {
        d: Held(
            (
                (
                    VariationTerm(
                        np.array([0.5 + 0.1 * d.axis]), 0.7, math.inf, SliceGrid(d.slice_shape(shape))
                    ),
                ),
            )
        )
        for d in ORTHOGONAL
    }
    objective = Objective(slab, Phases((1,), workers), held, comm, workers)
    field = (volume(shape) < 0.4).astype(float)
    gradient = torch.zeros(shape, dtype=torch.float64)
    evaluation = objective(torch.from_numpy(field), gradient)
    planes = objective.flip_constants(evaluation)
    constants = torch.stack([planes(z)[0] for z in range(shape[0])])
    assert constants.shape == shape
    for index in np.ndindex(*shape):
        flipped = field.copy()
        flipped[index] = 1.0 - flipped[index]
        after = objective(torch.from_numpy(flipped), None)
        change = float(gradient[index]) * (1.0 - 2.0 * field[index])
        change += float(constants[index])
        squares = sum(
            0.7
            * float(after.errors[name]["variation"][i, 0] - evaluation.errors[name]["variation"][i, 0]) ** 2
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
        workers = Workers(threads)
        objective = make(shape, Comm.start("cpu"), workers)
        gradient = torch.empty(shape, dtype=torch.float64)
        evaluation = objective(field, gradient)
        found.append((evaluation.loss, gradient))
        workers.close()
    for loss, gradient in found[1:]:
        assert loss == found[0][0]
        assert torch.equal(gradient, found[0][1])


@pytest.mark.parametrize("count", [3, 4])
def test_channels_sum_to_one_and_come_back(count: int) -> None:
    phases = Phases(LABELS[count], Workers(1))
    field = torch.from_numpy(volume((5, count - 1, 6, 7)))
    channels = phases.channels(field)
    assert torch.allclose(torch.stack(channels).sum(0), torch.ones(5, 6, 7, dtype=torch.float64))
    assert torch.allclose(phases.from_channels(channels), field)
    labels = phases.label(phases.rounded(field))
    assert set(labels.unique().tolist()) <= set(LABELS[count])
    back = of_labels(phases, labels, torch.float64)
    assert torch.equal(phases.label(back), labels)
    for label, channel in zip(LABELS[count], phases.channels(back), strict=True):
        assert torch.equal(channel, (labels == label).double())


@pytest.mark.parametrize("count", [3, 4])
def test_a_flip_of_a_variable_exchanges_two_phases(count: int) -> None:
    phases = Phases(LABELS[count], Workers(1))
    field = torch.from_numpy((volume((4, count - 1, 5, 6)) < 0.4).astype(float))
    costs = [torch.from_numpy(volume((4, 5, 6)) + k) for k in range(count)]
    exchanged = [phases.exchanged(plane, [cost[z] for cost in costs]) for z, plane in enumerate(field)]
    before = phases.label(field)
    index = {label: k for k, label in enumerate(LABELS[count])}
    for place in np.ndindex(*field.shape):
        flipped = field.clone()
        flipped[place] = 1.0 - flipped[place]
        voxel = (place[0], *place[2:])
        old, new = int(before[voxel]), int(phases.label(flipped)[voxel])
        wanted = 0.0 if old == new else float(costs[index[old]][voxel] + costs[index[new]][voxel])
        assert float(exchanged[place[0]][place[1:]]) == pytest.approx(wanted)
