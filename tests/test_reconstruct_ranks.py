"""Any number of ranks and of threads makes the same volume, bit for bit, end to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_reconstruct import QUICK, conduct, settings

from mcrdist.store.run import Run

CASES: dict[str, dict[str, Any]] = {
    "levels": {
        "initial": "noise",
        "levels": {"count": 2},
        "volume": {"shape": [17, 16, 18]},
        "optimizer": QUICK,
    },
    "odd": {"volume": {"shape": [17, 12, 14]}, "optimizer": QUICK},
    "float64": {
        "volume": {"shape": [9, 8, 11]},
        "optimizer": QUICK,
        "runtime": {"threads": 1, "dtype": "float64", "device": "cpu"},
    },
    "gaussian": {"volume": {"shape": [17, 33, 9]}, "method": "gaussian"},
    "parts": {
        "volume": {"shape": [13, 12, 15]},
        "descriptors": {
            "s3": {"weight": 1.0, "lags": 2, "every": 3},
            "lineal_path": {"weight": 1.0, "length": 4, "every": 2},
        },
        "optimizer": QUICK | {"rotate": 2},
    },
}


def all_cases(directory: str, shared: bool = True) -> list[str]:
    paths = []
    for name, more in CASES.items():
        runtime = {"threads": 1, "device": "cpu"} | more.get("runtime", {}) | {"shared_memory": shared}
        paths.append(str(conduct(settings(Path(directory) / name, **more | {"runtime": runtime})).path))
    return paths


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    directory = tmp_path_factory.mktemp("alone")
    return {Path(path).name: Run.open(path) for path in all_cases(str(directory))}


@pytest.mark.parametrize("shared", [True, False], ids=["shared memory", "sockets"])
@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_any_number_of_ranks_makes_the_same_volume(
    ranks: int, shared: bool, alone: dict[str, Run], tmp_path: Path, run_ranks: Callable[..., list[Any]]
) -> None:
    told = run_ranks(all_cases, ranks, str(tmp_path), shared, timeout=180.0)
    assert all(paths == told[0] for paths in told)
    for path in told[0]:
        found = Run.open(path)
        wanted = alone[found.path.name]
        name = found.path.name
        assert found.summary["ranks"] == ranks
        keys = ("level", "stage", "iteration", "loss", "errors", "evaluations", "projected_gradient", "grey")
        for got, expected in zip(found.metrics, wanted.metrics, strict=True):
            assert {k: got[k] for k in keys} == {k: expected[k] for k in keys}, name
        np.testing.assert_array_equal(found.phase, wanted.phase, err_msg=name)
        for level in range(len(wanted.summary["levels"])):
            got, expected = (r.volume.read(r.volume.field(level)) for r in (found, wanted))
            np.testing.assert_array_equal(got, expected, err_msg=f"{name}, level {level}")
        assert found.summary["errors"] == wanted.summary["errors"], name


def test_threads_change_nothing(alone: dict[str, Run], tmp_path: Path) -> None:
    more = CASES["odd"] | {"runtime": {"threads": 2, "device": "cpu"}}
    found = conduct(settings(tmp_path / "run", **more))
    assert found.summary["threads"] == 2
    assert [r["loss"] for r in found.metrics] == [r["loss"] for r in alone["odd"].metrics]
    np.testing.assert_array_equal(found.field, alone["odd"].field)
