"""Two-point correlation S2 on a window of lags, and its hand-derived adjoint.

The window is half a plane: rows are lags −L … L along the first in-plane axis, columns lags 0 … L along the
second; the other half follows from S2(−r) = S2(r).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.descriptors.aligned import bmm
from mcrdist.descriptors.base import Descriptor, Floats, Rider, SliceGrid, Targets, Term, slice_sums
from mcrdist.descriptors.fft import fold, irfft2, memory_order, rfft2, unfold_


def cropped(s2: NDArray[np.float64], lags: int) -> NDArray[np.float64]:
    """S2 (…, 2L+1, L+1) on lags up to `lags`, or all of it where it has fewer."""
    there = s2.shape[-1] - 1
    kept = min(lags, there)
    return s2[..., there - kept : there + kept + 1, : kept + 1]


def two_point(slices: NDArray[np.float64], lags: int, periodic: bool) -> NDArray[np.float64]:
    """Two-point correlation of slices in double precision, for targets and evaluation.

    Parameters
    ----------
    slices : array (S, H, W)
    lags : int
        L; at most half the shorter side when periodic, and less than it otherwise.
    periodic : bool
        Wrap around at the border (the paper's choice), or count only the pairs inside the slice.

    Returns
    -------
    array (S, 2L+1, L+1)
        S2(r) = ⟨I(x) I(x + r)⟩.
    """
    height, width = slices.shape[1:]
    size = (height, width)
    if not periodic:  # zeros beyond the border keep pairs from wrapping around
        size = (scipy.fft.next_fast_len(height + lags, True), scipy.fft.next_fast_len(width + lags, True))
    spectrum = scipy.fft.rfft2(slices.astype(np.float64, copy=False), s=size)
    products = scipy.fft.irfft2(spectrum.real**2 + spectrum.imag**2, s=size)
    rows, columns = np.arange(-lags, lags + 1), np.arange(lags + 1)
    window = products[:, rows][:, :, columns]
    if periodic:
        return np.asarray(window / (height * width))
    return np.asarray(window / ((height - np.abs(rows))[:, None] * (width - columns)[None, :]))


class LagWindow:
    """From power spectra to S2 on the lag window, and back: the two small matrix products of a slice.

    S2(r) = 1/N² Σ_k |F(k)|² cos(k·r), N being the number of pixels. On the half-spectrum of a real transform

        cos(k1 r1 + k2 r2) = cos k1 r1 cos k2 r2 − sin k1 r1 sin k2 r2,

    so one product with cosines and one with sines along each axis give all wanted lags, at far less than the cost
    of the inverse transform, and their transposes spread a residual on the window to a filter W(k). Only what is even
    in k1 meets the cosines, and what is odd the sines: half the rows are enough.

    Parameters
    ----------
    shape : tuple of int
        (H, W) of the slices.
    lags : int
        L.
    dtype, device
        Of the slices.
    """

    def __init__(self, shape: tuple[int, int], lags: int, dtype: torch.dtype, device: torch.device) -> None:
        height, width = shape
        assert 0 < lags <= min(shape) // 2, (shape, lags)
        self.shape = shape
        self.lags = lags
        self.pixels = height * width
        self.dtype, self.device = dtype, device
        lag = torch.arange(lags + 1, dtype=torch.float64)

        def waves(frequencies: int, samples: int) -> Tensor:
            """[cos | sin] of 2π k r / samples: (frequencies, 2(L+1))."""
            k = torch.arange(frequencies, dtype=torch.float64)
            angle = torch.outer(k, lag) * (2.0 * math.pi / samples)
            return torch.cat([angle.cos(), angle.sin()], dim=1)

        # A frequency of the half-spectrum stands for two, but for zero and, if it exists, Nyquist's.
        twice = torch.full((width // 2 + 1, 1), 2.0, dtype=torch.float64)
        twice[0] = 1.0
        if width % 2 == 0:
            twice[-1] = 1.0
        columns = waves(width // 2 + 1, width)
        rows = waves(height // 2 + 1, height)
        half = lags + 1

        def keep(matrix: Tensor) -> Tensor:
            return matrix.to(device=device, dtype=dtype).contiguous()

        def both(matrix: Tensor) -> list[Tensor]:
            return [keep(matrix[:, :half]), keep(matrix[:, half:])]

        def transposed(matrices: list[Tensor]) -> list[Tensor]:
            return [keep(matrix.T) for matrix in matrices]

        # Of the cosines and of the sines: those that crop an axis are transposed to those that spread along it, but
        # for the doubling, since the filter has one value a frequency.
        self._crop_columns = both(columns * twice / self.pixels**2)  # (K, L+1)
        self._crop_columns_t = transposed(self._crop_columns)
        self._spread_columns = both(columns)
        self._spread_columns_t = transposed(self._spread_columns)
        self._rows = both(rows)  # (H//2 + 1, L+1)
        self._rows_t = transposed(self._rows)

    def crop(self, spectrum: Tensor) -> Tensor:
        """S2 (S, 2L+1, L+1) of half-spectra F (S, H, W//2+1).

        Matrix products have shapes that do not depend on how many slices come at once, and `bmm` aligns them, so
        the bits do not depend on it either.
        """
        half = self.lags + 1
        lanes = memory_order(spectrum)[-1] == 0
        found = []
        for part, rows_t, columns, columns_t in zip(
            fold(spectrum), self._rows_t, self._crop_columns, self._crop_columns_t, strict=True
        ):
            count, height, frequencies = part.shape
            if lanes:  # slices run fastest: the rows first, all columns and slices at once
                native = part.permute(1, 2, 0).reshape(height, frequencies * count)
                partial = (rows_t @ native).view(half, frequencies, count)
                found.append(torch.bmm(columns_t.expand(half, half, frequencies), partial).permute(2, 0, 1))
            else:
                partial = bmm(part, columns.expand(count, frequencies, half))
                found.append(bmm(rows_t.expand(count, half, height), partial))
        even, odd = found
        return torch.cat([(even + odd)[:, 1:].flip(1), even - odd], dim=1)

    def filter_(self, spectrum: Tensor, residual: Tensor) -> Tensor:
        """Multiply half-spectra by the filters W(k) = Σ_r R(r) cos(k·r) of residuals R (S, 2L+1, L+1), in place."""
        half = self.lags + 1
        lanes = memory_order(spectrum)[-1] == 0
        ahead, back = residual[:, self.lags :], residual[:, : self.lags].flip(1)
        even, odd = ahead.clone(), -ahead
        even[:, 1:] += back
        odd[:, 1:] += back
        found = []
        for part, rows, columns, columns_t in zip(
            (even, odd), self._rows, self._spread_columns, self._spread_columns_t, strict=True
        ):
            count, (height, frequencies) = len(part), (len(rows), len(columns))
            if lanes:
                native = part.permute(1, 2, 0).contiguous()
                partial = torch.bmm(columns.expand(half, frequencies, half), native)
                filters = rows @ partial.view(half, frequencies * count)
                found.append(filters.view(height, frequencies, count).permute(2, 0, 1))
            else:
                partial = bmm(rows.expand(count, height, half), part)
                found.append(bmm(partial, columns_t.expand(count, half, frequencies)))
        return unfold_(spectrum, *found)


class TwoPointTerm(Term):
    """S2 of every slice, periodic, on the lag window.

    Parameters
    ----------
    target : array (T, 2L+1, L+1)
        S2 of the micrograph, one for all slices or one a slice.
    fraction : array (T,)
        Volume fractions that belong to it, S2(0).
    weight : float
    window : LagWindow
    riders : sequence of Rider
        What else is asked of the slices and is known with S2: variation (of infinite smoothing), volume fraction,
        greyness.
    """

    name = "s2"

    def __init__(
        self,
        target: Floats,
        fraction: Floats,
        weight: float,
        window: LagWindow,
        riders: Sequence[Rider] = (),
    ) -> None:
        self.weight = weight
        self.window = window
        self.riders = tuple(riders)
        self.targets = Targets(target, SliceGrid(window.shape, window.dtype, window.device))
        self.norm = float(np.linalg.norm(target, axis=(1, 2)).mean())
        # S2 of the other phase is S2 − 2φ + 1. Relative to the smaller of the two, the error means the same
        # whichever phase is called 1, and the loss is not blind to a phase that is rare.
        other = target - 2.0 * fraction[:, None, None] + 1.0
        self.scale = min(self.norm, float(np.linalg.norm(other, axis=(1, 2)).mean()))

    @property
    def parts(self) -> tuple[Term, ...]:
        return (self, *self.riders)

    def accumulate(self, slices: Tensor, gradient: Tensor | None, share: float, at: range) -> Tensor:
        if gradient is None:
            return self._errors(rfft2(slices), share, at)[0]
        errors, own = self.evaluate(slices, share, at)
        gradient += own
        return errors

    def evaluate(self, slices: Tensor, share: float, at: range) -> tuple[Tensor, Tensor]:
        spectrum = rfft2(slices)
        errors, residual, mean = self._errors(spectrum, share, at)
        filtered = self.window.filter_(spectrum, residual)
        if self.riders:  # what is the same for all pixels is the frequency zero
            filtered[:, 0, 0] += mean
        return errors, irfft2(filtered, self.window.shape)

    def _errors(self, spectrum: Tensor, share: float, at: range) -> tuple[Tensor, Tensor, Tensor]:
        """Errors of all parts, d loss / d S2 on the window times the 2/N that the adjoint brings, and d loss / d φ."""
        s2 = self.window.crop(spectrum)
        residual = s2 - self.targets.of(at)
        error = slice_sums(residual.to(torch.float64).square()).sqrt_() / self.scale
        adjoint = 2.0 / self.window.pixels
        residual *= 2.0 * self.weight * share / self.scale**2 * adjoint
        mean = torch.zeros(len(s2), dtype=residual.dtype, device=residual.device)
        if not self.riders:
            return error, residual, mean
        fraction = spectrum[:, 0, 0].real / self.window.pixels
        errors = [error]
        for rider in self.riders:
            errors.append(self._ride(rider, s2, fraction, at))
            slope = rider.slope(errors[-1], at) * (share / rider.scale)
            *near, constant = rider.follows
            for factor, (row, column) in zip(near, self._near, strict=True):
                if factor:
                    residual[:, row, column] += (slope * (factor * adjoint)).to(residual.dtype)
            mean += (slope * constant).to(mean.dtype)
        return torch.stack(errors, dim=1), residual, mean

    @property
    def _near(self) -> tuple[tuple[int, int], ...]:
        """Where the window has the lags 0, e1 and e2."""
        origin = self.window.lags
        return (origin, 0), (origin + 1, 0), (origin, 1)

    def _ride(self, rider: Rider, s2: Tensor, fraction: Tensor, at: range) -> Tensor:
        """The error of a rider (S,), in double precision: of differences of numbers that are nearly the same."""
        values = [s2[:, row, column] for row, column in self._near] + [fraction]
        total = torch.zeros(len(s2), dtype=torch.float64, device=s2.device)
        for factor, value in zip(rider.follows, values, strict=True):
            if factor:
                total += factor * value.to(torch.float64)
        return (total - rider.targets.of(at)) / rider.scale


class TwoPointCorrelation(Descriptor):
    """S2(r) = ⟨I(x) I(x + r)⟩ on a window of lags.

    Parameters
    ----------
    lags : int
        L of the window.
    """

    name = "s2"

    def __init__(self, lags: int) -> None:
        self.lags = lags

    def describe(self, image: Floats, periodic: bool) -> Floats:
        """S2 of one image (H, W): (2L+1, L+1)."""
        return np.asarray(two_point(image[None], self.lags, periodic)[0])

    def term(self, targets: Mapping[str, Floats], weight: float, grid: SliceGrid) -> TwoPointTerm:
        window = LagWindow(grid.shape, self.lags, grid.dtype, grid.device)
        return TwoPointTerm(targets["s2"], targets["volume_fraction"], weight, window)
