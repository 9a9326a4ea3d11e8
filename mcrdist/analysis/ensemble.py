"""What the runs of a sweep have in common: means, standard deviations, and how independent the volumes are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis import words
from mcrdist.analysis.material import Phase
from mcrdist.store.run import Run


@dataclass(frozen=True)
class Member:
    """A run of a sweep.

    Attributes
    ----------
    run : Run
    values : mapping of str to str
        What the swept keys were, the seed among them if it was swept.
    seed : int
    """

    run: Run
    values: Mapping[str, str]
    seed: int

    @property
    def setting(self) -> str:
        """What it was run with, but for the seed: members with the same setting are one ensemble."""
        return ", ".join(f"{key}={value}" for key, value in self.values.items() if key != "seed")

    def errors(self) -> dict[str, float]:
        """Errors of the rounded volume (Eq. 10) by descriptor, means over the directions."""
        return words.means((words.dig(self.run.summary, "errors", "rounded") or {}).values())

    def fraction(self, phase: Phase, several: bool) -> float | None:
        """Volume fraction of a phase in the rounded volume."""
        summary = words.dig(self.run.summary, "phases", str(phase.label)) if several else self.run.summary
        found = words.dig(summary or {}, "volume_fraction", "rounded")
        return None if found is None else float(found)


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of a figure over the members of an ensemble; nan without two of them."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread | None:
        """The spread of what is known; None where nothing is."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else math.nan)


def settings(members: Sequence[Member]) -> dict[str, list[Member]]:
    """The ensembles of a sweep, by what its members were run with."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(member.setting, []).append(member)
    return found


def correlation(members: Sequence[Member], phase: Phase) -> NDArray[np.float64] | None:
    """Pearson's correlation of the phase's indicator between volumes, voxel by voxel.

    Independent volumes have one near 0, equal ones 1.

    Returns
    -------
    array (members, members) or None
        None with fewer than two members, other shapes, or a volume of one phase only.
    """
    volumes = [member.run.volume for member in members]
    shapes = {volume.shape for volume in volumes}
    if len(volumes) < 2 or len(shapes) > 1:
        return None
    (shape,) = shapes
    products = np.zeros((len(volumes), len(volumes)))
    sums = np.zeros(len(volumes))
    depth = min(volume.depth for volume in volumes)
    for start in range(0, shape[0], depth):
        part = slice(start, start + depth)
        blocks = [volume.read(volume.phase(), part) == phase.label for volume in volumes]
        rows = np.stack([block.ravel() for block in blocks]).astype(np.float32)
        products += rows @ rows.T  # counts, exact in float32 up to 2**24 voxels of a block
        sums += rows.sum(1, dtype=np.float64)
    mean = sums / math.prod(shape)
    covariance = products / math.prod(shape) - np.outer(mean, mean)
    scale = np.sqrt(np.diag(covariance))
    return covariance / np.outer(scale, scale) if (scale > 0).all() else None


def largest(correlations: NDArray[np.float64] | None) -> float | None:
    """The correlation of the two members that are most alike."""
    if correlations is None:
        return None
    return float(np.max(correlations[~np.eye(len(correlations), dtype=bool)]))
