"""Overlapping discs and spheres: the Boolean model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mcrdist.errors import InputError
from mcrdist.synthetic.structure import Floats, Labels, Structure, check_fraction, checked_shape


@dataclass(frozen=True)
class OverlappingSpheres(Structure):
    """Boolean model: balls of one radius around the points of a Poisson process; phase 1 is their union.

    A point stays outside every ball with probability exp(-n |B|) for n centres a unit volume, two points with
    exp(-n |B(0) u B(r)|), hence S2(r) = 1 - 2 (1 - phi) + exp(-n |B(0) u B(r)|)
    (Torquato, Random Heterogeneous Materials, 2002, section 5.1). The union of two intervals, discs or balls
    is elementary.

    Attributes
    ----------
    radius : float
        Radius in voxels; at most a quarter of every extent, so that a ball meets only one image of another.
    fraction : float
        Volume fraction of phase 1, strictly between 0 and 1.
    dimension : int, optional
        Dimension of the space that the balls live in. A 2-D shape with ``dimension=3`` is a plane section
        through 3-D spheres, whose circles have many radii: what a microscope sees. Default: the shape's.
    """

    radius: float = 8.0
    fraction: float = 0.4
    dimension: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.radius) and self.radius > 0):
            raise InputError(f"synthetic radius: expected a positive number, found {self.radius}")
        if self.dimension not in (None, 1, 2, 3):
            raise InputError(f"synthetic dimension: expected 1, 2 or 3, found {self.dimension}")
        check_fraction(self.fraction)

    @property
    def phase_fraction(self) -> float:
        return self.fraction

    def draw(self, shape: Sequence[int], rng: np.random.Generator) -> Labels:
        shape = checked_shape(shape)
        if min(shape) < 4 * self.radius:
            raise InputError(
                f"synthetic radius: expected at most a quarter of the smallest extent of {shape}, "
                f"found {self.radius:g}; take a smaller radius or a larger shape"
            )
        hidden = self._dimension(len(shape)) - len(shape)
        # Only balls whose centre is within one radius of the section, along each hidden axis, can meet it.
        expected = self._density(len(shape) + hidden) * math.prod(shape) * (2.0 * self.radius) ** hidden
        count = int(rng.poisson(expected))
        centres = rng.uniform(0.0, shape, size=(count, len(shape)))
        heights = rng.uniform(-self.radius, self.radius, size=(count, hidden))
        squared_radii = self.radius**2 - np.sum(heights**2, axis=1)
        labels = np.zeros(shape, dtype=np.uint8)
        for centre, squared_radius in zip(centres, squared_radii, strict=True):
            if squared_radius > 0:
                _paint_ball(labels, centre, squared_radius)
        return labels

    def s2(self, lags: ArrayLike, shape: Sequence[int] | None = None) -> Floats:
        lags_D = np.asarray(lags, dtype=np.float64)
        if shape is not None:
            box = np.asarray(checked_shape(shape), dtype=np.float64)
            lags_D = lags_D - box * np.round(lags_D / box)
        dimension = self._dimension(lags_D.shape[-1])
        union = _union_of_two_balls(np.linalg.norm(lags_D, axis=-1), self.radius, dimension)
        both_outside = np.exp(-self._density(dimension) * union)
        return np.asarray(2.0 * self.fraction - 1.0 + both_outside, dtype=np.float64)

    def _dimension(self, drawn: int) -> int:
        dimension = self.dimension or drawn
        if dimension < drawn:
            raise InputError(
                f"synthetic dimension: expected at least {drawn}, that of the shape, found {dimension}"
            )
        return dimension

    def _density(self, dimension: int) -> float:
        """Centres a unit volume: fraction = 1 - exp(-n |B|)."""
        return -math.log1p(-self.fraction) / _ball_volume(self.radius, dimension)


def _ball_volume(radius: float, dimension: int) -> float:
    return (2.0 * radius, math.pi * radius**2, 4.0 / 3.0 * math.pi * radius**3)[dimension - 1]


def _union_of_two_balls(distance: Floats, radius: float, dimension: int) -> Floats:
    """Length, area or volume of the union of two balls of one radius whose centres are `distance` apart."""
    half = np.minimum(distance / (2.0 * radius), 1.0)  # beyond a diameter they no longer meet
    if dimension == 1:
        shared = 1.0 - half
    elif dimension == 2:
        shared = (2.0 / math.pi) * (np.arccos(half) - half * np.sqrt(1.0 - half**2))
    else:
        shared = 1.0 - 1.5 * half + 0.5 * half**3
    return np.asarray(_ball_volume(radius, dimension) * (2.0 - shared), dtype=np.float64)


def _paint_ball(labels: Labels, centre: Floats, squared_radius: float) -> None:
    """Set to 1, in place and with periodic wrap, every voxel whose centre lies inside the ball."""
    radius = math.sqrt(squared_radius)
    spans = [np.arange(math.ceil(c - radius), math.floor(c + radius) + 1) for c in centre]
    offsets = np.ix_(*((span - c) ** 2 for span, c in zip(spans, centre, strict=True)))
    inside = sum(offsets, start=np.zeros(())) <= squared_radius
    window = np.ix_(*(span % n for span, n in zip(spans, labels.shape, strict=True)))
    labels[window] |= inside.astype(np.uint8)
