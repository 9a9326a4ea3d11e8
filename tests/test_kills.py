"""Runs that are killed, at any moment and one rank of several, lose nothing that was saved."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from faults import Crash, in_child
from interrupted import OFTEN, conduct, has_result, same
from ranks import free_port, own_environment

from mcrdist.solver import level
from mcrdist.store.run import Run
from mcrdist.store.verify import verify

pytestmark = pytest.mark.usefixtures("quick_disk")


@pytest.mark.parametrize(
    ("kills", "history"),
    [(5, True), (5, False), pytest.param(30, True, marks=[pytest.mark.slow, pytest.mark.unmeasured])],
)
def test_killed_at_random_times(
    kills: int, history: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every SIGKILL the volume is absent, incomplete or right, and in the end it is that of a whole run."""
    started = time.monotonic()
    monkeypatch.setattr(level, "FORGET", 3)
    more = {"checkpoint": OFTEN | {"history": history}, "optimizer": {"iterations": 8}}
    wanted = conduct(tmp_path / "whole", **more)
    length = time.monotonic() - started
    random = np.random.default_rng(0)
    place, survived, finished = tmp_path / "cut", 0, 0
    while survived < kills or finished == 0:
        wait = float(random.uniform(0.02, 0.4 * length)) if survived < kills else None
        status = in_child(lambda: conduct(place, resume=True, **more), wait)
        assert status in (0, -9)
        if status == 0:
            same(Run.open(place), wanted)
            assert verify(place).problems == []
            finished += 1
            shutil.rmtree(place)
            continue
        survived += 1
        if has_result(place):
            np.testing.assert_array_equal(Run.open(place).phase, wanted.phase)
    print(f"survived {survived} kills of {kills}, {finished} runs finished")


#: Two levels, all stages, few iterations.
SHORT: dict[str, Any] = {
    "levels": {"count": 2},
    "initial": "noise",
    "volume": {"size": 16},
    "optimizer": {"iterations": 2, "binarize_iterations": 1, "flip_rounds": 2},
}


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.timeout(900)
def test_killed_at_every_step_on_the_disk(tmp_path: Path) -> None:
    """Of a whole run: in every write, after every sync, before and after every rename, the libraries' too."""
    wanted = conduct(tmp_path / "whole", **SHORT)
    place, kills = tmp_path / "cut", 0
    while True:
        step = kills + 1

        def crashing(step: int = step) -> None:
            Crash(step, libraries=True)
            conduct(place, **SHORT)

        status = in_child(crashing)
        assert status in (0, -9)
        if status == 0:
            break
        kills += 1
        if has_result(place):
            np.testing.assert_array_equal(Run.open(place).phase, wanted.phase)
        same(conduct(place, resume=True, **SHORT), wanted)
        assert verify(place).problems == []
        assert not [*place.rglob(".*"), *place.rglob("*.partial")], "leftovers"
        shutil.rmtree(place)
    assert kills > 60
    print(f"survived {kills} kills of {kills}")


def torchrun(place: Path, *launcher: str) -> subprocess.Popen[str]:
    """A short run that saves itself ten times a second, under an agent of torchrun."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--max-restarts=1", *launcher,
        "-m", "mcrdist", "reconstruct", "micrograph.path=synthetic:discs", "volume.size=16", f"run.dir={place}",
        "optimizer.iterations=40", "optimizer.binarize_iterations=10", "optimizer.flip_rounds=40", "run.report=false",
        "runtime.threads=1", "checkpoint.every=0.1s",
    ]  # fmt: skip
    return subprocess.Popen(
        command, env=own_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("agents", [1, 2])
def test_a_rank_is_killed_under_torchrun(agents: int, tmp_path: Path) -> None:
    """torchrun starts the ranks again, and they go on, without being told to: of one machine, and as of two."""
    place = tmp_path / "run"
    if agents == 1:
        started = [torchrun(place, "--standalone", "--nproc-per-node=2")]
    else:
        meeting = [
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint=127.0.0.1:{free_port()}",
            "--local-addr=127.0.0.1",
        ]
        started = [torchrun(place, "--nnodes=2", "--nproc-per-node=1", *meeting) for _ in range(agents)]
    try:
        until = time.monotonic() + 120
        while not list(place.glob("checkpoint/0*")):
            assert time.monotonic() < until and all(p.poll() is None for p in started), tell(started)
            time.sleep(0.02)
        children = psutil.Process(started[-1].pid).children()
        ranks = [p.pid for p in children if "reconstruct" in p.cmdline()]
        os.kill(max(ranks), signal.SIGKILL)
        told = [process.communicate(timeout=180)[1] for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.communicate()
    assert [process.returncode for process in started] == [0] * agents, told
    run = Run.open(place)
    assert run.summary["status"] == "complete"
    iterations = [line["iteration"] for line in run.metrics]
    assert iterations == sorted(iterations)  # nothing twice, nothing left out
    assert verify(place).problems == []


def tell(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """What processes that are ended said."""
    for process in processes:
        process.kill()
    return [process.communicate()[1] for process in processes]
