"""``sweep.json``: the runs that a sweep consists of, what each of them is to be, and how those that were made ended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcrdist.errors import InputError
from mcrdist.store.place import write_atomically
from mcrdist.store.run import SWEEP


@dataclass(frozen=True)
class Planned:
    """A run of a sweep.

    Attributes
    ----------
    dir : str
        Its directory in that of the sweep.
    values : mapping
        Of the keys that differ from run to run, as they are shown.
    settings : mapping
        All of them, as plain data.
    summary : mapping or None
        What came of it; None where it has not been made yet.
    """

    dir: str
    values: Mapping[str, str]
    settings: Mapping[str, Any]
    summary: Mapping[str, Any] | None = None


def write(path: Path, runs: Sequence[Planned]) -> None:
    """Write into the directory of a sweep which runs it has."""
    entries = [
        {"dir": run.dir, "values": dict(run.values), "settings": dict(run.settings), "summary": run.summary}
        for run in runs
    ]
    text = json.dumps({"runs": entries}, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path / SWEEP, text.encode())


def read(path: Path) -> list[Planned]:
    """Read which runs the sweep in a directory has.

    Raises
    ------
    InputError
        There is no ``sweep.json`` in it that makes sense.
    """
    try:
        data: Any = json.loads((path / SWEEP).read_text(encoding="utf-8"))
        runs = [_planned(entry) for entry in data["runs"]]
        if not runs:
            raise ValueError("no runs")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: expected the directory of a sweep with {SWEEP} in it ({error})") from error
    return runs


def _planned(entry: Mapping[str, Any]) -> Planned:
    name, summary = str(entry["dir"]), entry["summary"]
    if name in ("", "..") or Path(name).name != name:
        raise ValueError(f"dir: {name}")
    values = {str(key): str(value) for key, value in entry["values"].items()}
    return Planned(name, values, dict(entry["settings"]), None if summary is None else dict(summary))
