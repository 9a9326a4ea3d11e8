"""What the commands print, by one process of those that torchrun starts, and how they all leave.

torchrun sends SIGTERM to every process as soon as one has failed. When all of them find the same mistake, the
fastest must not silence the one that tells it, nor change the exit status of the others.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mcrdist.errors import InputError

#: Streams whose reader has left.
_hushed: list[TextIO] = []

_HEAD_START = 1.0  # seconds in which the first rank tells a mistake before the others leave because of it


def first_rank() -> bool:
    """Whether this process is the one that prints; torchrun sets RANK."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Print `text` on standard output; where its reader has left (``| head -1``), nobody hears it.

    The work goes on: what has been computed for an hour is not lost to a closed pipe.
    """
    if first_rank():
        try:
            print(text, flush=True)
        except BrokenPipeError:
            hush()


def program() -> str:
    """How this program is called here, for advice that can be typed as it stands: "mcrdist", where that is found."""
    called = Path(sys.argv[0])
    if called.name != "mcrdist":
        return f"{Path(sys.executable).name} -m mcrdist"
    found = shutil.which("mcrdist")
    if found is not None and called.is_file() and os.path.samefile(found, called):
        return "mcrdist"
    return str(called)


def relative(path: Path) -> str:
    """A path as it may be typed in this directory."""
    found = os.path.relpath(path)
    return shlex.quote(str(path) if found.startswith("..") else found)


def hush() -> None:
    """Send to nowhere what would go to readers that have left, also what Python writes when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            poll = select.poll()
            poll.register(stream.fileno(), 0)
        except (AttributeError, OSError, ValueError):
            continue  # a stream without a file, as in tests and notebooks
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            _hushed.append(stream)


def hushed() -> bool:
    """Whether something went unheard because its reader had left."""
    return bool(_hushed)


def complain(message: str) -> None:
    """Print an error, on the first rank, as one line on standard error."""
    if first_rank():
        report(message)


def report(message: str) -> None:
    """Print an error as one line on standard error, whatever a library put into the message."""
    print(f"mcrdist: error: {' '.join(message.split())}", file=sys.stderr, flush=True)


@contextmanager
def together() -> Iterator[None]:
    """Put off a SIGTERM from the launcher until all of the block is done; an InputError leaves it put off."""
    if "RANK" not in os.environ:
        yield
        return
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        yield
    except InputError:
        raise  # this process is about to leave by itself, with a status that says why
    except BaseException:
        signal.signal(signal.SIGTERM, before)
        raise
    signal.signal(signal.SIGTERM, before)
    if received:
        os.kill(os.getpid(), signal.SIGTERM)


def leave(status: int) -> None:
    """End this process now, if it is one of several: what a library still waits for would not let it go in order."""
    if "RANK" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def after_the_first_rank() -> None:
    """Wait, on the other ranks, until the first one has surely told what is wrong."""
    if "RANK" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if not first_rank():
            time.sleep(_HEAD_START)
