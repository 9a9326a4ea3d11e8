"""STL and PLY, written as the surface is found; libraries would want all triangles at once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcrdist.config import ExportConfig
from mcrdist.errors import InputError
from mcrdist.export.surface import Welder, pieces, the_phase
from mcrdist.store.source import Source

_STL = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])


def write_stl(source: Source, parts: Sequence[Path], paths: Sequence[Path], config: ExportConfig) -> None:
    """Write binary STL: (x, y, z) in the unit of the volume, the corner of its first voxel at the origin."""
    label, count = the_phase(source, config.volume.phase), 0
    with open(parts[0], "wb") as file:
        file.write(f"lengths in {source.unit or 'voxels'}".encode().ljust(80)[:80])
        file.write(np.uint32(0).tobytes())
        for vertices, triangles, _, _ in pieces(source, label, config.smoothing):
            corners = _lengths(source, vertices)[triangles]
            normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            rows = np.zeros(len(corners), _STL)
            rows["corners"] = corners
            rows["normal"] = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
            file.write(rows.tobytes())
            count += len(rows)
        _some(source, label, count)
        file.seek(80)
        file.write(np.array(count, "<u4").tobytes())


def write_ply(source: Source, parts: Sequence[Path], paths: Sequence[Path], config: ExportConfig) -> None:
    """Write binary PLY, whose triangles share their vertices, in slabs too."""
    label, count, welder = the_phase(source, config.volume.phase), 0, Welder()
    with open(parts[0], "wb") as file, tempfile.TemporaryFile(dir=parts[0].parent) as later:
        file.write(_ply_header(source, 0, 0))
        for piece in pieces(source, label, config.smoothing):
            vertices, triangles = welder.weld(piece)
            file.write(_lengths(source, vertices).astype("<f4").tobytes())
            rows = np.empty(len(triangles), _FACE)
            rows["count"], rows["corners"] = 3, triangles
            later.write(rows.tobytes())
            count += len(rows)
        _some(source, label, count)
        later.seek(0)
        shutil.copyfileobj(later, file)
        file.seek(0)
        file.write(_ply_header(source, welder.count, count))


def _ply_header(source: Source, vertices: int, faces: int) -> bytes:
    """As long whatever the numbers are."""
    return f"""\
ply
format binary_little_endian 1.0
comment lengths in {source.unit or "voxels"}
element vertex {vertices:>12}
property float x
property float y
property float z
element face {faces:>12}
property list uchar int vertex_indices
end_header
""".encode()


def _lengths(source: Source, vertices: NDArray[np.float32]) -> NDArray[np.float32]:
    """(x, y, z) in the unit of vertices (z, y, x) in voxels."""
    lengths = (vertices.astype(np.float64) + 0.5) * np.array(source.voxel_size)
    return np.asarray(lengths[:, ::-1], np.float32)


def _some(source: Source, label: int, count: int) -> None:
    if not count:
        raise InputError(
            f"volume.phase: expected a phase of {source.path}, found no voxel of {label}, or none that smoothing "
            "leaves; choose another, or output.smoothing=0"
        )
    if count >= 2**31:
        raise InputError(f"format: expected at most {2**31} triangles, found {count}; use volume.level=1")
