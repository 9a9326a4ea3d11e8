"""From the configuration to targets: reading images and files, and settling the window of lags."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mcrdist.config import InterpolateConfig, MicrographConfig, TargetConfig
from mcrdist.directions import AXES
from mcrdist.errors import InputError
from mcrdist.imagefile import MICROMETRES
from mcrdist.micrograph import Micrograph, load
from mcrdist.targets.base import Targets
from mcrdist.targets.files import read_targets
from mcrdist.targets.interpolation import Interpolation
from mcrdist.targets.micrographs import MicrographTargets
from mcrdist.targets.statistics import StatisticsTargets

#: Pixel sizes that differ by no more than this share are one: files round them.
SAME_SIZE = 1e-3


def load_targets(
    micrographs: MicrographConfig, target: TargetConfig, interpolate: InterpolateConfig | None = None
) -> Targets:
    """Read the micrographs of the three directions, or the file in their place, and settle the lag window.

    Raises
    ------
    InputError
        An image or a file does not work, is smaller than the lag window, or has another pixel size or other phases
        than the others; or diagonals are asked for where directions differ.
    """
    ends = [_end(micrographs, target.path, "target.path", target.periodic)]
    if interpolate is not None and interpolate.given:
        ends.append(_end(interpolate.micrograph, interpolate.path, "interpolate.path", target.periodic))
    _check_pixel_sizes(ends)
    if target.diagonals and not all(end.one_for_all for end in ends):
        raise InputError(
            "target.diagonals: expected one micrograph for all directions, since different ones say nothing of planes "
            "between them, found different ones; give micrograph.path alone, or set target.diagonals=false"
        )
    lags = _window(ends, target.lags)
    ends = [_with_lags(end, lags) for end in ends]
    if interpolate is None or len(ends) == 1:
        return ends[0]
    return Interpolation.between((ends[0], ends[1]), interpolate.way, interpolate.along, lags)


def _end(
    micrographs: MicrographConfig | None, path: str | tuple[str, ...] | None, key: str, periodic: bool
) -> Targets:
    if path is not None:
        found = read_targets(path, key)
        return replace(found, periodic=True) if periodic and isinstance(found, MicrographTargets) else found
    assert micrographs is not None
    images: dict[str, tuple[Micrograph, ...]] = {}
    read: dict[Any, Micrograph] = {}
    for axis in AXES:
        for source in micrographs.source(axis).each:
            name = (id(source.image), str(source))
            if name not in read:
                read[name] = load(source)
            images[axis] = (*images.get(axis, ()), read[name])
    return MicrographTargets.settle(images, periodic)


def _window(ends: list[Targets], given: int | None) -> int:
    """The lags that the user gives, or the longest window of the ends, as far as all have room for it."""
    rooms = [room for end in ends for room in end.rooms()]
    least = min(room for room, _ in rooms)
    if given is None:
        return min(max(end.lags for end in ends), least)
    for room, problem in rooms:
        if given > room:
            raise InputError(
                f"{problem} for target.lags={given}; take target.lags={least} at most, or a larger image"
            )
    return given


def _with_lags(targets: Targets, lags: int) -> Targets:
    if isinstance(targets, Interpolation):
        start, end = (_with_lags(one, lags) for one in targets.ends)
        return replace(targets, ends=(start, end), lags=lags)
    assert isinstance(targets, MicrographTargets | StatisticsTargets)
    return replace(targets, lags=lags)


def _check_pixel_sizes(ends: list[Targets]) -> None:
    known = {
        size * MICROMETRES[unit]: f"{size:g} {unit} ({source})"
        for end in ends
        for size, unit, source in end.sizes()
    }
    if known and max(known) > min(known) * (1.0 + SAME_SIZE):
        found = ", ".join(known.values())
        raise InputError(
            f"micrograph: expected one pixel size in all directions, found {found}; resample the images "
            "to one"
        )
