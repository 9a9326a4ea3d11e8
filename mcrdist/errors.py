"""Errors that a person can act on."""


class InputError(ValueError):
    """A mistake in what the user gave: a key, a file, a size, a place to write.

    The message is one line and says what is wrong, where, what was expected, what was found and what
    to do about it. The command line prints that line and exits with status 2; no traceback is shown.
    """
