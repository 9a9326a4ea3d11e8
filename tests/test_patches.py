"""Patch distributions against loops, closed forms and finite differences; and bits that depend on nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcrdist.config import DescriptorConfig
from mcrdist.config.descriptors import PatchConfig
from mcrdist.descriptors.base import SliceGrid
from mcrdist.descriptors.correlation import two_point
from mcrdist.descriptors.patches import QUANTILES, SETS, PatchDistributions, PatchTerm
from mcrdist.descriptors.projections import PatchKind
from mcrdist.descriptors.quantiles import ascending, cell_means
from mcrdist.errors import InputError
from mcrdist.selection import select
from mcrdist.view import View

KINDS = (PatchKind(2), PatchKind(3), PatchKind(2, 2), PatchKind(3, 3))
Image = NDArray[np.float64]


def random(*shape: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).random(shape)


def two_phases(*shape: int, seed: int = 0) -> Image:
    return (random(*shape, seed=seed) < 0.4).astype(float)


def brute_projections(image: Image, kind: PatchKind, weights: Image, periodic: bool) -> Image:
    """Every patch cut out, averaged cell by cell and projected."""
    height, width = image.shape
    side, cell = kind.side, kind.pooled
    found = []
    for y in range(height if periodic else height - side + 1):
        for x in range(width if periodic else width - side + 1):
            rows, columns = np.arange(y, y + side) % height, np.arange(x, x + side) % width
            patch = image[np.ix_(rows, columns)]
            cells = patch.reshape(kind.size, cell, kind.size, cell).mean((1, 3))
            found.append(float((cells * weights.reshape(cells.shape)).sum()))
    return np.array(found)


def term_of(
    image: Image,
    grid: SliceGrid,
    kinds: tuple[PatchKind, ...] = KINDS,
    periodic: bool = True,
    weight: float = 0.7,
) -> PatchTerm:
    descriptor = PatchDistributions(kinds, filters=2)
    return descriptor.term({"patches": descriptor.describe(image, periodic)[None]}, weight, grid)


def errors_of(term: PatchTerm, slices: Image, dtype: torch.dtype = torch.float64) -> Image:
    return term.accumulate(torch.as_tensor(slices, dtype=dtype), None, 1.0, range(len(slices))).numpy()


# ------------------------------------------------------------------------------------------------ quantiles


@given(n=st.integers(1, 40), cells=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_cell_means_are_means_of_the_step_function(n: int, cells: int) -> None:
    values = random(2, n, seed=n)
    steps = np.repeat(values, cells, axis=1)  # on a grid that both divide
    wanted = steps.reshape(2, cells, n).mean(2)
    np.testing.assert_allclose(cell_means(torch.as_tensor(values), cells).numpy(), wanted, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ascending_sorts_and_keeps_the_order_of_equals(dtype: torch.dtype) -> None:
    values = torch.as_tensor(np.random.default_rng(1).integers(-5, 5, (3, 2, 200)), dtype=dtype) / 3
    values[0, 0, :50] = -0.0
    values[0, 0, 50:100] = 0.0
    wanted = np.argsort(values.numpy(), axis=-1, kind="stable")
    np.testing.assert_array_equal(ascending(values).numpy(), wanted)


# --------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("periodic", [True, False])
def test_the_target_is_the_sorted_projections(kind: PatchKind, periodic: bool) -> None:
    image = random(11, 13)
    found = PatchDistributions([kind], filters=3, redraw=True).describe(image, periodic)
    assert found.shape == (SETS, 3, QUANTILES)
    for number in range(SETS):
        for row, weights in zip(found[number], kind.filters(3, number), strict=True):
            projections = np.sort(brute_projections(image, kind, weights, periodic))
            wanted = cell_means(torch.as_tensor(projections), QUANTILES).numpy()
            np.testing.assert_allclose(row, wanted, atol=1e-12)


def test_filters_are_unit_vectors_and_those_of_sets_differ() -> None:
    kind = PatchKind(3, 2)
    first, second = kind.filters(5, 0), kind.filters(5, 1)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0)
    assert not np.isclose(first, second).any()
    np.testing.assert_array_equal(first, kind.filters(5, 0))


@pytest.mark.parametrize(("round", "redraw"), [(0, True), (1, True), (SETS, True), (1, False)])
def test_the_error_is_the_distance_of_sorted_projections(round: int, redraw: bool) -> None:
    image, slices = random(12, 15, seed=1), random(3, 8, 10, seed=2)
    descriptor = PatchDistributions(KINDS, filters=2, redraw=redraw)
    target = descriptor.describe(image, False)
    term = descriptor.term({"patches": target[None]}, 1.0, SliceGrid((8, 10), torch.float64))
    assert term.redraws == redraw
    term.redraw(round)
    number = round % SETS if redraw else 0
    found = errors_of(term, slices)
    for one, error in zip(slices, found, strict=True):
        squares = []
        for index, kind in enumerate(KINDS):
            for row, weights in enumerate(kind.filters(2, number)):
                projections = np.sort(brute_projections(one, kind, weights, True))
                got = projections.reshape(QUANTILES, -1).mean(1)  # 80 pixels are 5 a quantile
                squares.append(np.mean((got - target[number, 2 * index + row]) ** 2))
        assert error * term.scale == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-10)


def test_a_slice_like_the_micrograph_has_no_error() -> None:
    """Wherever it begins."""
    image = two_phases(16, 16)
    term = term_of(image, SliceGrid((16, 16), torch.float64))
    np.testing.assert_allclose(errors_of(term, np.roll(image, (3, 5), (0, 1))[None]), 0.0, atol=1e-12)
    assert errors_of(term, two_phases(16, 16, seed=1)[None])[0] > 0.01


def test_a_shift_of_the_distribution_costs_what_it_is_long() -> None:
    """Brighter by c everywhere: every projection moves by c times the sum of its filter."""
    image, shift = random(16, 16), 0.3
    term = term_of(image, SliceGrid((16, 16), torch.float64))
    sums = np.concatenate([kind.filters(2, 0).sum(1) for kind in KINDS])
    wanted = shift * np.sqrt(np.mean(sums**2)) / term.scale
    assert errors_of(term, image[None] + shift)[0] == pytest.approx(wanted, rel=1e-10)


def test_s2_cannot_tell_these_apart_but_patches_can() -> None:
    """An image turned by half a turn has the same pairs, not the same corners."""
    image = np.zeros((16, 16))
    image[4:10, 4] = image[9, 4:8] = 1.0  # an L
    turned = image[::-1, ::-1].copy()
    np.testing.assert_allclose(two_point(image[None], 8, True), two_point(turned[None], 8, True), atol=1e-14)
    term = term_of(image, SliceGrid((16, 16), torch.float64), kinds=(PatchKind(2), PatchKind(3)))
    assert errors_of(term, turned[None])[0] > 0.02


@given(down=st.integers(0, 9), right=st.integers(0, 8), seed=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_moving_a_slice_round_changes_nothing(down: int, right: int, seed: int) -> None:
    term = term_of(two_phases(12, 12), SliceGrid((10, 9), torch.float64))
    slices = random(2, 10, 9, seed=seed)
    moved = np.roll(slices, (down, right), (1, 2))
    np.testing.assert_allclose(errors_of(term, moved), errors_of(term, slices), rtol=1e-11)


# ------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("kinds", [(kind,) for kind in KINDS] + [KINDS], ids=str)
def test_gradient_is_that_of_finite_differences(kinds: tuple[PatchKind, ...]) -> None:
    term = term_of(two_phases(20, 17), SliceGrid((9, 10), torch.float64), kinds, periodic=False)
    slices = torch.as_tensor(random(3, 9, 10, seed=4))
    direction = torch.as_tensor(np.random.default_rng(5).normal(size=slices.shape))
    share, step = 0.1, 1e-6
    gradient = torch.ones_like(slices)
    term.accumulate(slices, gradient, share, range(3))

    def loss(x: torch.Tensor) -> float:
        return share * float(term.loss(term.accumulate(x, None, share, range(3)).numpy()).sum())

    wanted = (loss(slices + step * direction) - loss(slices - step * direction)) / (2 * step)
    assert float(((gradient - 1.0) * direction).sum()) == pytest.approx(wanted, rel=1e-6)


# ----------------------------------------------------------------------------- bits that depend on nothing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lanes", [False, True])
def test_a_slice_does_not_depend_on_its_batch(dtype: torch.dtype, lanes: bool) -> None:
    term = term_of(two_phases(20, 20), SliceGrid((9, 11), dtype))
    slices = torch.as_tensor(random(7, 9, 11), dtype=dtype)
    if lanes:  # the slice index fastest in memory, as in planes normal to x
        slices = slices.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    errors, gradient = term.evaluate(slices, 0.3, range(7))
    for start, stop in ((0, 1), (3, 4), (1, 6)):
        some, own = term.evaluate(slices[start:stop], 0.3, range(start, stop))
        assert torch.equal(some, errors[start:stop])
        assert torch.equal(own, gradient[start:stop])


def test_every_slice_may_have_a_target_of_its_own() -> None:
    descriptor = PatchDistributions(KINDS, filters=2)
    grid = SliceGrid((10, 10), torch.float64)
    targets = np.stack([descriptor.describe(two_phases(20, 20, seed=n), True) for n in range(3)])
    term = descriptor.term({"patches": targets}, 1.0, grid)
    slices = random(3, 10, 10)
    alone = [descriptor.term({"patches": targets[n : n + 1]}, 1.0, grid) for n in range(3)]
    wanted = [errors_of(one, slices[n : n + 1])[0] * one.scale for n, one in enumerate(alone)]
    np.testing.assert_allclose(errors_of(term, slices) * term.scale, wanted, rtol=1e-12)


def test_single_precision_is_double_precision_rounded() -> None:
    image, slices = two_phases(32, 32), random(2, 16, 16)
    single = errors_of(term_of(image, SliceGrid((16, 16), torch.float32)), slices, torch.float32)
    double = errors_of(term_of(image, SliceGrid((16, 16), torch.float64)), slices)
    np.testing.assert_allclose(single, double, rtol=1e-5)


# ------------------------------------------------------------------------------------------- configuration


def test_patches_wider_than_the_window_are_left_out_on_coarse_levels_and_refused_on_the_finest() -> None:
    config = DescriptorConfig(patches=PatchConfig(weight=2.0, sizes=(2, 5), filters=4, pooled=(4,)))

    def kinds(lags: int, finest: bool = False) -> tuple[PatchKind, ...]:
        for chosen in select(config, View((64, 48), [np.eye(64)], True, lags, finest)).single:
            if isinstance(chosen.descriptor, PatchDistributions):
                return chosen.descriptor.kinds
        return ()

    assert kinds(16) == kinds(16, finest=True) == (*map(PatchKind, (2, 5)), PatchKind(2, 4), PatchKind(5, 4))
    assert kinds(4) == (PatchKind(2), PatchKind(5), PatchKind(2, 4))
    assert kinds(2) == (PatchKind(2),)
    for lags, said in (
        (
            4,
            r"^descriptors\.patches\.pooled: expected .* 8 voxels a side, .* 64x48 voxels, found 5 averaged .* of 4;",
        ),
        (
            2,
            r"^descriptors\.patches\.sizes: expected .* 4 voxels a side, twice the lags .* found 5; .*target\.lags$",
        ),
    ):
        with pytest.raises(InputError, match=said) as caught:
            kinds(lags, finest=True)
        assert "\n" not in str(caught.value)
    assert "patches" not in {
        chosen.descriptor.name
        for chosen in select(DescriptorConfig(), View((64, 64), [np.eye(64)], True, 16, True)).single
    }


def test_a_reconstruction_reports_their_error(root: Path, tmp_path: Path) -> None:
    settings = (
        "micrograph.path=synthetic:gaussian",
        "volume.size=12",
        "optimizer.iterations=3",
        "optimizer.binarize_iterations=3",
        "optimizer.flip_rounds=8",
        "descriptors.patches.weight=0.1",
        "descriptors.patches.sizes=[2,3]",
        "descriptors.patches.filters=2",
        "descriptors.patches.pooled=[2]",
        "run.report=false",
        f"run.dir={tmp_path / 'run'}",
    )
    command = [sys.executable, "-m", "mcrdist", "reconstruct", *settings]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr
    errors = json.loads((tmp_path / "run" / "summary.json").read_text())["errors"]["rounded"]
    assert all(0.0 < found["patches"] < 1.0 for found in errors.values())
