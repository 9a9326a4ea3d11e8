"""Micrographs for the tests of targets, and the shortest way from them to targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist import synthetic
from mcrdist.config import from_mapping
from mcrdist.descriptors.base import Descriptor
from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.descriptors.variation import Variation
from mcrdist.descriptors.volume_fraction import VolumeFraction
from mcrdist.directions import DIAGONAL, ORTHOGONAL
from mcrdist.targets import Target, Targets, load_targets

SHAPE = (20, 16, 18)
DIRECTIONS = {direction.name: direction for direction in ORTHOGONAL + DIAGONAL}
LAGS = 5


def blobs(
    shape: tuple[int, int] = (48, 48),
    length: float | tuple[float, ...] = 4.0,
    seed: int = 3,
    fraction: float = 0.4,
) -> NDArray[np.uint8]:
    structure = synthetic.ThresholdedGaussian(length=length, fraction=fraction)
    return structure.draw(shape, np.random.default_rng(seed))


def targets_of(micrograph: Any = None, interpolate: Any = None, **target: Any) -> Targets:
    config = from_mapping(
        {
            "micrograph": micrograph,
            "interpolate": interpolate,
            "target": {"lags": LAGS} | target,
            "volume": {"size": 64},
        }
    )
    return load_targets(config.micrograph, config.target, config.interpolate)


def descriptors() -> list[Descriptor]:
    return [TwoPointCorrelation(LAGS), Variation(), VolumeFraction()]


def at(targets: Targets, direction: str = "z", **options: Any) -> Target:
    """The first phase's target of one direction on the finest level."""
    return targets.at(DIRECTIONS[direction], 1, SHAPE, descriptors(), options.get("joint", []))[0]
