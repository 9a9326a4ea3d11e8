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
    phase, smoothing : bool
        Whether it makes something of ``volume.phase`` where the voxels are labels, and of ``output.smoothing``.
    """

    write: Callable[[Source, Sequence[Path], Sequence[Path], ExportConfig], None]
    suffixes: tuple[str, ...]
    companions: tuple[str, ...] = ()
    phase: bool = False
    smoothing: bool = False


_FORMATS = {
    "tiff": Format(tiff.write, (".tif", ".tiff")),
    "npy": Format(arrays.write_npy, (".npy",)),
    "raw": Format(arrays.write_raw, (".raw",), (".json",)),
    "vti": Format(vti.write, (".vti",)),
    "hdf5": Format(dream3d.write, (".dream3d", ".h5", ".hdf5"), (".xdmf",)),
    "stl": Format(polygons.write_stl, (".stl",), phase=True, smoothing=True),
    "ply": Format(polygons.write_ply, (".ply",), phase=True, smoothing=True),
    "abaqus": Format(mesh.write, (".inp",), phase=True),
    "vtu": Format(mesh.write, (".vtu",), phase=True),
    "gmsh": Format(mesh.write, (".msh",), phase=True),
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
        No such volume, a setting that the format makes nothing of, a file of that name is there already, the disk is
        full, or the format wants a library that is not installed. No part of a file is left.
    """
    _check(config)
    source = open_source(config.volume)
    paths = _paths(source, config)
    with fresh(paths) as parts:
        _FORMATS[config.format].write(source, parts, paths, config)
    return paths


def _check(config: ExportConfig) -> None:
    """Refuse what a format would pass over in silence."""
    form, volume = _FORMATS[config.format], config.volume
    if volume.phase is not None and volume.image == "phase" and not form.phase:
        raise InputError(
            f"volume.phase: expected nothing (null) with format={config.format}, which has the labels of all phases, "
            f"found {volume.phase}; leave it out, or take format={_with('phase')}"
        )
    if config.smoothing != ExportConfig.smoothing and not form.smoothing:
        raise InputError(
            f"output.smoothing: expected its default ({ExportConfig.smoothing}) with format={config.format}, which has "
            f"the voxels as they are, found {config.smoothing:g}; leave it out, or take format={_with('smoothing')}"
        )


def _with(setting: str) -> str:
    *names, last = (name for name, form in _FORMATS.items() if getattr(form, setting))
    return f"{', '.join(names)} or {last}"


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
