"""A start that the user gives: a field from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.errors import UNREADABLE, InputError
from mcrdist.firstbytes import first_bytes
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.store.volume import Volume


def read_field(path: str, slab: Slab, comm: Comm, channels: int = 1) -> list[Tensor]:
    """Each rank's planes of a field with values in [0, 1]: an npy file, a volume.zarr, or a run directory.

    Parameters
    ----------
    channels : int
        1: the file holds (nz, ny, nx). More: (channels, nz, ny, nx), the share of each phase in a voxel.

    Returns
    -------
    list of Tensor (planes, ny, nx)
        One a channel.

    Raises
    ------
    InputError
        No such file, another shape than the volume's, or other values; on all ranks.
    """
    fields: list[Tensor] = []
    error: Exception | None = None
    try:
        fields = _read(Path(path).expanduser(), slab, channels)
    except Exception as problem:
        error = problem
    comm.agree(error)
    return fields


def _read(path: Path, slab: Slab, channels: int) -> list[Tensor]:
    where = f"initial_path: {path}"
    if not path.exists():
        raise InputError(f"{where}: expected a field (npy) or a run directory, found no such file")
    if path.is_dir():
        volume = Volume.open(path / "volume.zarr" if (path / "volume.zarr").is_dir() else path)
        array = volume.field()
        _check_shape(where, array.shape, slab, channels)

        def part(*selection: Any) -> NDArray[Any]:
            return volume.read(array, selection)
    else:
        values = _numbers(path, where)
        _check_shape(where, values.shape, slab, channels)

        def part(*selection: Any) -> NDArray[Any]:
            return np.asarray(values[selection], dtype=np.float64)

    fields = []
    for channel in range(channels):

        def planes(start: int, stop: int, channel: int = channel) -> NDArray[Any]:
            return part(*((channel,) if channels > 1 else ()), slice(start, stop))

        fields.append(slab.load(planes))
    if any(f.numel() and not bool(((f >= 0.0) & (f <= 1.0)).all()) for f in fields):
        raise InputError(f"{where}: expected values from 0 to 1, found others; scale the field")
    return fields


def _numbers(path: Path, where: str) -> NDArray[Any]:
    try:
        first_bytes(path, 1)  # a pipe would keep NumPy waiting
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as problem:
        raise InputError(f"{where}: expected an npy file with numbers ({problem})") from problem
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif":
        raise InputError(f"{where}: expected an npy file with numbers, found something else")
    return values


def _check_shape(where: str, shape: tuple[int, ...], slab: Slab, channels: int) -> None:
    wanted = (channels, *slab.shape) if channels > 1 else slab.shape
    if tuple(shape) != wanted:
        found = "x".join(map(str, shape))
        expected = "x".join(map(str, wanted))
        what = "voxels as the volume has" if channels == 1 else "(phases and voxels) as the volume has"
        raise InputError(f"{where}: expected {expected} {what}, found {found}; set volume.shape")
