"""A memory budget is a promise: what is chosen for it, what is refused, and whether it is kept."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interrupted import Stop, conduct, same
from objectives import make
from test_footprint import measured

import mcrdist
from mcrdist.config import from_mapping
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.threads import Workers
from mcrdist.sizing.budget import GIB, choose, kept, need, told
from mcrdist.sizing.footprint import Work

WORK = Work((256, 256, 256), threads=4, history=8)
HALVED = replace(WORK, halving=True)


def test_room_enough_changes_nothing() -> None:
    assert choose(WORK, 100 * GIB, 1) == WORK


def test_a_tighter_budget_takes_pairs_first_then_slices_then_pairs() -> None:
    found = [choose(WORK, need(WORK, 1) - cut * 2**20, 1) for cut in range(0, 4000, 20) if fits(cut)]
    steps = [(one.history, one.together) for one in dict.fromkeys(found)]
    assert steps == sorted(steps, reverse=True) and len(steps) > 5
    assert all(lanes == 4 for history, lanes in steps if history > 4)
    assert steps[-1] == (1, 1)


def test_half_precision_comes_before_fewer_pairs() -> None:
    chosen = choose(HALVED, need(HALVED, 1) - 1, 1)
    assert (chosen.history, chosen.history_itemsize, chosen.together) == (8, 2, 4)
    assert "optimizer.history=8 (of 8, in bfloat16)" in told(HALVED, chosen, GIB, 1)
    fewer = choose(HALVED, need(chosen, 1) - 1, 1)
    assert (fewer.history, fewer.history_itemsize) == (7, 2)


def fits(cut: int) -> bool:
    return need(replace(WORK, history=1, lanes=1), 1) <= need(WORK, 1) - cut * 2**20


def test_too_small_a_budget_is_refused_with_one_that_would_do() -> None:
    with pytest.raises(mcrdist.InputError) as error:
        choose(WORK, GIB // 2, 2)
    found = re.search(r"at least ([\d.]+)GiB for 256x256x256 voxels in 2 processes", str(error.value))
    assert found is not None
    enough = float(found[1])
    chosen = choose(WORK, int(enough * GIB), 2)
    assert chosen.history == 1
    with pytest.raises(mcrdist.InputError):
        choose(WORK, int((enough - 0.02) * GIB), 2)


def test_one_line_says_what_was_chosen() -> None:
    chosen = replace(WORK, history=5, lanes=2)
    line = told(WORK, chosen, 3 * GIB, 1)
    assert "\n" not in line
    assert "of 3.00 GiB (relax) with optimizer.history=5 (of 8) and 32 slices at a time (of 64)" in line


def command(out: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    settings = [
        "micrograph.path=synthetic:gaussian",
        "runtime.threads=1",
        "run.report=false",
        f"run.dir={out}",
    ]
    return subprocess.run(
        [sys.executable, "-m", "mcrdist", "reconstruct", *settings, *overrides],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_the_command_refuses_before_anything_starts(tmp_path: Path) -> None:
    done = command(tmp_path / "out", "volume.size=64", "memory.budget=100MiB")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert re.search(r"memory\.budget: expected at least [\d.]+GiB for 64x64x64 voxels in 1 process", line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "setting",
    [
        "descriptors.s3.weight=1",
        "output.denoise=0.1",
        "optimizer.name=scipy",
        "descriptors.lineal_path.weight=1",
    ],
)
def test_what_is_not_counted_is_refused(setting: str, tmp_path: Path) -> None:
    with pytest.raises(mcrdist.InputError, match=re.escape(setting.partition("=")[0])):
        mcrdist.reconstruct(
            "micrograph.path=synthetic:gaussian", "volume.size=16", "memory.budget=64GiB", setting,
            f"run.dir={tmp_path / 'out'}",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_run_says_and_records_what_was_chosen(tmp_path: Path) -> None:
    done = command(tmp_path / "out", "volume.size=16", "memory.budget=64GiB", "optimizer.iterations=2")
    assert done.returncode == 0, done.stderr
    assert "memory.budget: at most" in done.stderr and "optimizer.history=4 (of 4)" in done.stderr


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_fewer_slices_at_a_time_change_no_bit(run_ranks: Any, lanes: int, ranks: int) -> None:
    ((loss, gradient), *_) = run_ranks(evaluate, 1, None)
    parts = run_ranks(evaluate, ranks, lanes)
    assert all(other == loss for other, _ in parts)
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), gradient)


def evaluate(lanes: int | None, apart: bool = False) -> tuple[float, Any]:
    """Loss and gradient of a fixed field by two threads; `apart`, of ranks that send, and the others have one."""
    with Comm.start("cpu", shared_memory=not apart) as comm:
        workers = Workers(1 if apart and comm.rank else 2)
        objective = make((19, 34, 50), comm, workers, dtype=torch.float32, lanes=lanes)
        slab = objective.slab
        values = np.random.default_rng(0).random(slab.shape, dtype=np.float32)
        field = torch.from_numpy(values[slab.start : slab.stop].copy())
        gradient = torch.empty_like(field)
        loss = objective(field, gradient).loss
        workers.close()
        return loss, gradient.numpy()


@pytest.mark.slow
@pytest.mark.unmeasured
def test_the_budget_is_kept(tmp_path: Path) -> None:
    settings = (
        "optimizer.history=8",
        "optimizer.iterations=3",
        "optimizer.binarize_iterations=8",
        "run.report=false",
    )
    small = measured(tmp_path / "small", "volume.size=16", *settings)
    enough_for = replace(
        Work((144, 144, 144), history=4, history_itemsize=2, report=False), libraries=small["before"]
    )
    budget = need(enough_for, 1) + 14 * 2**20  # set-up, until the choice is made, takes some
    out = tmp_path / "out"
    found = measured(out, "volume.size=144", f"memory.budget={budget}", *settings)
    optimizer = mcrdist.open(out).config["optimizer"]
    assert 3 <= optimizer["history"] <= 5 and optimizer["history_dtype"] == "bfloat16"
    assert found["peak"] <= budget
    assert found["peak"] >= 0.8 * budget  # and not by asking for too little


def test_a_run_that_goes_on_keeps_its_history() -> None:
    begun = choose(HALVED, need(HALVED, 1) - 1, 1)
    again = replace(begun, halving=False)
    assert choose(again, 100 * GIB, 1, settled=True) == again
    tight = choose(again, need(again, 1) - 1, 1, settled=True)
    assert (tight.history, tight.history_itemsize) == (again.history, 2) and tight.together < again.together
    with pytest.raises(mcrdist.InputError, match="with the history of 8 pairs that the run began with"):
        choose(again, need(replace(again, lanes=1), 1) - 1, 1, settled=True)


@pytest.mark.parametrize("restarted", [False, True])
def test_another_budget_changes_no_bit(
    restarted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun with room for two pairs, and gone on with room for all; by torchrun, with what it was given at first."""

    def chosen(work: Work, budget: int, processes: int, *, settled: bool = False) -> Work:
        return work if settled or budget > GIB else replace(work, history=2)

    monkeypatch.setattr("mcrdist.sizing.budget.choose", chosen)
    wanted = conduct(tmp_path / "whole", memory={"budget": GIB})
    with monkeypatch.context() as patch:
        Stop(patch, 6)
        assert conduct(tmp_path / "cut", memory={"budget": GIB}).summary["status"] == "interrupted"
    if restarted:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    more = {"resume": not restarted, "memory": {"budget": (1 if restarted else 64) * GIB}}
    found = conduct(tmp_path / "cut", **more)
    assert found.config["optimizer"]["history"] == 2
    same(found, wanted)


def test_ranks_with_different_threads_take_the_same_slices(run_ranks: Any) -> None:
    ((loss, gradient), *_) = run_ranks(evaluate, 1, None)
    parts = run_ranks(evaluate, 2, None, True)
    assert all(other == loss for other, _ in parts)
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), gradient)


def test_ranks_with_different_threads_choose_alike(run_ranks: Any) -> None:
    """By themselves they would not, for any of the budgets between the first and the last that is refused."""
    budgets = [int(gib * GIB) for gib in np.arange(1.2, 4, 0.05)]
    one, other = run_ranks(choices, 2, budgets)
    assert one == other
    assert one[0] is None and one[-1] is not None and len(set(one)) > 3


def choices(budgets: list[int]) -> list[tuple[int, str | None, int | None] | None]:
    """What the second rank, which has fewer threads, and the first one choose together."""
    found: list[tuple[int, str | None, int | None] | None] = []
    with Comm.start("cpu") as comm:
        for budget in budgets:
            config = from_mapping(
                {
                    "micrograph": {"path": "synthetic:gaussian"},
                    "volume": {"size": 256},
                    "memory": {"budget": budget},
                }
            )
            try:
                kept_to, lanes = kept(config, 1, 2 if comm.rank else 8, comm, settled=False)
            except mcrdist.InputError:
                found.append(None)
            else:
                found.append((kept_to.optimizer.history, kept_to.optimizer.history_dtype, lanes))
    return found
