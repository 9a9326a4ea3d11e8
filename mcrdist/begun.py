"""The settings that a run began with: what may be another one when it goes on, and how the rest is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcrdist.config import ReconstructConfig, from_mapping, to_mapping
from mcrdist.errors import InputError

#: Where and how it is computed, not what.
_FREE = (
    "resume",
    "run.dir",
    "run.report",
    "checkpoint.every",
    "runtime.device",
    "runtime.threads",
    "runtime.timeout",
    "runtime.shared_memory",
    "memory",  # a run keeps the history that it began with
)


def read(stored: Mapping[str, Any], file: Path) -> ReconstructConfig:
    """What a run has stored in a file as its settings; those that did not exist when it began are as usual.

    Raises
    ------
    InputError
        They are no settings of a run: other programs have a ``config.yaml`` too.
    """
    try:
        return from_mapping(stored)
    except InputError as error:
        raise InputError(
            f"run.dir: expected the settings of a run in {file}, found others ({error}); choose another "
            "run.dir"
        ) from None


def as_begun(config: ReconstructConfig, begun: ReconstructConfig) -> ReconstructConfig:
    """Return `config` with the history of the run, where a budget chose it: less of it than was given, or halved."""
    if config.memory.budget is None or begun.memory.budget is None:
        return config
    given, chosen = config.optimizer, begun.optimizer
    optimizer = replace(
        given,
        history=min(given.history, chosen.history),
        history_dtype=given.history_dtype or chosen.history_dtype,
    )
    return replace(config, optimizer=optimizer)


def check(path: Path, begun: ReconstructConfig, config: ReconstructConfig, remedy: str) -> None:
    """See to it that `config` may go on with the run in `path`.

    Raises
    ------
    InputError
        It differs where it must not; the message names all such settings, and ends with `remedy`.
    """
    # An array is known by its size alone, as it is stored.
    was, now = (flat(to_mapping(one)) for one in (begun, from_mapping(to_mapping(config))))
    different = [
        key
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key) and not any(key == f or key.startswith(f"{f}.") for f in _FREE)
    ]
    if different:
        changes = ", ".join(f"{key}={was.get(key)} there and {now.get(key)} here" for key in different)
        raise InputError(
            f"{different[0]}: expected the settings of the run in {path}, found {changes}; {remedy}"
        )


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key; a null section is one value, a micrograph given as an array is one too."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return found
