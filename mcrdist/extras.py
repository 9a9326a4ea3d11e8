"""Libraries that only some of the program wants, which an extra of the package brings."""

from __future__ import annotations

import importlib
from typing import Any

from mcrdist.errors import InputError


def library(name: str, purpose: str, extra: str) -> Any:
    """Import a library.

    Parameters
    ----------
    name : str
    purpose : str
        The setting or command that wants it, for the message.
    extra : str
        Of this package.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise InputError(
            f"{purpose}: expected {package}, found it not installed; pip install 'mcrdist[{extra}]'"
        ) from error
