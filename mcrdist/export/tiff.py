"""TIFF stacks with the voxel size: as ImageJ writes them, or OME-TIFF where those end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from mcrdist.config import ExportConfig
from mcrdist.store.metadata import short_unit
from mcrdist.store.source import Source

#: ImageJ's files have 32-bit offsets, and it knows these kinds of voxels.
_IMAGEJ_BYTES = 2**32 - 2**24
_IMAGEJ_KINDS = ("uint8", "uint16", "float32")


def write(source: Source, parts: Sequence[Path], paths: Sequence[Path], config: ExportConfig) -> None:
    """Write a stack, a page a plane."""
    imagej = (
        source.dtype.name in _IMAGEJ_KINDS
        and np.prod(source.shape, dtype=float) * source.dtype.itemsize < _IMAGEJ_BYTES
    )
    z, y, x = source.voxel_size
    options: dict[str, Any] = {"shape": source.shape, "dtype": source.dtype, "photometric": "minisblack"}
    if imagej:
        unit = _in_ascii(source.unit)
        options |= {"resolution": (1 / x, 1 / y), "metadata": {"axes": "ZYX", "spacing": z, "unit": unit}}
        options["metadata"] |= _contrast(source)
    else:
        options["metadata"] = {"axes": "ZYX"} | (
            {}
            if source.unit is None
            else {
                f"PhysicalSize{axis}{part}": value
                for axis, size in zip("ZYX", (z, y, x), strict=True)
                for part, value in (("", size), ("Unit", short_unit(source.unit)))
            }
        )
    with tifffile.TiffWriter(parts[0], imagej=imagej, ome=not imagej, bigtiff=not imagej) as tiff:
        tiff.write(_planes(source), **options)


def _in_ascii(unit: str | None) -> str:
    """A unit as ImageJ's description can have it, which knows no other letters."""
    if unit is None:
        return "pixel"
    short = short_unit(unit).replace("µ", "u")
    return short if short.isascii() else unit


def _planes(source: Source) -> Iterator[NDArray[Any]]:
    for _, block in source.slabs():
        yield from block


def _contrast(source: Source) -> dict[str, float]:
    """What ImageJ shows as black and white: labels 0 and 1 would both look black in 0..255."""
    if not source.ours:
        return {}
    return {"min": 0.0, "max": 1.0 if source.dtype.kind == "f" else float(max(1, source.labels - 1))}
