"""One job a run directory: the others are told who is at work.

The lock is the operating system's, held as long as the process lives; the file beside it only names the holder. So a
process that was killed leaves no lock, whatever it leaves in the file.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from mcrdist.errors import InputError
from mcrdist.store.place import writing

LOCK = "lock"
_BUSY = (errno.EWOULDBLOCK, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # a file system without them cannot tell
_LARGEST = 4096  # bytes; a holder's name is shorter


class Lock:
    """Held by the process that writes into a run directory.

    Parameters
    ----------
    directory : Path
        The run directory, which is there.

    Raises
    ------
    InputError
        Another process holds it; the message says which.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOCK
        with writing(self.path):
            while True:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
                self._take()
                # Between opening and locking its last holder may have removed the file.
                if self.path.exists() and os.path.samestat(os.fstat(self._file), self.path.stat()):
                    break
                os.close(self._file)
            holder = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "job": os.environ.get("SLURM_JOB_ID"),
                "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            }
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(holder).encode() + b"\n", 0)

    def _take(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return
            holder = _holder(self.path)
            os.close(self._file)
            if error.errno not in _BUSY:
                raise
            raise InputError(
                f"run.dir: expected no other job at work in {self.path.parent}, found {holder}; wait for it or stop it"
            ) from None

    def release(self) -> None:
        """Let others in; harmless when called again."""
        if self._file >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


def check(directory: Path) -> None:
    """Raise the InputError of `Lock` where another process holds it; touches nothing."""
    try:
        file = os.open(directory / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY and not _ours(directory / LOCK):
            raise InputError(
                f"run.dir: expected no other job at work in {directory}, found {_holder(directory / LOCK)}; "
                "wait for it or choose another run.dir"
            ) from None
    finally:
        os.close(file)


def _ours(path: Path) -> bool:
    told = _told(path)
    return told.get("pid") == os.getpid() and told.get("host") == socket.gethostname()


def _told(path: Path) -> dict[str, Any]:
    """What the lock's file says; empty where it says nothing that makes sense."""
    try:
        with open(path, "rb") as file:
            told = json.loads(file.read(_LARGEST))
        return told if isinstance(told, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _holder(path: Path) -> str:
    """Who the lock's file names, in words."""
    told = _told(path)
    if not {"pid", "host", "since"} <= told.keys():
        return "one that did not leave its name"
    job = f" (job {told['job']})" if told.get("job") else ""
    return f"process {told['pid']} on {told['host']}{job}, since {told['since']}"
