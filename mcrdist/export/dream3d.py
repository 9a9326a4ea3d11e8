"""HDF5 as DREAM.3D lays it out (file version 7.0, which its successors import too), with XDMF for ParaView."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcrdist.config import ExportConfig
from mcrdist.extras import library
from mcrdist.store.source import Source

_CONTAINER = "ImageDataContainer"
_CELLS = f"DataContainers/{_CONTAINER}/CellData"
#: DREAM.3D's numbers: kinds of attribute matrices, of phases, of crystal structures.
_CELL, _ENSEMBLE = 3, 11
_PRIMARY, _UNKNOWN = 0, 999


def write(source: Source, parts: Sequence[Path], paths: Sequence[Path], config: ExportConfig) -> None:
    """Write labels as "Phases", from 1 on (0 means unknown to DREAM.3D): label k is phase k + 1.

    Values that are not labels are written as "Field".
    """
    h5py = library("h5py", "format=hdf5", "export")
    labels = source.dtype.kind != "f"
    name, dtype = ("Phases", np.dtype(np.int32)) if labels else ("Field", np.dtype(np.float32))
    highest = 0
    with h5py.File(parts[0], "w") as file:
        file.attrs["FileVersion"] = np.bytes_("7.0")
        file.attrs["DREAM3D Version"] = np.bytes_("6.5.171")
        file.create_group("DataContainerBundles")
        file.create_group("Pipeline").create_dataset("Pipeline", data=np.bytes_("{}"))
        container = file.create_group(f"DataContainers/{_CONTAINER}")
        _geometry(container, source)
        cells = container.create_group("CellData")
        _matrix(cells, _CELL, source.shape[::-1])
        data = cells.create_dataset(
            name,
            (*source.shape, 1),
            dtype,
            chunks=(1, *source.shape[1:], 1),
            compression="gzip",
            compression_opts=1,
        )
        _array(data, "int32_t" if labels else "float", source.shape[::-1])
        for start, block in source.slabs(source.planes(8)):
            highest = max(highest, int(block.max())) if labels else 0
            data[start : start + len(block), ..., 0] = block.astype(dtype) + 1 if labels else block
        if labels:
            _ensemble(container, highest + 2)
    parts[1].write_text(_xdmf(source, paths[0].name, name, "Int" if labels else "Float"), encoding="utf-8")


def _geometry(container: Any, source: Source) -> None:
    group = container.create_group("_SIMPL_GEOMETRY")
    for key, text in (("GeometryName", "ImageGeom"), ("GeometryTypeName", "ImageGeometry")):
        group.attrs[key] = np.bytes_(text)
    for key, number in (("GeometryType", 0), ("SpatialDimensionality", 3), ("UnitDimensionality", 3)):
        group.attrs[key] = np.uint32(number)
    group.create_dataset("DIMENSIONS", data=np.array(source.shape[::-1], np.int64))
    group.create_dataset("ORIGIN", data=np.zeros(3, np.float32))
    group.create_dataset("SPACING", data=np.array(source.voxel_size[::-1], np.float32))


def _matrix(group: Any, kind: int, tuples: Sequence[int]) -> None:
    group.attrs["AttributeMatrixType"] = np.uint32(kind)
    group.attrs["TupleDimensions"] = np.array(tuples, np.uint64)


def _array(data: Any, kind: str, tuples: Sequence[int]) -> None:
    data.attrs["ObjectType"] = np.bytes_("StringDataArray" if kind == "string" else f"DataArray<{kind}>")
    data.attrs["DataArrayVersion"] = np.int32(2)
    data.attrs["ComponentDimensions"] = np.array([1], np.uint64)
    data.attrs["TupleDimensions"] = np.array(tuples, np.uint64)
    named = zip("xyz", tuples, strict=False)
    data.attrs["Tuple Axis Dimensions"] = np.bytes_(",".join(f"{axis}={n}" for axis, n in named))


def _ensemble(container: Any, count: int) -> None:
    """What DREAM.3D knows of each phase; the first row stands for voxels of none."""
    group = container.create_group("CellEnsembleData")
    _matrix(group, _ENSEMBLE, [count])
    structures = np.full((count, 1), _UNKNOWN, np.uint32)
    kinds = np.array([[_UNKNOWN], *([_PRIMARY],) * (count - 1)], np.uint32)
    for name, values in (("CrystalStructures", structures), ("PhaseTypes", kinds)):
        _array(group.create_dataset(name, data=values), "uint32_t", [count])
    names = ["Unknown", *(f"phase {label}" for label in range(count - 1))]
    _array(group.create_dataset("PhaseName", data=np.array(names, "S")), "string", [count])


def _xdmf(source: Source, file: str, name: str, kind: str) -> str:
    """For ParaView; all lists are z, y, x."""
    points = " ".join(str(n + 1) for n in source.shape)
    cells = " ".join(map(str, source.shape))
    spacing = " ".join(repr(float(np.float32(h))) for h in source.voxel_size)
    return f"""\
<?xml version="1.0"?>
<!DOCTYPE Xdmf SYSTEM "Xdmf.dtd" []>
<Xdmf xmlns:xi="http://www.w3.org/2003/XInclude" Version="2.2">
  <Domain>
    <Grid Name="{_CONTAINER}" GridType="Uniform">
      <Topology TopologyType="3DCoRectMesh" Dimensions="{points}"/>
      <Geometry Type="ORIGIN_DXDYDZ">
        <DataItem Format="XML" Dimensions="3">0 0 0</DataItem>
        <DataItem Format="XML" Dimensions="3">{spacing}</DataItem>
      </Geometry>
      <Attribute Name="{name}" AttributeType="Scalar" Center="Cell">
        <DataItem Format="HDF" Dimensions="{cells} 1" NumberType="{kind}" Precision="4">
          {file}:/{_CELLS}/{name}
        </DataItem>
      </Attribute>
    </Grid>
  </Domain>
</Xdmf>
"""
