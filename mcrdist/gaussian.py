"""The spectral start: a Gaussian random field whose planes have the micrographs' two-point correlation.

Cut at the volume fraction it is a microstructure of its own (the classical two-cut Gaussian model), without memory
of any grid; as a start of the optimisation it is within some per cent of its target.

Three planes ask for covariances that one field may not be able to have: the spectrum of a random field is not
negative, and the mean over the planes normal to z is its projection along k_z. So the spectrum is fitted: the
non-negative one whose projections come nearest to what the three micrographs ask for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.fft
import scipy.optimize
import torch
from numpy.typing import NDArray
from scipy.special import ndtri, owens_t
from torch import Tensor

from mcrdist.descriptors.correlation import two_point
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.fft3 import SlabFFT
from mcrdist.parallel.random import noise
from mcrdist.parallel.slab import Slab
from mcrdist.targets import AXES

Floats = NDArray[np.float64]

#: The covariance is fitted on a periodic box of at most this many voxels a side and is zero beyond it.
BOX = 64
#: Iterations of the fit; more change the start by less than its own scatter.
FIT_ITERATIONS = 60
#: Grey ramp of the softened start, in standard deviations of the field on either side of the cut: the optimiser
#: needs interfaces that can move.
SOFTNESS = 0.3


def correlation_of_cut(s2: Floats, fraction: float) -> Floats:
    """The Gaussian correlation rho whose cut at this fraction has the two-point correlation `s2`.

    Inverts S2 = φ − 2 T(h, √((1 − ρ)/(1 + ρ))), h = Φ⁻¹(φ), T being Owen's function (bivariate normal orthant).
    What no ρ reaches becomes the nearest that one does.
    """
    rho = np.linspace(-0.9999, 0.9999, 8001)
    values = fraction - 2.0 * owens_t(ndtri(fraction), np.sqrt((1.0 - rho) / (1.0 + rho)))
    return np.asarray(np.interp(s2, values, rho))


def fit_spectrum(wanted: Sequence[Floats], box: tuple[int, int, int]) -> Floats:
    """The non-negative spectrum on a periodic box whose planes come nearest to the wanted covariances.

    Parameters
    ----------
    wanted : three arrays (2L+1, L+1)
        Covariance in the planes normal to z, y and x, each on its own window.
    box : tuple of int
        Periodic box (mz, my, mx).

    Returns
    -------
    array (mz, my, mx)
        Mean square of the Fourier coefficients of a field of the box over its number of voxels; even in k.
    """
    scales = [float(np.linalg.norm(covariance)) for covariance in wanted]
    unit = 1.0 / np.prod(box)

    def misfit(variables: Floats) -> tuple[float, Floats]:
        spectrum = variables.reshape(box)
        total, gradient = 0.0, np.zeros(box)
        for axis, (covariance, scale) in enumerate(zip(wanted, scales, strict=True)):
            lags = covariance.shape[1] - 1
            rows, columns = np.arange(-lags, lags + 1), np.arange(lags + 1)
            projected = spectrum.sum(axis)
            have = scipy.fft.ifft2(projected).real * (projected.size * unit)
            residual = (have[np.ix_(rows, columns)] - covariance) / scale
            total += float(np.sum(residual**2))
            spread = np.zeros(projected.shape)
            spread[np.ix_(rows, columns)] = residual * (2.0 * unit / scale)
            gradient += np.expand_dims(scipy.fft.fft2(spread).real, axis)
        return total, gradient.ravel()

    size = int(np.prod(box))
    result = scipy.optimize.minimize(
        lambda v: tuple(1e4 * part for part in misfit(v)),  # SciPy's tolerances are absolute
        np.ones(size),
        jac=True,
        method="L-BFGS-B",
        bounds=scipy.optimize.Bounds(np.zeros(size), np.full(size, np.inf)),
        options={"maxiter": FIT_ITERATIONS},
    )
    spectrum = result.x.reshape(box)
    mirrored = np.roll(spectrum[::-1, ::-1, ::-1], 1, axis=(0, 1, 2))
    return np.asarray((spectrum + mirrored) / 2.0)


def fit_kernel(
    images: Mapping[str, Floats], shape: tuple[int, int, int], periodic: bool, grey: bool
) -> Floats:
    """The filter that turns white noise into a field with the images' covariance, on a box around the origin.

    Parameters
    ----------
    images : mapping of axis name to array (H, W)
        The micrograph of each direction; values 0 and 1, or grey where it was averaged.
    shape : tuple of int
        Of the volume.
    periodic : bool
        How to estimate S2.
    grey : bool
        The field itself is wanted to have the covariance, not its cut.

    Returns
    -------
    array (mz, my, mx)
        Real and even, the origin at index 0 of each axis.
    """
    box = tuple(min(BOX, n) for n in shape)
    assert len(box) == 3
    wanted = []
    for axis, name in enumerate(AXES):
        image = images[name]
        sides = [n for i, n in enumerate(box) if i != axis]
        lags = max(1, min((min(sides) - 1) // 2, min(image.shape) // 2 - 1))
        s2 = two_point(image[None], lags, periodic)[0]
        fraction = float(image.mean())
        wanted.append(s2 - fraction**2 if grey else correlation_of_cut(s2, fraction))
    return np.asarray(scipy.fft.ifftn(np.sqrt(fit_spectrum(wanted, box))).real)


class Transfer:
    """The filter's transfer function on the grid of the whole volume, a range of k_y at a time."""

    def __init__(self, kernel: Floats, shape: tuple[int, int, int]) -> None:
        self._kernel = kernel.astype(np.complex128)
        nz, ny, nx = shape
        mz, my, mx = kernel.shape
        self._z = _waves(np.arange(nz), nz, mz)
        self._y = _waves(np.arange(ny), ny, my)
        self._x = _waves(np.arange(nx // 2 + 1), nx, mx)

    def __call__(self, rows: range) -> Floats:
        """Real array (nz, len(rows), nx//2 + 1); the kernel is even, so nothing is imaginary."""
        partial = np.tensordot(self._kernel, self._x, axes=(2, 1))  # (mz, my, kx)
        my, (mz, kx) = partial.shape[1], partial.shape[::2]
        partial = np.ascontiguousarray(partial.transpose(1, 0, 2)).reshape(my, mz * kx)
        result = np.empty((len(self._z), len(rows), kx))
        for i, row in enumerate(rows):
            # Row by row, in products of one shape: BLAS rounds according to the shape, and ranks have
            # different numbers of rows.
            plane = (self._y[row : row + 1] @ partial).reshape(mz, kx)
            result[:, i] = (self._z @ plane).real
        return result


def _waves(frequencies: NDArray[np.int64], samples: int, width: int) -> NDArray[np.complex128]:
    """exp(−i k r) for the frequencies of a grid of `samples` and the `width` offsets around the origin."""
    offsets = np.rint(scipy.fft.fftfreq(width, 1.0 / width))
    angles = np.outer(frequencies, offsets) * (-2.0 * np.pi / samples)
    waves = np.exp(1j * angles)
    if width % 2 == 0 and width < samples:
        # The offset of half the box stands for both its ends; this keeps the transfer function real.
        waves[:, width // 2] = waves[:, width // 2].real
    return np.asarray(waves)


def gaussian_field(slab: Slab, comm: Comm, kernel: Floats, seed: int, level: int) -> Tensor:
    """White noise through the filter: float64 (planes, ny, nx), mean 0 and variance 1 over the volume.

    The same on any number of ranks.
    """
    slab = Slab(slab.shape, comm, slab.workers, torch.float64)
    white = noise(slab, seed, level)
    field = SlabFFT(slab).filter(white, Transfer(kernel, slab.shape))
    sums = comm.gather_rows(
        np.stack([field.sum((1, 2)).numpy(), field.square().sum((1, 2)).numpy()], axis=1).astype(np.float64)
    ).sum(0) / np.prod(slab.shape)
    mean = float(sums[0])
    deviation = float(np.sqrt(max(sums[1] - mean**2, 1e-300)))
    return field.sub_(mean).div_(deviation)


def cut(field: Tensor, fraction: float, comm: Comm, voxels: int) -> float:
    """The level above which the wanted fraction of the voxels lies, found by bisection on exact counts."""
    low, high = -10.0, 10.0
    goal = round(fraction * voxels)
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = int(comm.sum_integers(np.array([int((field > middle).sum())]))[0])
        if above == goal:
            return middle
        low, high = (middle, high) if above > goal else (low, middle)
    return 0.5 * (low + high)


def start(
    slab: Slab, comm: Comm, kernel: Floats, images: Mapping[str, Floats], seed: int, level: int, grey: bool
) -> Tensor:
    """A first field of a level, float64 (planes, ny, nx) in [0, 1].

    With `grey`, a field that has mean and covariance of averaged micrographs; without, the cut field with a ramp
    of grey at its interfaces.
    """
    field = gaussian_field(slab, comm, kernel, seed, level)
    fraction = float(np.mean([image.mean() for image in images.values()]))
    if grey:
        deviation = float(np.sqrt(np.mean([image.var() for image in images.values()])))
        return field.mul_(deviation).add_(fraction).clamp_(0.0, 1.0)
    threshold = cut(field, fraction, comm, int(np.prod(slab.shape)))
    return field.sub_(threshold).div_(2.0 * SOFTNESS).add_(0.5).clamp_(0.0, 1.0)


def two_phases(field: Tensor) -> Tensor:
    """Round a field to 0 and 1, keeping its type."""
    return torch.gt(field, 0.5).to(field.dtype)
