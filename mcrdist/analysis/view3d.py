"""Phases as closed surfaces for the report's turning view."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from mcrdist.analysis.material import Phase

#: Grid points along the longest edge, and triangles: more looks no better on a screen and weighs megabytes.
_EDGE, _TRIANGLES = 88, 220_000
#: Grid points that a mean chord (of either phase) must keep: with fewer, smoothing tears thin parts off and
#: the picture would show a structure that is not there.
_CHORD = 6.0
#: Vertex coordinates are stored as 16-bit integers, in this fraction of a grid spacing.
_FINE = 256
#: A lone phase is of another colour inside than on the faces of the box.
_LONE = "#d8a25a"
#: Level at which the surface of a lone phase is drawn, and of one of several: two phases that touch would share one
#: surface at a half, and flicker.
_HALF, _APART = 0.5, 0.53


@dataclass(frozen=True)
class Surface:
    """Closed surface of a phase in a block of the volume.

    Attributes
    ----------
    vertices : (n, 3) float
        In grid spacings, (z, y, x).
    triangles : (m, 3) int
        Vertices of every triangle.
    cap : (m,) bool
        Which triangles lie in the faces of the block.
    extent : (3,) float64
        Edges of the block, (z, y, x), in the volume's unit.
    block : tuple of int
        Edges of the block in voxels, (z, y, x); smaller than the volume where that is too
        fine to be drawn whole.
    """

    vertices: NDArray[Any]
    triangles: NDArray[Any]
    cap: NDArray[np.bool_]
    extent: NDArray[np.float64]
    block: tuple[int, ...]


class Pyramid(Protocol):
    """What is drawn: a run's `Volume`, or another volume that answers as it does."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(nz, ny, nx) of the finest level."""

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """(z, y, x) of the finest level."""

    def levels(self, image: str) -> int:
        """Number of levels."""

    def phase(self, level: int = 0) -> Any:
        """Labels of a level, each half as fine as the one before."""

    def read(self, array: Any, selection: Any = ...) -> NDArray[Any]:
        """A part of them in memory."""


def _corner(volume: Pyramid) -> NDArray[np.uint8]:
    """Labels in a corner of the volume, enough to know the structure by."""
    return volume.read(volume.phase(), (slice(128),) * 3)


def _mean_chord(corner: NDArray[np.uint8], label: int) -> float:
    """Mean length in voxels of a phase and its complement along a line."""
    changes = [np.diff(corner == label, axis=axis).mean() for axis in range(3)]
    return 1.0 / max(float(max(changes)), 1e-9)


def _grid(volume: Pyramid, label: int, edge: int, chord: float) -> tuple[NDArray[np.float32], list[int]]:
    """A phase as a smooth function on at most `edge`³ points, and the voxels that these stand for.

    The whole volume if its structure survives at that resolution, else as large a corner as does.
    """
    longest = max(volume.shape)
    factor = min(max(1.0, chord / _CHORD), longest / edge) if longest > edge else 1.0
    level = max(0, min(volume.levels("phase") - 1, math.floor(math.log2(factor / 2))))
    array = volume.phase(level)
    block = [min(n, math.floor(edge * factor)) for n in volume.shape]
    part = tuple(slice(min(n, -(-b // 2**level))) for n, b in zip(array.shape, block, strict=True))
    field = (volume.read(array, part) == label).astype(np.float32)
    modes = ["wrap" if b == n else "nearest" for b, n in zip(block, volume.shape, strict=True)]
    factor /= 2**level
    # Averaging over a cell before sampling keeps what a coarser grid can show and removes the staircase.
    field = ndimage.gaussian_filter(field, 0.55 * factor, mode=modes)
    if factor > 1.0:
        shape = [max(2, round(n / factor)) for n in field.shape]
        points = [(np.arange(m) + 0.5) * n / m - 0.5 for m, n in zip(shape, field.shape, strict=True)]
        mesh = np.meshgrid(*points, indexing="ij")
        field = ndimage.map_coordinates(field, mesh, order=1, mode="nearest")
    return field, block


def surfaces(volume: Pyramid, labels: Sequence[int]) -> list[Surface | None]:
    """Closed surfaces of phases, on one grid and in one block; None for a phase that has none there."""
    corner = _corner(volume)
    edge, chord = _EDGE, min(_mean_chord(corner, label) for label in labels)
    level = _HALF if len(labels) == 1 else _APART
    while True:
        found = [_surface(volume, *_grid(volume, label, edge, chord), level) for label in labels]
        triangles = sum(len(one.triangles) for one in found if one is not None)
        if triangles <= _TRIANGLES or edge <= 24:
            return found
        edge = int(edge * (_TRIANGLES / triangles) ** (1 / 3) * 0.97)


def _surface(
    volume: Pyramid, field: NDArray[np.float32], block: Sequence[int], level: float
) -> Surface | None:
    """Where a field crosses a level, closed by the faces of the block."""
    if not field.min() < level < field.max():
        return None
    # Far below the level outside, so that the caps are flat and lie in the outermost planes of points.
    padded = np.pad(field, 1, constant_values=-1e4)
    vertices, triangles, _, _ = marching_cubes(padded, level, allow_degenerate=False)
    vertices = vertices - 1
    last = np.array(field.shape) - 1
    at_wall = np.concatenate([vertices < 1e-2, vertices > last - 1e-2], axis=1)
    cap = at_wall[triangles].all(axis=1).any(axis=1)
    extent = np.array(block) * np.array(volume.voxel_size)
    return Surface(np.clip(vertices, 0, last), triangles, cap, extent, tuple(block))


def drawn(volume: Pyramid, phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """The phases to draw: of several, all but the most frequent one, which would hide the others."""
    if len(phases) == 1:
        return tuple(phases)
    corner = _corner(volume)
    shares = [float((corner == phase.label).mean()) for phase in phases]
    return tuple(phase for k, phase in enumerate(phases) if k != int(np.argmax(shares)))


def _typed(array: NDArray[Any], dtype: str) -> dict[str, str]:
    """plotly's binary form of an array: a third of the size of its digits."""
    name = {"uint16": "u2", "uint32": "u4"}[dtype]
    data = np.ascontiguousarray(array, dtype=np.dtype(dtype).newbyteorder("<"))
    return {"dtype": name, "bdata": base64.b64encode(data.tobytes()).decode()}


def _mesh(
    vertices: NDArray[Any], triangles: NDArray[Any], colour: str, lighting: dict[str, float]
) -> dict[str, Any]:
    """A plotly mesh trace of the triangles, with the vertices they use."""
    used, index = np.unique(triangles, return_inverse=True)
    z, y, x = np.rint(vertices[used].T * _FINE)
    i, j, k = index.reshape(triangles.shape).T
    wide = "uint16" if len(used) < 2**16 else "uint32"
    trace: dict[str, Any] = {"type": "mesh3d", "color": colour, "flatshading": False, "hoverinfo": "skip"}
    trace |= {name: _typed(values, "uint16") for name, values in (("x", x), ("y", y), ("z", z))}
    trace |= {name: _typed(values, wide) for name, values in (("i", i), ("j", j), ("k", k))}
    # In the camera's coordinates (right, up, away from the reader): the light stays when the volume turns.
    return trace | {"lighting": lighting, "lightposition": {"x": -4e4, "y": 9e4, "z": -8e4}}


def figure(volume: Pyramid, phases: Sequence[Phase]) -> dict[str, Any] | None:
    """The plotly figure (plain JSON: data, layout, and `block`, the voxels shown) of the surfaces of `phases`.

    None where there is no surface: one phase only, or a single plane.
    """
    if min(volume.shape) < 2:
        return None
    pairs = zip(phases, surfaces(volume, [phase.label for phase in phases]), strict=True)
    found = [(phase, surface) for phase, surface in pairs if surface is not None]
    if not found:
        return None
    inside = {"ambient": 0.38, "diffuse": 0.8, "specular": 0.1, "roughness": 0.55, "fresnel": 0.1}
    faces = {"ambient": 0.55, "diffuse": 0.6, "specular": 0.02, "roughness": 0.9, "fresnel": 0.0}
    traces = [
        _mesh(surface.vertices, surface.triangles[part], colour, lighting)
        for phase, surface in found
        for part, colour, lighting in (
            (~surface.cap, _LONE if len(phases) == 1 else phase.colour, inside),
            (surface.cap, phase.colour, faces),
        )
        if part.any()
    ]
    largest = np.max([surface.vertices.max(0) for _, surface in found], axis=0)
    corner = (np.ceil(largest) * _FINE).astype(int)
    traces.append(_box(*(int(n) for n in corner[::-1])))
    one = found[0][1]
    aspect = 2.15 * one.extent[::-1] / np.linalg.norm(one.extent)
    hidden = {"visible": False, "showspikes": False}
    layout = {
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "scene": {
            **{f"{axis}axis": hidden for axis in "xyz"},
            "aspectmode": "manual",
            "aspectratio": dict(zip("xyz", (float(a) for a in aspect), strict=True)),
            "camera": {
                "eye": {"x": 0.85, "y": -1.25, "z": 0.78},
                "center": {"x": 0, "y": 0, "z": -0.03},
                "projection": {"type": "orthographic"},
            },
            "dragmode": "orbit",
        },
    }
    return {"data": traces, "layout": layout, "block": list(one.block)}


def _box(nx: int, ny: int, nz: int) -> dict[str, Any]:
    """The twelve edges of the box as one line."""
    corners = [
        *((0, 0, 0), (nx, 0, 0), (nx, ny, 0), (0, ny, 0), (0, 0, 0)),
        *((0, 0, nz), (nx, 0, nz), (nx, ny, nz), (0, ny, nz), (0, 0, nz)),
        *((None,) * 3, (nx, 0, 0), (nx, 0, nz), (None,) * 3, (nx, ny, 0), (nx, ny, nz)),
        *((None,) * 3, (0, ny, 0), (0, ny, nz)),
    ]
    x, y, z = (list(values) for values in zip(*corners, strict=True))
    line = {"color": "#5b6672", "width": 2}
    return {"type": "scatter3d", "mode": "lines", "x": x, "y": y, "z": z, "line": line, "hoverinfo": "skip"}
