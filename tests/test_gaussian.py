"""The spectral start, alone; on several ranks see test_core_ranks.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import owens_t

from mcrdist import synthetic
from mcrdist.descriptors.correlation import two_point
from mcrdist.gaussian import Transfer, Wish, box_lags, correlation_of_cut, fit_kernel, gaussian_field, start
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab, partition
from mcrdist.parallel.threads import Workers

Images = dict[str, NDArray[np.float64]]


def draw(length: float | tuple[float, ...], side: int = 160, seed: int = 0) -> NDArray[np.float64]:
    structure = synthetic.ThresholdedGaussian(length=length, fraction=0.4)
    return structure.draw((side, side), np.random.default_rng(seed)).astype(float)


def two_phases(field: torch.Tensor) -> torch.Tensor:
    return torch.gt(field, 0.5).to(field.dtype)


def wish(image: NDArray[np.float64], lags: int) -> Wish:
    return Wish(two_point(image[None], min(lags, min(image.shape) // 2 - 1), True)[0], float(image.mean()))


def wishes(images: Images, shape: tuple[int, int, int]) -> dict[str, Wish]:
    return {name: wish(image, box_lags(shape, "zyx".index(name))) for name, image in images.items()}


def begin(images: Images, shape: tuple[int, int, int], seed: int = 0, grey: bool = False) -> torch.Tensor:
    wanted = wishes(images, shape)
    kernel = fit_kernel(wanted, shape, grey)
    with Comm.start("cpu") as comm:
        slab = Slab(shape, comm, Workers(1), torch.float32)
        return start(slab, comm, wanted, kernel, seed, 0, grey=grey)


# --------------------------------------------------------------------------------------------- the inversion


@pytest.mark.parametrize("fraction", [0.5, 0.45, 0.1, 0.9])
def test_correlation_of_cut_inverts_the_closed_form(fraction: float) -> None:
    structure = synthetic.ThresholdedGaussian(length=10.0, fraction=fraction, waves=0.8)
    lags = np.stack(np.meshgrid(np.arange(0, 30), np.arange(0, 30)), axis=-1)
    found = correlation_of_cut(structure.s2(lags), fraction)
    np.testing.assert_allclose(found, structure.covariance(lags), atol=1e-3)


def test_correlation_of_cut_is_the_arcsine_law_at_one_half() -> None:
    rho = np.linspace(-0.95, 0.95, 39)
    np.testing.assert_allclose(correlation_of_cut(0.25 + np.arcsin(rho) / (2 * np.pi), 0.5), rho, atol=1e-3)


def test_correlation_of_cut_takes_the_nearest_there_is() -> None:
    fraction = 0.3
    least = fraction - 2.0 * owens_t(0.5244, 1e4)  # phases as opposed as they can be
    found = correlation_of_cut(np.array([least - 0.1, fraction + 0.1]), fraction)
    np.testing.assert_allclose(found, [-1.0, 1.0], atol=1e-3)


# ------------------------------------------------------------------------------------------------ the kernel


@pytest.mark.parametrize("shape", [(16, 18, 20), (15, 17, 13)])
def test_kernel_is_real_even_and_of_the_box(shape: tuple[int, int, int]) -> None:
    images = {"z": draw((3.0, 6.0)), "y": draw((3.0, 6.0)), "x": draw(3.0)}
    kernel = fit_kernel(wishes(images, shape), shape, False)
    assert kernel.shape == shape
    assert kernel.dtype == np.float64
    mirrored = np.roll(kernel[::-1, ::-1, ::-1], 1, (0, 1, 2))
    np.testing.assert_allclose(kernel, mirrored, atol=1e-12 * np.abs(kernel).max())


@pytest.mark.parametrize("shape", [(8, 9, 10), (16, 13, 9)])
def test_transfer_function_is_the_transform_of_the_kernel(shape: tuple[int, int, int]) -> None:
    """On the box itself, and on a larger grid with the kernel laid around the origin."""
    box = (8, 9, 6)
    kernel = np.random.default_rng(0).random(box)
    kernel = kernel + np.roll(kernel[::-1, ::-1, ::-1], 1, (0, 1, 2))
    laid = np.zeros(shape)
    for index in np.ndindex(*box):
        ends = []
        for i, m, n in zip(index, box, shape, strict=True):
            offset = i - m if i > m // 2 or (i == m // 2 and m % 2 == 0) else i
            # Half the box to either side stands for both, with half the weight each.
            both = m % 2 == 0 and i == m // 2 and m < n
            ends.append([(offset % n, 0.5), (-offset % n, 0.5)] if both else [(offset % n, 1.0)])
        for z, wz in ends[0]:
            for y, wy in ends[1]:
                for x, wx in ends[2]:
                    laid[z, y, x] += wz * wy * wx * kernel[index]
    wanted = np.fft.rfftn(laid)
    transfer = Transfer(kernel, shape)
    np.testing.assert_allclose(transfer(range(shape[1])), wanted.real, atol=1e-10)


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 10, 12), (20, 9, 9), (32, 32, 32)])
def test_transfer_function_does_not_depend_on_who_holds_which_rows(shape: tuple[int, int, int]) -> None:
    """BLAS rounds according to the shape of a product, and ranks have different numbers of rows."""
    transfer = Transfer(np.random.default_rng(0).random(shape), shape)
    whole = transfer(range(shape[1]))
    for ranks in (2, 3, 5):
        for begin, end in partition(shape[1], ranks):
            np.testing.assert_array_equal(transfer(range(begin, end)), whole[:, begin:end])


# ------------------------------------------------------------------------------------------------ the start


def test_the_field_is_standard() -> None:
    shape = (17, 16, 15)
    kernel = fit_kernel(wishes(dict.fromkeys("zyx", draw(4.0)), shape), shape, False)
    with Comm.start("cpu") as comm:
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
            field = gaussian_field(Slab(shape, comm, Workers(1), dtype), kernel, 0, 0)
            assert field.shape == shape and field.dtype == dtype
            assert float(field.double().mean()) == pytest.approx(0.0, abs=tolerance)
            assert float(field.double().square().mean()) == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize("shape", [(16, 16, 16), (19, 13, 17)])
def test_start_has_the_fraction_exactly(shape: tuple[int, int, int]) -> None:
    images = {"z": draw(4.0), "y": draw(4.0, seed=1), "x": draw(4.0, seed=2)}
    fraction = np.mean([image.mean() for image in images.values()])
    field = begin(images, shape)
    assert int(two_phases(field).sum()) == round(fraction * np.prod(shape))
    assert float(field.min()) >= 0.0 and float(field.max()) <= 1.0


def test_start_has_the_micrographs_two_point_correlation() -> None:
    """The mean over planes and seeds, within the scatter that as many independent planes would have."""
    structure, lags = synthetic.ThresholdedGaussian(length=5.0, fraction=0.4), 10
    images = dict.fromkeys("zyx", draw(5.0, side=512))
    wanted = structure.s2(synthetic.lag_window(lags))
    asked = wishes(images, (32, 32, 32))
    kernel = fit_kernel(asked, (32, 32, 32), False)
    found = []
    for seed in range(6):
        with Comm.start("cpu") as comm:
            field = start(Slab((32, 32, 32), comm, Workers(1)), comm, asked, kernel, seed, 0)
        volume = two_phases(field).numpy()
        found += [two_point(np.moveaxis(volume, axis, 0), lags, True).mean(0) for axis in range(3)]
    off = np.mean(found, 0) - wanted
    assert np.linalg.norm(off) < 0.03 * np.linalg.norm(wanted)


def test_grey_start_has_the_mean_and_stays_inside() -> None:
    image = draw(8.0).reshape(40, 4, 40, 4).mean((1, 3))
    field = begin(dict.fromkeys("zyx", image), (20, 20, 20), grey=True)
    assert float(field.min()) >= 0.0 and float(field.max()) <= 1.0
    assert float(field.mean()) == pytest.approx(image.mean(), abs=0.05)
    assert float(((field > 0.05) & (field < 0.95)).double().mean()) > 0.2


LONG, SHORT = 15.0, 4.0


@pytest.mark.parametrize("long", [0, 1, 2], ids=["along z", "along y", "along x"])
def test_elongated_micrographs_make_an_elongated_field(long: int) -> None:
    lengths = [LONG if axis == long else SHORT for axis in range(3)]
    images = {
        name: draw(tuple(length for i, length in enumerate(lengths) if i != axis), side=256)
        for axis, name in enumerate("zyx")
    }
    volume = two_phases(begin(images, (32, 30, 34))).numpy()
    steps = [float(np.abs(volume - np.roll(volume, 1, axis)).mean()) for axis in range(3)]
    short = [step for axis, step in enumerate(steps) if axis != long]
    assert steps[long] < 0.75 * min(short), steps
    assert max(short) < 1.4 * min(short), steps


def test_seeds_and_levels_differ() -> None:
    images = dict.fromkeys("zyx", draw(4.0))
    first = begin(images, (12, 12, 12), seed=0)
    assert torch.equal(first, begin(images, (12, 12, 12), seed=0))
    assert not torch.equal(first, begin(images, (12, 12, 12), seed=1))


def test_a_plane_needs_no_other_directions() -> None:
    """2-D: one plane with the micrograph's two-point correlation, within its own scatter."""
    image = draw(6.0, side=256)
    found = begin({"z": image}, (1, 96, 128))
    assert found.shape == (1, 96, 128)
    s2 = two_point(two_phases(found).double().numpy(), 8, True)[0]
    assert np.linalg.norm(s2 - two_point(image[None], 8, True)[0]) < 0.1 * np.linalg.norm(s2)
