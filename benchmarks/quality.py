"""Reconstruct micrographs with the default settings and have the rounded volumes judged.

    python benchmarks/quality.py [--data ../shared/data/micrographs] [--judge ../shared/judge/judge.py]
                                 [--only NAME ...] [--size 128] [--keep DIRECTORY] [key=value ...]

Prints one JSON line a micrograph: the judge's errors (lags up to 16), the share of grey voxels before rounding, and
time and memory of the run. `pymks_ms_64x64_1` is made at 64 and judged as periodic.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _judge import ask
from _micrographs import files

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("ceramics_resized", "copolymer_resized", "pymks_ms_256x256_1", "alloy_resized", "pymks_ms_64x64_1")
SMALL = "pymks_ms_64x64_1"


def run(image: Path, size: int, out: Path, overrides: list[str]) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "mcrdist",
        "reconstruct",
        f"micrograph.path={image}",
        f"volume.size={size}",
    ]
    subprocess.run([*command, f"run.dir={out}", "seed=0", *overrides], check=True, stdout=sys.stderr)
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def judged(judge: Path, volume: Path, image: Path, periodic: bool) -> dict[str, float]:
    mean: dict[str, float] = ask(judge, volume, image, periodic)["mean"]
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "micrographs")
    parser.add_argument("--judge", type=Path, default=ROOT.parent / "shared" / "judge" / "judge.py")
    parser.add_argument("--only", nargs="+", default=NAMES)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--keep", type=Path, default=None, help="keep the run directories here")
    parser.add_argument("overrides", nargs="*", help="settings, key=value")
    arguments = parser.parse_args()
    if not (arguments.data.is_dir() and arguments.judge.is_file()):
        sys.exit(f"{arguments.data}, {arguments.judge}: expected micrographs and the judge; see --help")
    images = files(arguments.data, arguments.only)
    with tempfile.TemporaryDirectory() as temporary:
        place = arguments.keep or Path(temporary)
        for name, image in images.items():
            small = name == SMALL
            size = 64 if small else arguments.size
            overrides = [*arguments.overrides, *(["target.periodic=true"] * small)]
            summary = run(image, size, place / name, overrides)
            errors = judged(arguments.judge, place / name / "volume.zarr", image, periodic=small)
            facts = {
                "benchmark": "quality",
                "micrograph": name,
                "size": size,
                **{key: round(value, 5) for key, value in errors.items()},
                "grey_fraction": summary["grey_fraction"],
                "seconds": round(summary["seconds"], 1),
                "memory_GB": round(summary["memory"] / 1e9, 2),
                "ranks": summary["ranks"],
                "threads": summary["threads"],
            }
            print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
