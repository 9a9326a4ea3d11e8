"""The bare voxels: npy, and raw with a description beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mcrdist.config import ExportConfig
from mcrdist.export.destination import title
from mcrdist.store.source import Source


def write_npy(source: Source, parts: Sequence[Path], paths: Sequence[Path], config: ExportConfig) -> None:
    """Write NumPy's format, (nz, ny, nx). Not by a memory map: its pages would count as memory of the process."""
    with open(parts[0], "wb") as file:
        header = {"descr": source.dtype.str, "fortran_order": False, "shape": source.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for _, block in source.slabs():
            file.write(block.data)


def write_raw(source: Source, parts: Sequence[Path], paths: Sequence[Path], config: ExportConfig) -> None:
    """Write voxels one after the other, x fastest, little-endian; and what they mean, as JSON."""
    little = source.dtype.newbyteorder("<")
    with open(parts[0], "wb") as file:
        for _, block in source.slabs():
            file.write(np.ascontiguousarray(block, little).data)
    meaning = {
        "file": paths[0].name,
        "shape": list(source.shape),
        "axes": "zyx",
        "order": "C (x runs fastest)",
        "dtype": source.dtype.name,
        "byte_order": "little",
        "header_bytes": 0,
        "voxel_size": list(source.voxel_size),
        "unit": source.unit or "voxel",
        "content": title(source, config.volume.phase),
    }
    parts[1].write_text(json.dumps(meaning, indent=2) + "\n", encoding="utf-8")
