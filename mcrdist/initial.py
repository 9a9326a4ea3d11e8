"""A start that the user gives: a field from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from mcrdist.errors import InputError
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.store.volume import Volume


def read_field(path: str, slab: Slab, comm: Comm) -> Tensor:
    """Each rank's planes of a field with values in [0, 1]: an npy file, a volume.zarr, or a run directory.

    Raises
    ------
    InputError
        No such file, another shape than the volume's, or other values; on all ranks.
    """
    field: Tensor | None = None
    error: Exception | None = None
    try:
        field = _read(Path(path).expanduser(), slab)
    except Exception as problem:
        error = problem
    comm.agree(error)
    assert field is not None
    return field


def _read(path: Path, slab: Slab) -> Tensor:
    where = f"initial_path: {path}"
    if not path.exists():
        raise InputError(f"{where}: expected a field (npy) or a run directory, found no such file")
    if path.is_dir():
        volume = Volume.open(path / "volume.zarr" if (path / "volume.zarr").is_dir() else path)
        array = volume.field()
        shape = tuple(array.shape)
        _check_shape(where, shape, slab)
        field = slab.load(lambda start, stop: np.asarray(volume.read(array, slice(start, stop))))
    else:
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as problem:
            raise InputError(f"{where}: expected an npy file with numbers ({problem})") from problem
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif":
            raise InputError(f"{where}: expected an npy file with numbers, found something else")
        _check_shape(where, values.shape, slab)
        field = slab.load(lambda start, stop: values[start:stop].astype(np.float64))
    if field.numel() and not bool(((field >= 0.0) & (field <= 1.0)).all()):
        raise InputError(f"{where}: expected values from 0 to 1, found others; scale the field")
    return field


def _check_shape(where: str, shape: tuple[int, ...], slab: Slab) -> None:
    if tuple(shape) != slab.shape:
        found = "x".join(map(str, shape))
        expected = "x".join(map(str, slab.shape))
        raise InputError(
            f"{where}: expected {expected} voxels as the volume has, found {found}; set volume.shape"
        )
