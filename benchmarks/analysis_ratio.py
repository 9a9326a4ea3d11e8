"""`mcrdist analyze` of a run's volume, in turn with evaluations of its loss: how many of these does it take?

    python benchmarks/analysis_ratio.py [--size 256] [--threads 1] [--evaluations 10] [--rounds 5]

All statistics but transport: those of boxes inside the volume too, errors plane by plane, and figures. An evaluation
is of S2 (lags up to 32) and V with its gradient. Both on so many threads. Prints one JSON line: medians over the
rounds, of which the first, with imports and compiled code, does not count.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from statistics import median

import torch
from _problem import problem
from _timing import seconds

import mcrdist
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.threads import configure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--evaluations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    size, threads = arguments.size, arguments.threads
    workers = configure(threads)
    objective = problem(size, min(32, size // 2), Comm.start("cpu"), workers)
    field = torch.rand(size, size, size)
    gradient = torch.empty_like(field)

    def evaluate() -> None:
        for _ in range(arguments.evaluations):
            objective(field, gradient)

    with tempfile.TemporaryDirectory() as directory:
        run = f"{directory}/run"
        mcrdist.reconstruct(
            method="gaussian",
            micrograph={"path": "synthetic:gaussian"},
            volume={"size": size},
            runtime={"threads": threads},
            run={"dir": run, "report": False},
        )

        def analyze(turn: int) -> None:
            mcrdist.analyze(
                run={"dir": run},
                transport={"enabled": False},
                dask={"workers": threads},
                output={"dir": f"{directory}/{turn}"},
            )

        took = []
        for turn in range(arguments.rounds + 1):
            took.append((seconds(lambda turn=turn: analyze(turn)), seconds(evaluate)))
    workers.close()
    facts = {
        "benchmark": "analysis ratio",
        "size": size,
        "threads": threads,
        "evaluations": arguments.evaluations,
        "analysis_seconds": round(median(one for one, _ in took[1:]), 2),
        "evaluations_seconds": round(median(other for _, other in took[1:]), 2),
        "ratio": round(median(one / other for one, other in took[1:]), 3),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
