"""The two-point correlation in space, S2(r) on all lags |z|, |y|, |x| up to L, which adds up over blocks of planes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from mcrdist.analysis.volume.kernels import cross_spectra

#: Bytes of the spectra of a block, and its planes.
_SPECTRA, _FEWEST, _MOST = 2**27, 16, 64


def pair_counts(planes: NDArray[np.bool_], own: int, lags: int, periodic: bool) -> NDArray[np.float64]:
    """Pairs of voxels in the phase whose first one lies in the first `own` planes.

    Parameters
    ----------
    planes : (own + up to L, ny, nx) bool
        The planes of a block and those behind it.
    own : int
    lags : int
        L.
    periodic : bool
        In y and x: in z it is the caller who continues the block.

    Returns
    -------
    (L + 1, 2 L + 1, 2 L + 1) float64
        Lags 0, ..., L along z and -L, ..., L along y and x; half the window, as S2(-r) = S2(r).
    """
    ny, nx = planes.shape[1:]
    shape = (ny, nx) if periodic else tuple(scipy.fft.next_fast_len(n + lags, True) for n in (ny, nx))
    half = (shape[0], shape[1] // 2 + 1)
    real, imaginary = (np.empty((len(planes), *half), np.float32) for _ in range(2))
    for z, plane in enumerate(planes):
        spectrum = scipy.fft.rfft2(plane.astype(np.float32), shape)
        real[z], imaginary[z] = spectrum.real, spectrum.imag
    sums = np.zeros((2, lags + 1, *half), np.float32)
    flat = (real.reshape(len(planes), -1), imaginary.reshape(len(planes), -1))
    cross_spectra(*flat, own, sums[0].reshape(lags + 1, -1), sums[1].reshape(lags + 1, -1))
    window = np.arange(-lags, lags + 1)
    out = np.zeros((lags + 1, 2 * lags + 1, 2 * lags + 1))
    for lag in range(lags + 1):
        rows = scipy.fft.ifft(sums[0, lag] + 1j * sums[1, lag].astype(np.float64), axis=0)[window]
        out[lag] = scipy.fft.irfft(rows, shape[1], axis=1)[:, window]
    return out


def planes_of(shape: tuple[int, int, int], lags: int) -> int:
    """Planes of a block: the more, the fewer are transformed twice; their spectra keep to `_SPECTRA` bytes."""
    _, ny, nx = shape
    fit = _SPECTRA // (8 * ny * (nx // 2 + 1)) - lags
    return max(_FEWEST, min(_MOST, fit))


def correlation(
    counts: NDArray[np.float64], shape: tuple[int, int, int], periodic: bool
) -> NDArray[np.float64]:
    """S2 from the counts of the whole volume (nz, ny, nx): pairs found by pairs there are."""
    lags = counts.shape[0] - 1
    if periodic:
        return counts / float(np.prod(shape))
    nz, ny, nx = shape
    window = np.abs(np.arange(-lags, lags + 1))
    there = np.multiply.outer(np.multiply.outer(nz - np.arange(lags + 1), ny - window), nx - window)
    return np.asarray(counts / there)


def ranges(
    s2: NDArray[np.float64], fractions: Mapping[str, NDArray[np.float64]], periodic: bool, window: int
) -> dict[str, float]:
    """Integral ranges along z, y, x in voxels on lags up to `window`, see `integral_range`.

    Parameters
    ----------
    s2 : (L + 1, 2 L + 1, 2 L + 1) float64
    fractions : mapping of axis to (planes,) float64
        The share of the phase in each plane normal to the axis.
    periodic : bool
    """
    lags = s2.shape[0] - 1
    along = {"z": s2[:, lags, lags], "y": s2[0, lags:, lags], "x": s2[0, lags, lags:]}
    return {
        axis: integral_range(line[: window + 1], fractions[axis], periodic) for axis, line in along.items()
    }


def integral_range(s2: NDArray[np.float64], fractions: NDArray[np.float64], periodic: bool) -> float:
    """Integral range along an axis in voxels: what the correlation C(r)/C(0) adds up to on lags 0, ..., L.

    C(r) = ⟨I(x) I(x + r)⟩ - ⟨I(x)⟩⟨I(x + r)⟩, all three means over the pairs that S2(r) was found from. Of a volume
    that ends, their points lie in two windows, without the last r planes and without the first. With φ² in place of
    the product a phase and the rest would have different ranges, since what the ends hold would count as correlation.

    The lag 0 counts half (trapezoidal rule), so that a material without correlation has one half.

    Parameters
    ----------
    s2 : (L + 1,) float64
    fractions : (planes,) float64
        The share of the phase in each plane normal to the axis.
    periodic : bool

    Returns
    -------
    float
        NaN where there is one phase only.
    """
    n, mean = len(fractions), float(fractions.mean())
    spread = mean - mean**2
    if spread <= 0:
        return float("nan")
    lags = np.arange(len(s2))
    if periodic:
        product = np.full(len(s2), mean**2)
    else:
        sums = np.concatenate([[0.0], np.cumsum(fractions)])
        product = sums[n - lags] * (sums[n] - sums[lags]) / (n - lags) ** 2
    return float(np.trapezoid((s2 - product) / spread))
