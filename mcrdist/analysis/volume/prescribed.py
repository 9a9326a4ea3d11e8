"""What was prescribed, plane by plane (Eq. 10), and what repeats at long range; a task is a batch of planes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from mcrdist.analysis.slices import cropped
from mcrdist.analysis.volume.chords import chords
from mcrdist.descriptors.correlation import two_point
from mcrdist.descriptors.variation import variation


@dataclass
class Planes:
    """What a batch of planes of one normal contributes.

    Attributes
    ----------
    errors : dict of str to (planes,) float64
        ‖D(x_s) − D_des‖ of every plane, by descriptor.
    rows, columns : (2, n + 1) int64
        Chords along the rows' and the columns' axis of the planes; see `chords`.
    power : (H, W // 2 + 1) float64
        Sum over planes of the power spectrum of the phase.
    """

    errors: dict[str, NDArray[np.float64]]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    power: NDArray[np.float64]


def describe(planes: NDArray[np.bool_], wanted: Mapping[str, NDArray[Any]], periodic: bool) -> Planes:
    """Describe planes (S, H, W) of the phase; `wanted` has the targets by name, those of single planes included."""
    values = planes.astype(np.float64)
    errors = {}
    if "s2" in wanted:
        target = cropped(np.asarray(wanted["s2"]), min(planes.shape[1:]) // 2)
        got = two_point(values, target.shape[-1] - 1, True)
        errors["s2"] = np.linalg.norm(got - target, axis=(1, 2))
    if "variation" in wanted:
        errors["variation"] = np.abs(variation(values, True) - wanted["variation"])
    if "volume_fraction" in wanted:
        errors["volume_fraction"] = np.abs(values.mean((1, 2)) - wanted["volume_fraction"])
    power = np.zeros((planes.shape[1], planes.shape[2] // 2 + 1))
    for plane in values:
        power += np.abs(scipy.fft.rfft2(plane)) ** 2
    return Planes(errors, chords(planes.swapaxes(1, 2), periodic), chords(planes, periodic), power)


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
