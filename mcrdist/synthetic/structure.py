"""What a synthetic structure offers, and the checks that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcrdist.errors import InputError

Labels = NDArray[np.uint8]
Floats = NDArray[np.float64]


class Structure(ABC):
    """A stationary random two-phase structure with a closed-form S2."""

    @property
    @abstractmethod
    def phase_fraction(self) -> float:
        """Expected volume fraction of phase 1."""

    @abstractmethod
    def draw(self, shape: Sequence[int], rng: np.random.Generator) -> Labels:
        """One realisation with periodic boundaries: uint8 labels 0 and 1 of the given shape."""

    @abstractmethod
    def s2(self, lags: ArrayLike, shape: Sequence[int] | None = None) -> Floats:
        """Ensemble mean of the two-point correlation of phase 1.

        Parameters
        ----------
        lags : array (..., d)
            Lag vectors in voxels, d = 1, 2 or 3.
        shape : sequence of d ints, optional
            The periodic box that realisations are drawn in; without it, unbounded space.

        Returns
        -------
        array (...)
        """

    def variation(self, dimension: int = 2, shape: Sequence[int] | None = None) -> float:
        """Expected mean absolute difference to the neighbours along each axis, summed over the axes.

        An indicator I has E|I(x) - I(x+e)| = 2 (S2(0) - S2(e)); V sums that over the axes, e one voxel long.
        """
        step = self.s2(np.eye(dimension), shape)
        return float(np.sum(2.0 * (self.phase_fraction - step)))


def lag_window(lags: int) -> Floats:
    """Lags of the half plane in the order of the S2 descriptor.

    Parameters
    ----------
    lags : int
        L, the largest lag in pixels.

    Returns
    -------
    array (2L+1, L+1, 2)
        Lag vectors (row, column); rows run from -L to L, columns from 0 to L.
    """
    rows, columns = np.meshgrid(np.arange(-lags, lags + 1.0), np.arange(lags + 1.0), indexing="ij")
    return np.stack([rows, columns], axis=-1)


def check_fraction(fraction: float) -> None:
    if not 0.0 < fraction < 1.0:
        raise InputError(
            f"synthetic fraction: expected a number between 0 and 1, both excluded, found {fraction}"
        )


def checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(int(n) for n in shape)
    if not 1 <= len(shape) <= 3 or min(shape) < 1:
        raise InputError(f"synthetic shape: expected one to three positive extents, found {shape}")
    return shape
