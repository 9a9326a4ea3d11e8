"""Kills and damage, for the tests of what survives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mcrdist.store import disk


def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing wait for the disk: a process that is killed loses nothing that it has handed to the system."""
    monkeypatch.setattr(disk, "sync", lambda file: file.flush())
    monkeypatch.setattr(disk, "sync_directory", lambda path: None)


def in_child(work: Callable[[], Any], kill_after: float | None = None) -> int:
    """Do `work` in a process of its own; return its exit status, negative for a signal.

    `kill_after` seconds it is killed, if it still runs.
    """
    child = os.fork()
    if child == 0:
        # What coverage has seen is lost with the process; so it need not look.
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    until = None if kill_after is None else time.monotonic() + kill_after
    while True:
        done, status = os.waitpid(child, 0 if until is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        assert until is not None
        if time.monotonic() >= until:
            os.kill(child, signal.SIGKILL)
            until = None
        else:
            time.sleep(0.002)


class Crash:
    """Kills this process in the middle of the `at`-th write, or right after the `at`-th sync or rename.

    With `libraries`, what libraries rename counts too, the chunks of the volume among it: before, or after it.
    """

    def __init__(self, at: int, libraries: bool = False) -> None:
        self.left = at
        self._write, self._sync, self._rename = disk.write, disk.sync, disk.rename
        disk.write, disk.sync, disk.rename = self.write, self.sync, self.rename
        if libraries:
            self._replace, os.replace = os.replace, self.replace

    def replace(self, old: Any, new: Any) -> None:
        if self._now():
            self._die()
        self._replace(old, new)
        if self._now():
            self._die()

    def _now(self) -> bool:
        self.left -= 1
        return self.left == 0

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def write(self, file: Any, data: Any) -> None:
        if self._now():
            self._write(file, data[: len(data) // 2])
            file.flush()
            self._die()
        self._write(file, data)

    def sync(self, file: Any) -> None:
        self._sync(file)
        if self._now():
            self._die()

    def rename(self, old: Path, new: Path) -> None:
        self._rename(old, new)
        if self._now():
            self._die()


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """A disk of its own, of this size, at `place`; skips the test where that takes privileges."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs takes privileges")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def remount(place: Path, option: str) -> None:
    """Change a disk of `small_disk`: its size, or whether it may be written to (ro, rw)."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(place)], capture_output=True, check=True)


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file, counted from its beginning, and from there again past its end."""
    data = bytearray(path.read_bytes())
    place = bit % (8 * len(data))
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)
