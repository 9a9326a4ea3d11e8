"""Reading npz files: whatever is wrong with one is one line, and memory is taken for what is there alone."""

from __future__ import annotations

import sys
import zipfile
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from mcrdist.errors import UNREADABLE, InputError

#: Compressions that NumPy writes, and the bytes that one of theirs becomes at most: deflate copies 258 for two bits.
_MOST = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
_HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an npz file; objects are refused, since reading them would run code.

    Raises
    ------
    InputError
        The file is none, is damaged, holds objects, claims what cannot be in it, or has more than fits in memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_sizes(path, members)
            return {one.filename.removesuffix(".npy"): _read(archive, one) for one in members}
    except InputError:
        raise
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: expected NumPy arrays in an .npz file, found a damaged file or more than arrays ({reason}); "
            "restore it from a copy, or write it again"
        ) from error


def _check_sizes(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """The sizes that the list of contents claims, against those of the file and of the memory."""
    for one in members:
        if one.compress_type not in _MOST:
            raise ValueError(f"{one.filename}: a compression that NumPy does not write")
        if one.file_size > _MOST[one.compress_type] * one.compress_size:
            raise ValueError(f"{one.filename}: {one.file_size} bytes claimed of {one.compress_size}")
    if sum(one.compress_size for one in members) > path.stat().st_size:
        raise ValueError("contents larger than the file")
    size, room = sum(one.file_size for one in members), psutil.virtual_memory().available
    if size > room:
        raise InputError(
            f"{path}: expected at most {room / 2**30:.2f} GiB of arrays, which is what memory is free, found "
            f"{size / 2**30:.2f} GiB; use a machine with more"
        )


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """An array whose own header claims what the list of contents does; then its checksum is compared, too."""
    with archive.open(member) as file:
        shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
        left = member.file_size - file.tell()
        if not dtype.hasobject and (prod(shape) * dtype.itemsize != left or dtype.itemsize == 0):
            raise ValueError(f"{member.filename}: {shape} of {dtype} claimed for {left} bytes")
    with archive.open(member) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    if (
        array.dtype.kind == "U"
        and (array.reshape(-1).view(f"{array.dtype.byteorder}u4") > sys.maxunicode).any()
    ):
        raise ValueError(f"{member.filename}: text with characters that do not exist")
    return array
