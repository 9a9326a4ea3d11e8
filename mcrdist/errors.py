"""Errors that a person can act on, and those that libraries raise on damaged files."""

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence

#: What NumPy and its libraries raise on a file that is damaged, or claims absurd sizes.
UNREADABLE = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, zlib.error, struct.error, KeyError, IndexError,
    TypeError, ArithmeticError, AssertionError, RuntimeError, MemoryError, tokenize.TokenError, SyntaxError,
)  # fmt: skip


def first_of(names: Sequence[str], between: str = ", ", most: int = 3) -> str:
    """The first names, and a sign that there are more: "a, b, c, …"."""
    return between.join([*names[:most], *["…"] * (len(names) > most)])


class InputError(ValueError):
    """A mistake in what the user gave: a key, a file, a size, a place to write.

    The message is one line and says what is wrong, where, what was expected, what was found and what
    to do about it. The command line prints that line and exits with status 2; no traceback is shown.
    """


class LostRankError(RuntimeError):
    """Another process of the run died or hangs: what all of them do together cannot be done.

    The message is one line and says what was waited for, where, how long, and who was not heard of. The command line
    prints it and exits with status 3.

    Attributes
    ----------
    spoken_for : bool
        Whether another process, which waited too, says the same.
    """

    def __init__(self, message: str, spoken_for: bool = False) -> None:
        super().__init__(message)
        self.spoken_for = spoken_for
