"""The calls that decide what a kill or a power cut leaves behind; tests put failing ones in their place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO


def write(file: IO[bytes], data: bytes | memoryview) -> None:
    """Append to a file."""
    file.write(data)


def sync(file: IO[bytes]) -> None:
    """Wait until what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def rename(old: Path, new: Path) -> None:
    """Give a finished file or directory its name, in one step, and wait until the name is on the disk.

    A file that has the name already is replaced.
    """
    os.replace(old, new)
    sync_directory(new.parent)


def sync_tree(path: Path) -> None:
    """Wait until all files in a directory, and below, are on the disk: for those that others have written."""
    for below in path.rglob("*"):
        sync_directory(below)
    sync_directory(path)


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory, or what is in a file, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
