"""Runs that were cut short go on as if they had not been."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from faults import no_waiting
from interrupted import CASES, OFTEN, Stop, conduct, few, same

import mcrdist
from mcrdist.errors import InputError
from mcrdist.solver import level
from mcrdist.store.run import REQUEUE, Run
from mcrdist.store.verify import verify

pytestmark = pytest.mark.usefixtures("quick_disk")


def moments(stages: list[str], places: Sequence[float]) -> list[int]:
    """Records at these places of every stage, 0 the first and 1 the last, counted from one."""
    found = []
    for stage in dict.fromkeys(stages):
        at = [number for number, name in enumerate(stages, 1) if name == stage]
        found += [at[round(place * (len(at) - 1))] for place in places]
    return sorted(set(found))


@pytest.mark.parametrize(
    ("case", "places"),
    [
        ("lbfgsb", [0.5]),
        ("adam", [0.5]),
        *(pytest.param(name, [0.0, 1.0], marks=pytest.mark.slow) for name in ("lbfgsb", "adam")),
        *(pytest.param(name, [0.6], marks=pytest.mark.slow) for name in list(CASES)[1:] if name != "adam"),
    ],
)
def test_cut_short_in_every_stage(
    case: str, places: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = CASES[case]
    with monkeypatch.context() as patch:
        stages = Stop(patch).stages
        wanted = conduct(tmp_path / "whole", **more)
    assert {"relax", "flip"} <= set(stages)
    for at in moments(stages, places):
        with monkeypatch.context() as patch:
            stop = Stop(patch, at)
            cut = conduct(tmp_path / "cut", **more)
            assert stop.seen == at
        assert cut.summary["status"] == "interrupted"
        assert not cut.volume.complete
        assert (cut.path / REQUEUE).is_file()
        found = conduct(tmp_path / "cut", resume=True, **more)
        same(found, wanted)
        assert found.volume.complete and not (found.path / REQUEUE).exists()
        assert verify(found.path).problems == []
        shutil.rmtree(found.path)


def test_cut_short_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        total = Stop(patch).stages
        wanted = conduct(tmp_path / "whole")
    runs = 0
    while True:
        with monkeypatch.context() as patch:
            Stop(patch, 15)
            found = conduct(tmp_path / "cut", resume=True)  # the first time there is none: it starts
        runs += 1
        if found.summary["status"] == "complete":
            break
    assert runs > len(total) // 15
    same(found, wanted)


#: Saved whenever that can be done without the history.
LIGHT = OFTEN | {"history": False}


@pytest.mark.parametrize(
    ("case", "places"),
    [
        ("lbfgsb", [0.5]),
        pytest.param("lbfgsb", [0.0, 1.0], marks=pytest.mark.slow),
        *(pytest.param(name, [0.6], marks=pytest.mark.slow) for name in list(CASES)[1:]),
    ],
)
def test_without_history_the_bits_are_the_same_too(
    case: str, places: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is forgotten where a run may be cut short is forgotten there in every run."""
    monkeypatch.setattr(level, "FORGET", 3)
    more = CASES[case] | {"checkpoint": LIGHT}
    with monkeypatch.context() as patch:
        stages = Stop(patch).stages
        wanted = conduct(tmp_path / "whole", **more)
    for at in moments(stages, places):
        with monkeypatch.context() as patch:
            Stop(patch, at)
            cut = conduct(tmp_path / "cut", **more)
        (*_, newest) = sorted((cut.path / "checkpoint").iterdir())
        told = json.loads((newest / "manifest.json").read_text().partition("\n")[2])
        assert "memory/history" not in {field["name"] for field in told["fields"]}
        assert (cut.path / REQUEUE).is_file()
        found = conduct(tmp_path / "cut", resume=True, **more)
        same(found, wanted)
        assert verify(found.path).problems == []
        shutil.rmtree(found.path)


def test_whether_history_is_kept_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes the way of the optimiser."""
    with monkeypatch.context() as patch:
        Stop(patch, 5)
        conduct(tmp_path / "cut")
    with pytest.raises(InputError, match=r"^checkpoint\.history: expected the settings of the run"):
        mcrdist.reconstruct(f"run.dir={tmp_path / 'cut'}", "resume=true", "checkpoint.history=false")


@pytest.mark.parametrize("name", ["scipy", "yeong_torquato"])
def test_optimisers_that_cannot_be_looked_into_go_on_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flips = None if name == "yeong_torquato" else 20
    more = {"optimizer": few(name=name, iterations=12, flip_rounds=flips)}
    with monkeypatch.context() as patch:
        Stop(patch, 5)
        cut = conduct(tmp_path / "cut", **more)
    before = cut.metrics
    found = conduct(tmp_path / "cut", resume=True, **more)
    assert found.metrics[: len(before)] == before
    assert found.summary["status"] == "complete"
    first = [line["iteration"] for line in found.metrics if line["stage"] in ("relax", "anneal")]
    assert first == list(range(len(first)))
    assert found.metrics[-1]["loss"] < before[-1]["loss"]


def cut_at(directory: str, at: int | None) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        no_waiting(patch)
        Stop(patch, at)
        run = conduct(Path(directory), resume=True)
        return [run.summary["status"], run.summary["ranks"]]


@pytest.mark.slow
def test_on_any_number_of_ranks(tmp_path: Path, run_ranks: Callable[..., list[Any]]) -> None:
    """3, 2, 1 and 4 ranks in turn: bit for bit the run of one."""
    wanted = conduct(tmp_path / "whole")
    place = str(tmp_path / "cut")
    quarter = len(wanted.metrics) // 4
    assert run_ranks(cut_at, 3, place, quarter) == [["interrupted", 3]] * 3
    assert run_ranks(cut_at, 2, place, quarter) == [["interrupted", 2]] * 2
    assert cut_at(place, quarter) == ["interrupted", 1]
    assert run_ranks(cut_at, 4, place, None) == [["complete", 4]] * 4
    same(Run.open(place), wanted)
