"""What was prescribed, plane by plane (Eq. 10), and what repeats at long range; a task is a batch of planes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from mcrdist.analysis.volume.chords import chords
from mcrdist.descriptors.correlation import cropped

#: Planes whose spectra are held at a time.
_BATCH = 16


@dataclass
class Planes:
    """What a batch of planes of one normal contributes.

    Attributes
    ----------
    errors : dict of str to (planes,) float64
        ‖D(x_s) − D_des‖ of every plane, by descriptor.
    rows, columns : (2, n + 1) int64 or None
        Chords along the rows' and the columns' axis of the planes, where they were asked for; see `chords`.
    power : (H, W // 2 + 1) float64
        Sum over planes of the power spectrum of the phase.
    fractions : (planes,) float64
        The share of the phase in every plane.
    """

    errors: dict[str, NDArray[np.float64]]
    rows: NDArray[np.int64] | None
    columns: NDArray[np.int64] | None
    power: NDArray[np.float64]
    fractions: NDArray[np.float64]


def describe(
    planes: NDArray[np.bool_],
    wanted: Mapping[str, NDArray[Any]],
    periodic: bool,
    lines: Collection[str] = ("rows", "columns"),
) -> Planes:
    """Describe planes (S, H, W) of the phase.

    Parameters
    ----------
    planes
        In any layout.
    wanted
        The targets by name, those of single planes included.
    periodic
        Whether chords go on at the other side.
    lines
        Along which sides of the planes chords are counted.
    """
    height, width = planes.shape[1:]
    own = {name: np.asarray(wanted[name], np.float64) for name in NAMES if name in wanted}
    if "s2" in own:
        own["s2"] = cropped(own["s2"], min(height, width) // 2)
    power = np.zeros((height, width // 2 + 1))
    errors: dict[str, list[NDArray[np.float64]]] = {name: [] for name in own}
    fractions: list[NDArray[np.float64]] = []
    for start in range(0, len(planes), _BATCH):
        part = np.ascontiguousarray(planes[start : start + _BATCH])
        spectra = scipy.fft.rfft2(part.astype(np.float32))
        squares = np.square(spectra.real) + np.square(spectra.imag)
        power += squares.sum(0, dtype=np.float64)
        fractions.append(part.mean((1, 2)))
        for name, target in own.items():
            here = target[start : start + _BATCH] if graded(name, target) else target
            errors[name].append(_ERRORS[name](part, squares, here))
    return Planes(
        {name: np.concatenate(parts) for name, parts in errors.items()},
        chords(planes.swapaxes(1, 2), periodic) if "rows" in lines else None,
        chords(planes, periodic) if "columns" in lines else None,
        power,
        np.concatenate(fractions),
    )


def graded(name: str, target: NDArray[Any]) -> bool:
    """Whether a target has an entry for every plane."""
    return np.ndim(target) == (3 if name == "s2" else 1)


def _s2(part: NDArray[np.bool_], squares: NDArray[np.float32], target: NDArray[np.float64]) -> Any:
    """Distances of S2, which is the transform of the power spectrum (N² ⟨I(x) I(x + r)⟩ on all lags)."""
    height, width = part.shape[1:]
    lags = target.shape[-1] - 1
    # The rows first, of which only those in the window are transformed along the columns.
    rows = scipy.fft.ifft(squares, axis=1)[:, np.arange(-lags, lags + 1)]
    got = scipy.fft.irfft(rows, width, axis=2)[:, :, : lags + 1] / (height * width)
    return np.linalg.norm(got - target, axis=(1, 2))


def _variation(part: NDArray[np.bool_], squares: NDArray[np.float32], target: NDArray[np.float64]) -> Any:
    """Distances of the variation: shares of neighbours that differ, along both sides (Eq. 5)."""
    differ = np.zeros(len(part))
    for axis in (1, 2):
        differ += (np.diff(part, axis=axis)).mean((1, 2)) * (1 - 1 / part.shape[axis])
        differ += (np.take(part, 0, axis) != np.take(part, -1, axis)).mean(1) / part.shape[axis]
    return np.abs(differ - target)


def _fraction(part: NDArray[np.bool_], squares: NDArray[np.float32], target: NDArray[np.float64]) -> Any:
    return np.abs(part.mean((1, 2)) - target)


_ERRORS: Mapping[str, Callable[[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float64]], Any]] = {
    "s2": _s2,
    "variation": _variation,
    "volume_fraction": _fraction,
}
#: What is compared plane by plane here; `held` has the other descriptors.
NAMES = tuple(_ERRORS)


def repetition(power: NDArray[np.float64], planes: int, shape: tuple[int, int], lags: int) -> float:
    """The largest mean correlation of a plane with itself further away than the window: 1 is an exact copy.

    Parameters
    ----------
    power : (H, W // 2 + 1) float64
        Sum over planes of the power spectrum.
    planes : int
    shape : (H, W)
    lags : int
        L; lags up to it along both axes are left out.

    Returns
    -------
    float
        Of (S2(r) − φ²)/(φ − φ²), mean over the planes, φ that of each plane; NaN where all lags are in the window.
    """
    voxels = shape[0] * shape[1]
    squared = power.copy()
    fraction_squared = float(squared[0, 0]) / voxels**2 / planes
    squared[0, 0] = 0.0  # without the mean of each plane
    covariance = scipy.fft.irfft2(squared, shape) / voxels / planes
    spread = float(covariance[0, 0])
    far = np.ones(shape, bool)
    near = np.arange(-lags, lags + 1)
    far[np.ix_(near % shape[0], near % shape[1])] = False
    if not far.any() or spread <= 0 or fraction_squared <= 0:
        return float("nan")
    return float(covariance[far].max() / spread)
