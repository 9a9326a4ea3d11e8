"""OME-Zarr images that others wrote, versions 0.4 and 0.5, and bare Zarr arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr

from mcrdist.errors import InputError
from mcrdist.store.metadata import AXES, long_unit

Sizes = tuple[float, float, float]


def is_zarr(path: Path) -> bool:
    """Whether `path` is a directory with a Zarr group or array, of format 2 or 3."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def read_image(path: Path, level: int = 0) -> tuple[Any, int, Sizes, str | None]:
    """Open a level of a multiscale image.

    Returns
    -------
    array : (nz, ny, nx)
        Reads lazily.
    depth : int
        Planes of a chunk.
    voxel_size : (z, y, x)
    unit : str or None

    Raises
    ------
    InputError
        No image, not a single volume, or no such level.
    """
    try:
        node = zarr.open(path, mode="r")
        if isinstance(node, zarr.Array):
            _require_axes(path, node, len(AXES), "z, y, x")
            return _volume(path, node, AXES, [1.0] * len(AXES), None)
        attributes: Any = dict(node.attrs)
        scales: Any = attributes.get("ome", attributes).get("multiscales")
        if not scales:
            groups = ", ".join(sorted(name for name, _ in node.members())) or "nothing"
            raise InputError(
                f"{path}: expected an OME-Zarr image, found a group that holds {groups}; name one of those"
            )
        datasets: Any = scales[0]["datasets"]
        if level >= len(datasets):
            raise InputError(
                f"volume.level: expected an integer of at most {len(datasets) - 1}, found {level}"
            )
        array: Any = node[datasets[level]["path"]]
        axes = scales[0].get("axes") or list("tczyx"[-len(array.shape) :])
        axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in axes]
        _require_axes(path, array, len(axes), ", ".join(str(axis["name"]) for axis in axes))
        scale = _scale(datasets[level], _scale(scales[0], [1.0] * len(axes)))
        units = {axis.get("unit") for axis in axes if axis["name"] in AXES}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: expected an OME-Zarr image, found a damaged one ({error})") from error
    return _volume(
        path, array, [axis["name"] for axis in axes], scale, units.pop() if len(units) == 1 else None
    )


def _require_axes(path: Path, array: Any, count: int, names: str) -> None:
    """Raise an InputError where an array has not as many dimensions as there are axes."""
    if len(array.shape) != count:
        shape = "x".join(map(str, array.shape)) or "a single value"
        raise InputError(
            f"{path}: expected an array of {count} dimensions ({names}), found {len(array.shape)} ({shape}); save "
            "the volume that is wanted by itself"
        )


def _scale(owner: Mapping[str, Any], before: Sequence[float]) -> list[float]:
    """What a dataset's (or image's) transformations multiply by, times `before`."""
    for transformation in owner.get("coordinateTransformations", ()):
        if transformation["type"] == "scale":
            return [float(a) * float(b) for a, b in zip(transformation["scale"], before, strict=True)]
    return list(before)


def _volume(
    path: Path, array: Any, axes: Sequence[str], scale: Sequence[float], unit: Any
) -> tuple[Any, int, Sizes, str | None]:
    """An array as (nz, ny, nx): what is not an axis of space must be one long."""
    if [axis for axis in axes if axis in AXES] != list(AXES):
        raise InputError(f"{path}: expected the axes z, y, x in this order, found {', '.join(axes)}")
    others = {a: n for a, n in zip(axes, array.shape, strict=True) if a not in AXES and n > 1}
    if others:
        found = ", ".join(f"{n} along {a}" for a, n in others.items())
        raise InputError(f"{path}: expected one volume, found {found}; save the one that is wanted by itself")
    size = [h for axis, h in zip(axes, scale, strict=True) if axis in AXES]
    lead = tuple(0 for axis in axes if axis not in AXES)
    try:
        unit = long_unit(unit)
    except InputError:  # "pixel", or a length that nobody measures microstructures in
        unit = None
    part: Any = _Leading(array, lead) if lead else array
    return part, int(array.chunks[-3]), (size[0], size[1], size[2]), unit


class _Leading:
    """An array without its first axes, which are one long."""

    def __init__(self, array: Any, lead: tuple[int, ...]) -> None:
        self._array, self._lead = array, lead
        self.shape, self.dtype = array.shape[len(lead) :], array.dtype

    def __getitem__(self, selection: Any) -> Any:
        return self._array[(*self._lead, *(selection if isinstance(selection, tuple) else (selection,)))]
