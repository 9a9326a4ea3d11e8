"""Eq. 10 for all that a run was held to beyond S2, variation and volume fraction: each descriptor, plane by plane.

Planes along diagonals are compared here in all descriptors.

What a task needs to know is in the run directory, so that it finds it there: a task is a recipe, and neither networks
nor micrographs travel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mcrdist.analysis.material import AXES, Phase, phases, shown
from mcrdist.analysis.volume.prescribed import NAMES
from mcrdist.config import DescriptorConfig, VolumeSourceConfig, descriptors_from_mapping
from mcrdist.config.descriptors import GramConfig
from mcrdist.descriptors import spacing
from mcrdist.descriptors.base import SliceGrid, Term
from mcrdist.descriptors.joint import JointTerm
from mcrdist.directions import DIAGONAL, ORTHOGONAL, Direction
from mcrdist.errors import InputError
from mcrdist.selection import Selection, select
from mcrdist.store.run import Run
from mcrdist.store.source import Source, open_source
from mcrdist.view import View

#: Planes of a task: descriptors may be costly, and progress should show. A diagonal one meets every chunk.
_BATCH, _DIAGONAL = 8, 32
#: Nanoseconds that a voxel takes, of descriptors that are not costly.
_WORK = 1000.0
_DIRECTIONS = {direction.name: direction for direction in ORTHOGONAL + DIAGONAL}

Shape = tuple[int, int, int]
Targets = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class HeldTask:
    """Planes start, ..., stop - 1 of a direction to compare with what the run was held to, all phases.

    `config` has the descriptors: those of the run that can be had here.
    """

    volume: VolumeSourceConfig
    config: DescriptorConfig
    direction: str
    start: int
    stop: int
    work: float = 0.0  # about as many nanoseconds


def micrographs(targets: Targets, direction: Direction, of: Sequence[Phase]) -> list[NDArray[np.float64]]:
    """The indicators of the phases on the smallest micrograph of a direction, by which descriptors were chosen.

    Empty where a run was made from statistics alone. Between two materials it is the smaller one of the two.
    """
    axis, periodic = AXES[direction.axis], bool(targets.get("periodic", False))
    masks = [
        [
            spacing.resampled(mask.astype(np.float64), direction.spacing, periodic)
            for prefix in ("", "from/", "to/")
            for mask in shown(targets, f"{prefix}{axis}", phase.label)
        ]
        for phase in of
    ]
    sides = [min(mask.shape) for mask in masks[0]]
    return [own[sides.index(min(sides))] for own in masks] if sides else []


def _selection(
    config: DescriptorConfig, targets: Targets, direction: Direction, of: Sequence[Phase], shape: Shape
) -> Selection | None:
    """What the planes of a direction were held to; None where nobody has the micrograph any more."""
    shown = micrographs(targets, direction, of)
    if not shown or f"{direction.name}/s2" not in targets:
        return None
    lags = int(targets[f"{direction.name}/s2"].shape[1]) - 1
    periodic = bool(targets.get("periodic", False))
    # What there was no room for the run was not held to.
    return select(config, View(direction.slice_shape(shape), shown, periodic, lags, finest=False))


def available(run: Run, shape: Shape) -> tuple[DescriptorConfig | None, list[str]]:
    """The descriptors of a run that can be measured here, and what is missing for the others.

    Returns
    -------
    DescriptorConfig or None
        None where there is nothing to measure beyond `NAMES`.
    list of str
        A line for each descriptor that has to be left out: its code, or its network, is not at hand.
    """
    config = descriptors_from_mapping(run.config.get("descriptors"))
    targets, of = run.targets, phases(run.summary, run.targets)
    problems = []
    missing: tuple[tuple[str, Any], ...] = (("extra", ()), ("gram", GramConfig()))
    for name, nothing in missing:
        alone = replace(DescriptorConfig(), **{name: getattr(config, name)})
        try:
            _selection(alone, targets, _DIRECTIONS["z"], of, shape)
        except InputError as problem:
            problems.append(str(problem))
            config = replace(config, **{name: nothing})
    asked = any(_names(config, run, of, direction, shape) for direction in _DIRECTIONS.values())
    return (config if asked else None), problems


def _names(
    config: DescriptorConfig, run: Run, of: Sequence[Phase], direction: Direction, shape: Shape
) -> list[str]:
    """Descriptors of a direction that are measured here."""
    found = _selection(config, run.targets, direction, of, shape)
    if found is None or graded(run.targets, direction.name):
        return []
    every = [*(one.name for one in found.descriptors), *(one.name for one in found.joints)]
    return [name for name in every if _here(name, direction) and f"{direction.name}/{name}" in run.targets]


def _here(name: str, direction: Direction) -> bool:
    return direction.by is not None or name not in NAMES


def graded(targets: Targets, direction: str) -> bool:
    """Whether the planes have targets of their own, of which only those of `NAMES` are kept."""
    return f"{direction}/slices/s2" in targets


def tasks(volume: VolumeSourceConfig, config: DescriptorConfig, run: Run, shape: Shape) -> list[HeldTask]:
    """All tasks of a run."""
    of = phases(run.summary, run.targets)
    found = []
    for direction in _DIRECTIONS.values():
        if _names(config, run, of, direction, shape):
            batch, count = _BATCH if direction.by is None else _DIAGONAL, direction.slices(shape)
            work = _WORK * math.prod(direction.slice_shape(shape))
            found += [
                HeldTask(volume, config, direction.name, start, min(start + batch, count), batch * work)
                for start in range(0, count, batch)
            ]
    return found


@dataclass(frozen=True)
class _Held:
    """What the planes of a direction are compared with: terms of each phase, and of all together."""

    of: Sequence[Phase]
    own: Sequence[Sequence[Term]]
    joint: Sequence[JointTerm]


@lru_cache(maxsize=8)
def _held(volume: VolumeSourceConfig, config: DescriptorConfig, name: str) -> _Held:
    """Once a worker and direction."""
    assert volume.run is not None
    run = Run.open(volume.run)
    targets, of = run.targets, phases(run.summary, run.targets)
    direction, shape = _DIRECTIONS[name], open_source(volume).shape
    selection = _selection(config, targets, direction, of, shape)
    assert selection is not None
    grid = SliceGrid(direction.slice_shape(shape))

    def wanted(prefix: str) -> dict[str, NDArray[np.float64]]:
        own = {
            key.removeprefix(f"{prefix}/"): value
            for key, value in targets.items()
            if key.startswith(f"{prefix}/")
        }
        return {name: np.asarray(v, np.float64)[None] for name, v in own.items() if v.dtype.kind == "f"}

    own = []
    for phase in of:
        known = wanted(f"{name}/{phase.source}" if len(of) > 1 else name)
        single = [chosen.descriptor for chosen in selection.single]
        here = [one for one in single if _here(one.name, direction) and one.name in known]
        own.append([one.term(known, 1.0, grid) for one in here])
    # All phases together have their targets with the first.
    known = wanted(f"{name}/{of[0].source}" if len(of) > 1 else name)
    joint = [c.descriptor.term(known, 1.0, grid) for c in selection.joint if c.descriptor.name in known]
    return _Held(of, own, joint)


#: By the phase's label and descriptor, (planes,) each; and with the direction in between, of all planes.
Errors = dict[int, dict[str, NDArray[np.float64]]]
Found = dict[int, dict[str, dict[str, NDArray[np.float64]]]]


def look_at_held(task: HeldTask) -> Errors:
    """‖D_s − D_des‖ / ‖D_des‖ (planes,) by the phase's label and descriptor, on a worker."""
    held = _held(task.volume, task.config, task.direction)
    labels = _planes(open_source(task.volume), _DIRECTIONS[task.direction], task.start, task.stop)
    channels = [torch.from_numpy((labels == phase.label).astype(np.float32)) for phase in held.of]
    at = range(task.start, task.stop)
    found: Errors = {}
    for phase, slices, terms in zip(held.of, channels, held.own, strict=True):
        found[phase.label] = {
            term.name: _relative(term, term.accumulate(slices, None, 1.0, at)) for term in terms
        }
    for term in held.joint:
        found[held.of[0].label][term.name] = _relative(term, term.accumulate(channels, None, 1.0, at))
    return found


def _planes(source: Source, direction: Direction, start: int, stop: int) -> NDArray[np.uint8]:
    """Planes start, ..., stop - 1 of a direction, (planes, rows, columns)."""
    if direction.by is None:
        where = [slice(None)] * 3
        where[direction.axis] = slice(start, stop)
        return np.moveaxis(source.part(tuple(where)), direction.axis, 0)
    parts = [
        direction.sheared(torch.from_numpy(block), z).narrow(direction.axis, start, stop - start).clone()
        for z, block in source.slabs()
    ]
    return np.moveaxis(torch.cat(parts).numpy(), direction.axis, 0)


def _relative(term: Term | JointTerm, errors: torch.Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.abs(errors.reshape(len(errors), -1)[:, 0].numpy())
    return found * (term.scale / (term.norm or 1.0))


def gather(
    todo: Sequence[HeldTask],
    mapper: Callable[[Callable[[HeldTask], Errors], Sequence[HeldTask]], Iterable[Errors]],
) -> Found:
    """Carry out the tasks; the errors of all planes by the phase's label, direction and descriptor."""
    parts: dict[int, dict[str, dict[str, list[NDArray[np.float64]]]]] = {}
    for task, result in zip(todo, mapper(look_at_held, todo), strict=True):
        for label, named in result.items():
            own = parts.setdefault(label, {}).setdefault(task.direction, {})
            for name, errors in named.items():
                own.setdefault(name, []).append(errors)
    return {
        label: {
            axis: {name: np.concatenate(pieces) for name, pieces in named.items()}
            for axis, named in directions.items()
        }
        for label, directions in parts.items()
    }
