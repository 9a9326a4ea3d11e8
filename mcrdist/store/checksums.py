"""Checksums of the files of a run that have none of their own: ``RUN/checksums.json``.

While a run goes on it lists what never changes: the settings, the targets, the layout of the volume. At its end the
list is sealed, with everything in it but the chunks of the volume, each of which carries its own checksum, and the
checkpoints, whose manifests have theirs.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mcrdist.errors import InputError
from mcrdist.store.place import write_atomically, writing

CHECKSUMS = "checksums.json"
_ZARR = "zarr.json"
_VOLUME = "volume.zarr"
#: What is as it was from the beginning of a run to its end; directories with all metadata below them.
_LASTING = (
    "config.yaml",
    "environment.json",
    "targets.npz",
    f"{_VOLUME}/field",
    f"{_VOLUME}/phase/0/{_ZARR}",
)
_CHANGING = ("metrics.jsonl", "summary.json", f"{_VOLUME}/{_ZARR}", f"{_VOLUME}/phase")


def checksum(path: Path, length: int | None = None) -> str:
    """SHA-256 of a file, or of its first `length` bytes."""
    digest = hashlib.sha256()
    left = path.stat().st_size if length is None else length
    with open(path, "rb") as file:
        while left > 0 and (piece := file.read(min(left, 2**20))):
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()


def seal(run: Path, *, finished: bool) -> None:
    """Write the checksums of what does not change any more."""
    names = sorted(set(_files(run, _LASTING + (_CHANGING if finished else ()))))
    found = {"finished": finished, "files": {name: checksum(run / name) for name in names}}
    write_atomically(run / CHECKSUMS, (json.dumps(found, indent=2) + "\n").encode())


def is_finished(run: Path) -> bool:
    """Whether the run in a directory came to its end, everything in it sealed."""
    return (run / CHECKSUMS).is_file() and bool(_read(run)["finished"])


def count(run: Path) -> int:
    """How many files the list has."""
    return len(_read(run)["files"])


def damages(run: Path) -> list[str]:
    """What is not as it was when it was sealed, a line each.

    Raises
    ------
    InputError
        The list itself is missing or damaged.
    """
    found = []
    for name, wanted in _read(run)["files"].items():
        place = run / name
        if os.path.isabs(name) or ".." in Path(name).parts:
            raise _damaged(run, f"a file outside the run ({name})")
        if not place.is_file():
            found.append(f"{place}: expected a file, found nothing")
        elif checksum(place) != wanted:
            found.append(f"{place}: expected its checksum in {CHECKSUMS}, found another")
    return found


def require(run: Path, name: str) -> None:
    """See to it that a file is as it was when it was sealed, if the run has come so far.

    Raises
    ------
    InputError
        It is not.
    """
    found = damages(run) if (run / CHECKSUMS).exists() else []
    for damage in found:
        if damage.startswith(f"{run / name}:"):
            raise InputError(f"{damage}; restore it from a copy or start again in another run.dir")


def cut(path: Path, kept: tuple[int, str] | None) -> str | None:
    """Shorten a log to the bytes that a checkpoint knows; what is not what it knows is set aside.

    Parameters
    ----------
    kept
        Bytes and checksum; None keeps nothing.

    Returns
    -------
    str or None
        What was wrong with the log.
    """
    with writing(path):
        if kept is None:
            path.unlink(missing_ok=True)
            return None
        length, wanted = kept
        if path.is_file() and path.stat().st_size >= length and checksum(path, length) == wanted:
            os.truncate(path, length)
            return None
        aside = path.with_name(f"{path.name}.damaged")
        if path.exists():
            os.replace(path, aside)
        return f"{path}: not what the checkpoint knows of it; the lines before it are in {aside.name}, if anywhere"


def _files(run: Path, names: tuple[str, ...]) -> list[str]:
    found = []
    for name in names:
        place = run / name
        if place.is_dir():
            found += [str(path.relative_to(run)) for path in place.rglob(_ZARR)]
        elif place.is_file():
            found.append(name)
    return found


def _read(run: Path) -> dict[str, Any]:
    try:
        found = json.loads((run / CHECKSUMS).read_text(encoding="utf-8"))
        files = found["files"]
        if not all(isinstance(text, str) for pair in files.items() for text in pair):
            raise TypeError("a checksum is no text")
        return {"finished": found["finished"] is True, "files": files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(run, f"{type(error).__name__}: {error}") from error


def _damaged(run: Path, found: str) -> InputError:
    return InputError(
        f"{run / CHECKSUMS}: expected the checksums of the run's files, found {found}; restore it from a copy or "
        "start again in another run.dir"
    )
