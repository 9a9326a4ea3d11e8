"""Every descriptor alike: its value, its adjoint, any layout, one to three phases, one to three ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from matrix import CASES, JOINT, Case, JointCase, corners
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.descriptors.base import SliceGrid
from mcrdist.descriptors.three_point import ThreePointCorrelation, TripleProducts
from mcrdist.directions import ORTHOGONAL
from mcrdist.objective import Held, Objective
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.random import noise
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers, configure
from mcrdist.phases import Phases

Floats = NDArray[np.float64]
Shape = tuple[int, int, int]

# (S, H, W) of a volume (Z, Y, X), for slices normal to z, y and x.
LAYOUTS = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
#: Of volumes: sides that no number of ranks divides, even where descriptors need that, and odd.
EVEN: Shape = (10, 8, 14)
ODD: Shape = (7, 11, 9)
LABELS = {1: (1,), 3: (0, 1, 2)}
SHARE = 0.3


def by_name(case: Case | JointCase) -> str:
    return case.name


def random(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).random(shape)


def three_phases(shape: tuple[int, ...], seed: int = 0) -> list[Floats]:
    """Indicators that sum to one, of grey voxels."""
    shares = np.random.default_rng(seed).dirichlet((1.0, 2.0, 1.5), shape)
    return list(np.moveaxis(shares, -1, 0))


def laid_out(slices: Floats, layout: int) -> Tensor:
    """The same slices (S, H, W) as a view of a volume."""
    order = LAYOUTS[layout]
    volume = np.ascontiguousarray(slices.transpose(np.argsort(order)))
    return torch.from_numpy(volume).permute(order)


def targets_of(case: Case, images: Sequence[Floats], periodic: bool) -> dict[str, Floats]:
    """One target an image."""
    return {
        "volume_fraction": np.array([image.mean() for image in images]),
        case.descriptor.name: np.stack([case.descriptor.describe(image, periodic) for image in images]),
    }


# ------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_value_is_that_of_the_definition(case: Case, periodic: bool) -> None:
    image = random(8, 12)
    found = case.descriptor.describe(image, periodic)
    np.testing.assert_allclose(found, case.define(image, periodic), rtol=1e-12, atol=1e-14)
    # what a micrograph whose sides are not even has beyond them is dropped, or counts as all the rest
    image = random(9, 11)
    found = case.descriptor.describe(image, periodic)
    np.testing.assert_allclose(found, case.define(image, periodic), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("case", JOINT, ids=by_name)
def test_joint_value_is_that_of_the_definition(case: JointCase, periodic: bool) -> None:
    images = three_phases((8, 11))
    found = case.descriptor.describe(images, periodic)
    np.testing.assert_allclose(found, case.define(images, periodic), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layout", [0, 1, 2])
@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_slices_that_are_their_own_target_have_no_error(case: Case, layout: int) -> None:
    slices, others = random(5, 8, 10), random(5, 8, 10, seed=1)
    grid = SliceGrid((8, 10), torch.float64)
    term = case.descriptor.term(targets_of(case, list(slices), True), 1.0, grid)
    assert term.name == case.descriptor.name
    errors = term.accumulate(laid_out(slices, layout), None, SHARE, range(5))
    np.testing.assert_allclose(errors.numpy(), 0.0, atol=1e-12)
    assert (term.accumulate(laid_out(others, layout), None, SHARE, range(5)).abs() > 1e-6).all()
    shifted = term.accumulate(laid_out(slices[1:], layout), None, SHARE, range(4))
    assert (shifted.abs() > 1e-6).all()  # the targets of the slices before


# ----------------------------------------------------------------------------------------------- adjoints


def finite_difference(loss: Callable[[Floats], float], at: Floats, index: int) -> float:
    ends = []
    for sign in (1, -1):
        moved = at.copy()
        moved.flat[index] += sign * 1e-5
        ends.append(loss(moved))
    return (ends[0] - ends[1]) / 2e-5


@pytest.mark.parametrize("layout", [0, 1, 2])
@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_gradient_is_that_of_finite_differences(case: Case, layout: int) -> None:
    slices = random(3, 8, 10)
    grid = SliceGrid((8, 10), torch.float64)
    term = case.descriptor.term(targets_of(case, [random(9, 13, seed=2)], False), 0.7, grid)

    def loss(moved: Floats) -> float:
        errors = term.accumulate(laid_out(moved, layout), None, SHARE, range(3))
        return SHARE * float(term.loss(errors.numpy()).sum())

    before = laid_out(random(3, 8, 10, seed=3), layout)
    gradient = before.clone()
    errors = term.accumulate(laid_out(slices, layout), gradient, SHARE, range(3))
    assert torch.equal(errors, term.accumulate(laid_out(slices, layout), None, SHARE, range(3)))
    own = (gradient - before).numpy()  # added to what was there
    for index in np.random.default_rng(4).permutation(slices.size)[:8]:
        assert own.flat[index] == pytest.approx(finite_difference(loss, slices, index), rel=1e-5, abs=1e-10)


@pytest.mark.parametrize("layout", [0, 1, 2])
@pytest.mark.parametrize("case", JOINT, ids=by_name)
def test_joint_gradients_are_those_of_finite_differences(case: JointCase, layout: int) -> None:
    channels = [random(2, 8, 9, seed=k) for k in range(3)]
    target = case.descriptor.describe(three_phases((11, 12)), False)[None]
    term = case.descriptor.term({case.descriptor.name: target}, 0.7, SliceGrid((8, 9), torch.float64))

    def errors_of(values: Sequence[Floats], gradients: Sequence[Tensor] | None = None) -> Tensor:
        return term.accumulate([laid_out(part, layout) for part in values], gradients, SHARE, range(2))

    gradients = [laid_out(np.zeros((2, 8, 9)), layout) for _ in channels]
    assert torch.equal(errors_of(channels, gradients), errors_of(channels))
    for number in range(3):

        def loss(moved: Floats, number: int = number) -> float:
            values = [moved if k == number else part for k, part in enumerate(channels)]
            return SHARE * float(term.loss(errors_of(values).numpy()).sum())

        for index in np.random.default_rng(4).permutation(channels[0].size)[:6]:
            wanted = finite_difference(loss, channels[number], index)
            assert gradients[number].numpy().flat[index] == pytest.approx(wanted, rel=1e-5, abs=1e-10)


FLIPPED = ("variation, smooth", "variation, smooth@2", "s3", "s3, sparse", "s3@2", "volume_fraction")


@pytest.mark.parametrize("case", [case for case in CASES if case.name in FLIPPED], ids=by_name)
def test_flip_constants_tell_all_but_the_square_of_the_change(case: Case) -> None:
    image = (random(1, 8, 10) < 0.4).astype(float)
    targets = targets_of(case, [random(8, 10, seed=1)], True)
    term = case.descriptor.term(targets, 0.7, SliceGrid((8, 10), torch.float64))
    gradient = torch.zeros(1, 8, 10, dtype=torch.float64)
    error = term.accumulate(torch.from_numpy(image), gradient, SHARE, range(1)).numpy()
    constant = float(term.flip_constant(error, (8, 10), SHARE)[0])
    before = case.descriptor.describe(image[0], True)
    for index in np.random.default_rng(2).permutation(80)[:10]:
        flipped = image.copy()
        flipped.flat[index] = 1.0 - flipped.flat[index]
        after = term.accumulate(torch.from_numpy(flipped), None, SHARE, range(1)).numpy()
        square = np.sum((case.descriptor.describe(flipped[0], True) - before) ** 2) / term.scale**2
        wanted = float(gradient.view(-1)[index]) * (1.0 - 2.0 * image.flat[index]) + constant
        wanted += 0.7 * SHARE * float(square)
        assert SHARE * float((term.loss(after) - term.loss(error)).sum()) == pytest.approx(wanted, abs=1e-12)


# ------------------------------------------------------------------- all together, on ranks and with phases


def objective(shape: Shape, phases: int, comm: Comm, workers: Workers, dtype: torch.dtype) -> Objective:
    """All descriptors at once, with another target in every direction and phase."""
    even = all(n % 2 == 0 for n in shape)
    held = {}
    for direction in ORTHOGONAL:
        grid = SliceGrid(direction.slice_shape(shape), dtype, comm.device)
        images = three_phases((16, 18), direction.axis)[:phases]
        channels = tuple(
            tuple(
                case.descriptor.term(targets_of(case, [image], False), 0.1 + 0.1 * number, grid)
                for number, case in enumerate(CASES)
                if even or not case.even
            )
            for image in images
        )
        joint = tuple(
            case.descriptor.term(
                {case.descriptor.name: case.descriptor.describe(images, False)[None]}, 0.5, grid
            )
            for case in JOINT
            if phases > 1
        )
        held[direction] = Held(channels, joint)
    return Objective(Slab(shape, comm, workers, dtype), Phases(LABELS[phases], workers), held, comm, workers)


@pytest.mark.parametrize("phases", [1, 3])
def test_gradient_of_all_together(phases: int) -> None:
    whole = objective(EVEN, phases, Comm.start("cpu"), Workers(1), torch.float64)
    field = random(*EVEN) if phases == 1 else random(EVEN[0], phases - 1, *EVEN[1:])
    gradient = torch.empty(field.shape, dtype=torch.float64)
    evaluation = whole(torch.from_numpy(field), gradient)
    names = {case.descriptor.name for case in CASES} | {case.name for case in JOINT if phases > 1}
    assert all(set(errors) == names for errors in evaluation.errors.values())
    for index in np.random.default_rng(1).permutation(field.size)[:5]:
        wanted = finite_difference(lambda moved: whole(torch.from_numpy(moved), None).loss, field, index)
        assert float(gradient.view(-1)[index]) == pytest.approx(wanted, rel=1e-5, abs=1e-9)


def evaluate() -> dict[str, Any]:
    """Losses, errors and gradients that must not depend on the number of ranks."""
    found: dict[str, Any] = {}
    workers = configure(1)
    with Comm.start("cpu", 60.0) as comm:
        for shape in (EVEN, ODD):
            for phases in (1, 3):
                whole = objective(shape, phases, comm, workers, torch.float32)
                drawn = [noise(whole.slab, k, 0, "uniform") for k in range(whole.phases.variables)]
                field = whole.slab.seen(whole.phases.stack(drawn))
                gradient = whole.slab.room(field)
                evaluation = whole(field, gradient)
                found[f"loss {shape} {phases}"] = evaluation.loss
                for axis, errors in evaluation.errors.items():
                    for name, values in errors.items():
                        found[f"{name} {axis} {shape} {phases}"] = values.tolist()
                rows = comm.gather_rows(gradient.double().flatten(1).numpy())
                found[f"gradient {shape} {phases}"] = hashlib.sha256(rows.tobytes()).hexdigest()
    workers.close()
    return found


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return evaluate()


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks(ranks: int, alone: dict[str, Any], run_ranks: Callable[..., list[dict[str, Any]]]) -> None:
    for found in run_ranks(evaluate, ranks):
        assert list(found) == list(alone)
        assert not [key for key, value in alone.items() if found[key] != value]


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_a_slice_does_not_depend_on_its_company(case: Case) -> None:
    """To the last bit, at a size whose slices fill several batches."""
    slices = torch.from_numpy(random(7, 46, 42)).float()
    target = targets_of(case, [random(48, 40, seed=1)], True)
    term = case.descriptor.term(target, 1.0, SliceGrid((46, 42)))
    errors, gradient = term.evaluate(slices, SHARE, range(7))
    for start, stop in ((0, 1), (1, 3), (3, 7)):
        some, own = term.evaluate(slices[start:stop].clone(), SHARE, range(start, stop))
        assert torch.equal(some, errors[start:stop]) and torch.equal(own, gradient[start:stop])


# ------------------------------------------------------------------------- what is special about some of them


@pytest.mark.parametrize("lags", [1, 2, 4])
def test_each_triangle_is_there_once(lags: int) -> None:
    """All sets of up to three points of a square, wherever they lie: as the descriptor has them."""
    square = [(y, x) for y in range(lags + 1) for x in range(lags + 1)]
    wanted = set()
    for count in (2, 3):
        for points in combinations(square, count):
            wanted.add(tuple((y - points[0][0], x - points[0][1]) for y, x in points))
    found = [tuple(points) for points in corners(ThreePointCorrelation(lags))]
    assert len(found) == len(set(found))
    assert set(found) == wanted


@pytest.mark.parametrize(("lags", "largest"), [(1, 1), (3, 2), (4, 4), (32, 32)])
def test_sparse_triangles_are_of_all_sizes(lags: int, largest: int) -> None:
    found = [tuple(points) for points in corners(ThreePointCorrelation(lags, sparse=True))]
    sizes = [max(int(np.ptp([p[i] for p in points])) for i in (0, 1)) for points in found]
    assert set(sizes) == {2**k for k in range(6) if 2**k <= largest}
    triangles = [points for points in found if len(points) == 3]
    assert len(triangles) == len(set(triangles))
    assert len(found) < 300


def test_three_points_tell_what_two_cannot() -> None:
    """Triangles that point up and such that point down have the same S2."""
    up = np.zeros((12, 12))
    up[3, 5] = up[4, 4:7] = up[5, 3:8] = 1.0
    down = up[::-1, ::-1]
    two, three = CASES[0].descriptor, ThreePointCorrelation(4)
    np.testing.assert_allclose(two.describe(up, True), two.describe(down, True), atol=1e-15)
    assert np.abs(three.describe(up, True) - three.describe(down, True)).max() > 1.0 / up.size


@pytest.mark.parametrize("sparse", [False, True])
def test_the_other_phase_follows_from_one(sparse: bool) -> None:
    image = (random(12, 12) < 0.3).astype(float)
    sets = ThreePointCorrelation(4, sparse).sets
    for one in sets:
        products = TripleProducts(one, (12, 12), True, torch.device("cpu"))
        found, other = (
            products.sums(torch.from_numpy(phase)[None])[0].numpy() / 144 for phase in (image, 1.0 - image)
        )
        np.testing.assert_allclose(one.complement(found, float(image.mean())), other, atol=1e-14)


def test_large_slices_are_taken_in_blocks() -> None:
    """Rows that do not fit into the cache at once: the same sums and derivatives."""
    slices = torch.from_numpy(random(1, 90, 101))
    (one,) = ThreePointCorrelation(4).sets
    whole = TripleProducts(one, (90, 101), True, slices.device)
    blocks = TripleProducts(one, (90, 101), True, slices.device)
    whole._rows, blocks._rows = 90, 37
    sums = whole.sums(slices)
    np.testing.assert_allclose(blocks.sums(slices).numpy(), sums.numpy(), rtol=1e-12)
    residual = torch.from_numpy(random(*sums.shape, seed=1))
    np.testing.assert_allclose(
        blocks.spread(slices, residual).numpy(), whole.spread(slices, residual).numpy(), rtol=1e-11
    )
