"""The multi-process harness: values by rank, the first error with its traceback, nothing left hanging."""

import multiprocessing
import os
import signal
import time

import pytest
from ranks import RankError, RemoteTraceback, run_ranks

from mcrdist.errors import InputError


def identity(factor: int) -> tuple[int, int, int]:
    return int(os.environ["RANK"]) * factor, int(os.environ["WORLD_SIZE"]), int(os.environ["MASTER_PORT"])


def fail_on_one(rank: int) -> None:
    if int(os.environ["RANK"]) == rank:
        raise InputError("volume.size: expected more")
    time.sleep(60)


def leave_with_status() -> None:
    raise SystemExit(2)


def die() -> None:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def hang_on_one() -> None:
    if os.environ["RANK"] == "1":
        time.sleep(60)


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("lost on the way")


def raise_unpicklable() -> None:
    raise Unpicklable(1, 2)


def all_reduce() -> float:
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        value = torch.tensor([float(dist.get_rank() + 1)])
        dist.all_reduce(value)
        return float(value)
    finally:
        dist.destroy_process_group()


def test_values_come_back_by_rank() -> None:
    values = run_ranks(identity, 3, 10)
    assert [value[0] for value in values] == [0, 10, 20]
    assert {value[1:] for value in values} == {(3, values[0][2])}


def test_the_environment_is_torchruns() -> None:
    assert run_ranks(all_reduce, 2) == [3.0, 3.0]


def test_the_first_error_is_raised_with_its_traceback() -> None:
    begin = time.monotonic()
    with pytest.raises(InputError, match="expected more") as caught:
        run_ranks(fail_on_one, 2, 1)
    assert time.monotonic() - begin < 30.0
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "on rank 1 of 2" in str(caught.value.__cause__)
    assert "in fail_on_one" in str(caught.value.__cause__)


def test_an_exit_status_is_passed_on() -> None:
    with pytest.raises(SystemExit) as caught:
        run_ranks(leave_with_status, 2)
    assert caught.value.code == 2


def test_a_killed_rank_is_named() -> None:
    with pytest.raises(RankError, match="rank 1 of 2 died with exit code -9"):
        run_ranks(die, 2)


def test_a_hung_rank_is_ended() -> None:
    with pytest.raises(RankError, match=r"ranks \[1\] of 2 still running after 5 s"):
        run_ranks(hang_on_one, 2, timeout=5.0)
    assert multiprocessing.active_children() == []


def test_an_exception_that_cannot_travel_keeps_its_name() -> None:
    with pytest.raises(RankError, match="Unpicklable: lost on the way"):
        run_ranks(raise_unpicklable, 1)
