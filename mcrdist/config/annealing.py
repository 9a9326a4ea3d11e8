"""What the annealing of Yeong and Torquato cannot do with the other settings."""

from __future__ import annotations

from mcrdist.config.descriptors import DescriptorConfig
from mcrdist.config.sections import TargetConfig
from mcrdist.errors import InputError

#: What counts of pairs tell.
COUNTED = ("s2", "variation", "volume_fraction")


def check_annealing(descriptors: DescriptorConfig, target: TargetConfig) -> None:
    """Raise InputError unless the loss depends on the pair counts of slices normal to the axes alone."""
    with_annealing = "with optimizer.name=yeong_torquato, which knows pairs of voxels only"
    others = [name for name, weight in descriptors.weights.items() if weight and name not in COUNTED]
    others += descriptors.extra
    if others:
        raise InputError(
            f"descriptors: expected {', '.join(COUNTED)} alone {with_annealing}, found {', '.join(others)}; set "
            "their weights to 0, or optimizer.name=lbfgsb"
        )
    if not descriptors.s2.weight:
        raise InputError(f"descriptors.s2.weight: expected one above 0 {with_annealing}, found 0; e.g. 1")
    pooled = [name for name in ("s2", "variation") if getattr(descriptors, name).pooled]
    if pooled:
        raise InputError(
            f"descriptors.{pooled[0]}.pooled: expected [] {with_annealing}, found "
            f"{list(getattr(descriptors, pooled[0]).pooled)}"
        )
    if descriptors.variation.weight and descriptors.variation.mode != "match":
        raise InputError(
            f"descriptors.variation.mode: expected match {with_annealing}, found {descriptors.variation.mode}"
        )
    if target.diagonals:
        raise InputError(f"target.diagonals: expected false {with_annealing} along the axes, found true")
