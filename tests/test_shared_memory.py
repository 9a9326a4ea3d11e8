"""Volumes in memory that ranks share: each byte once, nothing left behind, and sockets where it cannot be."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from memory import resident
from torch import Tensor

from mcrdist.parallel import shared
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")


def fail(*_: Any) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


RunRanks = Callable[..., list[Any]]
SHAPE = (64, 128, 256)
BYTES = 4 * 64 * 128 * 256


def shared_in_proportion() -> int:
    """Bytes of shared memory, each page divided by the number of processes that have it, as the system counts."""
    found = re.search(r"Pss_Shmem:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text())
    assert found is not None
    return 1024 * int(found[1])


def mapped() -> int:
    """How many of our segments this process has; none has a name by which it could outlive its processes."""
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:mcrdist-" in line]
    assert all(line.endswith(" (deleted)") for line in lines), lines
    return len(lines)


def look(slab: Slab, field: Tensor, gradient: Tensor | None = None) -> list[float]:
    """The sums of this rank's slices, which are looked at in all directions; 1 is added to all gradients."""
    sums: list[float] = []

    def work(first: int, slices: list[Tensor], gradients: list[Tensor] | None) -> None:
        del first
        sums.extend(slices[0].double().sum((1, 2)).tolist())
        if gradients is not None:
            gradients[0].add_(1.0)

    for axis in range(3):
        slab.visit(axis, [field], None if gradient is None else [gradient], work)
    return sums


def memory_of_a_rank() -> dict[str, Any]:
    with Comm.start("cpu", timeout=60) as comm:
        slab = Slab(SHAPE, comm, Workers(1))
        field = slab.seen(slab.zeros().add_(1.0))
        gradient = slab.room(field).zero_()
        again = slab.seen(field)
        look(slab, field, gradient)
        comm.barrier()
        found = {
            "same": again is field,
            "gradient": gradient.unique().tolist(),
            "mapped": mapped(),
            "others'": resident() - shared.resident(),
            "share": shared_in_proportion(),
            "own": 2 * field.numel() * 4,
        }
        comm.barrier()
        del field, gradient, again
        comm.barrier()
        return found | {"left": mapped(), "share left": shared_in_proportion()}


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_every_byte_is_in_memory_once(ranks: int, run_ranks: RunRanks) -> None:
    found = run_ranks(memory_of_a_rank, ranks)
    for one in found:
        assert one["same"] and one["gradient"] == [3.0]
        assert one["mapped"] == 2 and one["left"] == 0
        # It has looked at everything, and the system counts that; we count its own planes.
        assert one["others'"] == pytest.approx(2 * BYTES - one["own"], abs=2**20)
        assert one["share left"] < 2**16
    assert sum(one["share"] for one in found) == pytest.approx(2 * BYTES, rel=0.01)
    assert sum(one["own"] for one in found) == 2 * BYTES


OBSTACLES: dict[str, tuple[object, str, Callable[..., Any]] | None] = {
    "nothing": None,
    "no room": (os, "posix_fallocate", fail),
    "another machine": (os, "readlink", lambda path: "/dev/pts/0"),
    "no mapping": (shared, "_Segment", fail),
    "no memfd": (os, "memfd_create", fail),
}


def with_obstacles() -> dict[str, dict[str, Any]]:
    """What becomes of a field on ranks of which one, the last or for memfd the first, cannot do something."""
    found = {}
    with Comm.start("cpu", timeout=60) as comm:
        for name, obstacle in OBSTACLES.items():
            comm.shared_memory = True
            it_is_me = comm.rank == (0 if name == "no memfd" else comm.size - 1)
            with mock.patch.object(*obstacle) if obstacle is not None and it_is_me else nullcontext():
                found[name] = shared_or_sent(comm)
    return found


def shared_or_sent(comm: Comm) -> dict[str, Any]:
    slab, sent = Slab((7, 9, 11), comm, Workers(1)), comm.bytes_sent
    mine = slab.zeros().add_(1.0)
    field, gradient = slab.seen(mine), slab.room(mine).zero_()
    sums = look(slab, field, gradient)
    return {
        "given back": field is mine,
        "shared": comm.shared_memory,
        "possible": shared.possible(comm),
        "mapped": mapped(),
        "sums": sums,
        "gradient": gradient.unique().tolist(),
        "sent": comm.bytes_sent - sent,
    }


def test_all_ranks_send_where_one_cannot_share(run_ranks: RunRanks) -> None:
    ranks = run_ranks(with_obstacles, 3)
    for obstacle in OBSTACLES:
        found = [rank[obstacle] for rank in ranks]
        for one, first in zip(found, ranks, strict=True):
            assert one["shared"] == one["possible"] == (obstacle == "nothing"), obstacle
            assert one["given back"] == (obstacle != "nothing"), obstacle
            assert one["mapped"] == (2 if obstacle == "nothing" else 0), obstacle
            assert one["gradient"] == [3.0] and one["sent"] == first["nothing"]["sent"] > 0, obstacle
        assert sum(sum(one["sums"]) for one in found) == 3 * 7 * 9 * 11, obstacle


def test_open_takes_no_other_file() -> None:
    """A process of that number on this machine may have anything open under that number."""
    pid = os.getpid()
    fd = os.memfd_create("mcrdist-this")
    other = os.open("/dev/null", os.O_RDONLY)
    try:
        os.close(shared._open("mcrdist-this", pid, fd))
        with pytest.raises(OSError, match="not mcrdist-that"):
            shared._open("mcrdist-that", pid, fd)
        with pytest.raises(OSError, match="/dev/null"):
            shared._open("mcrdist-this", pid, other)
    finally:
        os.close(fd)
        os.close(other)


def test_alone_nothing_is_shared() -> None:
    slab = Slab((4, 5, 6), Comm.start("cpu"), Workers(1))
    field = slab.zeros()
    assert slab.seen(field) is field and not slab.comm.shared_memory
    assert slab.room(field).shape == field.shape and mapped() == 0


def views_of_a_rank() -> list[bool]:
    """Whether tensors other than this rank's whole part are taken for it."""
    with Comm.start("cpu", timeout=60) as comm:
        slab = Slab((6, 4, 4), comm, Workers(1))
        field = slab.seen(slab.zeros())
        parts = [field, field[:1], field.permute(0, 2, 1), field.clone(), field[:, :2], field.view_as(field)]
        return [shared.whole(part, slab.owned(0), 6) is not None for part in parts]


def test_only_a_whole_part_stands_for_the_volume(run_ranks: RunRanks) -> None:
    assert run_ranks(views_of_a_rank, 2) == [[True, False, False, False, False, True]] * 2
