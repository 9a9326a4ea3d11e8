"""What a file begins with, by which its kind is told."""

from __future__ import annotations

import errno
import stat
from pathlib import Path


def first_bytes(path: Path, count: int) -> bytes:
    """At most `count` bytes from the beginning of a file.

    Raises
    ------
    OSError
        There is no such file, it is a directory, may not be read, or is a pipe or device: reading that may wait for
        ever, and cannot begin again.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "a pipe or a device, and no file")
    with path.open("rb") as file:
        return file.read(count)
