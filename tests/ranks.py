"""Run a function on several ranks: processes with the environment that torchrun would give them.

A rank that fails ends the others, and its exception, with its traceback, becomes the caller's. A rank that
hangs is ended after the timeout, and the caller learns which ranks were still running.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

#: Seconds that the other ranks have, once one has failed, to come to an end by themselves.
GRACE = 3.0


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
    context = multiprocessing.get_context("spawn")
    payload = pickle.dumps((fn, args))
    common = {
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
    # Before the function's module is imported, and torch with it, which reads some of these once.
    os.environ.update(environment)
    try:
        fn, args = pickle.loads(payload)
        data = pickle.dumps(("returned", fn(*args), None))
    except BaseException as error:  # SystemExit too: a command's exit status is a result worth comparing
        text = traceback.format_exc()
        data = _pickled_error(error, text)
    with suppress(BrokenPipeError):
        pipe.send_bytes(data)
    pipe.close()


def _pickled_error(error: BaseException, text: str) -> bytes:
    try:
        data = pickle.dumps(("raised", error, text))
        pickle.loads(data)  # some exceptions can be pickled and not be made again
        return data
    except Exception:
        return pickle.dumps(("raised", RankError(f"{type(error).__name__}: {error}"), text))


def own_environment() -> dict[str, str]:
    """The environment for a program of its own: one thread, and no launcher's variables."""
    launcher = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    inherited = {key: value for key, value in os.environ.items() if key not in launcher}
    return inherited | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent), "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
