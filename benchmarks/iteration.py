"""One iteration of the optimiser: its evaluation, its own work, what travels between ranks, and the memory of both.

    python benchmarks/iteration.py [--size 256] [--history 8] [--dtype bfloat16] [--iterations 12] [--threads N]
    torchrun --nproc-per-node 2 benchmarks/iteration.py --threads 1

S2 (lags up to 32) and V, from noise; medians over the iterations that come when the history is full. `waiting_share` is
the part of an evaluation that is spent on messages that have not come yet; `bytes_sent` an evaluation should be
`bytes_expected`, 4 V (P − 1) / P values. `fields` is the growth of the resident memory over all ranks, in volumes of
float32. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from dataclasses import replace
from statistics import median

import numpy as np
import psutil
import torch
from _problem import problem
from torch import Tensor

from mcrdist.optimize.lbfgsb import minimize
from mcrdist.optimize.minimizer import Options, State
from mcrdist.parallel.comm import Comm, Pending
from mcrdist.parallel.random import noise
from mcrdist.parallel.threads import configure


class Peak:
    """The most memory that this process has had since the start, watched from a thread."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.before = self.most = self._process.memory_info().rss
        self._done = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.most = max(self.most, self._process.memory_info().rss)

    def growth(self) -> int:
        self._done.set()
        return self.most - self.before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--lags", type=int, default=32)
    parser.add_argument("--history", type=int, default=8)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()

    waits = [0.0]
    wait = Pending.wait

    def timed(pending: Pending) -> Tensor:
        start = time.perf_counter()
        received = wait(pending)
        waits[0] += time.perf_counter() - start
        return received

    with Comm.start("cpu") as comm:
        workers = configure(arguments.threads, comm.local_size)
        objective = problem(arguments.size, arguments.lags, comm, workers)
        slab = objective.slab
        options = Options(arguments.history, 1, 0.0, 0.0, getattr(torch, arguments.dtype))
        for _ in range(2):  # once for plans, caches and compiled code
            peak = Peak()
            field, gradient = noise(slab, 0, 0).mul_(0.1).add_(0.5), slab.empty()
            evaluations: list[tuple[float, float]] = []
            ends: list[float] = []

            def function(
                x: Tensor, into: Tensor = gradient, done: list[tuple[float, float]] = evaluations
            ) -> tuple[float, Tensor]:
                start, waited = time.perf_counter(), waits[0]
                loss = objective(x, into).loss
                done.append((time.perf_counter() - start, waits[0] - waited))
                return loss, into

            def note(state: State, times: list[float] = ends) -> None:
                del state
                times.append(time.perf_counter())

            Pending.wait = timed  # type: ignore[method-assign]
            sent = comm.bytes_sent
            result = minimize(function, field, comm.gather_rows, options, note, workers.map)
            sent = (comm.bytes_sent - sent) // result.evaluations
            growth = peak.growth()
            options = replace(options, iterations=arguments.history + arguments.iterations)
        last = arguments.iterations
        iteration = median(np.diff(ends)[-last:])
        evaluation = median(spent for spent, _ in evaluations[-last:])
        grown, total = comm.gather_rows(np.array([[growth, sent]], dtype=np.float64)).sum(axis=0)
        volume = 4 * arguments.size**3
        if comm.rank == 0:
            print(
                json.dumps(
                    {
                        "benchmark": "iteration",
                        "size": arguments.size,
                        "history": arguments.history,
                        "dtype": arguments.dtype,
                        "ranks": comm.size,
                        "threads": workers.count,
                        "iterations": result.iterations,
                        "evaluations": result.evaluations,
                        "iteration_seconds": iteration,
                        "evaluation_seconds": evaluation,
                        "optimizer_share": 1.0 - evaluation / iteration,
                        "waiting_share": median(waited / spent for spent, waited in evaluations[-last:]),
                        "bytes_sent": int(total),
                        "bytes_expected": 4 * volume * (comm.size - 1) // comm.size,
                        "fields": grown / volume,
                    }
                )
            )
        workers.close()


if __name__ == "__main__":
    main()
