"""What a run is said to hold and to send, against what it holds and sends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import objectives
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory import resident

import mcrdist.reconstruct
from mcrdist.parallel import shared
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import partition
from mcrdist.parallel.threads import configure
from mcrdist.sizing import footprint
from mcrdist.sizing.footprint import Work
from mcrdist.solver import level, mending

MEASURE = """
import json, sys
import mcrdist
from memory import resident
from mcrdist.solver import level, mending
from mcrdist.reconstruct import conduct
level.GREY_PRICES, mending.FLIP_ROUNDS = (0.1,), 4  # every stage, but not for long
before = resident()
run = mcrdist.reconstruct(*sys.argv[1:])
peak = resident("VmHWM")
size = lambda path: sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
found = {name: size(run.path / "volume.zarr" / name) for name in ("phase", "field")}
print(json.dumps({"before": before, "peak": peak, **found}))
"""
#: So long that the whole history, of 4 pairs by default, is in use once.
BRIEF = ("optimizer.iterations=3", "optimizer.binarize_iterations=10")
LONGER = ("optimizer.iterations=3", "optimizer.binarize_iterations=22", "optimizer.history=20")


def measured(out: Path, *overrides: str) -> dict[str, Any]:
    """Peak memory of a run in a process of its own, and what its process held before."""
    if not sys.platform.startswith("linux"):
        pytest.skip("resident memory is read from /proc")
    settings = ("micrograph.path=synthetic:gaussian", "runtime.threads=1", f"run.dir={out}", *overrides)
    command = [sys.executable, "-c", MEASURE, *settings]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("size", "settings", "work"),
    [
        (128, [*BRIEF], {}),
        (128, [*LONGER], {"history": 20}),
        (128, [*BRIEF, "optimizer.history_dtype=bfloat16"], {"history_itemsize": 2}),
        (64, [*BRIEF, "runtime.dtype=float64"], {"itemsize": 8, "history_itemsize": 8}),
    ],
)
def test_peak_memory_is_as_told(size: int, settings: list[str], work: dict[str, Any], tmp_path: Path) -> None:
    found = measured(tmp_path / "out", f"volume.size={size}", *settings)
    told = Work((size,) * 3, libraries=found["before"], **work)
    _, peak = footprint.peak(told)
    print(f"told {peak / footprint.MIB:.0f} MiB, found {found['peak'] / footprint.MIB:.0f}")
    assert peak == pytest.approx(found["peak"], rel=0.10)
    disk = footprint.disk(told)
    assert found["field"] <= 1.01 * disk.field and found["phase"] <= 1.01 * disk.phase


def measured_here(settings: list[str]) -> dict[str, Any]:
    """The same in this process, a rank; watched, since the system counts shared planes of other ranks too."""
    before = most = resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.003):
            most = max(most, shared.resident())

    watching = threading.Thread(target=watch)
    watching.start()
    level.GREY_PRICES, mending.FLIP_ROUNDS = (0.1,), 4
    mcrdist.reconstruct(*settings)
    done.set()
    watching.join()
    return {"before": before, "peak": most, "counted by the system": resident("VmHWM")}


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("sharing", [True, False], ids=["shared memory", "sockets"])
def test_a_rank_holds_its_share(run_ranks: Any, sharing: bool, tmp_path: Path) -> None:
    settings = [
        "micrograph.path=synthetic:gaussian",
        "runtime.threads=1",
        "run.report=false",
        "volume.size=128",
    ]
    settings += [*LONGER, f"run.dir={tmp_path / 'out'}", f"runtime.shared_memory={str(sharing).lower()}"]
    found = run_ranks(measured_here, 2, settings, timeout=280)
    told = Work((128,) * 3, ranks=2, history=20, report=False, shared=sharing, libraries=found[0]["before"])
    peak = footprint.peak(told)[1]
    print(f"told {peak / footprint.MIB:.0f} MiB, found {found}")
    if not sharing:
        assert all(one["counted by the system"] == pytest.approx(one["peak"], rel=0.02) for one in found)
    assert peak == pytest.approx(found[0]["peak"], rel=0.10)
    assert all(one["peak"] <= 1.1 * peak for one in found)


def sent_in_an_evaluation(
    shape: tuple[int, int, int], phases: int, diagonals: bool, sharing: bool
) -> tuple[int, int]:
    """Bytes that this rank sent, and that it is said to send."""
    with Comm.start("cpu", shared_memory=sharing) as comm:
        objective = objectives.make(shape, comm, configure(1), phases=phases, diagonals=diagonals)
        planes = (objective.slab.planes, *shape[1:])
        variables = objective.phases.variables
        if variables > 1:
            planes = (planes[0], variables, *shape[1:])
        field = objective.slab.seen(torch.full(planes, 0.5, dtype=torch.float64))
        before = comm.bytes_sent
        objective(field, objective.slab.room(field))
        work = Work(shape, comm.size, phases=phases, diagonals=diagonals, itemsize=8)
        return comm.bytes_sent - before, footprint.sent(work, comm.rank)


@pytest.mark.parametrize("sharing", [True, False], ids=["shared memory", "sockets"])
@pytest.mark.parametrize(
    ("ranks", "shape", "phases", "diagonals"),
    [
        (2, (16, 16, 16), 1, False),
        (3, (17, 11, 13), 1, False),
        (3, (8, 9, 10), 3, False),
        (2, (9, 9, 9), 1, True),
    ],
)
def test_bytes_sent_are_as_told(
    run_ranks: Any, ranks: int, shape: tuple[int, int, int], phases: int, diagonals: bool, sharing: bool
) -> None:
    found = run_ranks(sent_in_an_evaluation, ranks, shape, phases, diagonals, sharing)
    assert all(sent == told for sent, told in found)
    assert sum(sent for sent, _ in found) > 0


def test_equal_slabs_send_what_the_design_allows() -> None:
    assert footprint.sent(Work((64, 64, 64), ranks=4)) == 4 * 64**3 * 3 // 4 * 4


@given(
    size=st.integers(8, 600),
    ranks=st.integers(1, 8),
    history=st.integers(1, 30),
    threads=st.integers(1, 8),
    phases=st.sampled_from([1, 3, 5]),
    cuda=st.booleans(),
)
def test_more_of_anything_takes_no_less(
    size: int, ranks: int, history: int, threads: int, phases: int, cuda: bool
) -> None:
    def peak(**changed: Any) -> int:
        given = {"ranks": ranks, "history": history, "threads": threads, "phases": phases, "cuda": cuda}
        side = changed.pop("size", size)
        return footprint.peak(Work((side,) * 3, **{**given, **changed}))[1]

    here = peak()
    assert peak(history=history + 1) >= here
    assert peak(size=size + 8) >= here
    assert peak(threads=threads + 1) >= here
    assert peak(lanes=1) <= here


def test_fewest_ranks() -> None:
    work = Work((64, 64, 64))
    alone = footprint.peak(work)[1]
    assert footprint.fewest_ranks(work, alone) == 1
    needed = footprint.fewest_ranks(work, alone - 2 * footprint.MIB)
    assert needed is not None and needed > 1
    assert footprint.fewest_ranks(work, footprint.LIBRARIES) is None


@given(
    shape=st.tuples(*[st.integers(8, 90)] * 3),
    lanes=st.sampled_from([None, 1, 3]),
    threads=st.integers(1, 4),
    phases=st.sampled_from([1, 3]),
    optimizer=st.sampled_from(["lbfgsb", "adam"]),
    start=st.sampled_from(["spectral", "noise", "file"]),
    flags=st.tuples(*[st.booleans()] * 3),
    share=st.floats(0.0, 1.1),
)
def test_fewest_ranks_is_what_trying_all_of_them_finds(
    shape: tuple[int, int, int],
    lanes: int | None,
    threads: int,
    phases: int,
    optimizer: str,
    start: str,
    flags: tuple[bool, bool, bool],
    share: float,
) -> None:
    cuda, shared_, diagonals = flags
    work = Work(
        shape, threads=threads, lanes=lanes, phases=phases, optimizer=optimizer, start=start, cuda=cuda,
        shared=shared_, diagonals=diagonals, report=False, libraries=0,
    )  # fmt: skip
    sizes = [footprint.peak(replace(work, ranks=ranks))[1] for ranks in range(1, shape[0] + 1)]
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    room = min(sizes) - 1 + round(share * (max(sizes) - min(sizes) + 1))
    wanted = next((ranks for ranks, size in enumerate(sizes, 1) if size <= room), None)
    assert footprint.fewest_ranks(work, room) == wanted


def test_a_plan_of_a_huge_volume_does_not_try_all_numbers_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Work] = []
    peak = footprint.peak
    monkeypatch.setattr(footprint, "peak", lambda work: tried.append(work) or peak(work))
    assert footprint.fewest_ranks(Work((8192,) * 3), 32 * 2**30) is not None
    assert len(tried) < 20


@given(n=st.integers(1, 500), ranks=st.integers(1, 500))
def test_the_first_rank_has_most(n: int, ranks: int) -> None:
    pieces = [stop - start for start, stop in partition(n, ranks)]
    assert footprint.largest(n, ranks) == pieces[0] == max(pieces)


@pytest.mark.parametrize("diagonals", [False, True])
def test_what_all_send_is_what_each_sends(diagonals: bool) -> None:
    work = Work((17, 11, 13), ranks=5, phases=3, diagonals=diagonals)
    assert footprint.sent(work) == sum(footprint.sent(work, rank) for rank in range(5))


def test_half_a_history_where_memory_counts() -> None:
    assert footprint.history_itemsize(4, None, footprint.HALF_HISTORY) == 4
    assert footprint.history_itemsize(4, None, footprint.HALF_HISTORY + 1) == 2
    assert footprint.history_itemsize(4, "float32", 2**40) == 4
    assert footprint.history_itemsize(4, "bfloat16", 8) == 2
    assert footprint.history_itemsize(8, "bfloat16", 2**40) == 8
