"""Interpolation: targets between those of the micrograph and those of a second one, or running along an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mcrdist.config.kinds import choice, some_numbers, text_or_texts
from mcrdist.config.micrograph import (
    OTHER_MICROGRAPH,
    MicrographConfig,
    MicrographSource,
    build_micrograph,
    require_images,
)
from mcrdist.config.schema import Check, Section, checks_of, setting, show
from mcrdist.errors import InputError


@dataclass(frozen=True)
class InterpolateConfig:
    """The far end of an interpolation, and the way between the ends.

    Attributes
    ----------
    micrograph : MicrographConfig or None
        The far end's images, complete.
    path : str, tuple of str or None
        The far end as a file of targets, as `target.path`.
    along : "z", "y", "x" or None
        The axis along which the material changes; None: the volume is the same everywhere.
    t : tuple of float or None
        The way: 0 is the micrograph, 1 the far end. Several values follow one another along the axis.
    """

    micrograph: MicrographConfig | None = None
    path: str | tuple[str, ...] | None = setting(
        text_or_texts(
            "the path of targets.npz or of two-point statistics", optional=True, example="targets.npz"
        ),
        None,
    )
    along: Literal["z", "y", "x"] | None = setting(choice("z", "y", "x", optional=True, example="z"), None)
    t: tuple[float, ...] | None = setting(some_numbers(0, 1, optional=True, example="0.5"), None)

    @property
    def given(self) -> bool:
        """Whether there is a far end."""
        return self.micrograph is not None or self.path is not None

    @property
    def way(self) -> tuple[float, ...]:
        """The values of t, those that follow from `along` included."""
        if self.t is not None:
            return self.t
        return (0.5,) if self.along is None else (0.0, 1.0)


_CHECKS: dict[str, Check | Section] = {"micrograph": OTHER_MICROGRAPH}
INTERPOLATE = Section(_CHECKS | checks_of(InterpolateConfig), lambda given, key: given)


def build_interpolate(given: dict[str, Any], key: str, base: MicrographConfig) -> InterpolateConfig:
    """Build the section from its checked mapping; what its micrograph does not set, `base` does."""
    own = given.pop("micrograph", None)
    config = InterpolateConfig(_far_end(own, f"{key}.micrograph", base) if own else None, **given)
    if config.micrograph is not None and config.path is not None:
        raise InputError(
            f"{key}: expected a micrograph or a file of targets, found both ({key}.path={show(config.path)}); "
            "give one of them"
        )
    for name, value in (("along", config.along), ("t", config.t)):
        if value is not None and not config.given:
            raise InputError(
                f"{key}.{name}: expected null without a second micrograph, found {show(value)}; give its image as "
                f"{key}.micrograph.path=other.tif"
            )
    if config.along is None and len(config.way) > 1:
        raise InputError(
            f"{key}.t: expected one number, found {show(list(config.way))}; for a material that changes "
            f"along an axis name it, e.g. {key}.along=z"
        )
    if config.along is not None and len(config.way) == 1:
        raise InputError(
            f"{key}.t: expected two numbers or more along {config.along}, found {config.way[0]:g}; "
            f"e.g. {key}.t=[0,1], or {key}.along=null"
        )
    return config


def _far_end(own: dict[str, Any], key: str, base: MicrographConfig) -> MicrographConfig:
    settings = {name: getattr(base, name) for name in checks_of(MicrographSource)} | {"path": None}
    found = build_micrograph(own, key, MicrographSource(**settings))
    require_images(found, key)
    return found
