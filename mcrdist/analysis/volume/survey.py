"""The tasks that look at a volume, and what they add up to; no task holds more than a slab or a batch of planes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis.material import AXES
from mcrdist.analysis.volume.chords import lineal_path, mean_chord
from mcrdist.analysis.volume.clusters import Index, Labelled, label
from mcrdist.analysis.volume.lags import correlation, pair_counts, planes_of, ranges
from mcrdist.analysis.volume.minkowski import configurations, functionals
from mcrdist.analysis.volume.opened import opened
from mcrdist.analysis.volume.pores import Distances, distances
from mcrdist.analysis.volume.prescribed import Planes, describe, graded, repetition
from mcrdist.config import VolumeSourceConfig
from mcrdist.store.source import Source

#: Voxels of a task's planes, and how many planes: the more, the fewer tasks read the same chunks.
_VOXELS, _FEWEST, _MOST = 2**24, 16, 64
#: Nanoseconds that a voxel takes in one of them.
_WORK = 150.0
_NUMBER = {"z": 0, "y": 1, "x": 2}
#: The axes along which chords are counted, with the planes that hold whole lines of them: their normal, and whether
#: the lines run along the columns' axis. x-lines lie in z-planes too, so no x-plane is needed for them.
_LINES = {"z": ("y", "rows"), "y": ("z", "rows"), "x": ("z", "columns")}


@dataclass(frozen=True)
class Task:
    """A part of the volume to look at.

    Attributes
    ----------
    volume : VolumeSourceConfig
    label : int
        The phase.
    axis : str
        Planes normal to it; "block" for a slab of space.
    start, stop : int
    periodic : bool
    lags : int
    wanted : mapping
        Targets of these planes by name.
    work : float
        About as many nanoseconds.
    """

    volume: VolumeSourceConfig
    label: int
    axis: str
    start: int
    stop: int
    periodic: bool
    lags: int
    wanted: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    work: float = 0.0


def look(task: Task) -> Planes | tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Carry out a task, on a worker."""
    source = opened(task.volume)
    if task.axis == "block":
        return _block(source, task)
    number = _NUMBER[task.axis]
    selection = [slice(None)] * 3
    selection[number] = slice(task.start, task.stop)
    planes = np.moveaxis(source.part(tuple(selection)) == task.label, number, 0)
    lines = [side for of, side in _LINES.values() if of == task.axis]
    return describe(planes, task.wanted, task.periodic, lines)


def _block(source: Source, task: Task) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Counts of configurations and of pairs whose first voxel lies in the slab."""
    depth, own = source.shape[0], task.stop - task.start
    reach = min(task.stop + max(1, task.lags), task.stop + depth)
    planes = source.part(slice(task.start, min(reach, depth))) == task.label
    if task.periodic and reach > depth:
        planes = np.concatenate([planes, source.part(slice(0, reach - depth)) == task.label])
    near = planes[: own + 1]
    if task.periodic:
        counts = configurations(np.pad(near, ((0, 0), (0, 1), (0, 1)), mode="wrap"))
    else:
        counts = configurations(near, (task.stop == depth, True, True))
    return counts, pair_counts(planes, own, task.lags, task.periodic)


def _planes(shape: tuple[int, int, int], axis: str, lags: int) -> int:
    """Planes of a task."""
    if axis == "block":
        return planes_of(shape, lags)
    area = math.prod(shape) // shape[_NUMBER[axis]]
    return max(_FEWEST, min(_MOST, _VOXELS // area))


def tasks(
    config: VolumeSourceConfig, source: Source, phase: int, lags: int, wanted: Mapping[str, Mapping[str, Any]]
) -> list[Task]:
    """All tasks of a phase; `wanted` has the targets of each direction, of every plane where they differ."""
    found = []
    for axis, count in (("block", source.shape[0]), *zip(AXES, source.shape, strict=True)):
        planes = _planes(source.shape, axis, lags)
        for start in range(0, count, planes):
            stop = min(start + planes, count)
            own = {
                name: values[start:stop] if graded(name, values) else values
                for name, values in wanted.get(axis, {}).items()
            }
            work = _WORK * (stop - start) * math.prod(source.shape) / count
            found.append(Task(config, phase, axis, start, stop, source.ours, lags, own, work))
    return found


@dataclass
class Survey:
    """What was counted in one phase of a volume.

    Attributes
    ----------
    voxels : int
        Of the volume.
    functionals : dict
        See `minkowski.functionals`.
    s2 : (L + 1, 2 L + 1, 2 L + 1) float64
        Lags 0..L along z, -L..L along y and x.
    ranges : dict of str to float
        Integral ranges along z, y, x, see `lags.integral_range`.
    errors : dict of str to dict of str to (planes,) float64
        ‖D(x_s) − D_des‖ of every plane, by direction and descriptor.
    chords : dict of str to (2, n + 1) int64
        Along z, y, x.
    lineal_path : dict of str to (m,) float64
        For segments of 1, ..., m voxels.
    repetition : dict of str to float
        By the normal of the planes.
    """

    voxels: int
    functionals: dict[str, float]
    s2: NDArray[np.float64]
    ranges: dict[str, float]
    errors: dict[str, dict[str, NDArray[np.float64]]]
    chords: dict[str, NDArray[np.int64]]
    lineal_path: dict[str, NDArray[np.float64]]
    repetition: dict[str, float]

    @property
    def shortest_chord(self) -> float:
        """The mean chord along the axis where it is shortest, in voxels; infinite where no chord is whole."""
        known = [self.mean_chord(axis) for axis in AXES if self.chords[axis][1].any()]
        return min(known, default=math.inf)

    def mean_chord(self, axis: str) -> float:
        """In voxels."""
        return mean_chord(self.chords[axis])


#: Voxels along the edges of a block that is labelled for clusters.
_BLOCK = (128, 256, 256)


@dataclass(frozen=True)
class BlockTask:
    """A block of the volume to label; `index` is its place among the blocks along z, y, x.

    `margin` is that of `distances`, which should seldom need a second attempt. The largest sphere that fits into a
    phase has a radius of half its mean chord where that phase is most of the volume; where it is little of it, and its
    chords are short, of all of it or a little more.
    """

    volume: VolumeSourceConfig
    label: int
    index: Index
    edges: Index = _BLOCK
    margin: int = 8
    work: float = 0.0


def block_tasks(
    config: VolumeSourceConfig, source: Source, phase: int, chord: float, edges: Index = _BLOCK
) -> list[BlockTask]:
    """A task for every block; `chord` is the mean one of the phase, in voxels."""
    z, y, x = (range(-(-n // edge)) for n, edge in zip(source.shape, edges, strict=True))
    margin = 3 + math.ceil(0.75 * chord) if math.isfinite(chord) else 8
    indices = list(itertools.product(z, y, x))
    work = _WORK * math.prod(source.shape) / len(indices)
    return [BlockTask(config, phase, index, edges, margin, work) for index in indices]


def look_at_block(task: BlockTask) -> tuple[Labelled, Distances]:
    """Label a block, and measure how far its phase is from the boundary, on a worker."""
    source = opened(task.volume)
    corner = [k * edge for k, edge in zip(task.index, task.edges, strict=True)]
    end = [min(c + edge, n) for c, edge, n in zip(corner, task.edges, source.shape, strict=True)]

    def read(where: tuple[slice, ...]) -> NDArray[np.bool_]:
        return np.asarray(source.part(where) == task.label)

    own = read(tuple(slice(c, e) for c, e in zip(corner, end, strict=True)))
    return label(own), distances(read, corner, end, source.shape, source.voxel_size, source.ours, task.margin)


Mapper = Callable[[Callable[[Task], Any], list[Task]], Iterable[Any]]


def survey(source: Source, todo: list[Task], mapper: Mapper, window: int) -> Survey:
    """Carry out tasks by `mapper` (in the order of the tasks, so that sums are the same on any cluster).

    Integral ranges are summed over lags up to `window`, which those of S2 in space reach at least.
    """
    counts = np.zeros((8, 256), np.int64)
    lags = todo[0].lags
    pairs = np.zeros((lags + 1, 2 * lags + 1, 2 * lags + 1))
    planes: dict[str, list[Planes]] = {axis: [] for axis in AXES}
    for task, result in zip(todo, mapper(look, todo), strict=True):
        if isinstance(result, Planes):
            planes[task.axis].append(result)
        else:
            counts += result[0]
            pairs += result[1]
    shape = dict(zip(AXES, source.shape, strict=True))
    chords = {axis: sum(getattr(part, side) for part in planes[of]) for axis, (of, side) in _LINES.items()}
    path = {
        axis: lineal_path(
            chords[axis],
            int(np.prod(source.shape)) // n,
            max(1, min(n // 2, 4 * lags)),
            source.ours,
        )
        for axis, n in shape.items()
    }
    repeated = {}
    for axis in AXES if source.ours else ():
        inside = (n for other, n in shape.items() if other != axis)
        height, width = inside
        power = np.sum([part.power for part in planes[axis]], axis=0)
        repeated[axis] = repetition(power, shape[axis], (height, width), lags)
    errors = {
        axis: {
            name: np.concatenate([part.errors[name] for part in planes[axis]])
            for name in planes[axis][0].errors
        }
        for axis in AXES
    }
    fractions = {axis: np.concatenate([part.fractions for part in planes[axis]]) for axis in AXES}
    s2 = correlation(pairs, source.shape, source.ours)
    return Survey(
        int(np.prod(source.shape)),
        functionals(counts, source.voxel_size),
        s2,
        ranges(s2, fractions, source.ours, window),
        errors,
        chords,
        path,
        repeated,
    )
