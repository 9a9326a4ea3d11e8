"""Where a two-point correlation has settled: how far the structure of a material reaches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: S2 has settled where the autocovariance, averaged over directions, stays below this share of the variance.
SETTLED = 0.05


def settled(s2: NDArray[np.float64], fraction: float) -> int:
    """The lag beyond which S2, averaged over directions, stays within `SETTLED` of its far value.

    Parameters
    ----------
    s2 : (2L + 1, L + 1) float64
        Rows are lags -L..L, columns 0..L.
    fraction : float
        Of the phase.

    Returns
    -------
    int
        From 1 to L + 1; the latter says that it has not settled within the window.
    """
    furthest = s2.shape[1] - 1
    rows, columns = np.arange(-furthest, furthest + 1)[:, None], np.arange(furthest + 1)[None, :]
    distance = np.rint(np.hypot(rows, columns)).astype(int)
    inside = distance <= furthest
    profile = np.bincount(distance[inside], s2[inside]) / np.bincount(distance[inside])
    unsettled = np.flatnonzero(np.abs(profile - fraction**2) > SETTLED * fraction * (1.0 - fraction))
    return int(unsettled[-1]) + 1 if len(unsettled) else 1
