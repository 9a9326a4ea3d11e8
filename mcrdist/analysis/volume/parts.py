"""Cubes cut out of a volume, and the statistics whose scatter over them tells whether the volume is representative."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mcrdist.analysis.material import AXES
from mcrdist.analysis.volume.minkowski import configurations, functionals
from mcrdist.analysis.volume.opened import opened
from mcrdist.analysis.volume.thickness import Thickness, thickness
from mcrdist.analysis.volume.transport import Diffusivity, diffusivity
from mcrdist.config import MiddleConfig, TransportConfig, VolumeSourceConfig
from mcrdist.store.source import Source

Index = tuple[int, int, int]

#: Edges of cubes unless told otherwise: of these the largest few that fit into the volume often enough.
_EDGES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_SIZES = 5
#: Nanoseconds that a voxel takes: to be read and looked at; in sweeps and in spheres, for each voxel of the edge.
_READ, _SWEEPS, _SPHERES = 100.0, 15.0, 10.0
#: Scatter of fewer cubes than this says nothing.
FEWEST = 4


@dataclass(frozen=True)
class PartTask:
    """A box of the volume to look at, and the axes along which its diffusivity is wanted; perhaps its thickness."""

    volume: VolumeSourceConfig
    label: int
    corner: Index
    edges: Index
    axes: tuple[str, ...]
    transport: TransportConfig
    thickness: bool = False

    @property
    def work(self) -> float:
        """About as many nanoseconds: sweeps of the solver grow with the edge, as does the largest sphere."""
        edge = max(self.edges)
        voxels = float(np.prod(self.edges))
        return voxels * (_READ + edge * (_SWEEPS * len(self.axes) + _SPHERES * self.thickness))


@dataclass(frozen=True)
class Part:
    """What was found in a box.

    Attributes
    ----------
    corner, edges : (z, y, x)
        In voxels.
    fraction : float
        Volume fraction of the phase.
    surface : float
        Specific surface, per unit of length.
    diffusivity : dict of str to Diffusivity
        Along the axes that were asked for.
    thickness : Thickness or None
    """

    corner: Index
    edges: Index
    fraction: float
    surface: float
    diffusivity: dict[str, Diffusivity] = field(default_factory=dict)
    thickness: Thickness | None = None


def look_at_part(task: PartTask) -> Part:
    """Carry out a task, on a worker, which holds the box alone."""
    source = opened(task.volume)
    where = tuple(slice(c, c + e) for c, e in zip(task.corner, task.edges, strict=True))
    phase = np.asarray(source.part(where) == task.label)
    found = functionals(configurations(phase, (True,) * 3), source.voxel_size)
    flows = {
        axis: diffusivity(
            phase,
            AXES.index(axis),
            source.voxel_size,
            task.transport.iterations,
            task.transport.convergence,
        )
        for axis in task.axes
    }
    wide = thickness(phase, source.voxel_size) if task.thickness else None
    return Part(task.corner, task.edges, float(phase.mean()), found["specific_surface"], flows, wide)


def centred(shape: Index, edge: int | None) -> tuple[Index, Index]:
    """Corner and edges of the box in the middle of a volume, no longer than `edge`; None: all of the volume."""
    z, y, x = (n if edge is None else min(edge, n) for n in shape)
    corner = ((shape[0] - z) // 2, (shape[1] - y) // 2, (shape[2] - x) // 2)
    return corner, (z, y, x)


def cubes(shape: Index, edge: int, most: int) -> list[Index]:
    """Corners of cubes that do not overlap, spread over the volume; of more than `most`, a random choice.

    The choice is the same every time.
    """
    along = [np.linspace(0, n - edge, n // edge).astype(int).tolist() if n >= edge else [] for n in shape]
    corners = list(itertools.product(*along))
    return choice(corners, most, edge)


def choice(corners: list[Index], most: int, seed: int) -> list[Index]:
    """All of at most so many, else a random choice of that many, in order and the same every time."""
    if len(corners) <= most:
        return corners
    return [corners[k] for k in sorted(np.random.default_rng(seed).choice(len(corners), most, replace=False))]


def default_edges(shape: Index, largest: int | None) -> tuple[int, ...]:
    """The largest few edges, up to half of `largest`, of which the volume has enough cubes."""
    limit = min(shape) if largest is None else max(largest // 2, _EDGES[0])
    fit = [edge for edge in _EDGES if edge <= limit and len(cubes(shape, edge, FEWEST)) == FEWEST]
    return tuple(fit[-_SIZES:])


def middle_tasks(
    config: VolumeSourceConfig,
    source: Source,
    label: int,
    middle: MiddleConfig,
    transport: TransportConfig,
) -> list[PartTask]:
    """The box in the middle: one task for each axis, and one for the thickness, of those that are wanted."""
    corner, size = centred(source.shape, middle.edge)
    found = [PartTask(config, label, corner, size, (axis,), transport) for axis in AXES if transport.enabled]
    if middle.thickness:
        found.append(PartTask(config, label, corner, size, (), transport, thickness=True))
    return found


def cube_tasks(
    config: VolumeSourceConfig,
    source: Source,
    label: int,
    transport: TransportConfig,
    edges: Sequence[int],
    samples: int,
) -> list[PartTask]:
    """The cubes of all edges, the largest first."""
    axes = AXES if transport.enabled else ()
    return [
        PartTask(config, label, corner, (edge, edge, edge), axes, transport)
        for edge in sorted(edges, reverse=True)
        for corner in cubes(source.shape, edge, samples)
    ]
