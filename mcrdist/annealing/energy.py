"""The loss of an objective as a function of the pair counts of its slices, where it is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import float64

from mcrdist.descriptors.base import Targets, Term
from mcrdist.descriptors.correlation import TwoPointTerm
from mcrdist.descriptors.variation import VariationTerm
from mcrdist.descriptors.volume_fraction import VolumeFractionTerm
from mcrdist.directions import Direction
from mcrdist.look import Held
from mcrdist.objective import Objective

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SliceEnergy:
    """What the slices of one direction are held to, as counts of pairs of pixels of the phase.

    Attributes
    ----------
    axis : int
        Normal of the slices.
    s2 : float64 array (S, 2L+1, L+1)
        N S2 of each slice.
    variation, fraction : float64 array (S,)
        N times the variation and the volume fraction.
    weights : float64 array (3,)
        What the squares of the three residuals cost.
    """

    axis: int
    s2: Floats
    variation: Floats
    fraction: Floats
    weights: Floats


def slice_energies(objective: Objective) -> list[SliceEnergy]:
    """The energy of every direction of an objective of S2 and, perhaps, variation and volume fraction.

    Known voxels stay as they are, but the pairs across their border are counted as others are: that part of the
    objective is left out.
    """
    assert len(objective.phases.labels) == 1, objective.phases.labels
    return [_of_direction(direction, held, objective) for direction, held in objective.held.items()]


def _of_direction(direction: Direction, held: Held, objective: Objective) -> SliceEnergy:
    assert direction.by is None, direction.name
    parts = {type(part): part for part, _ in held.parts}
    s2 = parts.pop(TwoPointTerm)
    variation, fraction = parts.pop(VariationTerm, None), parts.pop(VolumeFractionTerm, None)
    assert isinstance(s2, TwoPointTerm) and not parts, parts
    count = direction.slices(objective.slab.shape)
    pixels = s2.window.pixels
    lags = s2.window.lags
    targets = np.broadcast_to(_values(s2.targets, count), (count, 2 * lags + 1, lags + 1))
    return SliceEnergy(
        direction.axis,
        pixels * targets,
        pixels * _numbers(variation, count),
        pixels * _numbers(fraction, count),
        np.array([_weight(part, pixels, objective.share) for part in (s2, variation, fraction)]),
    )


def _weight(term: object, pixels: int, share: float) -> float:
    return share * term.weight / (term.scale * pixels) ** 2 if isinstance(term, Term) else 0.0


def _numbers(term: object, count: int) -> Floats:
    """What a term of one number wants of every slice; zeros without the term."""
    if not isinstance(term, VariationTerm | VolumeFractionTerm):
        return np.zeros(count)
    return np.broadcast_to(_values(term.targets, count), (count,))


def _values(targets: Targets, count: int) -> Floats:
    return np.asarray(targets.of(range(count)).to(float64).cpu().numpy())


def total(energies: Sequence[SliceEnergy], counts: Sequence[NDArray[np.int32]]) -> float:
    """The energy of counts (S, 2L+1, L+1), one array a direction: the objective's loss but for borders."""
    return float(sum(np.sum(_of_slices(energy, own)) for energy, own in zip(energies, counts, strict=True)))


def _of_slices(energy: SliceEnergy, counts: NDArray[np.int32]) -> Floats:
    residual = counts - energy.s2
    steps, here = sums_of(energy, counts).T
    squares = np.stack([(residual**2).sum((1, 2)), steps**2, here**2])
    return np.asarray(energy.weights @ squares)


def sums_of(energy: SliceEnergy, counts: NDArray[np.int32]) -> Floats:
    """Residuals (S, 2) of N times the variation, 4 C(0) − 2 C(one pixel), and of N times the fraction, C(0)."""
    lags = counts.shape[2] - 1
    here = counts[:, lags, 0]
    steps = 4.0 * here - 2.0 * counts[:, lags, 1] - 2.0 * counts[:, lags + 1, 0]
    return np.stack([steps - energy.variation, here - energy.fraction], axis=1)
