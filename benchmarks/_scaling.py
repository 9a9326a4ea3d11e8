"""What `benchmarks/ranks.py --speed` starts under torchrun: the same work on one rank and on all, in alternation."""

from __future__ import annotations

import argparse
import json
from statistics import median
from typing import Any

import torch
from _problem import problem
from iteration import measure

from mcrdist.optimize.minimizer import Options
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.threads import configure

HISTORY = 4
#: One rank while the others wait; every rank for itself at the same time, which is what the machine can give; and
#: together, looking at each other's planes where they lie, or sending them.
WAYS = ("alone", "side by side", "shared memory", "sockets")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--iterations", type=int, required=True)
    arguments = parser.parse_args()
    with Comm.start("cpu") as comm:
        workers, single = configure(1), Comm(0, 1, 0, 1, torch.device("cpu"))
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for turn in range(arguments.rounds + 1):  # the first is for plans, caches and compiled code
            count = HISTORY + (arguments.iterations if turn else 1)
            for way in WAYS:
                comm.barrier()
                among = single if way in WAYS[:2] else comm
                comm.shared_memory = way == "shared memory"
                if way == "alone" and comm.rank:
                    continue
                objective = problem(arguments.size, min(32, arguments.size // 2), among, workers)
                options = Options(HISTORY, count, 0.0, 0.0, torch.bfloat16)
                facts = measure(among, workers, objective, options)
                if turn and comm.rank == 0:
                    found[way].append(facts)
                    print(
                        json.dumps({"benchmark": "ranks speed", "way": way, "round": turn} | facts),
                        flush=True,
                    )
        if comm.rank == 0:
            print(json.dumps(summary(arguments.size, comm.size, found)), flush=True)
        workers.close()


def summary(size: int, ranks: int, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the rounds: the speed of a core against one rank alone, and what an iteration takes."""
    line: dict[str, Any] = {"benchmark": "ranks efficiency", "size": size, "ranks": ranks, "threads": 1}
    for way, facts in found.items():
        apart = 1 if way in WAYS[:2] else ranks
        ratios = [
            one["iteration_seconds"] / own["iteration_seconds"] / apart
            for one, own in zip(found["alone"], facts, strict=True)
        ]
        line[way] = round(median(ratios), 3)
        for key in ("iteration_seconds", "processor_seconds", "optimizer_share", "waiting_share"):
            line[f"{way}, {key}"] = round(median(one[key] for one in facts), 4)
    return line


if __name__ == "__main__":
    main()
