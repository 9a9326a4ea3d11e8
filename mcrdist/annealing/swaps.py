"""A binary volume whose voxels are swapped, with the pair counts of all its slices kept up to date."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mcrdist.annealing import energy as energies_of
from mcrdist.annealing import kernels
from mcrdist.annealing.energy import SliceEnergy
from mcrdist.descriptors.correlation import two_point

#: Attempts whose random numbers are drawn at once.
BATCH = 2**16


class Swaps:
    """Swaps of two voxels of different phase; the number of voxels of each is conserved.

    Parameters
    ----------
    labels : uint8 array (nz, ny, nx)
        Zeros and ones; copied.
    energies : sequence of SliceEnergy
        Of each direction.
    rng : Generator
        Where the voxels, and the luck of the draw, come from.
    fixed : bool array (nz, ny, nx), optional
        Voxels that are given: they take part in no swap.

    Attributes
    ----------
    counts : tuple of int32 arrays (S, 2L+1, L+1)
        Pairs at each lag in every slice, one array a direction.
    """

    def __init__(
        self,
        labels: NDArray[np.uint8],
        energies: Sequence[SliceEnergy],
        rng: np.random.Generator,
        fixed: NDArray[np.bool_] | None = None,
    ) -> None:
        free = np.ones(labels.size, dtype=bool) if fixed is None else ~fixed.ravel()
        self._ones = np.flatnonzero((labels.ravel() == 1) & free)
        self._zeros = np.flatnonzero((labels.ravel() == 0) & free)
        self._energies, self._rng, self._shape = energies, rng, labels.shape
        self._given = labels.copy()
        stacks = [np.moveaxis(labels, energy.axis, 0) for energy in energies]
        windows = [energy.s2.shape[2] - 1 for energy in energies]
        self._images = tuple(
            np.pad(stack, ((0, 0), (lags, lags), (lags, lags)), mode="wrap")
            for stack, lags in zip(stacks, windows, strict=True)
        )
        self.counts = tuple(pair_counts(stack, lags) for stack, lags in zip(stacks, windows, strict=True))
        self._targets = tuple(energy.s2 for energy in energies)
        self._residuals = tuple(
            (own - target).astype(np.float32) for own, target in zip(self.counts, self._targets, strict=True)
        )
        self._sums = tuple(
            energies_of.sums_of(energy, own) for energy, own in zip(energies, self.counts, strict=True)
        )
        self._axes = tuple(energy.axis for energy in energies)
        self._weights = tuple(energy.weights for energy in energies)
        self._changes = tuple(np.zeros((2, 2 * lags + 1, lags + 1), dtype=np.int32) for lags in windows)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The volume as it is now."""
        labels = self._given.ravel().copy()
        labels[self._ones], labels[self._zeros] = 1, 0
        return labels.reshape(self._shape)

    @property
    def energy(self) -> float:
        """The objective's loss but for borders, from the counts."""
        return energies_of.total(self._energies, self.counts)

    def attempt(self, attempts: int, temperature: float) -> int:
        """Try swaps at a temperature, in units of the energy; return how many were made."""
        accepted = 0
        if self._possible:
            for draws in self._draws(attempts):
                accepted += kernels.attempt(
                    draws,
                    temperature,
                    self._ones,
                    self._zeros,
                    self._shape,
                    self._axes,
                    self._images,
                    self.counts,
                    self._targets,
                    self._residuals,
                    self._sums,
                    self._weights,
                    self._changes,
                )
        return accepted

    def probe(self, attempts: int) -> NDArray[np.float64]:
        """By how much random swaps would change the energy; none is made."""
        prices = np.zeros(attempts)
        if self._possible:
            start = 0
            for draws in self._draws(attempts):
                kernels.probe(
                    draws,
                    prices[start : start + len(draws)],
                    self._ones,
                    self._zeros,
                    self._shape,
                    self._axes,
                    self._images,
                    self._residuals,
                    self._sums,
                    self._weights,
                    self._changes,
                )
                start += len(draws)
        return prices

    @property
    def _possible(self) -> bool:
        return len(self._ones) > 0 and len(self._zeros) > 0

    def _draws(self, attempts: int) -> list[NDArray[np.float64]]:
        sizes = [min(BATCH, attempts - start) for start in range(0, attempts, BATCH)]
        return [self._rng.random((size, 3)) for size in sizes]


def pair_counts(stack: NDArray[np.uint8], lags: int) -> NDArray[np.int32]:
    """Pairs of ones at each lag of slices (S, H, W), periodic: (S, 2L+1, L+1)."""
    pixels = stack.shape[1] * stack.shape[2]
    products = [two_point(one[None].astype(np.float64), lags, periodic=True)[0] for one in stack]
    counts: NDArray[np.int32] = np.rint(pixels * np.stack(products)).astype(np.int32)
    return counts
