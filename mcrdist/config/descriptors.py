"""The descriptors that slices are held to; a weight of 0 leaves one out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from mcrdist.config.kinds import (
    boolean,
    choice,
    integer,
    number,
    some_choices,
    some_classes,
    some_integers,
    text,
)
from mcrdist.config.schema import Section, checks_of, section, setting, show
from mcrdist.errors import InputError

VGG_LAYERS = tuple(
    f"relu{block}_{place}" for block, count in enumerate((2, 2, 4, 4, 4), 1) for place in range(1, count + 1)
)
#: The last one of each block.
VGG_DEFAULT = ("relu1_2", "relu2_2", "relu3_4", "relu4_4", "relu5_4")


def _weight(default: float) -> float:
    weight: float = setting(number(0, example="1"), default)
    return weight


def _pooled() -> tuple[int, ...]:
    factors: tuple[int, ...] = setting(some_integers(2, example="[2,4]"), ())
    return factors


def _every() -> int:
    """Only each so many-th slice is looked at, others as the optimisation goes on."""
    stride: int = setting(integer(1, 4096, example="8"), 1)
    return stride


@dataclass(frozen=True)
class TwoPointConfig:
    """Two-point correlation."""

    weight: float = _weight(1.0)
    pooled: tuple[int, ...] = _pooled()


@dataclass(frozen=True)
class ThreePointConfig:
    """Three-point correlation."""

    weight: float = _weight(0.0)
    lags: int = setting(integer(1, 32), 4)
    triangles: Literal["window", "sparse"] = setting(choice("window", "sparse", example="sparse"), "window")
    pooled: tuple[int, ...] = _pooled()
    every: int = _every()


@dataclass(frozen=True)
class VariationConfig:
    """Amount of phase boundary: matched (Eq. 9), minimised (Eq. 7), or a constraint (footnote 7)."""

    weight: float = _weight(1.0)
    mode: Literal["match", "minimize", "constrain"] = setting(
        choice("match", "minimize", "constrain", example="constrain"), "match"
    )
    pooled: tuple[int, ...] = _pooled()


def _build_variation(given: dict[str, Any], key: str) -> VariationConfig:
    """A constraint is one number a slice: averages of the slice would be further ones, which contradict it."""
    config = VariationConfig(**given)
    if config.mode == "constrain" and config.weight and config.pooled:
        raise InputError(
            f"{key}.pooled: expected [] with {key}.mode=constrain, which holds slices as they are, found "
            f"{show(list(config.pooled))}; set {key}.pooled=[], or {key}.mode=match"
        )
    return config


_VARIATION = Section(checks_of(VariationConfig), _build_variation)


@dataclass(frozen=True)
class VolumeFractionConfig:
    """Area fraction of the phase."""

    weight: float = _weight(1.0)


@dataclass(frozen=True)
class LinealPathConfig:
    """Lineal path: the probability that a segment lies in one phase."""

    weight: float = _weight(0.0)
    length: int | None = setting(integer(2, optional=True, example="16"), None)
    pooled: tuple[int, ...] = _pooled()
    every: int = _every()


@dataclass(frozen=True)
class PatchConfig:
    """Distributions of small patches: their sliced Wasserstein distance."""

    weight: float = _weight(0.0)
    sizes: tuple[int, ...] = setting(some_integers(2, example="[3,6]"), (3, 6))
    filters: int = setting(integer(1, 1024, example="8"), 3)
    redraw: bool = setting(boolean(), False)
    pooled: tuple[int, ...] = _pooled()
    every: int = _every()


@dataclass(frozen=True)
class GramConfig:
    """Gram matrices of VGG-19 features."""

    weight: float = _weight(0.0)
    layers: tuple[str, ...] = setting(some_choices(*VGG_LAYERS, example="[relu1_2,relu2_2]"), VGG_DEFAULT)
    weights: str | None = setting(
        text("the path of a file", optional=True, example="vgg19.safetensors"), None
    )
    every: int = _every()


@dataclass(frozen=True)
class CrossCorrelationConfig:
    """Two-point correlations between different phases."""

    weight: float = _weight(0.0)


@dataclass(frozen=True)
class DescriptorConfig:
    """All descriptors."""

    s2: TwoPointConfig = setting(section(TwoPointConfig), TwoPointConfig())
    variation: VariationConfig = setting(_VARIATION, VariationConfig())
    volume_fraction: VolumeFractionConfig = setting(section(VolumeFractionConfig), VolumeFractionConfig())
    s3: ThreePointConfig = setting(section(ThreePointConfig), ThreePointConfig())
    lineal_path: LinealPathConfig = setting(section(LinealPathConfig), LinealPathConfig())
    patches: PatchConfig = setting(section(PatchConfig), PatchConfig())
    gram: GramConfig = setting(section(GramConfig), GramConfig())
    cross_correlation: CrossCorrelationConfig = setting(
        section(CrossCorrelationConfig), CrossCorrelationConfig()
    )
    extra: tuple[str, ...] = setting(some_classes(example="[mine:Coarseness]"), ())

    @property
    def weights(self) -> dict[str, float]:
        """The weights by descriptor name: ``{"s2": 1.0, "variation": 1.0, …}``."""
        return {
            f.name: getattr(self, f.name).weight
            for f in dataclasses.fields(self)
            if isinstance(f.metadata["check"], Section)
        }


def descriptors_from_mapping(mapping: object) -> DescriptorConfig:
    """Return the validated section ``descriptors`` of a configuration; see :func:`mcrdist.config.from_mapping`."""
    config: DescriptorConfig = section(DescriptorConfig)(mapping, "descriptors")
    return config
