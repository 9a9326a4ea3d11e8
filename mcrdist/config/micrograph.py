"""The micrographs' settings: images for all directions, or for one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mcrdist.config.kinds import boolean, choice, integer, integers, number, text_or_texts
from mcrdist.config.schema import INVALID, Check, Section, checks_of, setting
from mcrdist.errors import InputError

AXES = ("z", "y", "x")
MINIMUM_SIZE = 8  # pixels a side: below this an image holds no statistics worth matching

CLASSES = 2  # of multi-otsu, unless the settings say how many

UNITS = ("angstrom", "nm", "um", "mm", "cm", "m")

Segmentation = Literal["auto", "labels", "otsu", "multi-otsu", "threshold"]


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__")


def _arrays(value: object) -> object:
    """Keep images given as arrays; what they hold is checked where they are segmented."""
    if isinstance(value, list | tuple):
        return tuple(map(np.asarray, value)) if value and all(map(_is_array, value)) else INVALID
    return np.asarray(value) if _is_array(value) else INVALID


@dataclass(frozen=True)
class MicrographSource:
    """Where micrographs of one direction come from and how they become phases: one, or several alike."""

    path: str | tuple[str, ...] | None = setting(
        text_or_texts("the path of an image", optional=True, example="sem.tif"), None
    )
    phase: int | None = setting(integer(0, 255, optional=True, example="1"), None)
    segmentation: Segmentation = setting(
        choice("auto", "labels", "otsu", "multi-otsu", "threshold", example="otsu"), "auto"
    )
    threshold: float | None = setting(number(optional=True, example="128"), None)
    classes: int = setting(integer(2, 5), CLASSES)
    invert: bool = setting(boolean(), False)
    crop: tuple[int, int, int, int] | None = setting(
        integers(4, 0, optional=True, example="[0,512,0,512]"), None
    )
    pixel_size: float | None = setting(number(above=0, optional=True, example="0.25"), None)
    unit: str | None = setting(choice(*UNITS, optional=True, example="um"), None)
    image: NDArray[Any] | tuple[NDArray[Any], ...] | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    @property
    def given(self) -> bool:
        """Whether there is an image to read at all."""
        return self.path is not None or self.image is not None

    @property
    def each(self) -> tuple[MicrographSource, ...]:
        """The images one by one, all with these settings."""
        if isinstance(self.image, tuple):
            return tuple(replace(self, image=image) for image in self.image)
        if isinstance(self.path, tuple):
            return tuple(replace(self, path=path) for path in self.path)
        return (self,)


# `image` is Python's alone: a mapping from YAML or the command line has no arrays.
_SOURCE: dict[str, Check | Section] = checks_of(MicrographSource) | {
    "image": Check("an array, or a list of them", _arrays, optional=True, hidden=True)
}


@dataclass(frozen=True)
class MicrographConfig(MicrographSource):
    """The micrograph of all directions, and those that belong to one direction.

    Attributes
    ----------
    z, y, x : MicrographSource or None
        The micrograph of the plane normal to that axis, complete: settings that were not given for the
        direction have been taken from the common ones. None: the common micrograph.
    """

    z: MicrographSource | None = None
    y: MicrographSource | None = None
    x: MicrographSource | None = None

    def source(self, axis: str) -> MicrographSource:
        """Return the micrograph of the plane normal to `axis` ("z", "y" or "x")."""
        own: MicrographSource | None = getattr(self, axis)
        if own is not None:
            return own
        return MicrographSource(
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(MicrographSource)}
        )


def _merge_source(base: MicrographSource, given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `base` overridden by `given`, where a path and an image replace each other."""
    fields = {f.name: getattr(base, f.name) for f in dataclasses.fields(MicrographSource)}
    if given.get("image") is not None:
        fields["path"] = None
    elif given.get("path") is not None:
        fields["image"] = None
    return fields | given


def _resegmented(given: dict[str, Any]) -> dict[str, Any]:
    """Return `given`, where it chooses a segmentation without what belongs to that of the common micrograph.

    A threshold and classes are no one's but their segmentation's: another one leaves them behind.
    """
    kind = given.get("segmentation", "auto")
    if kind == "auto" and "threshold" in given:
        kind = "threshold"
    elif kind == "auto" and given.get("classes", CLASSES) != CLASSES:
        kind = "multi-otsu"
    if kind == "auto":
        return given
    left: dict[str, Any] = {"segmentation": "auto"}
    if kind != "threshold":
        left["threshold"] = None
    if kind != "multi-otsu":
        left["classes"] = CLASSES
    return left | given


def _check_source(source: MicrographSource, key: str) -> MicrographSource:
    """Check what one field cannot know of another; a threshold, or classes, choose their segmentation."""
    if source.path is not None and source.image is not None:
        raise InputError(f"{key}: expected a path or an image, found both; give one of them")
    if source.segmentation == "threshold" and source.threshold is None:
        raise InputError(
            f"{key}.threshold: expected a grey level, found nothing (null); {key}.segmentation="
            f"threshold needs one, e.g. {key}.threshold=128"
        )
    if source.threshold is not None:
        if source.segmentation not in ("auto", "threshold"):
            raise InputError(
                f"{key}.threshold: expected null with {key}.segmentation={source.segmentation}, found "
                f"{source.threshold:g}; use {key}.segmentation=threshold"
            )
        source = replace(source, segmentation="threshold")
    if source.classes != CLASSES:
        if source.segmentation not in ("auto", "multi-otsu"):
            remedy = "" if source.threshold is None else f" and {key}.threshold=null"
            raise InputError(
                f"{key}.classes: expected {CLASSES} with {key}.segmentation={source.segmentation}, found "
                f"{source.classes}; use {key}.segmentation=multi-otsu{remedy}"
            )
        source = replace(source, segmentation="multi-otsu")
    if source.crop is not None:
        row0, row1, column0, column1 = source.crop
        if row1 - row0 < MINIMUM_SIZE or column1 - column0 < MINIMUM_SIZE:
            raise InputError(
                f"{key}.crop: expected [row0,row1,column0,column1] with at least {MINIMUM_SIZE} pixels "
                f"each way, found {list(source.crop)}; e.g. {key}.crop=[0,512,0,512]"
            )
    return source


def build_micrograph(
    given: dict[str, Any], key: str, base: MicrographSource = MicrographSource()
) -> MicrographConfig:
    """Build the micrographs of all directions from the checked mapping; `base` has what that does not set."""
    given = dict(given)
    own = {axis: given.pop(axis) for axis in AXES if axis in given}
    common = _check_source(MicrographSource(**_merge_source(base, _resegmented(given))), key)
    directions: dict[str, Any] = {}
    for axis, overrides in own.items():
        if overrides:
            merged = MicrographSource(**_merge_source(common, _resegmented(overrides)))
            directions[axis] = _check_source(merged, f"{key}.{axis}")
    return MicrographConfig(**_merge_source(common, {}), **directions)


def require_images(config: MicrographConfig, key: str) -> None:
    """Raise InputError unless every direction has an image."""
    missing = [axis for axis in AXES if not config.source(axis).given]
    if len(missing) == len(AXES):
        raise InputError(f"{key}.path: expected an image, found nothing (null); e.g. {key}.path=sem.tif")
    if missing:
        raise InputError(
            f"{key}.{missing[0]}.path: expected an image for direction {missing[0]}, found nothing (null); "
            f"give {key}.path for the directions without one of their own, or {key}.{missing[0]}.path"
        )


def _path_or_image(value: object) -> object:
    """Accept bare paths or arrays where the keys of a micrograph are expected."""
    if value is None or isinstance(value, Mapping):
        return value
    first = value[0] if isinstance(value, list | tuple) and value else value
    return {"image": value} if _is_array(first) else {"path": value}


_DIRECTION = Section(_SOURCE, lambda given, key: given, _path_or_image)
MICROGRAPH = Section(_SOURCE | dict.fromkeys(AXES, _DIRECTION), build_micrograph, _path_or_image)
#: The same keys, left as they were given: what they do not set comes from elsewhere.
OTHER_MICROGRAPH = Section(MICROGRAPH.checks, lambda given, key: given, _path_or_image)
