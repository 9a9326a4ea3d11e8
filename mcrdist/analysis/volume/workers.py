"""The Dask workers: a cluster on this machine, or one whose scheduler's address is known."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from mcrdist.config import DaskConfig
from mcrdist.errors import InputError
from mcrdist.extras import library

#: Tasks that are on their way at a time, for each thread of the workers: results wait for their turn to be added.
_AHEAD = 4
#: Nobody but this machine reaches the workers or the dashboard.
_HOST = "127.0.0.1"

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]


@contextmanager
def workers(config: DaskConfig) -> Iterator[Any]:
    """Connect to a scheduler, or start workers here; they end with the block.

    Raises
    ------
    InputError
        Dask is not installed, or nobody answers at the address.
    """
    distributed = library("distributed", "mcrdist analyze", "analysis")
    address = config.scheduler or os.environ.get("DASK_SCHEDULER_ADDRESS")
    if address is not None:
        try:
            client = distributed.Client(address, timeout=10)
        except (OSError, ValueError, TimeoutError) as error:
            raise InputError(
                f"dask.scheduler: expected a scheduler's address, found nobody at {address} "
                f"({type(error).__name__}); e.g. dask.scheduler=tcp://node1:8786"
            ) from error
        with client:
            yield client
        return
    options: dict[str, Any] = {"n_workers": config.workers, "threads_per_worker": 1, "host": _HOST}
    if not config.processes:  # they talk within the process, at no address; but each has a page of its own
        options = {"n_workers": 1, "threads_per_worker": config.workers, "processes": False}
    with (
        distributed.LocalCluster(
            **options, dashboard_address=f"{_HOST}:0", worker_dashboard_address=f"{_HOST}:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def dashboard(client: Any) -> str | None:
    """The link to the dashboard; None where bokeh, which draws it, is not installed."""
    if importlib.util.find_spec("bokeh") is None:
        return None
    link = urlsplit(str(client.dashboard_link))
    if client.cluster is not None:  # ours; Dask names the machine's own address, where nobody listens
        link = link._replace(netloc=f"{_HOST}:{link.port}")
    return link.geturl()


class Crew:
    """Sends tasks to the workers, and shows how much of all the work is done.

    Parameters
    ----------
    client : distributed.Client
    total : float
        The work of all tasks together. Those that come have an attribute `work`: about as many nanoseconds.
    """

    def __init__(self, client: Any, total: float) -> None:
        self._client = client
        self._bar = tqdm(
            total=total,
            disable=None,  # where nobody watches
            smoothing=0,  # tasks differ much: what is left follows from all that is done
            bar_format="{percentage:3.0f}% |{bar:24}| {elapsed}, {remaining} left, {desc}",
        )

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def doing(self, what: str) -> Mapper:
        """Return a map, whose results come in the order of the tasks; `what` they do is shown meanwhile."""

        def mapped(function: Callable[[Any], Any], todo: Sequence[Any]) -> Iterator[Any]:
            self._bar.set_description_str(what)
            yield from self._results(function, todo)

        return mapped

    def _results(self, function: Callable[[Any], Any], todo: Sequence[Any]) -> Iterator[Any]:
        wait: Any = library("distributed", "mcrdist analyze", "analysis").wait
        threads = sum(self._client.nthreads().values()) or 1
        waiting: list[tuple[Any, float]] = []
        counted: set[str] = set()
        rest = iter(todo)
        while True:
            while len(waiting) < _AHEAD * threads and (task := next(rest, None)) is not None:
                waiting.append((self._client.submit(function, task, pure=False), task.work))
            if not waiting:
                return
            left = [future for future, _ in waiting if future.key not in counted]
            if left and not waiting[0][0].done():
                wait(left, return_when="FIRST_COMPLETED")
            for future, work in waiting:
                if future.done() and future.key not in counted:
                    counted.add(future.key)
                    self._bar.update(work)
            while waiting and waiting[0][0].done():
                future, _ = waiting.pop(0)
                counted.discard(future.key)
                yield future.result()
