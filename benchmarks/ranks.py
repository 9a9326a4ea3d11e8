"""Is a run the same on 1, 2 and 3 ranks? Compares the losses of all iterations, the fields and the labels.

    python benchmarks/ranks.py [--shape 48 40 44] [--ranks 1 2 3] [key=value ...]
    python benchmarks/ranks.py --speed [--size 256] [--processes 2] [--rounds 3] [--iterations 12]

One thread a rank; several ranks look at each other's planes in memory, and in another run send them. Prints one JSON
line. With `--speed`, what an iteration takes: of one rank alone, of ranks side by side that do not know of each other,
and of ranks together in both ways; all in one program, in turn, a line each, and last the efficiency against one rank
alone, medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import mcrdist
from mcrdist.store.run import Run


def launch(ranks: int, command: list[str], out: Any) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    subprocess.run([*launcher, *command], check=True, stdout=out, env={**os.environ, "OMP_NUM_THREADS": "1"})


def run(ranks: int, shared: bool, shape: list[int], out: Path, overrides: list[str]) -> Run:
    settings = [
        "micrograph.path=synthetic:gaussian",
        f"volume.shape={shape}".replace(" ", ""),
        "runtime.threads=1",
        f"runtime.shared_memory={str(shared).lower()}",
        "run.report=false",
        f"run.dir={out}",
        *overrides,
    ]
    launch(ranks, ["-m", "mcrdist", "reconstruct", *settings], sys.stderr)
    return mcrdist.open(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=3, default=[48, 40, 44])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("overrides", nargs="*", help="settings, key=value")
    arguments = parser.parse_args()
    if arguments.speed:
        given = {name: str(getattr(arguments, name)) for name in ("size", "rounds", "iterations")}
        options = [word for name, value in given.items() for word in (f"--{name}", value)]
        launch(arguments.processes, [str(Path(__file__).with_name("_scaling.py")), *options], None)
        return
    ways = [(ranks, shared) for ranks in arguments.ranks for shared in (True, False)[: min(ranks, 2)]]
    with tempfile.TemporaryDirectory() as place:
        runs: list[Any] = [
            run(*way, arguments.shape, Path(place) / str(number), arguments.overrides)
            for number, way in enumerate(ways)
        ]
        losses = [[record["loss"] for record in one.metrics] for one in runs]
        first = runs[0]
        print(
            json.dumps(
                {
                    "benchmark": "ranks",
                    "shape": arguments.shape,
                    "ranks": [ranks for ranks, _ in ways],
                    "shared_memory": [ranks > 1 and shared for ranks, shared in ways],
                    "iterations": len(losses[0]),
                    "same_losses": all(one == losses[0] for one in losses),
                    "same_field": all(bool((one.field == first.field).all()) for one in runs),
                    "same_phase": all(bool((one.phase == first.phase).all()) for one in runs),
                }
            )
        )


if __name__ == "__main__":
    main()
