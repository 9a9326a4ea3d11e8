"""Targets that come as files: ``targets.npz`` of another run, or two-point statistics in PyMKS's layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.config.micrograph import MINIMUM_SIZE, UNITS
from mcrdist.directions import AXES
from mcrdist.errors import InputError
from mcrdist.firstbytes import first_bytes
from mcrdist.micrograph import MAX_LABELS, Micrograph
from mcrdist.npzfile import load_npz
from mcrdist.targets.base import Targets
from mcrdist.targets.estimate import room
from mcrdist.targets.interpolation import Interpolation
from mcrdist.targets.micrographs import MicrographTargets
from mcrdist.targets.pymks import has_cutoff, read_array, take_in
from mcrdist.targets.statistics import StatisticsTargets

#: How often a name may lead further down. The ends of an interpolation may be interpolations, and each is a step.
_DEEPEST = 64


def read_targets(path: str | tuple[str, ...], key: str) -> Targets:
    """The targets in one file, or in three files of statistics for the planes normal to z, y and x.

    Parameters
    ----------
    path : str or tuple of str
    key : str
        The setting it comes from, for messages.

    Raises
    ------
    InputError
        A file is missing, damaged, or holds something else; nothing is ever unpickled.
    """
    paths = [Path(one).expanduser() for one in ((path,) if isinstance(path, str) else path)]
    heads = [_head(one, key) for one in paths]
    if len(paths) == 1 and heads[0].startswith(b"PK"):
        return rebuild(load_npz(paths[0]), str(paths[0]))
    for one, head in zip(paths, heads, strict=True):
        if not head.startswith(b"\x93NUMPY"):
            image = "micrograph.path" if key == "target.path" else "interpolate.micrograph.path"
            raise InputError(
                f"{key}: {one}: expected targets.npz, or two-point statistics (npy; one file, or one each for z, y "
                f"and x), found something else; an image is given as {image}"
            )
    if len(paths) not in (1, len(AXES)):
        raise InputError(
            f"{key}: expected one file, or three for the planes normal to z, y and x, found {len(paths)}; e.g. "
            f"{key}=[z.npy,y.npy,x.npy]"
        )
    arrays = {one: read_array(one) for one in paths}
    read = {one: take_in(array, f"{key}: {one}") for one, array in arrays.items()}
    of = dict(zip(AXES, paths * (len(AXES) // len(paths)), strict=True))
    return StatisticsTargets.settle(
        {axis: read[one] for axis, one in of.items()},
        {axis: str(one) for axis, one in of.items()},
        all(has_cutoff(array) for array in arrays.values()),
    )


def _head(path: Path, key: str) -> bytes:
    try:
        return first_bytes(path, 8)
    except FileNotFoundError:
        raise InputError(
            f"{key}: expected a file of targets, found no such file ({path}); check the path"
        ) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{key}: expected a file of targets, found: {reason} ({path}); check the path"
        ) from None


def rebuild(arrays: Mapping[str, NDArray[Any]], name: str) -> Targets:
    """The targets that wrote these arrays (`Targets.arrays`), with their window of lags.

    Parameters
    ----------
    arrays : mapping of name to array
    name : str
        Of the file, for messages.

    Raises
    ------
    InputError
        They are not the arrays of targets.
    """
    if any(key.count("/") > _DEEPEST for key in arrays):
        raise InputError(
            f"{name}: expected interpolations in at most {_DEEPEST} others, found more; write it with "
            "mcrdist characterize"
        )
    found = _Arrays(arrays, name)
    lags = found.integer("lags", 1, 2**15)
    targets: Targets
    if any(key.startswith("to/") for key in arrays):
        ends = (rebuild(found.below("from"), name), rebuild(found.below("to"), name))
        way, along = found.array("t", "f", 1), found.text("along")
        if along not in ("", *AXES) or not len(way) or (way < 0).any() or (way > 1).any():
            raise InputError(
                f"{name}: expected the way of an interpolation, found along={along!r}; copy the file again"
            )
        targets = Interpolation.between(ends, tuple(way.tolist()), along or None, lags)
    elif "z/samples/s2" in arrays:
        s2 = {axis: _samples(found, axis) for axis in AXES}
        targets = StatisticsTargets(s2, {axis: found.text(f"{axis}/source") for axis in AXES}, lags)
    elif "z/micrograph" in arrays:
        micrographs = {axis: _micrographs(found, axis) for axis in AXES}
        targets = MicrographTargets(micrographs, bool(found.integer("periodic", 0, 1)), lags)
    else:
        raise InputError(
            f"{name}: expected the micrographs or statistics of targets.npz, found {len(arrays)} other arrays; "
            "write it with mcrdist characterize"
        )
    most = min(longest for longest, _ in targets.rooms())
    if lags > most:
        raise InputError(f"{name}: expected lags of at most {most}, found {lags}; copy the file again")
    return targets


def _samples(found: _Arrays, axis: str) -> NDArray[np.float64]:
    values = found.array(f"{axis}/samples/s2", "f", 3)
    whole = np.concatenate([values[:, ::-1, :0:-1], values], axis=2)
    return take_in(whole, f"{found.name}: {axis}/samples/s2")


def _micrographs(found: _Arrays, axis: str) -> tuple[Micrograph, ...]:
    images = [_micrograph(found, axis)]
    while f"{axis}/image{len(images) + 1}/micrograph" in found.arrays:
        images.append(_micrograph(found, f"{axis}/image{len(images) + 1}"))
    return tuple(images)


def _micrograph(found: _Arrays, prefix: str) -> Micrograph:
    labels = found.array(f"{prefix}/micrograph", "u", 2)
    phase = found.integer(f"{prefix}/phase", 0, 255)
    present = np.unique(labels)
    small = min(labels.shape) < MINIMUM_SIZE or room(labels.shape, False) < 1
    if labels.dtype != np.uint8 or small or not 2 <= len(present) <= MAX_LABELS or phase not in present:
        shape = "x".join(map(str, labels.shape))
        raise InputError(
            f"{found.name}: {prefix}/micrograph: expected uint8 labels of two phases at least, {phase} among them, and "
            f"{MINIMUM_SIZE} pixels a side, found {shape} of {labels.dtype} with {len(present)} values; copy the file "
            "again"
        )
    grey = found.arrays.get(f"{prefix}/grey")
    if grey is not None and (grey.dtype != np.uint8 or grey.shape != labels.shape):
        shape = "x".join(map(str, grey.shape))
        raise InputError(
            f"{found.name}: {prefix}/grey: expected uint8 grey levels of all pixels of {prefix}/micrograph, found "
            f"{shape} of {grey.dtype}; copy the file again"
        )
    size, unit = None, None
    if f"{prefix}/pixel_size" in found.arrays:
        size, unit = float(found.array(f"{prefix}/pixel_size", "f", 0)), found.text(f"{prefix}/unit")
        if not (np.isfinite(size) and size > 0 and unit in UNITS):
            raise InputError(f"{found.name}: {prefix}/pixel_size: expected a length, found {size:g} {unit}")
    every = len(found.arrays.get("phases", ())) > 1
    return Micrograph(
        labels,
        phase,
        size,
        unit,
        found.text(f"{prefix}/source"),
        grey,
        every_phase=every and len(present) > 2,
    )


class _Arrays:
    """Arrays of a file by name, with messages for those that are missing or of another kind."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], name: str) -> None:
        self.arrays, self.name = arrays, name

    def below(self, prefix: str) -> dict[str, NDArray[Any]]:
        return {
            key.removeprefix(f"{prefix}/"): value
            for key, value in self.arrays.items()
            if key.startswith(f"{prefix}/")
        }

    def array(self, key: str, kinds: str, ndim: int) -> NDArray[Any]:
        value = self.arrays.get(key)
        if value is None or value.dtype.kind not in kinds or value.ndim != ndim or 0 in value.shape:
            found = "none" if value is None else f"{value.ndim} dimensions of {value.dtype}"
            raise InputError(
                f"{self.name}: {key}: expected an array of {ndim} dimensions, found {found}; write the file with "
                "mcrdist characterize"
            )
        return value

    def integer(self, key: str, least: int, most: int) -> int:
        value = int(self.array(key, "biu", 0))
        if not least <= value <= most:
            raise InputError(
                f"{self.name}: {key}: expected an integer from {least} to {most}, found {value}; write the file with "
                "mcrdist characterize"
            )
        return value

    def text(self, key: str) -> str:
        return str(self.array(key, "U", 0))
