"""The synthetic structures against their closed forms, in the ensemble mean."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcrdist.errors import InputError
from mcrdist.synthetic import (
    NAMES,
    STRUCTURES,
    Checkerboard,
    Lamellae,
    OverlappingSpheres,
    Structure,
    ThresholdedGaussian,
    lag_window,
    micrograph,
)

LAGS = 10

#: (structure, shape): even and odd extents, two and three dimensions, every closed form
CASES = {
    "gaussian at the median": (ThresholdedGaussian(6.0, 0.5), (48, 45)),
    "gaussian with a wavelength": (ThresholdedGaussian(8.0, 0.2, waves=0.9), (48, 64)),
    "gaussian elongated": (ThresholdedGaussian((4.0, 11.0), 0.35), (48, 64)),
    "gaussian longer than half the box": (ThresholdedGaussian(20.0, 0.6), (24, 32)),
    "gaussian 3-D": (ThresholdedGaussian((3.0, 5.0, 4.0), 0.4, waves=0.5), (16, 25, 20)),
    "checkerboard": (Checkerboard(4.0), (32, 24)),
    "checkerboard of a fractional square": (Checkerboard(5.0 / 2.0), (20, 30)),
    "checkerboard 3-D": (Checkerboard(3.0), (24, 12, 24)),
    "segments": (OverlappingSpheres(3.0, 0.5), (64,)),
    "discs": (OverlappingSpheres(5.5, 0.4), (48, 37)),
    "spheres": (OverlappingSpheres(4.0, 0.25), (24, 20, 21)),
    "a section through spheres": (OverlappingSpheres(6.0, 0.3, dimension=3), (48, 40)),
    "lamellae": (Lamellae(8.0, 0.5), (32, 16)),
    "lamellae, tilted, thin": (Lamellae(7.0, 0.3, (1.0, 2.0)), (41, 48)),
    "lamellae 3-D": (Lamellae(9.0, 0.7, (1.0, -1.0, 0.5)), (27, 25, 24)),
}


def periodic_s2(labels: np.ndarray) -> np.ndarray:
    """Two-point correlation at every lag of the periodic box, for the tests only."""
    spectrum = np.abs(np.fft.fftn(labels.astype(float))) ** 2
    return np.fft.ifftn(spectrum).real / labels.size


def variation(labels: np.ndarray) -> float:
    field = labels.astype(float)
    return sum(float(np.abs(field - np.roll(field, 1, axis)).mean()) for axis in range(labels.ndim))


def assert_mean(sample: np.ndarray, expected: np.ndarray) -> None:
    """The mean over the first axis lies within five of its own standard errors of the expected value."""
    standard_error = sample.std(axis=0, ddof=1) / np.sqrt(len(sample))
    assert np.all(np.abs(sample.mean(axis=0) - expected) <= 5.0 * standard_error + 1e-12)


def all_lags(shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)


@pytest.mark.parametrize("case", CASES)
def test_the_ensemble_mean_is_the_closed_form(case: str) -> None:
    """Within five standard errors of the mean, at every lag."""
    structure, shape = CASES[case]
    rng = np.random.default_rng(20220613)
    realisations = [structure.draw(shape, rng) for _ in range(150)]
    window = tuple(
        slice(0, LAGS) for _ in shape
    )  # and the negative rows below, by symmetry of an even function
    expected = structure.s2(all_lags(shape), shape)
    negative = (slice(-LAGS, None), *window[1:])
    samples = np.stack([periodic_s2(labels) for labels in realisations])
    for part in (window, negative):
        sample, wanted = samples[(slice(None), *part)], expected[part]
        assert_mean(sample, wanted)
        # The drop from lag 0 fluctuates far less than S2 itself, so its mean is known far better.
        at_zero = samples.reshape(len(samples), -1)[:, 0].reshape(-1, *(1 for _ in shape))
        assert_mean(at_zero - sample, structure.phase_fraction - wanted)
    sample_v = np.array([variation(labels) for labels in realisations])
    assert_mean(sample_v, np.asarray(structure.variation(len(shape), shape)))


def test_the_statistical_test_has_power() -> None:
    """A radius wrong by a tenth is ten standard errors away: the tolerance is no free pass."""
    shape, rng = (96, 96), np.random.default_rng(1)
    samples = [periodic_s2(OverlappingSpheres(5.0, 0.4).draw(shape, rng))[0] for _ in range(400)]
    drops = [row[0] - row[3] for row in samples]
    standard_error = np.std(drops, ddof=1) / np.sqrt(len(drops))
    right, wrong = (0.4 - OverlappingSpheres(radius, 0.4).s2([0.0, 3.0], shape) for radius in (5.0, 5.5))
    assert abs(np.mean(drops) - right) < 5.0 * standard_error
    assert abs(np.mean(drops) - wrong) > 10.0 * standard_error


@pytest.mark.parametrize("case", CASES)
def test_limits_of_the_closed_form(case: str) -> None:
    structure, shape = CASES[case]
    dimension = len(shape)
    zero, phi = np.zeros(dimension), structure.phase_fraction
    for box in (None, shape):
        assert structure.s2(zero, box) == pytest.approx(phi, abs=1e-12)
        values = structure.s2(all_lags(shape), box)
        assert values.shape == shape
        assert np.all(values >= max(0.0, 2.0 * phi - 1.0) - 1e-12)
        assert np.all(values <= phi + 1e-12)
        assert 0.0 < structure.variation(dimension, box) <= 2.0 * dimension * min(phi, 1.0 - phi) + 1e-12
    # The periodic S2 is periodic and even.
    lags = all_lags(shape)
    assert structure.s2(lags + np.array(shape), shape) == pytest.approx(structure.s2(lags, shape), abs=1e-9)
    assert structure.s2(-lags, shape) == pytest.approx(structure.s2(lags, shape), abs=1e-12)


def test_far_apart_is_independent() -> None:
    for structure in (ThresholdedGaussian(4.0, 0.3), OverlappingSpheres(4.0, 0.3)):
        assert structure.s2([100.0, 3.0]) == pytest.approx(0.09, abs=1e-12)


def test_arcsine_law_at_the_median() -> None:
    structure = ThresholdedGaussian(9.0, 0.5, waves=0.8)
    lags = lag_window(16)
    arcsine = 0.25 + np.arcsin(structure.covariance(lags)) / (2.0 * np.pi)
    assert structure.s2(lags) == pytest.approx(arcsine, abs=1e-12)


@pytest.mark.parametrize("rho", [-0.99, -0.5, 0.0, 0.3, 0.95])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8])
def test_owens_t_is_the_bivariate_normal(
    rho: float, fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy.stats import multivariate_normal

    structure = ThresholdedGaussian(9.0, fraction)
    monkeypatch.setattr(ThresholdedGaussian, "covariance", lambda self, lags, shape=None: np.asarray(rho))
    orthant = multivariate_normal(cov=[[1.0, rho], [rho, 1.0]]).cdf([-structure.threshold] * 2)
    assert structure.s2([1.0, 1.0]) == pytest.approx(orthant, abs=1e-6)


def test_perfect_anticorrelation_is_a_limit_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThresholdedGaussian, "covariance", lambda self, lags, shape=None: np.asarray(-1.0))
    assert ThresholdedGaussian(9.0, 0.3).s2([1.0]) == pytest.approx(0.0, abs=1e-12)
    assert ThresholdedGaussian(9.0, 0.8).s2([1.0]) == pytest.approx(0.6, abs=1e-12)


def test_a_plane_through_the_gaussian_volume_has_the_statistics_of_the_micrograph() -> None:
    volume = ThresholdedGaussian(5.0, 0.4, waves=0.7)
    plane = lag_window(6)
    in_volume = np.concatenate([np.zeros((*plane.shape[:-1], 1)), plane], axis=-1)
    assert volume.s2(in_volume) == pytest.approx(volume.s2(plane), abs=1e-14)


@pytest.mark.parametrize("name", ["gaussian", "elongated", "discs", "spheres", "lamellae"])
def test_realisations_are_periodic(name: str) -> None:
    """Across the border as many phase boundaries as anywhere else, in the mean over an ensemble."""
    rng = np.random.default_rng(5)
    for axis in (0, 1):
        jumps = np.zeros((100, 128))
        for k in range(len(jumps)):
            labels = STRUCTURES[name].draw((128, 128), rng).astype(float)
            jumps[k] = np.abs(labels - np.roll(labels, 1, axis)).mean(axis=1 - axis)
        at_border, elsewhere = jumps[:, 0], jumps[:, 1:].mean(axis=1)
        standard_error = np.std(at_border - elsewhere, ddof=1) / np.sqrt(len(jumps))
        assert abs(np.mean(at_border - elsewhere)) <= 5.0 * standard_error + 1e-12


def test_a_checkerboard_is_periodic_when_its_squares_fit() -> None:
    labels = Checkerboard(8.0).draw((32, 48), np.random.default_rng(3))
    assert np.array_equal(np.roll(labels, 8, axis=0), 1 - labels)
    assert np.array_equal(np.roll(labels, 8, axis=1), 1 - labels)


@pytest.mark.parametrize("name", NAMES)
def test_micrographs_are_labels_and_follow_the_seed(name: str) -> None:
    first = micrograph(name, (96, 80), seed=1)
    assert first.dtype == np.uint8
    assert first.shape == (96, 80)
    assert set(np.unique(first)) == {0, 1}
    assert np.array_equal(first, micrograph(name, (96, 80), seed=1))
    assert not np.array_equal(first, micrograph(name, (96, 80), seed=2))


def test_the_demo_micrograph_has_features_that_a_small_volume_can_hold() -> None:
    """Mean chord length of 10 to 16 pixels in both phases: 64 voxels an edge hold several features."""
    for seed in range(3):
        labels = micrograph("gaussian", seed=seed)
        boundaries_a_pixel = variation(labels) / 2.0
        for phase in (0, 1):
            assert 10.0 <= 2.0 * np.mean(labels == phase) / boundaries_a_pixel <= 18.0


@settings(max_examples=40, deadline=None)
@given(
    fraction=st.floats(0.05, 0.95),
    kind=st.sampled_from(["gaussian", "spheres", "lamellae"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_fractions_are_as_asked(fraction: float, kind: str, seed: int) -> None:
    structure: Structure = {
        "gaussian": ThresholdedGaussian(3.0, fraction),
        "spheres": OverlappingSpheres(3.0, fraction),
        "lamellae": Lamellae(8.0, fraction, (0.3, 1.0)),
    }[kind]
    assert structure.phase_fraction == fraction
    shape = (96, 96)
    drawn = structure.draw(shape, np.random.default_rng(seed)).mean()
    # The variance of the mean over the box is the mean of the covariance S2 - phi^2 over all lags.
    variance = max(0.0, float(np.mean(structure.s2(all_lags(shape), shape))) - fraction**2)
    assert abs(drawn - fraction) <= 6.0 * np.sqrt(variance) + 0.02


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: micrograph("foam"), "expected synthetic:NAME"),
        (lambda: micrograph("gaussian", (0, 64)), "positive extents"),
        (lambda: micrograph("discs", (64, 16)), "at most a quarter"),
        (lambda: ThresholdedGaussian(length=-1.0), "length"),
        (lambda: ThresholdedGaussian(waves=float("nan")), "waves"),
        (lambda: ThresholdedGaussian(fraction=1.0), "fraction"),
        (lambda: Checkerboard(0.5), "square"),
        (lambda: OverlappingSpheres(radius=0.0), "radius"),
        (lambda: OverlappingSpheres(dimension=4), "dimension"),
        (lambda: OverlappingSpheres(dimension=2).s2(np.zeros(3)), "dimension"),
        (lambda: Lamellae(period=1.0), "period"),
        (lambda: Lamellae(direction=(0.0, 0.0)), "direction"),
        (lambda: Lamellae(direction=(1.0, 0.0)).s2(np.zeros(3)), "direction"),
        (lambda: Lamellae(period=500.0).draw((16, 16), np.random.default_rng(0)), "do not fit"),
    ],
)
def test_mistakes_are_named(make, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


def test_lag_window_is_the_half_plane_of_the_descriptor() -> None:
    window = lag_window(3)
    assert window.shape == (7, 4, 2)
    assert window[0, 0].tolist() == [-3.0, 0.0]
    assert window[-1, -1].tolist() == [3.0, 3.0]
