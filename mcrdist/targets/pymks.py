"""Two-point statistics as PyMKS lays them out: (samples, rows, columns, correlations), the lag zero in the middle.

`TwoPointCorrelation` and `two_point_stats` return the periodic autocorrelation over the number of pixels, shifted as
by ``np.fft.fftshift``, all of it or the lags up to a cutoff: on n rows the lag zero is at row n // 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.descriptors.base import Floats
from mcrdist.errors import UNREADABLE, InputError

#: By how much numbers may miss what they must be, for files written in single precision.
TOLERANCE = 1e-5


def lay_out(s2: Sequence[Floats]) -> Floats:
    """S2 (2L+1, L+1) of several phases as one sample, (1, 2L+1, 2L+1, phases)."""
    whole = [np.concatenate([half[::-1, :0:-1], half], axis=1) for half in s2]  # S2(−r) = S2(r)
    return np.stack(whole, axis=-1)[None]


def take_in(values: NDArray[Any], name: str) -> Floats:
    """S2 on the largest window (samples, 2L+1, L+1) of the statistics of one phase.

    Parameters
    ----------
    values : array (samples, H, W, 1), (samples, H, W) or (H, W)
    name : str
        What to call them in messages.

    Raises
    ------
    InputError
        They are not the two-point autocorrelation of one phase in this layout.
    """
    if values.dtype.kind != "f" or values.ndim not in (2, 3, 4) or 0 in values.shape:
        raise InputError(
            f"{name}: expected two-point statistics (samples, rows, columns, 1), found {_kind(values)}; for an image "
            "use micrograph.path"
        )
    if values.ndim == 4 and values.shape[3] != 1:
        raise InputError(
            f"{name}: expected the autocorrelation of one phase, found {values.shape[3]} correlations; save the one "
            "that is wanted, e.g. stats[..., 1:2]"
        )
    samples = values.astype(np.float64).reshape(-1, *(values.shape[1:3] if values.ndim > 2 else values.shape))
    height, width = samples.shape[1:]
    lags = (min(height, width) - 1) // 2
    if lags < 2:
        raise InputError(
            f"{name}: expected lags up to 2 at least, found {_kind(values)}; take a larger cutoff"
        )
    window = samples[
        :, height // 2 - lags : height // 2 + lags + 1, width // 2 - lags : width // 2 + lags + 1
    ]
    for number, one in enumerate(window):
        _check(one, name if len(window) == 1 else f"{name}, sample {number}")
    return window[:, :, lags:]


def has_cutoff(values: NDArray[Any]) -> bool:
    """Whether somebody chose the lags: a cutoff leaves a square of odd side, while images are rarely that."""
    height, width = values.shape[1:3] if values.ndim > 2 else values.shape
    return bool(height == width and height % 2 == 1)


def read_array(path: Path) -> NDArray[Any]:
    """The array of an npy file.

    Raises
    ------
    InputError
        It is none.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except UNREADABLE as problem:
        raise InputError(f"{path}: expected an npy file with numbers ({problem})") from problem
    return np.asarray(array)


def _kind(values: NDArray[Any]) -> str:
    return f"{'x'.join(map(str, values.shape)) or 'one'} values of type {values.dtype}"


def _check(s2: Floats, name: str) -> None:
    """What any S2 of a phase on a window (2L+1, 2L+1) fulfils."""
    if not np.isfinite(s2).all():
        raise InputError(f"{name}: expected finite values, found others; compute the statistics again")
    middle = s2.shape[0] // 2
    fraction = float(s2[middle, middle])
    if not TOLERANCE < fraction < 1.0 - TOLERANCE:
        raise InputError(
            f"{name}: expected a volume fraction between 0 and 1 at lag zero, in the middle, found {fraction:g}; "
            "statistics are over the number of pixels, and shifted as by np.fft.fftshift"
        )
    if s2.max() > fraction + TOLERANCE:
        row, column = np.unravel_index(int(s2.argmax()), s2.shape)
        raise InputError(
            f"{name}: expected the largest value at lag zero, in the middle, found it at row {row}, column {column} "
            f"of the {s2.shape[0]}x{s2.shape[1]} lags around there; shift the statistics as by np.fft.fftshift"
        )
    if np.abs(s2 - s2[::-1, ::-1]).max() > TOLERANCE:
        raise InputError(
            f"{name}: expected S2(-r) = S2(r), found another value at some lag; is it the correlation of two phases? "
            "take the one of a phase with itself"
        )
    if s2.min() < max(0.0, 2.0 * fraction - 1.0) - TOLERANCE:
        raise InputError(
            f"{name}: expected probabilities of at least {max(0.0, 2.0 * fraction - 1.0):g} for a volume fraction of "
            f"{fraction:g}, found {s2.min():g}; is the mean subtracted? take the plain correlation"
        )
