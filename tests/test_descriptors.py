"""Descriptors of images against brute force and closed forms; transforms against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from terms import (
    CPU,
    laid_out,
    random,
)
from two_point import two_point_correlation

from mcrdist import synthetic
from mcrdist.descriptors.correlation import LagWindow, two_point
from mcrdist.descriptors.fft import fold, fold_by_torch, irfft2, rfft2, unfold_, unfold_by_torch_
from mcrdist.descriptors.variation import variation


def brute_two_point(image: NDArray[np.float64], lags: int, periodic: bool) -> NDArray[np.float64]:
    height, width = image.shape
    found = np.empty((2 * lags + 1, lags + 1))
    for dy in range(-lags, lags + 1):
        for dx in range(lags + 1):
            products = [
                image[y, x] * image[(y + dy) % height, (x + dx) % width]
                for y in range(height)
                for x in range(width)
                if periodic or (0 <= y + dy < height and x + dx < width)
            ]
            found[dy + lags, dx] = sum(products) / len(products)
    return found


def brute_variation(image: NDArray[np.float64], periodic: bool) -> float:
    height, width = image.shape
    down = [
        abs(image[(y + 1) % height, x] - image[y, x])
        for y in range(height - (not periodic))
        for x in range(width)
    ]
    right = [
        abs(image[y, (x + 1) % width] - image[y, x])
        for y in range(height)
        for x in range(width - (not periodic))
    ]
    return sum(down) / len(down) + sum(right) / len(right)


# ------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("shape", "lags", "periodic"),
    [((8, 8), 4, True), ((8, 8), 7, False), ((7, 9), 3, True), ((9, 7), 3, True), ((7, 9), 5, False)],
)
def test_two_point_is_the_double_loop(shape: tuple[int, int], lags: int, periodic: bool) -> None:
    slices = random(3, *shape)
    found = two_point(slices, lags, periodic)
    assert found.shape == (3, 2 * lags + 1, lags + 1)
    for image, s2 in zip(slices, found, strict=True):
        np.testing.assert_allclose(s2, brute_two_point(image, lags, periodic), atol=1e-13)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", [(8, 8), (7, 9)])
def test_variation_is_the_double_loop(shape: tuple[int, int], periodic: bool) -> None:
    slices = random(3, *shape)
    wanted = [brute_variation(image, periodic) for image in slices]
    np.testing.assert_allclose(variation(slices, periodic), wanted, rtol=1e-13)


def test_rows_and_columns_of_the_window_are_not_exchanged() -> None:
    """Stripes along the rows are the same all the way along the columns' axis."""
    image = np.tile((np.arange(12) % 4 < 2).astype(float)[:, None], (1, 10))
    s2 = two_point(image[None], 4, True)[0]
    np.testing.assert_allclose(s2[4, :], 0.5, atol=1e-14)  # row lag 0, any column lag
    np.testing.assert_allclose(s2[4:, 0], [0.5, 0.25, 0.0, 0.25, 0.5], atol=1e-14)


def test_a_diagonal_keeps_its_handedness() -> None:
    image = np.eye(8)
    s2 = two_point(image[None], 3, True)[0]
    assert s2[3 + 2, 2] == pytest.approx(1 / 8)
    assert s2[3 - 2, 2] == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("name", ["gaussian", "elongated", "checkerboard", "discs", "lamellae"])
def test_closed_forms(name: str) -> None:
    structure = synthetic.STRUCTURES[name]
    rng = np.random.default_rng(7)
    side, lags, count = 64, 12, 150
    images = np.stack([structure.draw((side, side), rng) for _ in range(count)]).astype(np.float64)
    found = two_point(images, lags, True)
    wanted = structure.s2(synthetic.lag_window(lags), (side, side))
    error = found.std(0) / np.sqrt(count)
    assert np.all(np.abs(found.mean(0) - wanted) < 5.0 * error + 1e-6)
    values = variation(images, True)
    wanted_variation = structure.variation(2, (side, side))
    assert abs(values.mean() - wanted_variation) < 5.0 * values.std() / np.sqrt(count) + 1e-6


# ------------------------------------------------------------------------------- the window, in any layout


@pytest.mark.parametrize("layout", [0, 1, 2])
@pytest.mark.parametrize(
    ("shape", "lags"), [((8, 8), 4), ((7, 9), 3), ((9, 8), 4), ((16, 10), 2), ((6, 6), 1)]
)
def test_the_window_is_the_inverse_transform(shape: tuple[int, int], lags: int, layout: int) -> None:
    """L may be half the side, where the lags −L and L are one."""
    slices = random(5, *shape)
    window = LagWindow(shape, lags, torch.float64, CPU)
    found = two_point_correlation(laid_out(slices, layout), window)
    np.testing.assert_allclose(found.numpy(), two_point(slices, lags, True), atol=1e-13)


@pytest.mark.parametrize("layout", [0, 1, 2])
def test_transforms_in_any_layout(layout: int) -> None:
    slices = random(3, 7, 10)
    spectrum = rfft2(laid_out(slices, layout))
    np.testing.assert_allclose(spectrum.numpy(), np.fft.rfft2(slices), atol=1e-12)
    np.testing.assert_allclose(irfft2(spectrum, (7, 10)).numpy(), slices, atol=1e-14)


@pytest.mark.parametrize(("shape", "lags"), [((5, 6), 2), ((6, 5), 2), ((6, 6), 3), ((4, 4), 2)])
def test_autograd_of_two_point_correlation(shape: tuple[int, int], lags: int) -> None:
    window = LagWindow(shape, lags, torch.float64, CPU)
    slices = torch.from_numpy(random(2, *shape)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: two_point_correlation(x, window), (slices,))
    volume = torch.from_numpy(random(*shape, 2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: two_point_correlation(x.permute(2, 0, 1), window), (volume,))


# ------------------------------------------------------------------------------------------------ properties

images = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=4, max_side=12)).map(
    lambda a: a.astype(float)
)
quick = settings(deadline=None, max_examples=60)


@quick
@given(image=images, periodic=st.booleans())
def test_s2_of_two_phases(image: NDArray[np.float64], periodic: bool) -> None:
    lags = min(image.shape) // 2 - (not periodic)
    s2 = two_point(image[None], lags, periodic)[0]
    assert s2[lags, 0] == pytest.approx(image.mean(), abs=1e-12)
    assert s2.min() > -1e-12 and s2.max() < 1.0 + 1e-12
    np.testing.assert_allclose(s2[:, 0], s2[::-1, 0], atol=1e-12)  # S2(-r) = S2(r)
    if periodic:
        assert s2.max() <= image.mean() + 1e-12


@quick
@given(image=images, rows=st.integers(0, 11), columns=st.integers(0, 11))
def test_periodic_statistics_do_not_move_with_the_image(
    image: NDArray[np.float64], rows: int, columns: int
) -> None:
    lags = min(image.shape) // 2
    moved = np.roll(image, (rows, columns), (0, 1))
    stack = np.stack([image, moved])
    s2 = two_point(stack, lags, True)
    np.testing.assert_allclose(s2[0], s2[1], atol=1e-12)
    one, other = variation(stack, True)
    assert one == pytest.approx(other, abs=1e-12)


@quick
@given(image=images, periodic=st.booleans())
def test_variation_is_between_0_and_2(image: NDArray[np.float64], periodic: bool) -> None:
    value = float(variation(image[None], periodic)[0])
    assert 0.0 <= value <= 2.0 + 1e-12
    assert (value == 0.0) == (image.min() == image.max())
    assert value == pytest.approx(float(variation(1.0 - image[None], periodic)[0]))


def test_a_chessboard_of_pixels_varies_most() -> None:
    image = (np.indices((8, 6)).sum(0) % 2).astype(float)
    assert variation(image[None], True)[0] == 2.0
    assert variation(image[None], False)[0] == 2.0


@pytest.mark.parametrize("shape", [(8, 10), (7, 9), (2, 4), (9, 6)])
@pytest.mark.parametrize(
    "order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)]
)  # of memory, as for planes normal to z, y and x
def test_folding_is_what_its_formula_says_in_every_layout_and_on_every_device(
    shape: tuple[int, int], order: tuple[int, int, int]
) -> None:
    slices = torch.rand(5, *shape, dtype=torch.float64)
    inverse = [order.index(dimension) for dimension in range(3)]
    laid_out = slices.permute(order).contiguous().permute(inverse)
    spectrum = rfft2(laid_out)
    height = shape[0]
    power = torch.fft.rfft2(slices).abs().square()
    own = [k for k in range(height) if 2 * k % height == 0]
    mirror = torch.roll(power.flip(1), 1, 1)
    mirror[:, own] = 0.0
    filters = [torch.rand(5, height // 2 + 1, spectrum.shape[2], dtype=torch.float64) for _ in range(2)]
    ahead, back = filters[0] + filters[1], filters[0] - filters[1]
    for fold_, unfold in ((fold, unfold_), (fold_by_torch, unfold_by_torch_)):
        even, odd = fold_(spectrum)
        torch.testing.assert_close(even, (power + mirror)[:, : height // 2 + 1])
        torch.testing.assert_close(odd, (power - mirror)[:, : height // 2 + 1])
        multiplied = unfold(rfft2(laid_out), *filters)
        for k in range(height):
            factor = ahead[:, k] if k <= height // 2 else back[:, height - k]
            torch.testing.assert_close(multiplied[:, k], spectrum[:, k] * factor)
