"""The configuration of `mcrdist plan`: a run that is only thought of, and the machine it would have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mcrdist.config.kinds import boolean, choice, integer, number, size
from mcrdist.config.schema import INVALID, Check, Section, checks_of, section, setting
from mcrdist.config.sections import VOLUME, VolumeConfig
from mcrdist.errors import InputError


@dataclass(frozen=True)
class HardwareConfig:
    """What a rank has; None: what its device has."""

    memory: int | None = setting(size(optional=True, example="80GB"), None)
    flops: float | None = setting(number(above=0, optional=True, example="67e12"), None)
    bandwidth: float | None = setting(number(above=0, optional=True, example="3.35e12"), None)
    network: float | None = setting(number(above=0, optional=True, example="50e9"), None)


@dataclass(frozen=True)
class PlanOptimizerConfig:
    """The optimiser, as far as it matters."""

    name: Literal["lbfgsb", "adam"] = setting(choice("lbfgsb", "adam"), "lbfgsb")
    history: int = setting(integer(1, 100), 4)
    history_dtype: Literal["float32", "bfloat16"] | None = setting(
        choice("float32", "bfloat16", optional=True, example="bfloat16"), None
    )


@dataclass(frozen=True)
class PlanRuntimeConfig:
    """The precision."""

    dtype: Literal["float32", "float64"] = setting(choice("float32", "float64"), "float32")


@dataclass(frozen=True)
class PlanTargetConfig:
    """Which slices are looked at."""

    diagonals: bool = setting(boolean(), False)


def _phases(**options: Any) -> Check:
    any_number = integer(1, 64)
    return Check(
        "1, or an integer from 3 to 64 for all phases of a material",
        lambda value: INVALID if any_number.convert(value) in (INVALID, 2) else any_number.convert(value),
        **options,
    )


@dataclass(frozen=True)
class PlanConfig:
    """What `mcrdist plan` needs."""

    volume: VolumeConfig
    ranks: int = setting(integer(1, example="64"), 1)
    threads: int = setting(integer(1, example="8"), 1)
    phases: int = setting(_phases(example="3"), 1)
    lags: int = setting(integer(1, example="32"), 32)
    iterations: int = setting(integer(1, example="300"), 300)
    device: Literal["cpu", "a100", "h100"] = setting(choice("cpu", "a100", "h100"), "cpu")
    hardware: HardwareConfig = setting(section(HardwareConfig), HardwareConfig())
    optimizer: PlanOptimizerConfig = setting(section(PlanOptimizerConfig), PlanOptimizerConfig())
    runtime: PlanRuntimeConfig = setting(section(PlanRuntimeConfig), PlanRuntimeConfig())
    target: PlanTargetConfig = setting(section(PlanTargetConfig), PlanTargetConfig())


def _build(given: dict[str, Any], key: str) -> PlanConfig:
    volume = given.pop("volume", None) or VOLUME(None, "volume")
    config = PlanConfig(volume=volume, **given)
    planes = volume.shape[0]
    if config.ranks > planes:
        raise InputError(
            f"ranks: expected at most {planes}, one a plane of volume.shape={list(volume.shape)}, found "
            f"{config.ranks}; e.g. ranks={planes}"
        )
    return config


PLAN = Section({"volume": VOLUME} | checks_of(PlanConfig), _build)


def plan_from_mapping(mapping: Mapping[str, Any]) -> PlanConfig:
    """Return the validated configuration of a plan; see :func:`mcrdist.config.from_mapping`."""
    PLAN.verify(mapping, "")
    config: PlanConfig = PLAN(mapping, "")
    return config
