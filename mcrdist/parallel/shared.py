"""Volumes that the ranks of one machine hold together: each has its planes, and reads and writes those of others.

A segment is a file without a name (memfd) that every rank maps into its memory. So it does not depend on the size of
/dev/shm, and is gone with the last process that has it, however that process ends. Ranks open each other's through
/proc, which works on one machine and in one container only: whether it does is found out by trying, and all ranks
agree on it.
"""

from __future__ import annotations

import mmap
import os
import re
import uuid
import weakref
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from pathlib import Path

import psutil
import torch
from torch import Tensor

from mcrdist.parallel.comm import Comm


class _Segment(mmap.mmap):
    """Some shared memory; unmapped when no tensor needs it any more."""

    own = 0  # bytes of it that this rank has brought


# By the address of the first byte, which tells whether a tensor lies in one.
_segments: weakref.WeakValueDictionary[int, _Segment] = weakref.WeakValueDictionary()


def allocate(comm: Comm, owners: Sequence[range], rest: Sequence[int], dtype: torch.dtype) -> Tensor | None:
    """Make a volume that all ranks have together. Collective.

    Parameters
    ----------
    comm : Comm
        Its `shared_memory` becomes False where it turns out to be impossible: then it is not tried again.
    owners : sequence of range
        The planes of each rank, whose memory it brings.
    rest : sequence of int
        Shape of a plane.

    Returns
    -------
    Tensor (planes of all ranks, *rest) or None
        Uninitialised. None, on all ranks, where they do not see each other's memory, or it has no room.
    """
    plane = prod(rest) * dtype.itemsize
    size = plane * owners[-1].stop
    if not comm.shared_memory or size == 0:
        return None
    name, fd = f"mcrdist-{uuid.uuid4().hex}", -1
    segment: _Segment | None = None
    try:
        with suppress(OSError):
            fd = _create(name, size) if comm.rank == 0 else -1
        name, pid, number = comm.broadcast((name, os.getpid(), fd))
        with suppress(OSError):
            fd = fd if comm.rank == 0 else _open(name, pid, number)
            own = owners[comm.rank]
            if len(own):  # now, since memory that is missing later ends the process
                os.posix_fallocate(fd, plane * own.start, plane * len(own))
            segment = _Segment(fd, size)
            segment.own = plane * len(own)
        failed = comm.any(segment is None)
        # All have it, or nobody will: the file is not opened by its number any more.
    finally:
        if fd >= 0:
            os.close(fd)
    if failed or segment is None:
        comm.shared_memory = False
        return None
    whole = torch.frombuffer(segment, dtype=dtype).view(-1, *rest)
    _segments[whole.data_ptr()] = segment
    return whole


def possible(comm: Comm) -> bool:
    """Try whether the ranks see each other's memory. Collective."""
    return allocate(comm, [range(rank, rank + 1) for rank in range(comm.size)], (1,), torch.uint8) is not None


def _create(name: str, size: int) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
    except OSError:
        os.close(fd)
        raise
    return fd


def _open(name: str, pid: int, number: int) -> int:
    """Open the first rank's file; an OSError where that process is on another machine, or not to be looked into."""
    path = f"/proc/{pid}/fd/{number}"
    found = os.readlink(path)  # a process of that number here may have anything open
    if not found.startswith(f"/memfd:{name}"):
        raise FileNotFoundError(f"{path} is {found}, not {name}")
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def whole(local: Tensor, own: range, planes: int) -> Tensor | None:
    """Return the volume of which `local` is this rank's part, None where others do not see it.

    Parameters
    ----------
    local : Tensor (own planes, ...)
    own : range
        Its planes.
    planes : int
        Those of the volume.
    """
    storage = local.untyped_storage()
    if storage.data_ptr() not in _segments or not local.is_contiguous() or len(local) != len(own):
        return None
    plane = prod(local.shape[1:])
    if (
        local.storage_offset() != own.start * plane
        or storage.nbytes() != planes * plane * local.element_size()
    ):
        return None
    return local.as_strided((planes, *local.shape[1:]), local[:1].stride(), 0)


def resident() -> int:
    """Bytes of memory that this process holds: of shared volumes, its own planes only.

    What the system counts as resident has the others' planes too, once they were looked at.
    """
    own = sum(segment.own for segment in _segments.values())
    if not own:
        return int(psutil.Process().memory_info().rss)
    status = Path("/proc/self/status").read_text()
    rss, seen = (1024 * int(size) for size in re.findall(r"^(?:VmRSS|RssShmem):\s+(\d+) kB", status, re.M))
    return rss - max(0, seen - own)
