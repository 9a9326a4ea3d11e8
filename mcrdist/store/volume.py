"""The reconstructed volume on disk: an OME-Zarr 0.5 hierarchy with a field and its phases.

``volume.zarr/field`` holds the relaxed field, one dataset for each level of the multigrid as it was
solved, finest first; of a material of several phases, with a channel for the share of each in a voxel.
``volume.zarr/phase`` holds the rounded labels and their pyramid.

Every chunk carries a checksum, so a flipped bit is an error on reading and never a wrong value; a chunk
that was never written reads as NaN or 255, and chunks that happen to be all fill are written all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from mcrdist.errors import InputError
from mcrdist.store import disk
from mcrdist.store.metadata import AXES, CHANNEL, long_unit, multiscale
from mcrdist.store.place import writing
from mcrdist.store.pyramid import halved, mode_downsample

Shape = tuple[int, int, int]

#: Planes of a z-block: a chunk is at most this deep, so slabs cut at multiples of it have one writer each.
DEPTH = 16
#: Rows and columns of a chunk: viewers fetch whole chunks, and 16x256x256 float32 are 4 MiB.
_SIDE = 256
#: The pyramid ends at the first level that is no longer than this along any axis.
_SMALLEST = 64
MISSING = 255


def _create_array(
    group: zarr.Group, name: str, shape: Shape, dtype: str, fill: float, depth: int, channels: int = 1
) -> Any:
    chunks = (min(depth, shape[0]), min(_SIDE, shape[1]), min(_SIDE, shape[2]))
    several = channels > 1
    return group.create_array(
        name,
        shape=(channels, *shape) if several else shape,
        dtype=dtype,
        chunks=(1, *chunks) if several else chunks,
        compressors=[ZstdCodec(level=1, checksum=True)],
        fill_value=fill,
        dimension_names=(CHANNEL, *AXES) if several else AXES,
        config={"write_empty_chunks": True},
    )


def _array(group: zarr.Group, name: str) -> Any:
    array = group[name]
    assert isinstance(array, zarr.Array)
    # Not part of the stored metadata, so whoever opens an array for writing must ask for it again.
    return array.with_config({"write_empty_chunks": True})


class VolumeWriter:
    """Writes a volume block by block; one rank creates it, the others open it.

    Attributes
    ----------
    path : Path
        The ``volume.zarr`` directory.
    depth : int
        Planes of a z-block. Every write is one or more whole z-blocks, the last of which may be cut short
        by the end of the volume, so that no two processes ever write to the same file.
    """

    def __init__(self, path: Path, root: zarr.Group) -> None:
        self.path, self._root = path, root
        own: Any = root.attrs["mcrdist"]
        self.depth = int(own["depth"])
        self._voxel_size = tuple(float(h) for h in own["voxel_size"])
        self._unit: str | None = own["unit"]
        self._labels = int(own["labels"])
        self._phase_group = root["phase"]
        field = root["field"]
        assert isinstance(self._phase_group, zarr.Group) and isinstance(field, zarr.Group)
        ome: Any = field.attrs["ome"]
        count = len(ome["multiscales"][0]["datasets"])
        self._field = [_array(field, str(level)) for level in range(count)]
        self._phase = _array(self._phase_group, "0")

    @classmethod
    def create(
        cls,
        path: str | Path,
        level_shapes: Sequence[Sequence[int]],
        voxel_size: Sequence[float] | None = None,
        unit: str | None = None,
        *,
        depth: int = DEPTH,
        labels: int = 2,
        channels: int = 1,
    ) -> VolumeWriter:
        """Make the hierarchy and its metadata, on one rank only.

        Parameters
        ----------
        path
            The directory to make, by custom ``RUN/volume.zarr``.
        level_shapes
            (nz, ny, nx) of every multigrid level, finest first.
        voxel_size
            (z, y, x) of the finest level in `unit`; None counts in voxels.
        unit
            "um", "nm", "micrometer", ...
        depth
            Planes of a z-block.
        labels
            One more than the largest label of the volume (not of the micrographs), for the viewers' contrast.
        channels
            Of the field: one, or one a phase.

        Raises
        ------
        InputError
            Something is there already, the unit is unknown, or the place cannot be written to.
        """
        path = Path(path)
        shapes = [_shape(shape) for shape in level_shapes]
        assert shapes and depth >= 1 and 2 <= labels < MISSING
        unit = long_unit(unit) if voxel_size is not None else None
        size = [1.0, 1.0, 1.0] if voxel_size is None else [float(h) for h in voxel_size]
        assert len(size) == 3 and min(size) > 0
        if path.exists():
            raise InputError(f"run.dir: expected no volume yet, found {path}; choose another run.dir")
        scales = [[h * n0 / n for h, n0, n in zip(size, shapes[0], shape, strict=True)] for shape in shapes]
        with writing(path):
            root = zarr.create_group(path, zarr_format=3)
            own = {"depth": depth, "voxel_size": size, "unit": unit, "labels": labels, "complete": False}
            root.attrs["mcrdist"] = own  # type: ignore[assignment]
            field = root.create_group("field")
            for level, shape in enumerate(shapes):
                _create_array(field, str(level), shape, "float32", float("nan"), depth, channels)
            field.attrs["ome"] = multiscale(
                "field", scales, unit, (0.0, 1.0), "multigrid solution", channels=channels
            )
            phase = root.create_group("phase")
            _create_array(phase, "0", shapes[0], "uint8", MISSING, depth)
            phase.attrs["ome"] = multiscale("phase", [size], unit, (0.0, labels - 1.0), "mode")
        return cls(path, root)

    @classmethod
    def open(cls, path: str | Path) -> VolumeWriter:
        """Open a volume that another rank has created, to write blocks of it."""
        path = Path(path)
        return cls(path, zarr.open_group(path, mode="r+", use_consolidated=False))

    @property
    def shape(self) -> Shape:
        """(nz, ny, nx) of the finest level."""
        return _shape(self._phase.shape)

    def write_field(self, level: int, z0: int, block: NDArray[np.float32], channel: int = 0) -> None:
        """Write planes z0, z0 + 1, ... of the field of a level, 0 the finest.

        Parameters
        ----------
        level
            Index of the dataset, finest first.
        z0
            First plane, a multiple of `depth`.
        block
            (planes, ny, nx) float32, whole z-blocks.
        channel
            Of a field that has several.

        Raises
        ------
        InputError
            The disk is full or the place cannot be written to.
        """
        self._write(self._field[level], z0, block, channel)

    def write_phase(self, z0: int, block: NDArray[np.uint8]) -> None:
        """Write planes z0, z0 + 1, ... of the labels, (planes, ny, nx) uint8, whole z-blocks."""
        self._write(self._phase, z0, block)

    def _write(self, array: Any, z0: int, block: NDArray[Any], channel: int = 0) -> None:
        nz, ny, nx = array.shape[-3:]
        z1 = z0 + block.shape[0]
        assert block.shape[1:] == (ny, nx) and block.dtype == array.dtype
        # A block cut anywhere else would share a file with its neighbour's writer.
        assert z0 % self.depth == 0 and (z1 == nz or z1 % self.depth == 0) and z1 <= nz
        with writing(self.path):
            array[(slice(z0, z1),) if len(array.shape) == 3 else (channel, slice(z0, z1))] = block

    def sync(self) -> None:
        """Wait until all that was written, on any rank, is on the disk."""
        with writing(self.path):
            disk.sync_tree(self.path)

    def mark(self, *, complete: bool) -> None:
        """Say in the volume itself whether it is the result of a finished run, on one rank.

        What is said to be complete is on the disk.
        """
        with writing(self.path):
            if complete:
                self.sync()
            own: Any = dict(self._root.attrs["mcrdist"])  # type: ignore[arg-type]
            self._root.attrs["mcrdist"] = own | {"complete": complete}

    def finish_phase(self) -> None:
        """Build the label pyramid block by block; one rank, when all blocks are written.

        Level k + 1 is the most frequent label in each 2x2x2 cell of level k.

        Raises
        ------
        InputError
            The disk is full, or part of the labels is missing or damaged.
        """
        group, fine = self._phase_group, self._phase
        assert isinstance(group, zarr.Group)
        scales = [list(self._voxel_size)]
        for level in range(1, 32):
            shape = _shape(fine.shape)
            if max(shape) <= _SMALLEST:
                break
            with writing(self.path):
                if str(level) in group:  # of a run that was interrupted and goes on
                    del group[str(level)]
                coarse = _create_array(group, str(level), halved(shape), "uint8", MISSING, self.depth)
                mode_downsample(fine, coarse, check=MISSING if level == 1 else None)
            scales.append([h * 2**level for h in self._voxel_size])
            fine = coarse
        with writing(self.path):
            # Last, so that the metadata never names a dataset that is not there or not whole.
            group.attrs["ome"] = multiscale("phase", scales, self._unit, (0.0, self._labels - 1.0), "mode")


class Volume:
    """A volume opened for reading.

    Attributes
    ----------
    path : Path
        The ``volume.zarr`` directory.
    """

    def __init__(self, path: Path, root: zarr.Group) -> None:
        self.path = path
        self._root = root
        own: Any = root.attrs["mcrdist"]
        self._own = own

    @classmethod
    def open(cls, path: str | Path) -> Volume:
        """Open ``volume.zarr``.

        Raises
        ------
        InputError
            There is no volume of ours at `path`.
        """
        path = Path(path)
        try:
            root = zarr.open_group(path, mode="r", use_consolidated=False)
            if "mcrdist" not in root.attrs or "phase" not in root or "field" not in root:
                raise ValueError("no phase and field groups")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: expected a volume.zarr written by mcrdist ({error})") from error
        return cls(path, root)

    def attributes(self, image: str) -> dict[str, Any]:
        """The attributes of "phase" or "field", with the metadata of OME-Zarr."""
        return dict(self._root[image].attrs)

    def levels(self, image: str) -> int:
        """Number of datasets of "phase" or "field"."""
        ome: Any = self._root[image].attrs["ome"]
        return len(ome["multiscales"][0]["datasets"])

    def phase(self, level: int = 0) -> Any:
        """Labels (nz, ny, nx) uint8 of a pyramid level as a zarr.Array, 0 the finest."""
        return self._root[f"phase/{level}"]

    def field(self, level: int = 0) -> Any:
        """Relaxed field (nz, ny, nx) float32 of a multigrid level as a zarr.Array, 0 the finest.

        Of several phases (phases, nz, ny, nx): the share of each in a voxel.
        """
        return self._root[f"field/{level}"]

    @property
    def shape(self) -> Shape:
        """(nz, ny, nx) of the finest level."""
        return _shape(self.phase().shape)

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """(z, y, x) of the finest level in `unit`; ones where nothing is known."""
        z, y, x = (float(h) for h in self._own["voxel_size"])
        return z, y, x

    @property
    def unit(self) -> str | None:
        """OME-Zarr's name of the unit, or None: lengths are in voxels."""
        unit: str | None = self._own["unit"]
        return unit

    @property
    def complete(self) -> bool:
        """Whether the run that wrote it came to its end; before, parts may be missing or of an earlier stage."""
        return bool(self._own.get("complete", False))

    @property
    def depth(self) -> int:
        """Planes of a z-block: reading whole blocks touches every file once."""
        return int(self._own["depth"])

    @property
    def labels(self) -> int:
        """One more than the largest label."""
        return int(self._own["labels"])

    def read(self, array: Any, selection: Any = ...) -> NDArray[Any]:
        """A part of an array of this volume in memory; damage becomes one line.

        Raises
        ------
        InputError
            A chunk fails its checksum or cannot be decoded.
        """
        try:
            return np.asarray(array[selection])
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{self.path}/{array.path}: a chunk is damaged ({error}); restore it from a copy or run again"
            ) from error


def _shape(values: Sequence[int]) -> Shape:
    nz, ny, nx = (int(n) for n in values)
    return nz, ny, nx
