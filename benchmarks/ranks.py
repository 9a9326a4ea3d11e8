"""Is a run the same on 1, 2 and 3 ranks? Compares the losses of all iterations, the fields and the labels.

    python benchmarks/ranks.py [--shape 48 40 44] [--ranks 1 2 3] [key=value ...]

One thread a rank. Prints one JSON line.
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


def run(ranks: int, shape: list[int], out: Path, overrides: list[str]) -> Run:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    settings = [
        "micrograph.path=synthetic:gaussian",
        f"volume.shape={shape}".replace(" ", ""),
        "runtime.threads=1",
        "run.report=false",
        f"run.dir={out}",
        *overrides,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*launcher, "-m", "mcrdist", "reconstruct", *settings], check=True, stdout=sys.stderr, env=environment
    )
    return mcrdist.open(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=3, default=[48, 40, 44])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("overrides", nargs="*", help="settings, key=value")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        runs: list[Any] = [
            run(ranks, arguments.shape, Path(place) / str(ranks), arguments.overrides)
            for ranks in arguments.ranks
        ]
        losses = [[record["loss"] for record in one.metrics] for one in runs]
        first = runs[0]
        print(
            json.dumps(
                {
                    "benchmark": "ranks",
                    "shape": arguments.shape,
                    "ranks": arguments.ranks,
                    "iterations": len(losses[0]),
                    "same_losses": all(one == losses[0] for one in losses),
                    "same_field": all(bool((one.field == first.field).all()) for one in runs),
                    "same_phase": all(bool((one.phase == first.phase).all()) for one in runs),
                }
            )
        )


if __name__ == "__main__":
    main()
