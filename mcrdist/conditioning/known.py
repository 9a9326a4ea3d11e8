"""What is known of the volume: a plane of it, or single voxels, on every level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist import micrograph
from mcrdist.config import ConditioningConfig, MicrographSource
from mcrdist.config.idle import check_place
from mcrdist.directions import AXES
from mcrdist.errors import InputError
from mcrdist.firstbytes import first_bytes
from mcrdist.parallel.slab import Slab
from mcrdist.phases import Phases

#: In a file of voxels: the label of those that are not known.
UNKNOWN = 255
#: A volume has at least as many voxels along each axis; a smaller third dimension of an image holds its colours.
SMALLEST = 8

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Given:
    """The voxels that are given on one level, those of one rank.

    Attributes
    ----------
    mask : bool Tensor (planes, ny, nx)
    values : sequence of Tensor (voxels,)
        One a variable, in the order of the mask.
    """

    mask: Tensor
    values: Sequence[Tensor]

    def impose(self, field: Tensor, phases: Phases) -> None:
        """Set the given voxels of a field of variables, in place."""
        for variable, values in zip(phases.split(field), self.values, strict=True):
            variable[self.mask] = values.to(variable)


@dataclass(frozen=True)
class Known:
    """Labels on the finest level.

    Attributes
    ----------
    labels : integer array
        Of a plane (H, W), or of the volume (nz, ny, nx), `UNKNOWN` in between; the latter may be on disk still.
    shape : tuple of int
        (nz, ny, nx) of the volume.
    axis, index : int
        Of a plane: what it is normal to, and where it lies.
    """

    labels: NDArray[Any]
    shape: tuple[int, int, int]
    axis: int = 0
    index: int = 0

    def at(self, slab: Slab, phases: Phases) -> Given:
        """The given voxels of a level.

        On a coarse level a plane is averaged in itself only, as the micrographs are there; a voxel is known where
        all of the voxels are that it stands for. Centres lie as `multigrid.upsample` has them.
        """
        found = self._plane(slab, phases) if self.labels.ndim == 2 else self._voxels(slab, phases)
        shares = torch.as_tensor(found, dtype=slab.dtype, device=slab.comm.device)
        mask = ~torch.isnan(shares[0])
        channels = [share[mask] for share in shares]
        return Given(mask, phases.split(phases.from_channels(channels)))

    def _plane(self, slab: Slab, phases: Phases) -> Floats:
        """Shares of the phases (channels, planes, ny, nx), NaN where nothing is known."""
        shares = np.full((len(phases.labels), *slab.local_shape), np.nan)
        owners = [_owners(fine, coarse) for fine, coarse in zip(self.shape, slab.shape, strict=True)]
        coarse = [n for i, n in enumerate(slab.shape) if i != self.axis]
        rows, columns = (own for i, own in enumerate(owners) if i != self.axis)
        plane = _shares(_counts(self.labels, phases.labels, rows, columns, coarse))
        at = int(owners[self.axis][self.index])
        if self.axis:
            np.moveaxis(shares, self.axis + 1, 0)[at] = plane[:, slab.start : slab.stop]
        elif slab.start <= at < slab.stop:
            shares[:, at - slab.start] = plane
        return shares

    def _voxels(self, slab: Slab, phases: Phases) -> Floats:
        shares = np.full((len(phases.labels), *slab.local_shape), np.nan)
        planes, rows, columns = (
            _owners(fine, coarse) for fine, coarse in zip(self.shape, slab.shape, strict=True)
        )
        for plane in range(slab.planes):
            counts = np.zeros((len(phases.labels) + 2, *slab.shape[1:]))
            for z in np.flatnonzero(planes == slab.start + plane):
                counts += _counts(np.asarray(self.labels[z]), phases.labels, rows, columns, slab.shape[1:])
            shares[:, plane] = _shares(counts)
        return shares


def _owners(fine: int, coarse: int) -> NDArray[np.int64]:
    """For each fine voxel along an axis, the coarse one whose centre is nearest, periodic."""
    doubled = 2 * np.arange(fine) * coarse + fine
    return (doubled // (2 * fine)) % coarse


def _counts(
    labels: NDArray[Any],
    channels: Sequence[int],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    shape: Sequence[int],
) -> Floats:
    """Voxels of each channel, of other phases and unknown, (channels + 2, h, w), in each coarse cell of a plane."""
    counts = np.zeros((len(channels) + 2, *shape))
    kind = np.full(labels.shape, len(channels))
    for number, label in enumerate(channels):
        kind[labels == label] = number
    kind[labels == UNKNOWN] = len(channels) + 1
    np.add.at(counts, (kind, rows[:, None], columns[None, :]), 1.0)
    return counts


def _shares(counts: Floats) -> Floats:
    """Shares of the channels in each cell, NaN where not all of it is known."""
    known = np.where(counts[-1] == 0.0, counts[:-1].sum(0), np.nan)
    return counts[:-2] / known


def read_known(
    config: ConditioningConfig, source: MicrographSource, phases: Sequence[int], shape: tuple[int, int, int]
) -> Known | None:
    """Read what is known, if anything.

    Parameters
    ----------
    config : ConditioningConfig
    source : MicrographSource
        The micrograph of the planes normal to ``config.axis``: a known plane is segmented as it is.
    phases : sequence of int
        The labels of the channels: one phase against the rest, or all of three or more.
    shape : tuple of int
        (nz, ny, nx) of the volume.

    Raises
    ------
    InputError
        No such file, no image, not as large as the plane or the volume, phases that the targets have not, or voxels
        of which all are known, or none.
    """
    if config.path is None:
        return None
    path = Path(config.path).expanduser()
    voxels = _voxels(path)
    if voxels is not None:
        check_place(config, f"the voxels of {path}, which lie where the volume's do")
        _check_voxels(voxels, path, phases, shape)
        return Known(voxels, shape)
    axis = AXES.index(config.axis)
    plane = _plane(config, source, phases)
    wanted = tuple(n for i, n in enumerate(shape) if i != axis)
    if plane.shape != wanted:
        height, width = wanted
        raise InputError(
            f"conditioning.path: {path}: expected {height}x{width} pixels, a plane of the volume normal to "
            f"{config.axis}, found {plane.shape[0]}x{plane.shape[1]}; cut it, e.g. "
            f"conditioning.crop=[0,{height},0,{width}], or set volume.shape"
        )
    _check_labels(np.unique(plane).tolist(), path, phases)
    return Known(plane, shape, axis, config.index)


def _plane(config: ConditioningConfig, source: MicrographSource, phases: Sequence[int]) -> NDArray[np.uint8]:
    """The labels of the known plane, segmented over the whole image, then cut."""
    assert config.path is not None
    same = any(one.path == config.path for one in source.each)
    crop = source.crop if same else None
    phase = phases[0] if len(phases) == 1 else None
    plane = micrograph.load(replace(source, path=config.path, image=None, crop=crop, phase=phase)).labels
    if config.crop is None:
        return plane
    top, left = (crop[0], crop[2]) if crop else (0, 0)
    row0, row1, column0, column1 = config.crop
    inside = top <= row0 < row1 <= top + plane.shape[0] and left <= column0 < column1 <= left + plane.shape[1]
    if not inside:
        raise InputError(
            f"conditioning.crop: expected [row0,row1,column0,column1] within rows {top} to {top + plane.shape[0]} "
            f"and columns {left} to {left + plane.shape[1]} of {config.path}, found {list(config.crop)}"
        )
    return plane[row0 - top : row1 - top, column0 - left : column1 - left]


def _voxels(path: Path) -> NDArray[Any] | None:
    """A file of voxels, on disk; None if it is an image."""
    try:
        if first_bytes(path, 6) != b"\x93NUMPY":
            return None
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # the reader of images says what is wrong
    return array if array.ndim == 3 and min(array.shape) >= SMALLEST else None


def _check_voxels(
    voxels: NDArray[Any], path: Path, phases: Sequence[int], shape: tuple[int, int, int]
) -> None:
    if voxels.shape != shape:
        expected, found = ("x".join(map(str, s)) for s in (shape, voxels.shape))
        raise InputError(
            f"conditioning.path: {path}: expected {expected} voxels as the volume has, found {found}; set volume.shape"
        )
    if voxels.dtype.kind not in "bui":
        raise InputError(
            f"conditioning.path: {path}: expected integers (labels, {UNKNOWN} where unknown), found {voxels.dtype}; "
            "save them as uint8"
        )
    present = sorted(set().union(*(np.unique(plane).tolist() for plane in voxels)))
    # Where one phase is described, any label beside it is the rest: -1 for unknown would be known everywhere.
    outside = [label for label in present if not 0 <= label <= UNKNOWN]
    if outside:
        raise InputError(
            f"conditioning.path: {path}: expected labels from 0 to {UNKNOWN - 1}, and {UNKNOWN} where unknown, found "
            f"{outside[0]}; save them as uint8"
        )
    if present == [UNKNOWN]:
        raise InputError(
            f"conditioning.path: {path}: expected known voxels, found {UNKNOWN} (unknown) everywhere; set labels"
        )
    if UNKNOWN not in present:
        raise InputError(
            f"conditioning.path: {path}: expected voxels that are {UNKNOWN} (unknown), found labels everywhere, "
            "which leave nothing to reconstruct; label what is not known so"
        )
    _check_labels([label for label in present if label != UNKNOWN], path, phases)


def _check_labels(found: Sequence[int], path: Path, phases: Sequence[int]) -> None:
    if len(phases) > 1 and not set(found) <= set(phases):
        listed = ", ".join(map(str, phases))
        raise InputError(
            f"conditioning.path: {path}: expected the phases of the micrograph, {listed}, found "
            f"{', '.join(map(str, found))}; number them alike"
        )
