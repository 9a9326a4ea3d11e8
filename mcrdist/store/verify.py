"""Reading everything in a run directory, to say what is broken where."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mcrdist.errors import InputError
from mcrdist.store import characterized, checksums
from mcrdist.store.generation import Damaged, Generation, Generations
from mcrdist.store.run import CONFIG, METRICS, Run
from mcrdist.store.volume import MISSING, Volume

_IMAGES = ("field", "phase")
_ZSTANDARD = bytes.fromhex("28b52ffd")


@dataclass
class Findings:
    """What was found: problems, a line each, how much was read, and whether the run is finished, or none at all."""

    problems: list[str] = field(default_factory=list)
    files: int = 0
    chunks: int = 0
    finished: bool = False
    targets_only: bool = False


def verify(path: Path) -> Findings:
    """Read a run directory: checksums of all files, every chunk and its checksum, the OME metadata, checkpoints.

    Of a characterisation, which has none of these, all files.

    Raises
    ------
    InputError
        `path` is no run directory.
    """
    found = Findings()
    if characterized.targets_only(Run.open(path)):
        found.targets_only = True
        found.problems, found.files = characterized.damages(path)
        return found
    try:
        found.problems += checksums.damages(path)
        found.finished = checksums.is_finished(path)
        found.files += checksums.count(path)
    except InputError as error:
        found.problems.append(str(error))
    for name in (CONFIG, METRICS):
        _readable(path, name, found)
    _check_volume(path, found)
    _check_generations(path, found)
    return found


def _readable(path: Path, name: str, found: Findings) -> None:
    run = Run.open(path)
    try:
        _ = run.config if name == CONFIG else run.metrics
    except InputError as error:
        found.problems.append(str(error))


def _check_volume(path: Path, found: Findings) -> None:
    try:
        volume = Run.open(path).volume
        if found.finished and not volume.complete:
            found.problems.append(
                f"{volume.path}: expected the volume of a finished run, found it marked incomplete"
            )
        for image in _IMAGES:
            for array in _datasets(volume, image):
                _check_chunks(volume, array, found, whole=found.finished)
    except InputError as error:
        found.problems.append(str(error))
    except Exception as error:  # a library's complaint about metadata has any type
        text = " ".join(str(error).split())
        found.problems.append(
            f"{path}/volume.zarr: expected OME-Zarr metadata ({type(error).__name__}: {text})"
        )


def _datasets(volume: Volume, image: str) -> Iterator[Any]:
    """The arrays of an image, whose metadata is that of OME-Zarr 0.5."""
    ome: Any = volume.attributes(image)["ome"]
    (scales,) = ome["multiscales"]
    if ome["version"] != "0.5" or not scales["datasets"]:
        raise ValueError(f"{image}: no datasets of OME-Zarr 0.5")
    for number, dataset in enumerate(scales["datasets"]):
        if dataset["path"] != str(number):
            raise ValueError(f"{image}: dataset {number} is called {dataset['path']!r}")
        array = volume.phase(number) if image == "phase" else volume.field(number)
        kinds = [part["type"] for part in dataset["coordinateTransformations"]]
        steps = dataset["coordinateTransformations"][0]["scale"]
        if kinds != ["scale", "translation"] or len(steps) != len(array.shape) == len(scales["axes"]):
            raise ValueError(f"{image}/{number}: scale, axes and shape do not fit")
        if not all(step > 0 for step in steps):
            raise ValueError(f"{image}/{number}: a scale that is not positive")
        yield array


def _check_chunks(volume: Volume, array: Any, found: Findings, whole: bool) -> None:
    corners = itertools.product(*(range(0, n, c) for n, c in zip(array.shape, array.chunks, strict=True)))
    for corner in corners:
        where = tuple(slice(s, s + c) for s, c in zip(corner, array.chunks, strict=True))
        key = "/".join(str(s // c) for s, c in zip(corner, array.chunks, strict=True))
        place = f"{volume.path}/{array.path}/c/{key}"
        try:
            values = np.asarray(array[where])
        except Exception as error:  # decoders raise what they like
            text = " ".join(str(error).split())
            found.problems.append(f"{place}: a chunk is damaged ({type(error).__name__}: {text})")
            continue
        found.chunks += 1
        if not _checked(Path(place)):
            found.problems.append(f"{place}: expected a chunk that carries its checksum, found one without")
        missing = (values == MISSING).any() if values.dtype == np.uint8 else not np.isfinite(values).all()
        if whole and missing:
            found.problems.append(f"{place}: expected a chunk, found none or one with voxels missing")


def _checked(chunk: Path) -> bool:
    """Whether the head of a chunk, a Zstandard frame, says that a checksum is at its end; a missing one is not."""
    if not chunk.is_file():
        return True
    with open(chunk, "rb") as file:
        head = file.read(5)
    return head[:4] == _ZSTANDARD and bool(head[4] & 4)


def _check_generations(path: Path, found: Findings) -> None:
    for directory in Generations(path / "checkpoint").list():
        try:
            generation = Generation.open(directory)
        except Damaged as damage:
            found.problems.append(str(damage))
            continue
        found.files += 1
        for start in generation.starts:
            try:
                generation.check(start)
                found.files += 1
            except Damaged as damage:
                found.problems.append(str(damage))
