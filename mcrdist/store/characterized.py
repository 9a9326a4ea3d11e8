"""The directory that `mcrdist characterize` leaves: like a run's, but with targets only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from mcrdist.errors import UNREADABLE, InputError
from mcrdist.npzfile import load_npz
from mcrdist.store.checksums import CHECKSUMS
from mcrdist.store.run import TARGETS, VOLUME, Run


def targets_only(run: Run) -> bool:
    """Whether its settings are those of a characterisation: the others are never without a volume's shape."""
    if (run.path / VOLUME).exists() or (run.path / CHECKSUMS).exists():
        return False
    try:
        return "micrograph" in run.config and "volume" not in run.config
    except InputError:
        return False  # damaged, and whoever looks for a volume will say so


def require_volume(run: Run) -> None:
    """Raise an InputError for a directory with targets only, which says what they are for."""
    if targets_only(run):
        raise InputError(
            f"run.dir: expected a run with a volume, found {run.path} of mcrdist characterize, which has targets only; "
            f"make a volume of them: mcrdist reconstruct target.path={run.path / TARGETS}"
        )


def damages(path: Path) -> tuple[list[str], int]:
    """What cannot be read of the files of a characterisation, a line each, and how many files were looked at."""
    found, count = [], 0
    if not (path / TARGETS).exists():
        found.append(f"{path / TARGETS}: expected a file, found nothing")
    for file in sorted(path.iterdir()):
        read = _READERS.get(file.suffix)
        if read is None:
            continue
        count += 1
        try:
            read(file)
        except InputError as error:
            found.append(str(error))
        except UNREADABLE as error:
            text = " ".join(str(error).split())
            found.append(f"{file}: expected a whole file ({type(error).__name__}: {text})")
    return found, count


def _picture(file: Path) -> None:
    with Image.open(file) as image:
        image.verify()


#: By suffix, what reads a file to its end, checksums included where it has any. Settings were read before.
_READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda file: json.loads(file.read_text(encoding="utf-8")),
    ".npy": lambda file: np.load(file, allow_pickle=False),
    ".npz": load_npz,
    ".png": _picture,
    ".yaml": lambda file: file.read_text(encoding="utf-8"),
}
