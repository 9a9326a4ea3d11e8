"""One pool of threads a process, and no other: libraries are held to one thread each.

Library threads would make results depend on how a library happens to divide a sum. We divide the work
ourselves, a plane or a slice at a time, so every number is the same for any number of threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Workers:
    """Threads that share out a list of independent jobs.

    Parameters
    ----------
    count : int
        Number of threads, at least 1. With 1 the jobs run in the calling thread.
    """

    def __init__(self, count: int) -> None:
        assert count >= 1, count
        self.count = count
        self._inside = threading.local()
        self._pool = ThreadPoolExecutor(count, "mcrdist", initializer=self._enter) if count > 1 else None

    def _enter(self) -> None:
        self._inside.worker = True
        torch.set_num_threads(1)  # OpenMP keeps its number of threads for each thread separately

    def map(self, fn: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        """Return ``[fn(item) for item in items]``, computed by all threads.

        The first exception, in the order of the items, is raised once no job is running any more, so that
        nobody writes into the caller's arrays behind its back. A job may call ``map`` itself: it then runs
        in the job's thread, since waiting for other threads of the same pool could wait for ever.
        """
        jobs = list(items)
        if self._pool is None or len(jobs) < 2 or getattr(self._inside, "worker", False):
            return [fn(job) for job in jobs]
        futures: list[Future[_Result]] = [self._pool.submit(fn, job) for job in jobs]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def configure(count: int | None = None, local_size: int = 1) -> Workers:
    """Hold torch and BLAS to one thread in this process and return its workers.

    Parameters
    ----------
    count : int, optional
        Threads of this process; by default its share of the cores.
    local_size : int
        Processes on this machine that share the cores.
    """
    torch.set_num_threads(1)
    threadpool_limits(1, user_api="blas")
    return Workers(count or max(1, usable_cores() // local_size))
