"""The described phase as a closed surface for the report's turning view."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from mcrdist.analysis.slices import indicator
from mcrdist.store.volume import Volume

#: Voxels along the longest edge, and triangles: more looks no better on a screen and weighs megabytes.
_EDGE = 88
_TRIANGLES = 220_000
#: The finest pyramid level that is read for it.
_READ = 256
#: Vertex coordinates are stored as 16-bit integers, in this fraction of a voxel.
_FINE = 256


def _grid(volume: Volume, edge: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The phase as a smooth function on at most `edge`³ points, and the spacing (z, y, x) of the points."""
    level = 0
    while level + 1 < volume.levels("phase") and max(volume.phase(level).shape) > _READ:
        level += 1
    field = indicator(volume.read(volume.phase(level))).astype(np.float32)
    factor = max(1.0, max(field.shape) / edge)
    # Averaging over a cell before sampling keeps what a coarser grid can show and removes the staircase.
    field = ndimage.gaussian_filter(field, 0.55 * factor, mode="wrap")
    shape = [max(2, round(n / factor)) for n in field.shape]
    if factor > 1.0:
        points = [(np.arange(m) + 0.5) * n / m - 0.5 for m, n in zip(shape, field.shape, strict=True)]
        mesh = np.meshgrid(*points, indexing="ij", sparse=False)
        field = ndimage.map_coordinates(field, mesh, order=1, mode="grid-wrap")
    extent = np.array(volume.shape) * np.array(volume.voxel_size)
    return field, extent / np.array(field.shape)


def surface(volume: Volume) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64], NDArray[np.bool_]] | None:
    """Closed surface of the described phase.

    Returns
    -------
    vertices : (n, 3) float
        In voxels of the grid drawn, (z, y, x).
    triangles : (m, 3) int
        Vertices of every triangle.
    spacing : (3,) float64
        Width of such a voxel, (z, y, x), in the volume's unit.
    cap : (m,) bool
        Which triangles lie in the faces of the box.

    None where the volume holds one phase only.
    """
    edge = _EDGE
    for _ in range(3):
        field, spacing = _grid(volume, edge)
        if not field.min() < 0.5 < field.max():
            return None
        # Far below the level outside, so that the caps are flat and lie in the outermost planes of points.
        padded = np.pad(field, 1, constant_values=-1e4)
        vertices, triangles, _, _ = marching_cubes(padded, 0.5, allow_degenerate=False)
        if len(triangles) <= _TRIANGLES:
            break
        edge = int(edge * (_TRIANGLES / len(triangles)) ** 0.5 * 0.97)
    vertices = vertices - 1
    last = np.array(field.shape) - 1
    at_wall = np.concatenate([vertices < 1e-2, vertices > last - 1e-2], axis=1)
    cap = at_wall[triangles].all(axis=1).any(axis=1)
    return np.clip(vertices, 0, last), triangles, spacing, cap


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
    # In the camera's coordinates (right, up, towards the reader): the light stays when the volume turns.
    return trace | {"lighting": lighting, "lightposition": {"x": -0.45e5, "y": 0.9e5, "z": 1e5}}


def figure(volume: Volume) -> dict[str, Any] | None:
    """The plotly figure (data and layout, plain JSON) of the phase's surface in its box; None if there is none."""
    found = surface(volume)
    if found is None:
        return None
    vertices, triangles, spacing, cap = found
    inside = {"ambient": 0.55, "diffuse": 0.7, "specular": 0.12, "roughness": 0.55, "fresnel": 0.1}
    faces = {"ambient": 0.72, "diffuse": 0.4, "specular": 0.02, "roughness": 0.9, "fresnel": 0.0}
    traces = [
        _mesh(vertices, triangles[part], colour, lighting)
        for part, colour, lighting in ((~cap, "#d8a25a", inside), (cap, "#274b78", faces))
        if part.any()
    ]
    extent_zyx = (np.ceil(vertices.max(0)) * _FINE).astype(int)
    traces.append(_box(*(int(n) for n in extent_zyx[::-1])))
    length = extent_zyx[::-1] * spacing[::-1]
    aspect = length / np.linalg.norm(length) * 3**0.5
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
    return {"data": traces, "layout": layout}


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
