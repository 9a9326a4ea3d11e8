"""Runs that are cut short, for the tests of how they go on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import no_waiting
from test_reconstruct import IMAGE, three_phases

from mcrdist import record
from mcrdist.config import from_mapping
from mcrdist.errors import InputError
from mcrdist.reconstruct import reconstruct
from mcrdist.store.run import Run
from mcrdist.store.volume import Volume

#: After every iteration.
OFTEN = {"every": "0.000001s"}
KEYS = ("level", "stage", "iteration", "loss", "errors", "evaluations", "projected_gradient", "grey")


def few(**more: Any) -> dict[str, Any]:
    """Settings of an optimiser that goes through all stages, and stays in none of them for long."""
    return {"iterations": 8, "binarize_iterations": 4, "flip_rounds": 20} | more


def settings(directory: Path, **more: Any) -> dict[str, Any]:
    return {
        "micrograph": {"image": IMAGE},
        "volume": {"size": 12},
        "optimizer": few(),
        "runtime": {"threads": 1, "device": "cpu"},
        "run": {"dir": str(directory), "report": False},
        "checkpoint": {"every": None},
    } | more


def conduct(directory: Path, **more: Any) -> Run:
    return reconstruct(from_mapping(settings(directory, **more)))


class Stop:
    """Asks a run to end at its n-th record, as a signal would, and counts the records."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int | None = None) -> None:
        self.seen = 0
        self.stages: list[str] = []
        note = record.Recorder.note

        def noting(recorder: record.Recorder, *details: Any) -> bool:
            self.seen += 1
            self.stages.append(recorder.stage)
            if self.seen == at:
                recorder._interrupt.requested = True
            return note(recorder, *details)

        monkeypatch.setattr(record.Recorder, "note", noting)


def same(found: Run, wanted: Run) -> None:
    """Bit for bit: every iteration's record, fields and labels."""
    got, expected = ([{key: line[key] for key in KEYS} for line in run.metrics] for run in (found, wanted))
    assert got == expected
    np.testing.assert_array_equal(found.phase, wanted.phase)
    for level in range(len(wanted.summary["levels"])):
        one, other = (run.volume.read(run.volume.field(level)) for run in (found, wanted))
        np.testing.assert_array_equal(one, other)
    assert found.summary["errors"] == wanted.summary["errors"]
    told = [[{k: v for k, v in level.items() if k != "seconds"} for level in run.summary["levels"]]
            for run in (found, wanted)]  # fmt: skip
    assert told[0] == told[1]


def interrupted_after(monkeypatch: pytest.MonkeyPatch, runs: int) -> None:
    """A signal comes while this run of a sweep is under way, seen when it has ended."""
    made: list[Run] = []
    module = import_module("mcrdist.sweep")  # the package has a function of that name
    conduct_one = module.conduct

    def one(config: Any, comm: Any, interrupt: Any, say: Any) -> Run:
        made.append(conduct_one(config, comm, interrupt, say))
        interrupt.requested = len(made) == runs
        return made[-1]

    monkeypatch.setattr(module, "conduct", one)


CASES: dict[str, dict[str, Any]] = {
    "lbfgsb": {},
    "levels": {"levels": {"count": 2}, "initial": "noise", "volume": {"size": 16}},
    "adam": {"optimizer": few(name="adam")},
    "rotating": {
        "descriptors": {"patches": {"weight": 1.0, "redraw": True}},
        "optimizer": few(rotate=3),
    },
    "rotating adam": {
        "descriptors": {"patches": {"weight": 1.0, "redraw": True, "every": 3}},
        "optimizer": few(name="adam", rotate=3),
    },
    "constrained": {"descriptors": {"variation": {"mode": "constrain"}}, "optimizer": few(iterations=4)},
    "phases": {
        "micrograph": three_phases(),
        "output": {"threshold": "exact"},
        "optimizer": few(iterations=5),
    },
    "plane": {"volume": {"shape": [20, 18]}},
}


def cut_short(place: Path) -> Path:
    """A run of two levels that was cut short on the second."""
    with pytest.MonkeyPatch.context() as patch:
        no_waiting(patch)
        Stop(patch, 40)
        return conduct(place, **CASES["levels"], checkpoint=OFTEN).path


def complete(place: Path) -> Path:
    """The same run, whole."""
    with pytest.MonkeyPatch.context() as patch:
        no_waiting(patch)
        return conduct(place, **CASES["levels"]).path


def has_result(run: Path) -> bool:
    """Whether there is a volume that claims to be the result; one that is half made is refused in a line."""
    try:
        return Volume.open(run / "volume.zarr").complete
    except InputError as error:
        assert "\n" not in str(error)
        return False


def everything(run: Path) -> list[Path]:
    """All files of a run but its lock."""
    return sorted(path for path in run.rglob("*") if path.is_file() and path.name != "lock")
