"""What came of the experiments: figures out of their run directories; no benchmark itself."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from _experiments import Experiment

from mcrdist.analysis import words
from mcrdist.store.checksums import is_finished
from mcrdist.store.run import CONFIG, Run

#: Stages before the field is driven to two phases.
RELAXING = ("relax", "anneal")


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes
    ----------
    record : mapping
        What benchmarks/paper.py measured of it; empty where it did not come to that.
    """

    experiment: Experiment
    run: Run
    record: Mapping[str, Any]

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Its iterations."""
        return self.run.metrics

    @cached_property
    def relaxing(self) -> list[dict[str, Any]]:
        """The iterations at the finest level before the field is driven to two phases."""
        last = max((line["level"] for line in self.metrics), default=0)
        return [line for line in self.metrics if line["level"] == last and line.get("stage") in RELAXING]

    def relaxed(self, name: str) -> float | None:
        """Mean error over directions of the field as it was relaxed, grey voxels and all."""
        return self.relaxing[-1]["errors"].get(name) if self.relaxing else None

    def error(self, which: str, name: str, directions: Sequence[str] | None = None) -> float | None:
        """Mean error over directions; `which` is "relaxed" (driven to two phases) or "rounded"."""
        own = words.dig(self.run.summary, "errors", which) or {}
        return words.mean(errors.get(name) for axis, errors in own.items() if _among(axis, directions))

    def gram(self, which: str, directions: Sequence[str] | None = None) -> float | None:
        """E(G) as benchmarks/paper.py measured it."""
        own = words.dig(self.record.get("gram") or {}, which) or {}
        return words.mean(error for axis, error in own.items() if _among(axis, directions))

    def judged(self, name: str) -> float | None:
        """What the judge says of the rounded volume."""
        found = words.dig(self.record.get("judged") or {}, "mean", name)
        return None if found is None else float(found)

    @property
    def an_iteration(self) -> float | None:
        """Seconds, the median over the iterations at the finest level."""
        times = [line["seconds"] for line in self.relaxing]
        steps = [after - before for before, after in itertools.pairwise(times)]
        return median(steps) if steps else None


def _among(axis: str, directions: Sequence[str] | None) -> bool:
    return directions is None or axis in directions


def outcome(experiment: Experiment, out: Path) -> Outcome | None:
    """What came of an experiment; None unless its run is finished, with the settings that are listed."""
    place, record = out / experiment.name, out / f"{experiment.name}.json"
    if not (place / CONFIG).is_file() or not is_finished(place):
        return None
    content = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if content.get("command", experiment.command) != experiment.command:
        return None  # the list has changed since
    return Outcome(experiment, Run.open(place), content)


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
