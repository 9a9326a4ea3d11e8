"""TIFF stacks and npy volumes, read plane by plane."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from mcrdist.errors import UNREADABLE, InputError
from mcrdist.firstbytes import first_bytes
from mcrdist.imagefile import open_tiff, pixel_size, plane_distance

Sizes = tuple[float, float, float]
_UNKNOWN: Sizes = (1.0, 1.0, 1.0)
_SUFFIXES = (".tif", ".tiff")


def is_stack(path: Path) -> bool:
    """Whether `path` is a TIFF file, or a directory of such."""
    if path.is_dir():
        return bool(_slices(path))
    try:
        return first_bytes(path, 4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    except OSError as error:
        raise InputError(
            f"{path}: expected an OME-Zarr image, a TIFF stack or npy, found: {error.strerror}; check the path"
        ) from None


def read_npy(path: Path) -> Any:
    """Map a three-dimensional array into memory; nothing is unpickled.

    Raises
    ------
    InputError
        Another kind of file, or another number of dimensions.
    """
    if path.is_dir():
        raise InputError(
            f"{path}: expected an OME-Zarr image, a TIFF stack or npy, found a directory of others"
        )
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        kind = array.dtype.kind
    except UNREADABLE as error:
        raise InputError(f"{path}: expected an OME-Zarr image, a TIFF stack or npy ({error})") from error
    if array.ndim != 3 or kind not in "buif":
        raise InputError(
            f"{path}: expected numbers (nz, ny, nx), found {'x'.join(map(str, array.shape))} {array.dtype}"
        )
    if not array.flags.c_contiguous:
        return array
    return _Mapped(path, array.offset, array.shape, array.dtype)


def read_tiff(path: Path) -> tuple[Any, Sizes, str | None]:
    """Open a TIFF stack: (nz, ny, nx) lazily, sides of a voxel, and their unit where the file gives them.

    Raises
    ------
    InputError
        No single volume of one grey channel.
    """
    try:
        return _stack_of(path)
    except InputError:
        raise
    except (*UNREADABLE, tifffile.TiffFileError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{path}: expected a TIFF stack, found a damaged file ({told})") from error


def _stack_of(path: Path) -> tuple[Any, Sizes, str | None]:
    if path.is_dir():
        files = _slices(path)
        with open_tiff(files[0]) as tiff:
            page = tiff.pages.first
            size = pixel_size(tiff)
            array: Any = _Files(files, page.shape, page.dtype)
        _check(path, array.shape, array.dtype)
        return (array, *_sizes(None, size))
    with open_tiff(path) as tiff:
        series = tiff.series[0]
        shape = tuple(n for axis, n in zip(series.axes, series.shape, strict=True) if n > 1 or axis in "YX")
        _check(path, shape, series.dtype)
        sizes, unit = _sizes(plane_distance(tiff), pixel_size(tiff))
        offset = None if series.dtype.kind == "b" else series.dataoffset
        stored = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
    array = _Pages(path, shape, series.dtype) if offset is None else _Mapped(path, offset, shape, stored)
    return array, sizes, unit


def _sizes(depth: float | None, pixel: tuple[float, float] | None) -> tuple[Sizes, str | None]:
    if pixel is None:
        return _UNKNOWN, None
    return (depth or pixel[0], *pixel), "micrometer"


def _check(path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    if len(shape) != 3 or np.dtype(dtype).kind not in "buif":
        raise InputError(
            f"{path}: expected a stack (nz, ny, nx) of one grey channel, found "
            f"{'x'.join(map(str, shape))} {np.dtype(dtype)}"
        )


def _slices(directory: Path) -> list[Path]:
    """The TIFF files of a directory, slice2 before slice10."""
    found = [path for path in directory.iterdir() if path.suffix.lower() in _SUFFIXES]
    return sorted(
        found, key=lambda path: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", path.name)]
    )


class _Planes:
    """An array of planes; a slice of the first axis reads those planes only."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)

    def __getitem__(self, selection: Any) -> NDArray[Any]:
        first, *rest = selection if isinstance(selection, tuple) else (selection,)
        numbers = range(self.shape[0])[first]
        if isinstance(numbers, int):
            return np.asarray(self._stack(range(numbers, numbers + 1))[(0, *rest)])
        return np.asarray(self._stack(numbers)[(slice(None), *rest)])

    def _stack(self, numbers: range) -> NDArray[Any]:
        out = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for row, number in enumerate(numbers):
            out[row] = self._plane(number)
        return out

    def _plane(self, number: int) -> NDArray[Any]:
        raise NotImplementedError


class _Files(_Planes):
    """A file a plane."""

    def __init__(self, files: list[Path], shape: tuple[int, ...], dtype: Any) -> None:
        super().__init__((len(files), *shape), dtype)
        self._files = files

    def _plane(self, number: int) -> NDArray[Any]:
        with open_tiff(self._files[number]) as tiff:
            plane = tiff.asarray()
        if plane.shape != self.shape[1:]:
            raise ValueError(f"{self._files[number].name} is {plane.shape}, not {self.shape[1:]}")
        return np.asarray(plane)


class _Pages(_Planes):
    """A page a plane, compressed or scattered over the file."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any) -> None:
        super().__init__(shape, dtype)
        self._path = path

    def _stack(self, numbers: range) -> NDArray[Any]:
        with open_tiff(self._path) as tiff:
            pages: Any = tiff.series[0].pages
            return np.stack(
                [np.asarray(pages[number].asarray()).reshape(self.shape[1:]) for number in numbers]
            )


class _Mapped(_Planes):
    """Planes one after the other without compression, mapped anew for each slab: no page of the last one stays."""

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: Any) -> None:
        super().__init__(shape, dtype)
        self._path, self._offset = path, offset

    def _stack(self, numbers: range) -> NDArray[Any]:
        mapped = np.memmap(self._path, self.dtype, "r", self._offset, self.shape)
        return np.array(mapped[numbers.start : numbers.stop : numbers.step])
