"""The command line: ``mcrdist VERB key=value …``, ``torchrun -m mcrdist VERB …``.

Exit status: 0 done; 2 a mistake in what was given, told in one line by rank 0; 3 another process of the run died or
hangs, told in one line by the lowest that noticed; 130 interrupted; 141 the reader of what it prints has left (``|
head -1``); anything else is a fault of the program, and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
import logging
import sys
from collections.abc import Sequence

from mcrdist import __version__
from mcrdist.commands import VERBS, run_verb, usage
from mcrdist.commands.terminal import after_the_first_rank, complain, hush, hushed, leave, report, say
from mcrdist.errors import InputError, LostRankError

INPUT_ERROR = 2
LOST_RANK = 3
INTERRUPTED = 128 + 2  # as a shell reports SIGINT
UNHEARD = 128 + 13  # and SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # What it has to say of a damaged file becomes our one line; nobody asked for more.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    try:
        status = _dispatch(arguments)
        return UNHEARD if status == 0 and hushed() else status
    except BrokenPipeError:
        hush()
        if not hushed():
            raise
        return UNHEARD
    except InputError as error:
        complain(str(error))
        after_the_first_rank()
        return INPUT_ERROR
    except LostRankError as error:
        if not error.spoken_for:
            report(str(error))
        leave(LOST_RANK)
        return LOST_RANK
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or "the run directory"
        complain(f"{where}: expected room to write, found the disk full; free some or choose another run.dir")
        return INPUT_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


def _dispatch(arguments: list[str]) -> int:
    verb, *rest = arguments or ["--help"]
    if verb in ("-h", "--help", "help"):
        say(usage())
        return 0
    if verb == "--version":
        say(f"mcrdist {__version__}")
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        remedy = f"did you mean {near[0]}?" if near else "see mcrdist --help"
        raise InputError(f"{verb}: expected a command ({', '.join(VERBS)}); {remedy}")
    return run_verb(verb, rest)


if __name__ == "__main__":
    sys.exit(main())
