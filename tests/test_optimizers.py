"""The optimisers by name, from the settings to the volume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mcrdist
from mcrdist import synthetic

IMAGE = synthetic.ThresholdedGaussian(length=3.0, fraction=0.4).draw((64, 64), np.random.default_rng(1))


def reconstruct(directory: Path, name: str, **more: Any) -> Any:
    settings: dict[str, Any] = {
        "micrograph": IMAGE,
        "volume": {"size": 12},
        "optimizer": {"name": name, "iterations": 20},
        "runtime": {"threads": 1, "device": "cpu"},
        "run": {"dir": str(directory), "report": False},
    }
    return mcrdist.reconstruct(**(settings | more))


def records(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["lbfgsb", "scipy", "adam"])
def test_gradient_methods(name: str, tmp_path: Path) -> None:
    run = reconstruct(tmp_path / "run", name)
    lines = records(tmp_path / "run")
    relax = [line["loss"] for line in lines if line["stage"] == "relax"]
    assert len(relax) == 21 and relax[-1] < 0.3 * relax[0]
    assert {line["stage"] for line in lines} >= {"relax", "flip"}
    assert run.summary["levels"][-1]["stop"] == "iteration cap"


@pytest.mark.parametrize("shape", [[12, 12, 12], [24, 20]])
def test_annealing(shape: list[int], tmp_path: Path) -> None:
    more = {"volume": {"shape": shape}, "target": {"lags": 5}, "initial": "noise"}
    run = reconstruct(tmp_path / "run", "yeong_torquato", **more)
    lines = records(tmp_path / "run")
    assert {line["stage"] for line in lines} == {"anneal"} and {line["grey"] for line in lines} == {0.0}
    assert lines[-1]["loss"] < 0.2 * lines[0]["loss"]
    # The annealing's loss is from its counts, the errors from the objective's transforms.
    (level,) = run.summary["levels"]
    assert level["iterations"] == lines[-1]["iteration"] <= 20 and level["loss"] == lines[-1]["loss"]
    assert run.summary["grey_fraction"] == 0.0
    assert run.phase.mean() == pytest.approx(IMAGE.mean(), abs=1.0 / run.phase.size)
    again = reconstruct(tmp_path / "again", "yeong_torquato", **more)
    assert (again.phase == run.phase).all()


def test_annealing_knows_pair_counts_only(tmp_path: Path) -> None:
    with pytest.raises(mcrdist.InputError, match=r"^descriptors: expected s2.*found lineal_path"):
        reconstruct(tmp_path / "run", "yeong_torquato", descriptors={"lineal_path": {"weight": 1.0}})
    assert not (tmp_path / "run").exists()


def on_ranks(directory: str, name: str) -> str:
    try:
        reconstruct(Path(directory), name)
    except mcrdist.InputError as error:
        return str(error)
    return "done"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scipy", "yeong_torquato"])
def test_optimisers_of_one_process(name: str, tmp_path: Path, run_ranks: Callable[..., list[str]]) -> None:
    first, second = run_ranks(on_ranks, 2, str(tmp_path / "run"), name)
    assert first == second and first.startswith(
        f"optimizer.name: expected lbfgsb or adam with several processes, found {name}"
    )
    assert not (tmp_path / "run").exists()
