"""The two-point correlation in space, S2(r) on all lags |z|, |y|, |x| up to L, which adds up over blocks of planes."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray


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
    spectra = scipy.fft.rfft2(planes.astype(np.float32), shape)
    window = np.arange(-lags, lags + 1)
    out = np.zeros((lags + 1, 2 * lags + 1, 2 * lags + 1))
    for lag in range(lags + 1):
        pairs = min(own, len(planes) - lag)
        if pairs > 0:
            cross = np.einsum("zij,zij->ij", spectra[:pairs].conj(), spectra[lag : lag + pairs])
            counts = scipy.fft.irfft2(cross.astype(np.complex128), shape)
            out[lag] = counts[np.ix_(window, window)]
    return out


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


def ranges(s2: NDArray[np.float64], fraction: float) -> tuple[float, float, float]:
    """Integral range along z, y, x in voxels: what the correlation (S2 - φ²)/(φ - φ²) adds up to on lags 0, ..., L.

    The lag 0 counts half (trapezoidal rule), so that a material without correlation has one half.
    """
    lags = s2.shape[0] - 1
    along = (s2[:, lags, lags], s2[0, lags:, lags], s2[0, lags, lags:])
    spread = max(fraction - fraction**2, 1e-30)
    z, y, x = (float(np.trapezoid((line - fraction**2) / spread)) for line in along)
    return z, y, x
