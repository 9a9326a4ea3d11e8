"""The spectral start: a Gaussian random field whose planes have the micrographs' two-point correlation.

Cut at the volume fraction it is a microstructure of its own (the classical two-cut Gaussian model), without memory
of any grid; as a start of the optimisation it is within some per cent of its target.

Three planes ask for covariances that one field may not be able to have: its spectrum is the one that comes nearest to
all of them (spectrum.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from scipy.special import ndtri, owens_t
from torch import Tensor

from mcrdist.conditioning.kriging import conditioned
from mcrdist.directions import AXES
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.fft3 import SlabFFT
from mcrdist.parallel.random import noise
from mcrdist.parallel.slab import Slab
from mcrdist.spectrum import fit_spectrum

Floats = NDArray[np.float64]

#: The covariance is fitted on a periodic box of at most this many voxels a side and is zero beyond it.
BOX = 64
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


@dataclass(frozen=True)
class Wish:
    """What the planes normal to one axis are wanted to have.

    Attributes
    ----------
    s2 : array (2L+1, L+1)
        Two-point correlation; lags beyond those of the box are not looked at.
    fraction : float
        Mean.
    """

    s2: Floats
    fraction: float


def box_lags(shape: tuple[int, int, int], axis: int) -> int:
    """Lags within the planes normal to `axis` that the fit can use."""
    sides = [min(BOX, n) for i, n in enumerate(shape) if i != axis]
    return max(1, (min(sides) - 1) // 2)


def fit_kernel(wishes: Mapping[str, Wish], shape: tuple[int, int, int], grey: bool) -> Floats:
    """The filter that turns white noise into a field with the wanted covariances, on a box around the origin.

    Parameters
    ----------
    wishes : mapping of "z", "y", "x" to Wish
        Only "z" for a plane.
    shape : tuple of int
        Of the volume.
    grey : bool
        The field itself is wanted to have the covariance, not its cut.

    Returns
    -------
    array (mz, my, mx)
        Real and even, the origin at index 0 of each axis.
    """
    mz, my, mx = (min(BOX, n) for n in shape)
    wanted = {}
    for name, wish in wishes.items():
        axis = AXES.index(name)
        there = wish.s2.shape[1] - 1
        lags = min(box_lags(shape, axis), there)
        s2 = wish.s2[there - lags : there + lags + 1, : lags + 1]
        wanted[axis] = s2 - wish.fraction**2 if grey else correlation_of_cut(s2, wish.fraction)
    return np.asarray(scipy.fft.ifftn(np.sqrt(fit_spectrum(wanted, (mz, my, mx)))).real)


class Transfer:
    """The filter's transfer function on the grid of the whole volume, a range of k_y at a time."""

    def __init__(self, kernel: Floats, shape: tuple[int, int, int]) -> None:
        nz, ny, nx = shape
        mz, my, mx = kernel.shape
        self._z = _waves(np.arange(nz), nz, mz)
        self._y = _waves(np.arange(ny), ny, my)
        along_x = _waves(np.arange(nx // 2 + 1), nx, mx)
        partial = np.tensordot(kernel.astype(np.complex128), along_x, axes=(2, 1))  # (mz, my, kx)
        self._partial = np.ascontiguousarray(partial.transpose(1, 0, 2)).reshape(my, -1)
        self._shape = mz, nx // 2 + 1

    def __call__(self, rows: range) -> Floats:
        """Real array (nz, len(rows), nx//2 + 1); the kernel is even, so nothing is imaginary."""
        result = np.empty((len(self._z), len(rows), self._shape[1]))
        for i, row in enumerate(rows):
            # Row by row, in products of one shape: BLAS rounds according to the shape, and ranks have
            # different numbers of rows.
            plane = (self._y[row : row + 1] @ self._partial).reshape(self._shape)
            result[:, i] = (self._z @ plane).real
        return result


class Covariance:
    """The transform of the covariance of `gaussian_field`, which has variance 1; see `Transfer`."""

    def __init__(self, kernel: Floats, shape: tuple[int, int, int]) -> None:
        self._filter = Transfer(kernel, shape)
        self._variance = float(np.sum(kernel**2))

    def __call__(self, rows: range) -> Floats:
        """Real array (nz, len(rows), nx//2 + 1)."""
        return self._filter(rows) ** 2 / self._variance


def _waves(frequencies: NDArray[np.int64], samples: int, width: int) -> NDArray[np.complex128]:
    """exp(−i k r) for the frequencies of a grid of `samples` and the `width` offsets around the origin."""
    offsets = np.rint(scipy.fft.fftfreq(width, 1.0 / width))
    angles = np.outer(frequencies, offsets) * (-2.0 * np.pi / samples)
    waves = np.exp(1j * angles)
    if width % 2 == 0 and width < samples:
        # The offset of half the box stands for both its ends; this keeps the transfer function real.
        waves[:, width // 2] = waves[:, width // 2].real
    return np.asarray(waves)


def gaussian_field(slab: Slab, kernel: Floats, seed: int, level: int, stream: int = 0) -> Tensor:
    """White noise through the filter: (planes, ny, nx), mean 0 and variance 1 over the volume, in the slab's dtype.

    The same on any number of ranks.
    """
    white = noise(slab, seed, level, stream=stream)
    field = SlabFFT(slab).filter(white, Transfer(kernel, slab.shape), out=white)

    def moments(plane: int) -> tuple[float, float]:
        values = field[plane].double()
        return float(values.sum()), float(values.square().sum())

    rows = np.array(slab.workers.map(moments, range(len(field))), dtype=np.float64).reshape(-1, 2)
    sums = slab.gather_rows(rows).sum(0) / np.prod(slab.shape)
    mean = float(sums[0])
    deviation = float(np.sqrt(max(sums[1] - mean**2, 1e-300)))
    return field.sub_(mean).div_(deviation)


def cut(field: Tensor, fraction: float, comm: Comm, voxels: int) -> float:
    """The level above which the wanted fraction of the voxels lies, found by bisection on exact counts."""
    low, high = -10.0, 10.0
    goal = round(fraction * voxels)
    for _ in range(60):
        middle = 0.5 * (low + high)
        own = sum(int(torch.count_nonzero(plane > middle)) for plane in field)
        above = int(comm.sum_integers(np.array([own]))[0])
        if above == goal:
            return middle
        low, high = (middle, high) if above > goal else (low, middle)
    return 0.5 * (low + high)


def start(
    slab: Slab,
    comm: Comm,
    wishes: Mapping[str, Wish],
    kernel: Floats,
    seed: int,
    level: int,
    *,
    grey: bool = False,
    stream: int = 0,
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """A first field of a level (planes, ny, nx) in [0, 1], in the slab's dtype, or float64 where voxels are known.

    With `grey`, a field that has mean and covariance of averaged micrographs; without, the cut field with a ramp
    of grey at its interfaces. `known` has the voxels whose side of the cut is known, and those above it, both bool
    (planes, ny, nx); the cut field, but not the grey one, follows them.
    """
    exact = slab if known is None else Slab(slab.shape, comm, slab.workers, torch.float64)
    field = gaussian_field(exact, kernel, seed, level, stream)
    fraction = float(np.mean([wish.fraction for wish in wishes.values()]))
    if grey:
        return field.mul_(math.sqrt(variance(wishes))).add_(fraction).clamp_(0.0, 1.0)
    if known is not None:
        threshold = cut(field, fraction, comm, int(np.prod(slab.shape)))
        field = conditioned(field, exact, Covariance(kernel, slab.shape), threshold, *known)
    return softened(field, fraction, slab, comm)


def variance(wishes: Mapping[str, Wish]) -> float:
    """Of the averaged micrographs, mean over the axes."""
    origins = [(wish.s2[wish.s2.shape[1] - 1, 0], wish.fraction) for wish in wishes.values()]
    return float(np.mean([square - mean**2 for square, mean in origins]))


def softened(field: Tensor, fraction: float, slab: Slab, comm: Comm) -> Tensor:
    """Cut a field of unit variance at the volume fraction, with a ramp of grey at its interfaces; in place."""
    threshold = cut(field, fraction, comm, int(np.prod(slab.shape)))
    return field.sub_(threshold).div_(2.0 * SOFTNESS).add_(0.5).clamp_(0.0, 1.0)
