"""Regular patterns: checkerboards and lamellae."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mcrdist.errors import InputError
from mcrdist.synthetic.structure import Floats, Labels, Structure, check_fraction, checked_shape


@dataclass(frozen=True)
class Checkerboard(Structure):
    """Squares (cubes) of alternating phase; periodic when every extent is a multiple of twice the square.

    The indicator is (1 + product of square waves) / 2, and the autocorrelation of a square wave of period 2 a
    is the triangle wave c, so S2 = (1 + prod_i c(r_i)) / 4 with c(r) = 1 - 2 |r| / a for |r| <= a.

    Attributes
    ----------
    square : float
        Edge of a square in voxels, at least 1.
    """

    square: float = 16.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.square) and self.square >= 1):
            raise InputError(f"synthetic square: expected a number of at least 1, found {self.square}")

    @property
    def phase_fraction(self) -> float:
        return 0.5

    def draw(self, shape: Sequence[int], rng: np.random.Generator) -> Labels:
        shape = checked_shape(shape)
        shift = rng.uniform(0.0, 2.0 * self.square, size=len(shape))
        cells = [np.floor((np.arange(n) + u) / self.square) for n, u in zip(shape, shift, strict=True)]
        parity = sum(np.ix_(*cells), start=np.zeros(()))
        return np.asarray(parity % 2 == 1, dtype=np.uint8)

    def s2(self, lags: ArrayLike, shape: Sequence[int] | None = None) -> Floats:
        distance = np.asarray(lags, dtype=np.float64) / (2.0 * self.square)
        triangle = 1.0 - 4.0 * np.abs(distance - np.round(distance))
        return np.asarray((1.0 + np.prod(triangle, axis=-1)) / 4.0, dtype=np.float64)


@dataclass(frozen=True)
class Lamellae(Structure):
    """Parallel layers: phase 1 where the fractional part of k . x + u is below the duty.

    In a periodic box the wave vector k = direction / period is rounded to whole waves an axis. With
    d = k . r mod 1, S2(r) = max(0, duty - d) + max(0, duty - (1 - d)): the overlap of an arc of a circle with
    its turned copy.

    Attributes
    ----------
    period : float
        Thickness of one layer of each phase together, in voxels, at least 2.
    duty : float
        Volume fraction of phase 1, strictly between 0 and 1.
    direction : tuple of float, optional
        Normal of the layers, of any length but zero; default: the first axis.
    """

    period: float = 16.0
    duty: float = 0.5
    direction: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.period) and self.period >= 2):
            raise InputError(f"synthetic period: expected a number of at least 2, found {self.period}")
        if self.direction is not None and not 0 < math.hypot(*self.direction) < math.inf:
            raise InputError(
                f"synthetic direction: expected a vector that is not zero, found {self.direction}"
            )
        check_fraction(self.duty)

    @property
    def phase_fraction(self) -> float:
        return self.duty

    def wave_vector(self, dimension: int, shape: Sequence[int] | None = None) -> Floats:
        """Waves a voxel along each axis, (d,), with whole waves in the periodic box if one is given."""
        direction = (
            np.eye(dimension)[0] if self.direction is None else np.asarray(self.direction, dtype=np.float64)
        )
        if direction.shape != (dimension,):
            raise InputError(f"synthetic direction: expected {dimension} numbers, found {self.direction}")
        wave = direction / np.linalg.norm(direction) / self.period
        if shape is None:
            return np.asarray(wave, dtype=np.float64)
        box = np.asarray(checked_shape(shape), dtype=np.float64)
        waves = np.round(wave * box)
        if not waves.any():
            raise InputError(
                f"synthetic period: {self.period:g} voxels do not fit once into the shape {tuple(shape)}"
            )
        return np.asarray(waves / box, dtype=np.float64)

    def draw(self, shape: Sequence[int], rng: np.random.Generator) -> Labels:
        shape = checked_shape(shape)
        wave = self.wave_vector(len(shape), shape)
        axes = np.ix_(*(k * np.arange(n) for k, n in zip(wave, shape, strict=True)))
        position = sum(axes, start=np.asarray(rng.uniform()))
        return np.asarray(position % 1.0 < self.duty, dtype=np.uint8)

    def s2(self, lags: ArrayLike, shape: Sequence[int] | None = None) -> Floats:
        lags_D = np.asarray(lags, dtype=np.float64)
        turn = (lags_D @ self.wave_vector(lags_D.shape[-1], shape)) % 1.0
        overlap = np.maximum(0.0, self.duty - turn) + np.maximum(0.0, self.duty - (1.0 - turn))
        return np.asarray(overlap, dtype=np.float64)
