"""What is kept of an experiment's run: the figures that the page of results tells of; no benchmark itself.

A run directory is large and stays where it was made. Its record is a line of JSON, kept in benchmarks/paper.jsonl, so
that the page can be written anew, and added to, where the directories of most runs are not. It knows of the settings
that it was made with, and not of the code: whoever changes what runs compute takes their records out.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _experiments import Experiment

from mcrdist.analysis import words
from mcrdist.analysis.figures import column, continued
from mcrdist.store.run import Run

#: Stages before the field is driven to two phases.
RELAXING = ("relax", "anneal")
#: Points of a curve that are kept, twice.
POINTS = 120


def figures(run: Run, curve: bool) -> dict[str, Any]:
    """What a finished run says of itself, as far as the page tells of it.

    Returns
    -------
    dict
        made : cores, machine, and version of torch
        shape : voxels (nz, ny, nx)
        stage : "relax" or "anneal", which made the field before two phases; None where nothing did
        seconds, memory_GB, threads, lags, iterations : figures
        an_iteration : seconds, the median over the iterations at the finest level before two phases; or None
        grey_fraction : of the field at the end
        variation : mode and weight of V
        errors : relative errors (Eq. 10) by descriptor. "last": of the field as it was relaxed, grey voxels and all;
            "relaxed" (driven to two phases) and "rounded": by direction
        curve : level, iteration there, seconds, and error of S2 (None where there was none) of some iterations; where
            it is asked for
    """
    metrics, summary, environment = run.metrics, run.summary, run.environment
    finest = [line for line in metrics if line["level"] == metrics[-1]["level"]]
    relaxing = [line for line in finest if line.get("stage") in RELAXING]
    steps = [after["seconds"] - before["seconds"] for before, after in itertools.pairwise(relaxing)]
    lags = run.targets.get("lags")
    found = {
        "made": {
            "cores": environment.get("cores"),
            "machine": environment.get("machine"),
            "torch": environment["packages"]["torch"],
        },
        "shape": list(run.volume.shape),
        "stage": relaxing[-1]["stage"] if relaxing else None,
        "seconds": round(summary["seconds"], 1),
        "memory_GB": round(summary["memory"] / 1e9, 2),
        "threads": summary["threads"],
        "lags": None if lags is None else int(lags),
        "iterations": len(metrics),
        "an_iteration": _short(median(steps)) if steps else None,
        "grey_fraction": _short(summary.get("grey_fraction")),
        "variation": {name: run.config["descriptors"]["variation"][name] for name in ("mode", "weight")},
        "errors": _short({"last": relaxing[-1]["errors"] if relaxing else {}, **summary.get("errors", {})}),
    }
    if curve:
        found["curve"] = _curve(metrics, len(finest))
    return found


def _curve(metrics: Sequence[Mapping[str, Any]], finest: int) -> dict[str, list[Any]]:
    """The error of S2 as it falls: points even in the whole time, and in the logarithm of the last level's."""
    first = len(metrics) - finest
    even = [np.linspace(0, len(metrics) - 1, POINTS), first + np.geomspace(1, finest, POINTS) - 1]
    chosen = np.unique(np.round(np.concatenate(even)).astype(int))
    seconds = continued(column(metrics, "seconds"))
    return {
        "level": [metrics[k]["level"] for k in chosen],
        "iteration": [metrics[k]["iteration"] for k in chosen],
        "seconds": [round(float(seconds[k]), 3) for k in chosen],
        "s2": [_short(words.dig(metrics[k], "errors", "s2")) for k in chosen],
    }


def _short(value: Any) -> Any:
    """Five digits, for people who read the file."""
    if isinstance(value, Mapping):
        return {key: _short(one) for key, one in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Records by the name of the run; none where there is no file."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {one["run"]: one for one in map(json.loads, lines)}


def new(out: Path) -> dict[str, dict[str, Any]]:
    """The records that benchmarks/paper.py has left beside the runs."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))]
    return {one["run"]: one for one in found if "errors" in one}


def write(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Keep these, one a line, in their order."""
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), encoding="utf-8")


def of(experiment: Experiment, records: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The record of an experiment; None without one of its run as it is listed now, with all that is to be measured."""
    found = records.get(experiment.name)
    if found is None or not is_of(experiment, found) or not found.keys() >= set(experiment.measure):
        return None
    return found


def is_of(experiment: Experiment, record: Mapping[str, Any]) -> bool:
    """Whether it is of a run with the settings that are listed now."""
    return record.get("command") == experiment.command and record.get("preset") == experiment.preset
