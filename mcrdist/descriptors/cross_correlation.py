"""Two-point correlations between different phases of a material of three or more.

The indicators of all phases sum to one, so the sums of a phase's correlations with all others follow from its own.
Of three phases only what distinguishes r from −r is new, that one phase lies above or left of another; of four and
more, which phases are neighbours is new too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from mcrdist.descriptors.aligned import bmm
from mcrdist.descriptors.base import Floats, SliceGrid
from mcrdist.descriptors.fft import irfft2, rfft2
from mcrdist.descriptors.joint import JointDescriptor, JointTerm
from mcrdist.descriptors.relative import RelativeErrors


def cross_correlation(one: Floats, other: Floats, lags: int, periodic: bool) -> Floats:
    """⟨I_a(x) I_b(x + r)⟩ of two indicators (H, W) on rows and columns −L … L: (2L+1, 2L+1)."""
    height, width = one.shape
    size = (height, width)
    if not periodic:  # zeros beyond the border keep pairs from wrapping around
        size = (scipy.fft.next_fast_len(height + lags, True), scipy.fft.next_fast_len(width + lags, True))
    spectra = [scipy.fft.rfft2(image.astype(np.float64, copy=False), s=size) for image in (one, other)]
    products = scipy.fft.irfft2(spectra[0].conj() * spectra[1], s=size)
    lag = np.arange(-lags, lags + 1)
    window = products[np.ix_(lag, lag)]
    if periodic:
        return np.asarray(window / (height * width))
    return np.asarray(window / np.outer(height - np.abs(lag), width - np.abs(lag)))


class FullLagWindow:
    """From cross spectra to correlations on all lags up to L, and back; see `LagWindow` for the even half.

    Parameters
    ----------
    shape : tuple of int
        (H, W) of the slices.
    lags : int
        L.
    grid : SliceGrid
    """

    def __init__(self, lags: int, grid: SliceGrid) -> None:
        height, width = grid.shape
        assert 0 < lags <= min(grid.shape) // 2, (grid.shape, lags)
        self.pixels = height * width
        lag = torch.arange(-lags, lags + 1, dtype=torch.float64)

        def waves(frequencies: int, samples: int) -> Tensor:
            """exp(2π i k r / samples): (frequencies, 2L+1)."""
            k = torch.arange(frequencies, dtype=torch.float64)
            angle = torch.outer(k, lag) * (2.0 * math.pi / samples)
            return torch.complex(angle.cos(), angle.sin())

        # A frequency of the half-spectrum stands for two, but for zero and, if it exists, Nyquist's.
        twice = torch.full((width // 2 + 1, 1), 2.0, dtype=torch.float64)
        twice[0] = 1.0
        if width % 2 == 0:
            twice[-1] = 1.0
        kind = torch.complex128 if grid.dtype == torch.float64 else torch.complex64
        columns, rows = waves(width // 2 + 1, width), waves(height, height)
        self._crop_rows = rows.T.to(grid.device, kind).contiguous()
        self._crop_columns = (columns * twice / self.pixels**2).to(grid.device, kind)
        self._spread_rows = rows.conj().resolve_conj().to(grid.device, kind)
        self._spread_columns = columns.mH.resolve_conj().to(grid.device, kind).contiguous()

    def crop(self, spectrum: Tensor) -> Tensor:
        """Correlations (S, 2L+1, 2L+1) of cross spectra conj(F_a) F_b (S, H, W//2+1)."""
        partial = bmm(self._crop_rows.expand(len(spectrum), -1, -1), spectrum)
        return bmm(partial, self._crop_columns.expand(len(spectrum), -1, -1)).real

    def spread(self, residual: Tensor) -> Tensor:
        """The filter Σ_r R(r) exp(−i k·r) (S, H, W//2+1) of residuals R (S, 2L+1, 2L+1)."""
        values = residual.to(self._spread_rows.dtype)
        partial = bmm(self._spread_rows.expand(len(values), -1, -1), values)
        return bmm(partial, self._spread_columns.expand(len(values), -1, -1))


def _product(one: Tensor, other: Tensor) -> Tensor:
    """Of complex numbers, part by part.

    Their own multiplication may round differently where a vector register is not filled, and where that is depends
    on how many slices come at once.
    """
    real = one.real * other.real - one.imag * other.imag
    return torch.complex(real, one.real * other.imag + one.imag * other.real)


class CrossCorrelationTerm(JointTerm):
    """The correlations of all pairs of phases on every slice, periodic.

    With F the transforms and W the filter of the residual of a pair, d/dI_a Σ_r R(r) S_ab(r) = irfft2(F_b conj(W)) / N
    and d/dI_b = irfft2(F_a W) / N: one transform a phase, and one back.

    Parameters
    ----------
    target : array (T, pairs, 2L+1, 2L+1)
    weight : float
    lags : int
    grid : SliceGrid
    """

    name = "cross_correlation"

    def __init__(self, target: Floats, weight: float, lags: int, grid: SliceGrid) -> None:
        self.weight = weight
        self.scale = self.norm = 1.0  # errors are relative already
        self._errors = RelativeErrors(target, grid)
        self._window = FullLagWindow(lags, grid)
        self._grid = grid

    def accumulate(
        self, channels: Sequence[Tensor], gradients: Sequence[Tensor] | None, share: float, at: range
    ) -> Tensor:
        spectra = [rfft2(channel.contiguous()) for channel in channels]
        pairs = list(combinations(range(len(channels)), 2))
        found = torch.stack(
            [self._window.crop(_product(spectra[a].conj(), spectra[b])) for a, b in pairs], dim=1
        )
        errors, slope = self._errors(found, at)
        if gradients is None:
            return errors
        slope = (slope * (2.0 * self.weight * share / self._window.pixels)).to(self._grid.dtype)
        pulls = [torch.zeros_like(spectrum) for spectrum in spectra]
        for number, (a, b) in enumerate(pairs):
            filters = self._window.spread(slope[:, number])
            pulls[a] += _product(spectra[b], filters.conj())
            pulls[b] += _product(spectra[a], filters)
        for gradient, pull in zip(gradients, pulls, strict=True):
            gradient += irfft2(pull, self._grid.shape)
        return errors


class CrossCorrelation(JointDescriptor):
    """⟨I_a(x) I_b(x + r)⟩ of all pairs of phases a before b, on rows and columns −L … L.

    Parameters
    ----------
    lags : int
        L of the window.
    """

    name = "cross_correlation"

    def __init__(self, lags: int) -> None:
        self.lags = lags

    def describe(self, images: Sequence[Floats], periodic: bool) -> Floats:
        """Of the indicators (H, W) of all phases: (pairs, 2L+1, 2L+1)."""
        pairs = combinations(images, 2)
        return np.stack([cross_correlation(one, other, self.lags, periodic) for one, other in pairs])

    def term(self, targets: Mapping[str, Floats], weight: float, grid: SliceGrid) -> CrossCorrelationTerm:
        return CrossCorrelationTerm(targets[self.name], weight, self.lags, grid)
