"""From the configuration to the descriptors that slices are held to, with their weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mcrdist.config import DescriptorConfig
from mcrdist.config.descriptors import GramConfig, PatchConfig
from mcrdist.descriptors.base import Descriptor
from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.descriptors.cross_correlation import CrossCorrelation
from mcrdist.descriptors.gram import SMALLEST_MAP, GramMatrices, Vgg19, usable_layers
from mcrdist.descriptors.joint import JointDescriptor
from mcrdist.descriptors.lineal_path import LinealPath, telling_length
from mcrdist.descriptors.patches import PatchDistributions
from mcrdist.descriptors.pooled import Pooled
from mcrdist.descriptors.projections import PatchKind
from mcrdist.descriptors.three_point import ThreePointCorrelation
from mcrdist.descriptors.variation import Variation
from mcrdist.descriptors.volume_fraction import VolumeFraction
from mcrdist.errors import InputError
from mcrdist.extension import load
from mcrdist.view import SMALLEST_POOLED, View
from mcrdist.weightfile import load as load_weights

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

    def names(self) -> list[str]:
        """Of all descriptors."""
        return [one.name for one in self.descriptors] + [one.name for one in self.joints]

    def only(self, names: Collection[str]) -> Selection:
        """The descriptors of these names."""
        return Selection(
            tuple(one for one in self.single if one.descriptor.name in names),
            tuple(one for one in self.joint if one.descriptor.name in names),
        )


def shared(selections: Mapping[str, Selection]) -> dict[str, Selection]:
    """By direction, the descriptors that all directions have: slices of a coarse level may have room for fewer."""
    common = set.intersection(*(set(one.names()) for one in selections.values()))
    return {direction: one.only(common) for direction, one in selections.items()}


Build = Callable[[View], Descriptor]


def select(config: DescriptorConfig, view: View) -> Selection:
    """The descriptors for slices as `view` has them.

    S2, the variation and the volume fraction are always among them, to be reported.

    Raises
    ------
    InputError
        Cross-correlations of a material of two phases, a resolution that the slices do not have, patches wider than
        the window, a network whose weights are missing or whose layers see too few pixels of them.
    """

    def two_point(seen: View) -> Descriptor:
        return TwoPointCorrelation(seen.lags)

    def variation(seen: View) -> Descriptor:
        del seen
        return Variation(mode=config.variation.mode)

    def three_point(seen: View) -> Descriptor:
        return ThreePointCorrelation(min(config.s3.lags, seen.room), config.s3.triangles == "sparse")

    def lineal_path(seen: View) -> Descriptor:
        most = max(2, seen.room)
        length = config.lineal_path.length
        return LinealPath(min(length, most) if length else telling_length(seen.images, seen.periodic, most))

    constrained = config.variation.mode == "constrain" and config.variation.weight > 0.0
    single = [
        Chosen(descriptor, weight * descriptor.balance)
        for descriptor, weight in (
            (two_point(view), config.s2.weight),
            (variation(view), CONSTRAINT if constrained else config.variation.weight),
            (VolumeFraction(), config.volume_fraction.weight),
        )
    ]
    s3, path = config.s3, config.lineal_path
    optional: tuple[tuple[str, Build, float, tuple[int, ...], int], ...] = (
        ("s2", two_point, config.s2.weight, config.s2.pooled, 1),
        ("variation", variation, config.variation.weight, config.variation.pooled, 1),
        ("s3", three_point, s3.weight, (1, *s3.pooled), s3.every),
        ("lineal_path", lineal_path, path.weight, (1, *path.pooled), path.every),
    )
    for name, build, weight, factors, every in optional:
        if weight:
            single += _at_resolutions(name, build, weight, factors, every, view)
    single += [*_patches(config.patches, view), *_gram(config.gram, view)]
    single += [Chosen(extra.descriptor, extra.weight * extra.descriptor.balance) for extra in load(config)]
    return Selection(tuple(single), tuple(_joint(config, view)))


def _at_resolutions(
    name: str, build: Build, weight: float, factors: Sequence[int], every: int, view: View
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
        yield Chosen(descriptor, weight * descriptor.balance, every)


def _patches(config: PatchConfig, view: View) -> Iterator[Chosen]:
    """The patches that slices and micrograph have room for: those no wider than the lag window."""
    if not config.weight:
        return
    kinds = [PatchKind(size, pooled) for pooled in (1, *config.pooled) for size in config.sizes]
    fitting = [kind for kind in kinds if kind.side <= 2 * view.lags]
    if view.finest and len(fitting) < len(kinds):
        wide = next(kind for kind in kinds if kind not in fitting)
        (height, width), averaged = view.shape, wide.pooled > 1
        raise InputError(
            f"descriptors.patches.{'pooled' if averaged else 'sizes'}: expected patches of at most {2 * view.lags} "
            f"voxels a side, twice the lags of slices of {height}x{width} voxels, found {wide.size}"
            f"{f' averaged ones of {wide.pooled}' if averaged else ''}; take smaller ones, or more target.lags"
        )
    if fitting:
        descriptor = PatchDistributions(fitting, config.filters, config.redraw)
        yield Chosen(descriptor, config.weight * descriptor.balance, config.every)


def _gram(config: GramConfig, view: View) -> Iterator[Chosen]:
    """Coarse levels do without the layers that would see too few pixels there."""
    if not config.weight:
        return
    layers = usable_layers(config.layers, view.shape)
    if layers:
        descriptor = GramMatrices(_vgg19(config.weights), layers)
        yield Chosen(descriptor, config.weight * descriptor.balance, config.every)
    elif view.finest:
        height, width = view.shape
        raise InputError(
            f"descriptors.gram.layers: expected a layer with at least {SMALLEST_MAP} pixels a side on slices of "
            f"{height}x{width}, found {', '.join(config.layers)}; take a shallower one, e.g. [relu1_2,relu2_2], or "
            "a larger volume"
        )


@lru_cache(maxsize=1)
def _vgg19(path: str | None) -> Vgg19:
    return Vgg19(load_weights(path))


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
