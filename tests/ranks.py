"""Run a function on several ranks: processes with the environment that torchrun would give them.

A rank that fails ends the others, and its exception, with its traceback, becomes the caller's. A rank that
hangs is ended after the timeout, and the caller learns which ranks were still running.

The ranks are forks of one process that has loaded the libraries, which takes several seconds, and has done nothing
else: no threads, no processes that talk to each other.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import pickle
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest

#: Seconds that the other ranks have, once one has failed, to come to an end by themselves.
GRACE = 3.0

#: What nearly every rank needs.
LIBRARIES = ["pytest", "mcrdist.reconstruct"]
#: Where the measurement of coverage leaves word for the processes that follow.
COVERAGE = "COVERAGE_PROCESS_CONFIG"


class RankError(AssertionError):
    """A rank died or hung, or raised something that cannot be sent between processes."""


class RemoteTraceback(Exception):
    """Shown as the cause of an exception that a rank raised: the traceback over there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


def run_ranks(fn: Callable[..., Any], world_size: int, *args: Any, timeout: float = 90.0) -> list[Any]:
    """Call ``fn(*args)`` in `world_size` processes and return what each returned, by rank.

    Parameters
    ----------
    fn : callable
        Defined at the top of a module: it is sent by name. It reads its rank from the environment, as under
        torchrun (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT).
    world_size : int
        Number of ranks.
    *args
        Picklable arguments, the same on every rank.
    timeout : float
        Seconds for all ranks together, the start of the processes included.

    Raises
    ------
    Exception
        What the first rank to fail raised, with the remote traceback as its cause.
    RankError
        A rank died without a word, or did not end in time.
    """
    context = _libraries_loaded()
    payload = pickle.dumps((fn, args))
    common = os.environ | {
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    processes, pipes = [], []
    try:
        for rank in range(world_size):
            ours, theirs = context.Pipe(duplex=False)
            environment = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = context.Process(target=_rank, args=(theirs, environment, payload), daemon=True)
            process.start()
            theirs.close()  # only the child holds it now, so its death is seen as the end of the pipe
            processes.append(process)
            pipes.append(ours)
        return _collect(processes, pipes, time.monotonic() + timeout, timeout)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()
            process.close()
        for pipe in pipes:
            pipe.close()


@functools.cache
def _libraries_loaded() -> Any:
    """The context of the processes, whose origin is ready from the first call on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES + ["coverage"] * ("coverage" in sys.modules))
    # Each rank measures for itself; the process that they come from ends after all is counted.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(COVERAGE, raising=False)
        forkserver.ensure_running()
    first = context.Process(target=int)  # which has to wait
    first.start()
    first.join()
    return context


def _collect(processes: list[Any], pipes: list[Connection], deadline: float, timeout: float) -> list[Any]:
    results: dict[int, Any] = {}
    while len(results) < len(pipes):
        waiting = [pipe for rank, pipe in enumerate(pipes) if rank not in results]
        ready = wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            running = [rank for rank in range(len(pipes)) if rank not in results]
            raise RankError(f"ranks {running} of {len(pipes)} still running after {timeout:g} s: killed")
        for pipe in ready:
            rank = pipes.index(pipe)  # type: ignore[arg-type]
            try:
                outcome, value, remote = pickle.loads(pipes[rank].recv_bytes())
            except EOFError:
                processes[rank].join(GRACE)
                code = processes[rank].exitcode
                raise RankError(f"rank {rank} of {len(pipes)} died with exit code {code}") from None
            if outcome == "raised":
                _let_end(processes)
                raise value from RemoteTraceback(f"on rank {rank} of {len(pipes)}:\n{remote}")
            results[rank] = value
    return [results[rank] for rank in range(len(pipes))]


def _let_end(processes: list[Any]) -> None:
    """Give the other ranks a moment to clean up, as they can where all of them failed alike."""
    until = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))


def _rank(pipe: Connection, environment: dict[str, str], payload: bytes) -> None:
    os.environ.clear()
    os.environ.update(environment)
    measurement = _coverage()
    try:
        fn, args = pickle.loads(payload)
        data = pickle.dumps(("returned", fn(*args), None))
    except BaseException as error:  # SystemExit too: a command's exit status is a result worth comparing
        text = traceback.format_exc()
        data = _pickled_error(error, text)
    if measurement is not None:  # now: once it has spoken, a rank may be ended at any time
        measurement.stop()
        measurement.save()
    with suppress(BrokenPipeError):
        pipe.send_bytes(data)
    pipe.close()


def _coverage() -> Any:
    """Begin to measure what this process runs, if that is wanted."""
    if COVERAGE not in os.environ:
        return None
    import coverage

    return coverage.process_startup()


def _pickled_error(error: BaseException, text: str) -> bytes:
    try:
        data = pickle.dumps(("raised", error, text))
        pickle.loads(data)  # some exceptions can be pickled and not be made again
        return data
    except Exception:
        return pickle.dumps(("raised", RankError(f"{type(error).__name__}: {error}"), text))


def own_environment() -> dict[str, str]:
    """The environment for a program of its own: one thread, no launcher's variables.

    Nor is its coverage measured: the program, or a rank that torchrun has started, may be killed while that is written,
    which leaves a broken file.
    """
    not_its = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", COVERAGE)
    inherited = {key: value for key, value in os.environ.items() if key not in not_its}
    return inherited | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent), "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
