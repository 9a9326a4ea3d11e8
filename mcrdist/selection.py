"""From the configuration to the descriptors that slices are held to, with their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcrdist.config import DescriptorConfig
from mcrdist.descriptors.base import Descriptor
from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.descriptors.joint import JointDescriptor
from mcrdist.descriptors.variation import Variation
from mcrdist.descriptors.volume_fraction import VolumeFraction

#: What a variation that is a constraint weighs, whatever the configuration says: met it is with any weight, and with
#: this one soon.
CONSTRAINT = 10.0


@dataclass(frozen=True)
class Chosen:
    """A descriptor of one phase, its weight in the loss (balance included), and how often it looks at a slice."""

    descriptor: Descriptor
    weight: float
    every: int = 1


@dataclass(frozen=True)
class ChosenJoint:
    """A descriptor of all phases together, and its weight in the loss (balance included)."""

    descriptor: JointDescriptor
    weight: float


@dataclass(frozen=True)
class Selection:
    """The descriptors of one direction at one level; those that are only reported have weight 0."""

    single: tuple[Chosen, ...]
    joint: tuple[ChosenJoint, ...] = ()

    @property
    def descriptors(self) -> Sequence[Descriptor]:
        """The descriptors of one phase."""
        return [chosen.descriptor for chosen in self.single]

    @property
    def joints(self) -> Sequence[JointDescriptor]:
        """The descriptors of all phases together."""
        return [chosen.descriptor for chosen in self.joint]


def select(config: DescriptorConfig, lags: int, shape: tuple[int, int], phases: int) -> Selection:
    """The descriptors for slices of this shape (H, W), with a lag window of `lags`.

    S2, the variation and the volume fraction are always among them, to be reported.
    """
    del shape, phases
    variation = config.variation
    constrained = variation.mode == "constrain" and variation.weight > 0.0
    amount = CONSTRAINT if constrained else variation.weight
    single = [
        Chosen(descriptor, weight * descriptor.balance)
        for descriptor, weight in (
            (TwoPointCorrelation(lags), config.s2.weight),
            (Variation(mode=variation.mode), amount),
            (VolumeFraction(), config.volume_fraction.weight),
        )
    ]
    return Selection(tuple(single))
