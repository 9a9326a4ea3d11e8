"""A volume in the formats of other programs, written in slabs: memory does not grow with the volume.

Only meshes (abaqus, vtu, gmsh) are held whole, since the library that knows their formats wants them so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mcrdist.config import ExportConfig
from mcrdist.errors import InputError
from mcrdist.export import arrays, dream3d, mesh, polygons, tiff, vti
from mcrdist.export.destination import fresh, title
from mcrdist.store.source import Source, open_source

#: In the run directory, where exports belong.
DIRECTORY = "export"


@dataclass(frozen=True)
class Format:
    """How one format is written.

    Attributes
    ----------
    write : callable
        Takes the source, the files to write, their final names, and the configuration.
    suffixes : tuple of str
        Of the first file; the first of them is the default.
    companions : tuple of str
        Suffixes of the files beside it.
    """

    write: Callable[[Source, Sequence[Path], Sequence[Path], ExportConfig], None]
    suffixes: tuple[str, ...]
    companions: tuple[str, ...] = ()


_FORMATS = {
    "tiff": Format(tiff.write, (".tif", ".tiff")),
    "npy": Format(arrays.write_npy, (".npy",)),
    "raw": Format(arrays.write_raw, (".raw",), (".json",)),
    "vti": Format(vti.write, (".vti",)),
    "hdf5": Format(dream3d.write, (".dream3d", ".h5", ".hdf5"), (".xdmf",)),
    "stl": Format(polygons.write_stl, (".stl",)),
    "ply": Format(polygons.write_ply, (".ply",)),
    "abaqus": Format(mesh.write, (".inp",)),
    "vtu": Format(mesh.write, (".vtu",)),
    "gmsh": Format(mesh.write, (".msh",)),
}


def export(config: ExportConfig) -> list[Path]:
    """Write a volume in another format.

    Returns
    -------
    list of Path
        The files, the main one first.

    Raises
    ------
    InputError
        No such volume, a file of that name is there already, the disk is full, or the format wants a library
        that is not installed. No part of a file is left.
    """
    source = open_source(config.volume)
    paths = _paths(source, config)
    with fresh(paths) as parts:
        _FORMATS[config.format].write(source, parts, paths, config)
    return paths


def _paths(source: Source, config: ExportConfig) -> list[Path]:
    """The file that was asked for, or one beside the volume, and its companions."""
    form = _FORMATS[config.format]
    name = title(source, config.volume.phase) + form.suffixes[0]
    if config.path is not None:
        path = Path(config.path).expanduser().absolute()
        if path.suffix.lower() not in form.suffixes:
            raise InputError(
                f"output.path: expected a name that ends in {' or '.join(form.suffixes)} for format={config.format}, "
                f"found {config.path}"
            )
    elif config.volume.run is not None:
        path = Path(config.volume.run).expanduser().absolute() / DIRECTORY / name
    else:
        path = source.path.absolute().parent / name
    return [path, *(path.with_suffix(suffix) for suffix in form.companions)]
