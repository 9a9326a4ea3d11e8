"""The closed surface of a phase, found slab by slab so that the pieces fit together exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from mcrdist.errors import InputError
from mcrdist.store.source import Source

_LEVEL = 0.5
#: Values nearer to the level than this are moved away: no vertex then lies on a grid point, where triangles shrink
#: to nothing and the pieces of two slabs could not tell which edge of the grid a vertex is on.
_AWAY = 2e-3
#: Bytes a grid point takes while its surface is found.
_WIDTH = 64
_TRUNCATE = 4.0

Piece = tuple[NDArray[np.float32], NDArray[np.int64], int, int]


def pieces(source: Source, label: int, smoothing: float, planes: int | None = None) -> Iterator[Piece]:
    """The surface in pieces from plane to plane.

    Parameters
    ----------
    source : Source
    label : int
        The phase inside; of a field with values between 0 and 1, the part above one half.
    smoothing : float
        Standard deviation in voxels of a Gaussian that rounds the staircase; single voxels vanish above 0.5.
    planes : int, optional
        Of a slab.

    Yields
    ------
    vertices : (n, 3) float32
        (z, y, x) in voxels; the volume's faces are at -1/2 and n - 1/2.
    triangles : (m, 3) int64
        Of these vertices, counterclockwise seen from outside once (x, y, z) is made of (z, y, x).
    first, last : int
        The grid planes between which the piece lies.
    """
    count = source.shape[0]
    step = planes or source.planes(_WIDTH)
    for first in range(-1, count, step):
        last = min(first + step, count)
        grid = _values(source, label, smoothing, first, last)
        if not grid.min() < _LEVEL < grid.max():
            continue
        vertices, triangles, _, _ = marching_cubes(grid, _LEVEL, gradient_direction="descent")
        yield vertices + np.array([first, -1, -1], np.float32), triangles.astype(np.int64), first, last


def _values(source: Source, label: int, smoothing: float, first: int, last: int) -> NDArray[np.float32]:
    """The phase as a smooth function on planes first, ..., last, with a ring of points around the volume."""
    halo = int(_TRUNCATE * smoothing + 0.5) if smoothing else 0
    low, high = max(0, first - halo), min(source.shape[0], last + 1 + halo)
    block = source.read(low, high)
    values = block.astype(np.float32) if block.dtype.kind == "f" else (block == label).astype(np.float32)
    if smoothing:
        values = ndimage.gaussian_filter(values, smoothing, mode="nearest", truncate=_TRUNCATE)
    values = values[max(first, 0) - low : min(last + 1, source.shape[0]) - low]
    values = np.where(np.abs(values - _LEVEL) < _AWAY, np.float32(_LEVEL + _AWAY), values)
    ends = (int(first < 0), int(last == source.shape[0]))
    for axis, pads in ((0, ends), (1, (1, 1)), (2, (1, 1))):
        values = _closed(values, axis, pads)
    return values


def _closed(values: NDArray[np.float32], axis: int, pads: tuple[int, int]) -> NDArray[np.float32]:
    """With points outside whose values put the surface exactly half way, on the face of the volume."""
    parts = [values]
    for side, wanted in enumerate(pads):
        if wanted:
            edge: Any = np.take(values, [-side], axis)  # 0 and -1
            outside = np.minimum(edge, 2 * _LEVEL - edge).astype(np.float32)
            parts = [outside, *parts] if side == 0 else [*parts, outside]
    return np.concatenate(parts, axis)


class Welder:
    """Numbers the vertices of pieces so that two that touch share those in the plane between them."""

    def __init__(self) -> None:
        self.count = 0
        self._plane: int | None = None
        self._keys: NDArray[np.int64] = np.empty(0, np.int64)
        self._numbers: NDArray[np.int64] = np.empty(0, np.int64)

    def weld(self, piece: Piece) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The vertices that no piece before had, and the triangles with numbers that count through all pieces."""
        vertices, triangles, first, last = piece
        numbers = np.full(len(vertices), -1, np.int64)
        bottom = _in_plane(vertices, first)
        if self._plane == first and len(self._keys) and len(bottom):
            keys = _edges(vertices[bottom])
            at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            known = self._keys[at] == keys
            numbers[bottom[known]] = self._numbers[at[known]]
        new = numbers < 0
        numbers[new] = self.count + np.arange(int(new.sum()))
        self.count += int(new.sum())
        top = _in_plane(vertices, last)
        keys = _edges(vertices[top])
        order = np.argsort(keys)
        self._plane, self._keys, self._numbers = last, keys[order], numbers[top][order]
        return vertices[new], numbers[triangles]


def _in_plane(vertices: NDArray[np.float32], plane: int) -> NDArray[np.int64]:
    """Which vertices lie in a plane of the grid, but for rounding."""
    return np.flatnonzero(np.abs(vertices[:, 0] - plane) < _AWAY / 4)


def _edges(vertices: NDArray[np.float32]) -> NDArray[np.int64]:
    """The edge of the grid that each vertex of a plane lies on: one edge, one vertex."""
    y, x = vertices[:, 1].astype(np.float64), vertices[:, 2].astype(np.float64)
    along_y = np.abs(y - np.rint(y)) > _AWAY / 4
    row = np.where(along_y, np.floor(y), np.rint(y)).astype(np.int64) + 1
    column = np.where(along_y, np.rint(x), np.floor(x)).astype(np.int64) + 1
    return (row << 32) | (column << 1) | along_y


def the_phase(source: Source, label: int | None) -> int:
    """The phase to enclose: 1 unless one was asked for."""
    if source.dtype.kind not in "fui":
        raise InputError(f"{source.path}: expected labels or a field, found {source.dtype}")
    return 1 if label is None else label
