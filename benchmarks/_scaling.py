"""What `benchmarks/ranks.py --speed` starts under torchrun: the same work on one rank and on all, in alternation."""

from __future__ import annotations

import argparse
import json
from statistics import median

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
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
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
                    seconds[way].append(facts["iteration_seconds"])
                    print(
                        json.dumps({"benchmark": "ranks speed", "way": way, "round": turn} | facts),
                        flush=True,
                    )
        if comm.rank == 0:
            ratios = {
                way: [
                    one / time / (1 if way in WAYS[:2] else comm.size)
                    for one, time in zip(seconds["alone"], times, strict=True)
                ]
                for way, times in seconds.items()
            }
            told = {way: median(found) for way, found in ratios.items()}
            line = {"benchmark": "ranks efficiency", "size": arguments.size, "ranks": comm.size, "threads": 1}
            print(json.dumps(line | told), flush=True)
        workers.close()


if __name__ == "__main__":
    main()
