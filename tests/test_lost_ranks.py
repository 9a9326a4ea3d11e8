"""A rank that dies or hangs: the others say so in one line that names what they waited for, and end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ranks import free_port, own_environment

from mcrdist.store.verify import verify

#: Seconds, of which a machine with other work to do may take some.
TIMEOUT = 6


@contextmanager
def ranks(
    place: Path, count: int, started: int | None = None, sharing: bool = True
) -> Iterator[list[subprocess.Popen[str]]]:
    """Programs of their own, as a batch system starts them, that go on for ever; all but those not `started`."""
    shared = {
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    command = [
        sys.executable, "-m", "mcrdist", "reconstruct", "micrograph.path=synthetic:discs", "volume.size=24",
        "optimizer.iterations=100000", "optimizer.relative_decrease=0", "optimizer.projected_gradient=0",
        "runtime.threads=1", f"run.dir={place}", "run.report=false", "checkpoint.every=0.3s",
        f"runtime.timeout={TIMEOUT}", f"runtime.shared_memory={str(sharing).lower()}",
    ]  # fmt: skip
    processes = []
    for rank in range(count if started is None else started):
        own = {"RANK": rank, "LOCAL_RANK": rank} | shared
        environment = own_environment() | {name: str(value) for name, value in own.items()}
        processes.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_for(path: Path, processes: list[subprocess.Popen[str]], pattern: str) -> None:
    until = time.monotonic() + 120
    while not list(path.glob(pattern)):
        assert time.monotonic() < until and all(process.poll() is None for process in processes)
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("sharing", [True, False], ids=["shared memory", "sockets"])
@pytest.mark.parametrize(
    ("number", "which", "happened"),
    [
        (signal.SIGSTOP, 1, f"waited {TIMEOUT} s in vain for"),
        (signal.SIGSTOP, 0, f"waited {TIMEOUT} s in vain for"),
        (signal.SIGKILL, 1, "lost a connection in"),
    ],
    ids=["hangs", "the first hangs", "dies"],
)
def test_a_rank_is_lost(number: int, which: int, happened: str, sharing: bool, tmp_path: Path) -> None:
    place = tmp_path / "run"
    with ranks(place, 3, sharing=sharing) as processes:
        wait_for(place, processes, "checkpoint/0*")
        os.kill(processes[which].pid, number)
        began = time.monotonic()
        others = [process for rank, process in enumerate(processes) if rank != which]
        told = [process.communicate(timeout=120)[1] for process in others]
        assert time.monotonic() - began < TIMEOUT + 60  # not for ever
    assert [process.returncode for process in others] == [3, 3], told
    # torch may have something to say of the store that went with the first rank
    lines = [line for line in "".join(told).splitlines() if line.startswith("mcrdist:")]
    assert len(lines) == 1, told
    # Where a connection broke, a rank that waits for another one has noticed nothing yet, and so is silent too.
    silent = rf"rank {which}" if number == signal.SIGSTOP else r"rank [\d, ]+"
    pattern = (
        r"mcrdist: error: rank \d of 3: level 0 \(24x24x24\), \w+, iteration \d+: "
        rf"{happened} ((all_reduce|all_gather|all_to_all) of [\dx]+ \w+ \(\d+ bytes\)|\w+ of an object[^;]*); "
        rf"missing: {silent};"
    )
    assert re.match(pattern, lines[0]), told
    assert re.search(rf"missing: [^;]*\b{which}\b", lines[0]), told
    assert verify(place).problems == []


def test_a_rank_never_comes(tmp_path: Path) -> None:
    with ranks(tmp_path / "run", 2, started=1) as processes:
        _, told = processes[0].communicate(timeout=120)
    assert processes[0].returncode == 3
    assert told.count("\n") == 1
    assert told.startswith(
        f"mcrdist: error: rank 0 of 2: the start: waited {TIMEOUT} s in vain for the meeting of all"
    )
    assert not (tmp_path / "run").exists()
