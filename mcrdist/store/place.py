"""Writing to the place of a run: files in one piece, and failures said so that the user can act on them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcrdist.errors import InputError
from mcrdist.store import disk

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_PLACE = {errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ELOOP}


def _free(path: Path) -> str:
    """Free space where `path` is or would be, in words."""
    for place in (path, *path.parents):
        try:
            return f"{shutil.disk_usage(place).free / 2**20:.0f} MiB free"
        except OSError:
            continue
    return "free space unknown"


@contextmanager
def writing(path: Path, key: str = "run.dir") -> Iterator[None]:
    """Turn the operating system's refusals while writing at `path` into one line for the user.

    Parameters
    ----------
    path
        What is being written.
    key
        The configuration key that says where.

    Raises
    ------
    InputError
        The disk or the quota is full, the place may not be written to, or it cannot be a directory.
        Every other ``OSError`` (a failing disk, say) goes through as it is.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise InputError(
                f"{key}: the disk is full: cannot write {path} ({reason}; {_free(path)}); "
                f"free some space or choose another {key}"
            ) from error
        if error.errno in _FORBIDDEN:
            raise InputError(
                f"{key}: expected a place that can be written to, found {path} ({reason}); "
                f"choose another {key} or change its permissions"
            ) from error
        if error.errno in _NO_PLACE:
            raise InputError(
                f"{key}: expected a directory that can be made, found {path} ({reason}); choose another {key}"
            ) from error
        raise


def write_atomically(path: Path, content: bytes, key: str = "run.dir") -> None:
    """Write a file so that a reader, or a power cut, sees the old content or the new, never half of it.

    `key` is the setting that says where, for messages.

    Raises
    ------
    InputError
        The disk is full or the place cannot be written to; the old content stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path, key):
        try:
            with open(temporary, "wb") as file:
                disk.write(file, content)
                disk.sync(file)
            disk.rename(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
