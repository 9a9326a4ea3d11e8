"""Libraries that only some formats want."""

from __future__ import annotations

import importlib
from typing import Any

from mcrdist.errors import InputError


def library(name: str, form: str) -> Any:
    """Import a library of the `export` extra.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"format: expected {name} for {form}, found it not installed; pip install 'mcrdist[export]'"
        ) from error
