"""From the configuration to the descriptors that slices are held to, with their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mcrdist.config import DescriptorConfig
from mcrdist.descriptors.base import Descriptor
from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.descriptors.gram import SMALLEST_MAP, GramMatrices, Vgg19, usable_layers
from mcrdist.descriptors.joint import JointDescriptor
from mcrdist.descriptors.variation import Variation
from mcrdist.descriptors.volume_fraction import VolumeFraction
from mcrdist.errors import InputError
from mcrdist.weightfile import load


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
    del phases
    single = [
        Chosen(descriptor, weight * descriptor.balance)
        for descriptor, weight in (
            (TwoPointCorrelation(lags), config.s2.weight),
            (Variation(), config.variation.weight),
            (VolumeFraction(), config.volume_fraction.weight),
        )
    ]
    # Coarse levels do without the layers that would see too few pixels there.
    layers = usable_layers(config.gram.layers, shape)
    if config.gram.weight and layers:
        gram = GramMatrices(_vgg19(config.gram.weights), layers)
        single.append(Chosen(gram, config.gram.weight * gram.balance, config.gram.every))
    return Selection(tuple(single))


def check(config: DescriptorConfig, shape: tuple[int, int]) -> None:
    """See whether what the descriptors need is there, for slices of the finest level.

    Raises
    ------
    InputError
        The weights of the network are missing, or the slices are too small for all layers asked for.
    """
    if config.gram.weight:
        _vgg19(config.gram.weights)
        if not usable_layers(config.gram.layers, shape):
            raise InputError(
                f"descriptors.gram.layers: expected a layer with at least {SMALLEST_MAP} pixels a side on slices of "
                f"{shape[0]}x{shape[1]}, found {', '.join(config.gram.layers)}; take a shallower one, e.g. "
                "[relu1_2,relu2_2], or a larger volume"
            )


@lru_cache(maxsize=1)
def _vgg19(path: str | None) -> Vgg19:
    return Vgg19(load(path))
