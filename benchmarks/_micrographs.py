"""The micrographs that benchmarks are told to take; no benchmark itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


def files(data: Path, names: Sequence[str]) -> dict[str, Path]:
    """The file of each name; where one is missing, the program ends with one line, before any work is done."""
    found = {name: next(iter(sorted(data.glob(f"{name}.*"))), None) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        known = ", ".join(sorted(path.stem for path in data.glob("*.*"))) or "no file at all"
        sys.exit(f"--only {missing[0]}: expected the name of a micrograph in {data}, which has {known}")
    return {name: path for name, path in found.items() if path is not None}
