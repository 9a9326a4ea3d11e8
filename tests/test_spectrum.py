"""The spectrum nearest to what three directions want, and what no volume can do better."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcrdist.descriptors.correlation import two_point
from mcrdist.spectrum import Planes, fit_spectrum, nearest

Floats = NDArray[np.float64]


def planes_s2(volume: Floats, lags: int) -> dict[int, Floats]:
    """S2 (n, 2L+1, L+1) of every plane, by axis."""
    return {axis: two_point(np.moveaxis(volume, axis, 0), lags, True) for axis in range(3)}


def wanted_of(images: list[Floats], lags: int) -> dict[int, Floats]:
    return {axis: two_point(image[None], lags, True)[0] for axis, image in enumerate(images)}


def two_phases(seed: int, shape: tuple[int, ...], fraction: float) -> Floats:
    return (np.random.default_rng(seed).random(shape) < fraction).astype(float)


def test_the_gradient_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(0)
    wanted = wanted_of([two_phases(i, (12, 12), 0.4) for i in range(3)], 2)
    planes = Planes(wanted, (6, 7, 8))
    spectrum, step = rng.random((6, 7, 8)), rng.standard_normal((6, 7, 8))
    there, back = (planes.misfit(spectrum + sign * 1e-5 * step)[0] for sign in (1, -1))
    slope = float(np.sum(planes.misfit(spectrum)[1] * step))
    assert (there - back) / 2e-5 == pytest.approx(slope, rel=1e-6)


def test_residuals_are_those_of_the_correlation_in_space() -> None:
    """The spectrum of a volume has the mean over its planes of their S2, by brute force."""
    volume = np.random.default_rng(1).random((6, 7, 8))
    spectrum = np.abs(np.fft.fftn(volume)) ** 2 / volume.size
    wanted = {axis: values.mean(0) for axis, values in planes_s2(volume, 2).items()}
    for residual in Planes(wanted, volume.shape).residuals(spectrum).values():
        np.testing.assert_allclose(residual, 0.0, atol=1e-12)


def test_what_a_volume_has_is_reached() -> None:
    volume = two_phases(2, (15, 15, 15), 0.3)
    wanted = {axis: values.mean(0) for axis, values in planes_s2(volume, 5).items()}
    assert nearest(wanted, side=15).mean < 1e-4


def test_the_spectrum_is_even_and_nowhere_negative() -> None:
    found = fit_spectrum(wanted_of([two_phases(i, (16, 16), 0.5) for i in range(3)], 3), (8, 9, 10))
    assert found.min() >= 0.0
    np.testing.assert_array_equal(found, np.roll(found[::-1, ::-1, ::-1], 1, axis=(0, 1, 2)))


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    fractions=st.tuples(*3 * [st.floats(0.1, 0.9)]),
    own=st.floats(0.05, 0.95),
    grey=st.booleans(),
)
def test_no_volume_is_nearer_than_the_bound(
    seed: int, fractions: tuple[float, ...], own: float, grey: bool
) -> None:
    """E(S2) of Eq. 10 of volumes of any kind, the mean over planes and directions."""
    wanted = wanted_of([two_phases(seed + i, (24, 24), one) for i, one in enumerate(fractions)], 2)
    volume = two_phases(seed, (6, 6, 6), own)
    if grey:
        volume = 0.5 * volume + 0.25
    has = planes_s2(volume, 2)
    errors = [
        np.linalg.norm(has[axis] - wanted[axis], axis=(1, 2)).mean() / np.linalg.norm(wanted[axis])
        for axis in range(3)
    ]
    found = nearest(wanted, side=6, iterations=400)
    assert found.bound <= found.mean
    assert np.mean(errors) >= found.bound * (1 - 1e-2)  # it is found from above


def test_only_the_inner_lags_are_looked_at() -> None:
    image = two_phases(3, (96, 96), 0.4)
    wide, narrow = (nearest(wanted_of([image] * 3, lags), side=33, iterations=20) for lags in (20, 16))
    assert wide.lags == narrow.lags == 16
    assert wide.errors == pytest.approx(narrow.errors)


def test_images_of_different_amounts_contradict_one_another() -> None:
    images = [two_phases(4, (64, 64), fraction) for fraction in (0.2, 0.4, 0.6)]
    assert nearest(wanted_of(images, 3), side=12).bound > 0.1
    assert nearest(wanted_of([images[1]] * 3, 3), side=12).bound < 0.02
