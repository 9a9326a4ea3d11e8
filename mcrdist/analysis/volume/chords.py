"""Chords of a phase along lines, and the lineal path that follows from how many there are of each length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis.volume.kernels import count_chords


def chords(lines: NDArray[np.bool_], periodic: bool) -> NDArray[np.int64]:
    """Count the chords of each length.

    Parameters
    ----------
    lines : (..., n) bool
        The phase along lines.
    periodic : bool
        A chord that leaves at the end goes on at the beginning; a whole line counts as one of length n.

    Returns
    -------
    (2, n + 1) int64
        By length: all chords, and those that no border cuts.
    """
    n = lines.shape[-1]
    runs = np.zeros((2, n + 1), np.int64)
    count_chords(lines.reshape(-1, lines.shape[-2] if lines.ndim > 1 else 1, n), periodic, runs[0], runs[1])
    return runs


def mean_chord(counts: NDArray[np.int64]) -> float:
    """Mean length in voxels of the chords that no border cuts; NaN without any."""
    whole = counts[1]
    return float(whole @ np.arange(len(whole)) / whole.sum()) if whole.sum() else float("nan")


def lineal_path(counts: NDArray[np.int64], lines: int, longest: int, periodic: bool) -> NDArray[np.float64]:
    """Probability that a segment of 1, ..., `longest` voxels lies in the phase.

    A chord of l voxels holds l - m + 1 segments of m; a line of n, n - m + 1, or n if it is periodic.
    """
    n = counts.shape[1] - 1
    lengths = np.arange(n + 1)
    found = np.empty(longest)
    for m in range(1, longest + 1):
        held = np.maximum(lengths - m + 1, 0)
        if periodic:
            held[n] = n  # a whole line has no ends
        found[m - 1] = counts[0] @ held / (lines * (n if periodic else n - m + 1))
    return found
