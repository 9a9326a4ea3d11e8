"""Any volume on disk, read in slabs of planes: of a run, an OME-Zarr image, a TIFF stack or an npy file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.config.volumes import VolumeSourceConfig
from mcrdist.errors import UNREADABLE, InputError
from mcrdist.store.characterized import require_volume
from mcrdist.store.metadata import long_unit
from mcrdist.store.omezarr import is_zarr, read_image
from mcrdist.store.run import Run
from mcrdist.store.stacks import is_stack, read_npy, read_tiff
from mcrdist.store.volume import MISSING, Shape, Volume

#: Bytes of a slab: large enough for few passes over the chunks, small beside what any machine has.
SLAB = 2**25


@dataclass(frozen=True)
class Source:
    """A volume that is read lazily.

    Attributes
    ----------
    path : Path
        Where it was found.
    name : str
        What files made from it are called: "phase", "level-1-field", or the name of its file.
    array
        Has `shape` (nz, ny, nx) and `dtype`, and gives a NumPy array when it is sliced.
    depth : int
        Planes that are stored together: slabs of whole multiples read every chunk once.
    voxel_size : (float, float, float)
        Sides of a voxel (z, y, x) in `unit`; ones where nothing is known.
    unit : str or None
        OME-Zarr's name of the unit; None: lengths are in voxels.
    ours : bool
        Of a run: periodic, and 255 or NaN stands for what was never written.
    labels : int
        One more than the largest label of a run's volume; 0 where nobody has counted.
    """

    path: Path
    name: str
    array: Any
    depth: int = 1
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    unit: str | None = None
    ours: bool = False
    labels: int = 0

    @property
    def shape(self) -> Shape:
        """(nz, ny, nx)."""
        nz, ny, nx = (int(n) for n in self.array.shape)
        return nz, ny, nx

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the voxels; truth values count as uint8."""
        dtype = np.dtype(self.array.dtype)
        return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")

    @property
    def extent(self) -> tuple[float, float, float]:
        """Edges (z, y, x) in the unit."""
        z, y, x = (n * h for n, h in zip(self.shape, self.voxel_size, strict=True))
        return z, y, x

    def planes(self, width: int = 1) -> int:
        """Planes of a slab whose voxels take `width` bytes while one works on them; no fewer than one."""
        plane = max(1, max(width, self.dtype.itemsize) * self.shape[1] * self.shape[2])
        fit = max(1, SLAB // plane)
        return min(self.shape[0], fit - fit % self.depth if fit > self.depth else fit)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Planes start, ..., stop - 1, (planes, ny, nx) in C order.

        Raises
        ------
        InputError
            They are damaged, or were never written.
        """
        block = self.part(slice(start, stop))
        if self.ours and ((block == MISSING).any() if block.dtype.kind == "u" else np.isnan(block).any()):
            raise InputError(
                f"{self.path}: expected a whole volume, found planes {start} to {stop - 1} not written; the run "
                "was interrupted: run it again"
            )
        return block

    def part(self, selection: Any) -> NDArray[Any]:
        """What a selection of the array holds, in C order, written or not.

        Raises
        ------
        InputError
            It is damaged.
        """
        try:
            return np.ascontiguousarray(self.array[selection], dtype=self.dtype)
        except UNREADABLE as error:
            raise InputError(
                f"{self.path}: expected voxels, found a damaged part ({error}); restore the file from a copy"
            ) from error

    def slabs(self, planes: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
        """The first plane and the voxels of slabs, one after the other."""
        step = planes or self.planes()
        for start in range(0, self.shape[0], step):
            yield start, self.read(start, min(start + step, self.shape[0]))


class _Rest:
    """What a share (z, y, x) leaves over of every voxel, as an array."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, selection: Any) -> Any:
        return 1 - self._array[selection]


class _Channel:
    """One channel of an array (c, z, y, x), as an array (z, y, x)."""

    def __init__(self, array: Any, channel: int) -> None:
        self._array, self._channel = array, channel
        self.shape, self.dtype = array.shape[1:], array.dtype

    def __getitem__(self, selection: Any) -> Any:
        return self._array[(self._channel, *(selection if isinstance(selection, tuple) else (selection,)))]


class _Box:
    """A part of an array (z, y, x), as an array."""

    def __init__(self, array: Any, corner: Shape, edges: Shape) -> None:
        self._array, self._corner = array, corner
        self.shape, self.dtype = edges, array.dtype

    def __getitem__(self, selection: Any) -> Any:
        given = selection if isinstance(selection, tuple) else (selection,)
        given = (*given, *[slice(None)] * (3 - len(given)))
        where = []
        for one, corner, edge in zip(given, self._corner, self.shape, strict=True):
            start, stop, step = one.indices(edge)
            where.append(slice(corner + start, corner + stop, step))
        return self._array[tuple(where)]


def open_source(config: VolumeSourceConfig) -> Source:
    """Open the volume that settings name.

    Raises
    ------
    InputError
        There is none, it is not one volume, or it has no such level, phase or image.
    """
    source = _of_run(config) if config.run is not None else _of_path(config)
    if not source.ours and source.dtype.kind == "f":  # whatever it is, it stands for the share of phase 1
        source = replace(source, array=_share(source.array, config.phase))
    if config.box is not None:
        source = replace(source, array=_Box(source.array, *config.box), ours=False, labels=0)
    if config.voxel_size is not None:
        source = replace(source, voxel_size=config.voxel_size, unit=source.unit or long_unit("um"))
    return replace(source, unit=long_unit(config.unit)) if config.unit is not None else source


def _of_run(config: VolumeSourceConfig) -> Source:
    assert config.run is not None
    run = Run.open(config.run)
    require_volume(run)
    described = run.targets.get("phases", ()) if config.image == "field" else ()
    return _of_volume(run.volume, config, [int(label) for label in described])


def _of_volume(volume: Volume, config: VolumeSourceConfig, described: Sequence[int] = ()) -> Source:
    """The labels or the field of a volume of ours; `described` are the phases of the field's channels, if known."""
    count = volume.levels(config.image)
    if config.level >= count:
        raise InputError(
            f"{config.key}.level: expected an integer of at most {count - 1} (the coarsest level of the "
            f"{config.image}), found {config.level}"
        )
    array = volume.phase(config.level) if config.image == "phase" else volume.field(config.level)
    if config.image == "field":
        array = _share(array, config.phase, described)
    fine = volume.shape
    # A pyramid halves; a multigrid's levels need not, so that sizes follow from the shapes there.
    factors = [2.0**config.level] * 3 if config.image == "phase" else np.divide(fine, array.shape)
    name = config.image if config.level == 0 else f"level-{config.level}-{config.image}"
    z, y, x = (float(h * f) for h, f in zip(volume.voxel_size, factors, strict=True))
    return Source(volume.path, name, array, volume.depth, (z, y, x), volume.unit, True, volume.labels)


def _share(field: Any, phase: int | None, described: Sequence[int] = ()) -> Any:
    """The share of a phase, by default 1, in the voxels of a field, as an array (z, y, x).

    Of one phase against the rest the field is the share of phase 1, and the rest is phase 0.
    """
    several = len(field.shape) == 4
    known: Sequence[int] = range(2)
    if several:  # a file alone does not tell the labels of its channels: nearly always these
        known = described if len(described) == field.shape[0] else range(field.shape[0])
    if phase is None:
        phase = 1 if 1 in known else known[-1]
    if phase not in known:
        listed = ", ".join(map(str, known))
        raise InputError(f"volume.phase: expected one of the phases of the field, {listed}, found {phase}")
    if several:
        return _Channel(field, list(known).index(phase))
    return field if phase == 1 else _Rest(field)


def _of_path(config: VolumeSourceConfig) -> Source:
    assert config.path is not None
    path = Path(config.path).expanduser()
    if not path.exists():
        raise InputError(f"{config.key}.path: expected a volume, found nothing at {path}; check the path")
    if is_zarr(path):
        ours = path / "phase" / "zarr.json"
        if ours.is_file() and (path / "field").is_dir():
            return _of_volume(Volume.open(path), config)
        array, depth, size, unit = read_image(path, config.level)
        return Source(path, path.name.split(".")[0], array, depth, size, unit)
    if config.level:
        raise InputError(
            f"{config.key}.level: expected 0 for a volume without a pyramid, found {config.level}"
        )
    if is_stack(path):
        array, size, unit = read_tiff(path)
        return Source(path, path.stem, array, 1, size, unit)
    if (path / "config.yaml").is_file():
        raise InputError(
            f"{config.key}.path: expected a volume, found the run directory {path}; use run.dir={path}"
        )
    return Source(path, path.stem, read_npy(path))
