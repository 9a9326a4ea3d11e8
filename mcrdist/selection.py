"""From the configuration to the descriptors that slices are held to, with their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from mcrdist.config import DescriptorConfig
from mcrdist.descriptors.base import Descriptor, Floats
from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.descriptors.cross_correlation import CrossCorrelation
from mcrdist.descriptors.joint import JointDescriptor
from mcrdist.descriptors.lineal_path import LinealPath, telling_length
from mcrdist.descriptors.pooled import Pooled, averaged
from mcrdist.descriptors.three_point import ThreePointCorrelation
from mcrdist.descriptors.variation import Variation
from mcrdist.descriptors.volume_fraction import VolumeFraction
from mcrdist.errors import InputError

#: Averaged slices have at least this many voxels a side.
SMALLEST_POOLED = 4


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


@dataclass(frozen=True)
class View:
    """The slices of one direction at one resolution, and what they must look like.

    Attributes
    ----------
    shape : tuple of int
        (H, W) of a slice.
    images : sequence of array
        The indicator of every phase on the micrograph, at the resolution of the slices; one of two phases.
    periodic : bool
        The micrograph's statistics wrap around.
    lags : int
        Of the two-point window.
    finest : bool
        The level is the finest: all that was asked for must be possible. Coarse levels do what they can.
    """

    shape: tuple[int, int]
    images: Sequence[Floats]
    periodic: bool
    lags: int
    finest: bool

    @property
    def room(self) -> int:
        """The longest lag that has statistics, on the slices and on the micrograph."""
        border = 0 if self.periodic else 1
        return max(1, min(min(self.shape) // 2, int(min(self.images[0].shape)) // 2 - border))

    def fits(self, factor: int) -> bool:
        """Whether averaging over factor x factor voxels comes out even and leaves something to measure."""
        smallest = min(*self.shape, *self.images[0].shape) // factor
        return not any(n % factor for n in self.shape) and smallest >= SMALLEST_POOLED

    def pooled(self, factor: int) -> View:
        """Averaged over factor x factor voxels."""
        small = replace(
            self,
            shape=(self.shape[0] // factor, self.shape[1] // factor),
            images=[averaged(image, factor) for image in self.images],
        )
        return replace(small, lags=min(self.lags, small.room))


Build = Callable[[View], Descriptor]


def select(config: DescriptorConfig, view: View) -> Selection:
    """The descriptors for slices as `view` has them.

    S2, the variation and the volume fraction are always among them, to be reported.

    Raises
    ------
    InputError
        Cross-correlations of a material of two phases, or a resolution that the slices do not have.
    """

    def two_point(seen: View) -> Descriptor:
        return TwoPointCorrelation(seen.lags)

    def variation(seen: View) -> Descriptor:
        del seen
        return Variation()

    def three_point(seen: View) -> Descriptor:
        return ThreePointCorrelation(min(config.s3.lags, seen.room), config.s3.triangles == "sparse")

    def lineal_path(seen: View) -> Descriptor:
        most = max(2, seen.room)
        length = config.lineal_path.length
        return LinealPath(min(length, most) if length else telling_length(seen.images, seen.periodic, most))

    single = [
        Chosen(descriptor, weight * descriptor.balance)
        for descriptor, weight in (
            (two_point(view), config.s2.weight),
            (variation(view), config.variation.weight),
            (VolumeFraction(), config.volume_fraction.weight),
        )
    ]
    optional: tuple[tuple[str, Build, float, tuple[int, ...]], ...] = (
        ("s2", two_point, config.s2.weight, config.s2.pooled),
        ("variation", variation, config.variation.weight, config.variation.pooled),
        ("s3", three_point, config.s3.weight, (1, *config.s3.pooled)),
        ("lineal_path", lineal_path, config.lineal_path.weight, (1, *config.lineal_path.pooled)),
    )
    for name, build, weight, factors in optional:
        if weight:
            single += _at_resolutions(name, build, weight, factors, view)
    return Selection(tuple(single), tuple(_joint(config, view)))


def _at_resolutions(
    name: str, build: Build, weight: float, factors: Sequence[int], view: View
) -> Iterator[Chosen]:
    """A descriptor of the slices averaged by each of the factors."""
    for factor in dict.fromkeys(factors):
        if factor == 1:
            descriptor = build(view)
        elif view.fits(factor):
            descriptor = Pooled(build(view.pooled(factor)), factor)
        elif view.finest:
            (height, width), (rows, columns) = view.shape, view.images[0].shape
            raise InputError(
                f"descriptors.{name}.pooled: expected factors that divide the sides of slices of {height}x{width} "
                f"voxels and leave {SMALLEST_POOLED} of them at least, and of the micrograph's {rows}x{columns} "
                f"pixels, found {factor}; e.g. descriptors.{name}.pooled=[2]"
            )
        else:
            continue
        yield Chosen(descriptor, weight * descriptor.balance)


def _joint(config: DescriptorConfig, view: View) -> Iterator[ChosenJoint]:
    weight = config.cross_correlation.weight
    if not weight:
        return
    if len(view.images) == 1:
        raise InputError(
            "descriptors.cross_correlation.weight: expected a micrograph of three phases or more, found two, "
            "whose correlations follow from those of one; set it to 0"
        )
    descriptor = CrossCorrelation(view.lags)
    yield ChosenJoint(descriptor, weight * descriptor.balance)
