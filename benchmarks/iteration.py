"""One iteration of the optimiser: its evaluation, its own work, what travels between ranks, and the memory of both.

    python benchmarks/iteration.py [--size 256] [--history 4] [--dtype bfloat16] [--iterations 12] [--threads N]
    torchrun --nproc-per-node 2 benchmarks/iteration.py --threads 1 [--send]

S2 (lags up to 32) and V, from noise; medians over the iterations that come when the history is full. Ranks look at each
other's planes where they lie, or with `--send` send them. `waiting_share` is the part of an iteration that is spent on
messages, and on ranks that are not there yet; `processor_seconds`, of all ranks, are those of an iteration that any
core was at work; `bytes_sent` an evaluation should be `bytes_expected`, 4 V (P − 1) / P values. `fields` is the growth
of the resident memory over all ranks, in volumes of float32. Prints one JSON line. `benchmarks/ranks.py --speed`
compares numbers of ranks.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
from _problem import problem
from torch import Tensor

from mcrdist.objective import Objective
from mcrdist.optimize.lbfgsb import minimize
from mcrdist.optimize.minimizer import Options, State
from mcrdist.parallel.comm import Comm, Pending
from mcrdist.parallel.random import noise
from mcrdist.parallel.shared import resident
from mcrdist.parallel.threads import Workers, configure


class Peak:
    """The most memory that this process has had since the start, watched from a thread."""

    def __init__(self) -> None:
        self.before = self.most = resident()
        self._done = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self.most = max(self.most, resident())

    def growth(self) -> int:
        self._done.set()
        return self.most - self.before


class Waits:
    """Seconds spent on waiting for other ranks since it was entered."""

    def __enter__(self) -> Waits:
        self.seconds = 0.0
        self._methods: list[tuple[type, str, Any]] = [
            (Pending, "wait", Pending.wait),
            (Comm, "barrier", Comm.barrier),
            (Comm, "gather_rows", Comm.gather_rows),
        ]
        for owner, name, method in self._methods:
            setattr(owner, name, self._timed(method))
        return self

    def _timed(self, method: Any) -> Any:
        def timed(*given: Any) -> Any:
            start = time.perf_counter()
            found = method(*given)
            self.seconds += time.perf_counter() - start
            return found

        return timed

    def __exit__(self, *error: object) -> None:
        for owner, name, method in self._methods:
            setattr(owner, name, method)


def measure(comm: Comm, workers: Workers, objective: Objective, options: Options) -> dict[str, Any]:
    """The iterations of one minimisation, after the history is full, and the memory of all of it."""
    slab = objective.slab
    peak = Peak()
    field = slab.seen(noise(slab, 0, 0).mul_(0.1).add_(0.5))
    gradient = slab.room(field)
    evaluations: list[float] = []
    ends: list[float] = []
    work: list[float] = []
    waited: list[float] = []
    with Waits() as waits:

        def function(x: Tensor) -> tuple[float, Tensor]:
            start = time.perf_counter()
            loss = objective(x, gradient).loss
            evaluations.append(time.perf_counter() - start)
            return loss, gradient

        def note(state: State) -> None:
            del state
            ends.append(time.perf_counter())
            work.append(time.process_time())
            waited.append(waits.seconds)

        sent = comm.bytes_sent
        result = minimize(function, field, slab.gather_rows, options, note, workers.map, room=slab.room)
    sent = (comm.bytes_sent - sent) // result.evaluations
    last = options.iterations - options.history
    iteration = median(np.diff(ends)[-last:])
    evaluation = median(evaluations[-last:])
    facts = np.array([[peak.growth(), sent, median(np.diff(work)[-last:])]], dtype=np.float64)
    grown, total, processor = comm.gather_rows(facts).sum(axis=0)
    volume = 4 * int(np.prod(slab.shape))
    return {
        "size": slab.shape[0],
        "history": options.history,
        "dtype": str(options.history_dtype).removeprefix("torch."),
        "ranks": comm.size,
        "threads": workers.count,
        "shared_memory": comm.shared_memory,
        "iterations": result.iterations,
        "evaluations": result.evaluations,
        "iteration_seconds": iteration,
        "evaluation_seconds": evaluation,
        "processor_seconds": processor,
        "optimizer_share": 1.0 - evaluation / iteration,
        "waiting_share": median(np.diff(waited)[-last:]) / iteration,
        "bytes_sent": int(total),
        "bytes_expected": 4 * volume * (comm.size - 1) // comm.size,
        "fields": grown / volume,
        "loss": result.loss,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--lags", type=int, default=32)
    parser.add_argument("--history", type=int, default=4)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--send", action="store_true", help="exchange through sockets")
    arguments = parser.parse_args()
    with Comm.start("cpu", shared_memory=not arguments.send) as comm:
        workers = configure(arguments.threads, comm.local_size)
        objective = problem(arguments.size, arguments.lags, comm, workers)
        options = Options(arguments.history, arguments.history + 1, 0.0, 0.0, getattr(torch, arguments.dtype))
        measure(comm, workers, objective, options)  # for plans, caches and compiled code
        options = replace(options, iterations=arguments.history + arguments.iterations)
        facts = measure(comm, workers, objective, options)
        if comm.rank == 0:
            print(json.dumps({"benchmark": "iteration"} | facts))
        workers.close()


if __name__ == "__main__":
    main()
