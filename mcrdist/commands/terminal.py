"""What the commands print: by one process, whichever way they were started."""

from __future__ import annotations

import os
import sys


def first_rank() -> bool:
    """Whether this process is the one that prints; torchrun sets RANK."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Print `text` on standard output."""
    if first_rank():
        print(text, flush=True)


def complain(message: str) -> None:
    """Print an error as one line on standard error, whatever a library put into the message."""
    if first_rank():
        print(f"mcrdist: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
