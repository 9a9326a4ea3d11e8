"""New files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mcrdist.errors import InputError
from mcrdist.store.place import writing
from mcrdist.store.source import Source

KEY = "output.path"


def title(source: Source, phase: int | None) -> str:
    """What an export is of: "phase", "field", a file's name; "phase-2" of one phase, whose exports lie side by side."""
    return source.name if phase is None else f"{source.name}-{phase}"


@contextmanager
def fresh(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Give temporary names for new files; after the block they get their own, and if it fails they vanish.

    Raises
    ------
    InputError
        One of them is there already, or the place cannot be written to.
    """
    _check(paths)
    parts = [path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}") for path in paths]
    with writing(paths[0], KEY):
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        try:
            yield parts
            _check(paths)  # somebody may have written one in the meantime
            for part, path in zip(parts, paths, strict=True):
                os.replace(part, path)
        finally:
            for part in parts:
                part.unlink(missing_ok=True)


def _check(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.exists():
            kind = "directory" if path.is_dir() else "file"
            raise InputError(
                f"{KEY}: expected a new file, found the {kind} {path}; choose another {KEY} or move it away"
            )
