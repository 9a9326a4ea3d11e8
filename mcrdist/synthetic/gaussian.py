"""Thresholded Gaussian random fields, isotropic or elongated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike
from scipy.special import ndtri, owens_t

from mcrdist.errors import InputError
from mcrdist.synthetic.structure import Floats, Labels, Structure, check_fraction, checked_shape


@dataclass(frozen=True)
class ThresholdedGaussian(Structure):
    """Gaussian random field, cut at the level that leaves the wanted fraction above it.

    Its covariance is rho = exp(-s**2) sin(2 pi w s) / (2 pi w s) with s**2 = sum_i (r_i / length_i)**2:
    for w = 0 a blob-like structure, towards w = 1 one with a preferred wavelength of length / w, as spinodal
    decomposition leaves it. It is positive definite up to three dimensions, and a plane cut from the 3-D
    structure has the same covariance as the 2-D one.

    S2 is the bivariate normal orthant probability P(Z1 > t, Z2 > t; rho), which Owen's T function gives:
    S2 = Phi(-t) - 2 T(t, sqrt((1 - rho) / (1 + rho))) with t = Phi^-1(1 - fraction)
    (Owen, Ann. Math. Stat. 27, 1956); for fraction 1/2 it is the arcsine law 1/4 + arcsin(rho) / (2 pi).

    Attributes
    ----------
    length : float or tuple of float
        Correlation length in voxels, one for all axes or one an axis.
    fraction : float
        Volume fraction of phase 1, strictly between 0 and 1.
    waves : float
        Wavelengths a correlation length, w above.
    """

    length: float | tuple[float, ...] = 12.0
    fraction: float = 0.5
    waves: float = 0.0

    def __post_init__(self) -> None:
        lengths = self.length if isinstance(self.length, tuple) else (self.length,)
        if not all(math.isfinite(a) and a > 0 for a in lengths):
            raise InputError(f"synthetic length: expected positive numbers, found {self.length}")
        if not (math.isfinite(self.waves) and self.waves >= 0):
            raise InputError(f"synthetic waves: expected a number of at least 0, found {self.waves}")
        check_fraction(self.fraction)

    @property
    def phase_fraction(self) -> float:
        return self.fraction

    @property
    def threshold(self) -> float:
        """The level t above which a standard normal field belongs to phase 1."""
        return float(ndtri(1.0 - self.fraction))

    def covariance(self, lags: ArrayLike, shape: Sequence[int] | None = None) -> Floats:
        """Correlation coefficient rho of the field at the lags (..., d), in the periodic box if given."""
        lags_D = np.asarray(lags, dtype=np.float64)
        lengths = np.broadcast_to(np.asarray(self.length, dtype=np.float64), lags_D.shape[-1:])
        if shape is None:
            return self._unbounded(lags_D / lengths)
        # Summing over the periodic images keeps the covariance positive definite; cutting it off would not.
        box = np.asarray(checked_shape(shape), dtype=np.float64)
        nearest = lags_D - box * np.round(lags_D / box)
        reach = np.maximum(0, np.ceil(6.5 * lengths / box - 0.5)).astype(int)  # exp(-6.5**2) is below 1e-18
        total, at_zero = np.zeros(lags_D.shape[:-1]), 0.0
        for image in np.ndindex(*(2 * reach + 1)):
            offset = (np.asarray(image) - reach) * box
            total += self._unbounded((nearest + offset) / lengths)
            at_zero += float(self._unbounded(offset / lengths))
        return total / at_zero

    def _unbounded(self, scaled: Floats) -> Floats:
        squared = np.sum(scaled**2, axis=-1)
        return np.asarray(np.exp(-squared) * np.sinc(2.0 * self.waves * np.sqrt(squared)), dtype=np.float64)

    def field(self, shape: Sequence[int], rng: np.random.Generator) -> Floats:
        """The standard normal field itself: white noise filtered with the square root of the spectrum."""
        shape = checked_shape(shape)
        lags = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
        # The spectrum of a positive definite covariance is positive; only round-off is clipped.
        spectrum = np.maximum(scipy.fft.rfftn(self.covariance(lags, shape)).real, 0.0)
        noise = scipy.fft.rfftn(rng.standard_normal(shape))
        return np.asarray(scipy.fft.irfftn(np.sqrt(spectrum) * noise, s=shape), dtype=np.float64)

    def draw(self, shape: Sequence[int], rng: np.random.Generator) -> Labels:
        return (self.field(shape, rng) > self.threshold).astype(np.uint8)

    def s2(self, lags: ArrayLike, shape: Sequence[int] | None = None) -> Floats:
        rho = np.clip(self.covariance(lags, shape), -1.0, 1.0)
        # At rho = -1 the ratio is infinite, where T takes its limit.
        with np.errstate(divide="ignore"):
            ratio = np.sqrt((1.0 - rho) / (1.0 + rho))
        return np.asarray(self.fraction - 2.0 * owens_t(self.threshold, ratio), dtype=np.float64)
