"""VTK image data, which ParaView and DAMASK read: a cell a voxel, compressed slab by slab."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mcrdist.config import ExportConfig
from mcrdist.store.source import Source

_TYPES = {"i": "Int", "f": "Float"}


def write(source: Source, parts: Sequence[Path], paths: Sequence[Path], config: ExportConfig) -> None:
    """Write labels as the cell data "material", 32 bits each, as DAMASK wants them, and other values as "field"."""
    dtype = np.dtype("<i4") if source.dtype.kind in "ui" else source.dtype.newbyteorder("<")
    kind = f"{_TYPES[dtype.kind]}{8 * dtype.itemsize}"
    name = "field" if dtype.kind == "f" else "material"
    extent = " ".join(f"0 {n}" for n in reversed(source.shape))
    spacing = " ".join(repr(h) for h in reversed(source.voxel_size))
    head = f"""\
<?xml version="1.0"?>
<!-- lengths in {source.unit or "voxels"} -->
<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" header_type="UInt64"
         compressor="vtkZLibDataCompressor">
  <ImageData WholeExtent="{extent}" Origin="0 0 0" Spacing="{spacing}">
    <Piece Extent="{extent}">
      <PointData></PointData>
      <CellData Scalars="{name}">
        <DataArray type="{kind}" Name="{name}" format="appended" offset="0"/>
      </CellData>
    </Piece>
  </ImageData>
  <AppendedData encoding="raw">
_"""
    planes = source.planes(dtype.itemsize)
    plane = source.shape[1] * source.shape[2] * dtype.itemsize
    count = -(-source.shape[0] // planes)
    # Number of blocks, bytes of one, bytes of the last where it is smaller; then the compressed bytes of each.
    sizes = np.array([count, planes * plane, source.shape[0] % planes * plane, *([0] * count)], "<u8")
    with open(parts[0], "wb") as file:
        file.write(head.encode())
        where = file.tell()
        file.write(sizes.tobytes())
        for number, (_, block) in enumerate(source.slabs(planes)):
            packed = zlib.compress(np.ascontiguousarray(block, dtype).data, 1)
            sizes[3 + number] = len(packed)
            file.write(packed)
        file.write(b"\n  </AppendedData>\n</VTKFile>\n")
        file.seek(where)
        file.write(sizes.tobytes())
