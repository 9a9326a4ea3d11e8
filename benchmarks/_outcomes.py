"""What came of the experiments: figures out of their records, and tables of them; no benchmark itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from _experiments import Experiment
from numpy.typing import NDArray

from mcrdist.analysis import words


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes
    ----------
    record : mapping
        What `_records.figures` says of it, and what was measured of it beside that: gram and judged.
    """

    experiment: Experiment
    record: Mapping[str, Any]

    @cached_property
    def curve(self) -> dict[str, NDArray[np.float64]]:
        """Columns of the curve, where it was kept; NaN for what was not measured."""
        return {name: np.array(values, dtype=float) for name, values in self.record["curve"].items()}

    def relaxed(self, name: str) -> float | None:
        """Mean error over directions of the field as it was relaxed, grey voxels and all."""
        return self.record["errors"]["last"].get(name)

    def errors(self, which: str, directions: Sequence[str] | None = None) -> dict[str, float]:
        """Mean errors over directions; `which` is "relaxed" (driven to two phases) or "rounded"."""
        own = self.record["errors"].get(which) or {}
        return words.means([errors for axis, errors in own.items() if _among(axis, directions)])

    def error(self, which: str, name: str, directions: Sequence[str] | None = None) -> float | None:
        """That of a descriptor."""
        return self.errors(which, directions).get(name)

    def gram(self, which: str, directions: Sequence[str] | None = None) -> float | None:
        """E(G) of "relaxed" or "rounded"."""
        own = words.dig(self.record.get("gram") or {}, which) or {}
        return words.mean(error for axis, error in own.items() if _among(axis, directions))

    def judged(self, name: str) -> float | None:
        """What the judge says of the rounded volume."""
        found = words.dig(self.record.get("judged") or {}, "mean", name)
        return None if found is None else float(found)


def _among(axis: str, directions: Sequence[str] | None) -> bool:
    return directions is None or axis in directions


@dataclass(frozen=True)
class Column:
    """A column of a table of outcomes: its title, and the text of a cell ("" for nothing)."""

    title: str
    of: Callable[[Outcome], str]


def table(heading: str, rows: Sequence[tuple[str, Sequence[str]]], titles: Sequence[str]) -> str:
    """A table in Markdown without the columns in which nothing stands; `rows` are labels and cells."""
    used = [k for k in range(len(titles)) if any(cells[k] for _, cells in rows)]
    lines = [[heading, *(titles[k] for k in used)]]
    lines += [[label, *(cells[k] or words.DASH for k in used)] for label, cells in rows]
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * (len(used) + 1), *text[1:]]) + "\n"


def percent(value: float | None) -> str:
    """A cell."""
    return "" if value is None else words.percent(value)
