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


def in_order(client: Any, title: str) -> Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]:
    """Return a map that sends tasks to the workers, a bounded number at a time, with a progress bar."""

    def mapped(function: Callable[[Any], Any], todo: Sequence[Any]) -> Iterator[Any]:
        threads = sum(client.nthreads().values()) or 1
        waiting: list[Any] = []
        rest = iter(todo)
        with tqdm(total=len(todo), desc=title, disable=None) as bar:
            while True:
                while len(waiting) < _AHEAD * threads and (task := next(rest, None)) is not None:
                    waiting.append(client.submit(function, task, pure=False))
                if not waiting:
                    return
                yield waiting.pop(0).result()
                bar.update()

    return mapped
