"""Hexahedral meshes, an element a voxel, for finite-element programs: what meshio writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from mcrdist.config import ExportConfig
from mcrdist.errors import InputError
from mcrdist.extras import library
from mcrdist.store.source import Source

#: Memory that a voxel takes while meshio writes it, measured, with some room.
_BYTES = 450
#: In Abaqus: the linear brick, fully integrated.
_ELEMENT = "C3D8"
#: Dimensions of what a physical group of Gmsh is made of.
_SOLID = 3
#: (z, y, x) of the eight corners, in the order of VTK and Abaqus: counterclockwise below, then above.
_CORNERS = ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0))


def write(source: Source, parts: Sequence[Path], paths: Sequence[Path], config: ExportConfig) -> None:
    """Write an element a voxel, all phases or one, with a set of elements for each ("PHASE1", in Gmsh "phase 1")."""
    meshio = library("meshio", f"format={config.format}", "export")
    if source.dtype.kind == "f":
        raise InputError(
            f"format: expected labels for {config.format}, found {source.dtype}; use volume.image=phase"
        )
    _affordable(source, config)
    labels = np.concatenate([block for _, block in source.slabs()])
    wanted = np.ones(labels.shape, bool) if config.volume.phase is None else labels == config.volume.phase
    if not wanted.any():
        raise InputError(
            f"volume.phase: expected a phase of {source.path}, found no voxel of {config.volume.phase}"
        )
    points, cells = _hexahedra(wanted)
    of = labels[wanted]
    sets = {f"PHASE{label}": [np.flatnonzero(of == label)] for label in np.unique(of)}
    lengths = (points * np.array(source.voxel_size))[:, ::-1]
    material = of.astype(np.int32)
    data = {"material": [material]}
    names = {}
    if config.format == "gmsh":  # physical groups count from 1, so their names tell the phases
        data = {"gmsh:physical": [material + 1], "gmsh:geometrical": [material + 1]}
        names = {f"phase {label}": np.array([label + 1, _SOLID]) for label in np.unique(material)}
    mesh = meshio.Mesh(lengths, [("hexahedron", cells)], cell_data=data, field_data=names)
    options = {}
    if config.format == "abaqus":
        mesh.cell_data, mesh.cell_sets = {}, sets
        # Of the elements with eight corners, meshio would take the hybrid one with reduced integration.
        mesh.cells[0].type, options = _ELEMENT, {"translate_cell_names": False}
    form = "gmsh22" if config.format == "gmsh" else config.format  # a tag of its own for every element
    meshio.write(parts[0], mesh, file_format=form, **options)


def _affordable(source: Source, config: ExportConfig) -> None:
    needed = int(np.prod(source.shape)) * _BYTES
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"format: expected {needed / 2**30:.1f} GiB of memory for a mesh of this volume, found {free / 2**30:.1f} "
            f"GiB free; use a coarser volume.level, or format=vti"
        )


def _hexahedra(wanted: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Grid points (n, 3) as (z, y, x) in voxels, and the eight points of each wanted voxel; no point without one."""
    z, y, x = np.nonzero(wanted)
    _, ny, nx = (n + 1 for n in wanted.shape)
    corners = np.stack([((z + a) * ny + (y + b)) * nx + x + c for a, b, c in _CORNERS], axis=1)
    used = np.zeros((wanted.shape[0] + 1) * ny * nx, bool)
    used[corners.ravel()] = True
    numbers = np.cumsum(used) - 1
    kept = np.flatnonzero(used)
    points = np.stack([kept // (ny * nx), kept // nx % ny, kept % nx], axis=1)
    return points, numbers[corners]
