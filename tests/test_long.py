"""Run after run in one process: memory, file handles, threads and disk stay as they are.

Some rounds, or as many seconds as ``MCRDIST_LONG`` says: ``MCRDIST_LONG=3600 pytest --slow tests/test_long.py``.
"""

from __future__ import annotations

import gc
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import no_waiting
from interrupted import CASES, OFTEN, Stop, conduct
from memory import resident

SECONDS = float(os.environ.get("MCRDIST_LONG", "20"))
#: Runs until libraries have loaded what they load and caches are full.
FIRST = 4
#: What the memory may grow by while more runs follow, whatever their number.
GROWTH = 24 * 2**20


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def check(standing: list[tuple[int, int, int]]) -> int:
    """How much the memory has grown since the first rounds; that it is little, and no round leaves a handle or thread.

    What leaks does so in every round. One more or less is none: a pool makes its threads when all it has are busy
    (Zarr's, up to processors and four), a handle may be open for a moment whenever they are counted.
    """
    first = standing[FIRST - 1][0]
    grown = max(at - first for at, _, _ in standing[FIRST:])
    assert grown < GROWTH, standing
    for count in (1, 2):
        more = standing[-1][count] - max(at[count] for at in standing[:FIRST])
        assert more < len(standing) - FIRST, standing
    return grown


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


class Disk:
    """The most that a run directory has, and in what, looked at whenever a generation was written."""

    def __init__(self, patch: pytest.MonkeyPatch, place: Path) -> None:
        from mcrdist.checkpoints import Checkpoints

        self.generations = self.most = 0
        save = Checkpoints.save

        def saving(checkpoints: Checkpoints, *given: Any) -> None:
            save(checkpoints, *given)
            found = list((place / "checkpoint").iterdir())
            assert len(found) <= 2, found
            self.generations = max(self.generations, max(map(size, found)))
            self.most = max(self.most, size(place))

        patch.setattr(Checkpoints, "save", saving)


KINDS: dict[str, dict[str, Any]] = {
    name: CASES[name] for name in ("lbfgsb", "levels", "adam", "phases", "rotating", "plane")
}


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.timeout(SECONDS + 240)
def test_run_after_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_waiting(monkeypatch)
    kinds, began, runs = list(KINDS.values()), time.monotonic(), 0
    standing: list[tuple[int, int, int]] = []
    while len(standing) < 2 * FIRST or time.monotonic() - began < SECONDS:
        for more in kinds:
            place = tmp_path / "run"
            with monkeypatch.context() as patch:
                disk = Disk(patch, place)
                with patch.context() as stop:
                    Stop(stop, 7)
                    conduct(place, checkpoint=OFTEN, **more)
                found = conduct(place, checkpoint=OFTEN, resume=True, **more)
            assert found.summary["status"] == "complete"
            # A finished run has no checkpoints; before, the volume may compress a little worse.
            assert disk.most <= 2 * disk.generations + 1.25 * size(place)
            del found
            shutil.rmtree(place)
            runs += 2
        gc.collect()
        standing.append((resident(), handles(), threading.active_count()))
    grown = check(standing) / 2**20
    print(f"{runs} runs in {time.monotonic() - began:.0f} s: memory {grown:+.1f} MiB at most")


@pytest.mark.slow
@pytest.mark.unmeasured
def test_run_after_run_on_two_ranks(tmp_path: Path, run_ranks: Callable[..., list[Any]]) -> None:
    for standing in run_ranks(again_and_again, 2, str(tmp_path), min(SECONDS, 60.0), timeout=240.0):
        check(standing)


def again_and_again(directory: str, seconds: float) -> list[tuple[int, int, int]]:
    standing: list[tuple[int, int, int]] = []
    rank = int(os.environ["RANK"])
    with pytest.MonkeyPatch.context() as patch:
        no_waiting(patch)
        for number in range(max(2 * FIRST, int(seconds / 5))):
            place = Path(directory) / str(number)
            conduct(place, checkpoint=OFTEN)
            if rank == 0:
                shutil.rmtree(place)
            gc.collect()
            standing.append((resident(), handles(), threading.active_count()))
    return standing
