"""Error against wall time: the settings that decide how many iterations a volume needs, on every micrograph.

    python benchmarks/convergence.py [--size 128] [--only NAME ...] [--variants NAME ...] [--iterations 60]
                                     [-- key=value ...]

Each variant changes one thing of the default. Prints one JSON line a run: `relaxed` has [seconds, E(S2)] of the field
on the finest level, the seconds counted from the start of the run so that what a start costs is in them; then what the
judge says of the rounded volume, and the seconds of the whole run. When a micrograph is done, a line has E(S2) of all
its rounded volumes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from _micrographs import files
from quality import NAMES, ROOT, judged, run

#: What is tried, beside the default: a spectral start on the only level, four pairs of history.
VARIANTS = {
    "default": [],
    "levels": ["levels.count={levels}", "levels.coarsest={coarsest}", "initial=spectral"],
    "noise": ["initial=noise"],
    "noise, levels": ["initial=noise", "levels.count={levels}", "levels.coarsest={coarsest}"],
    "2 pairs": ["optimizer.history=2"],
    "8 pairs": ["optimizer.history=8"],
    "16 pairs": ["optimizer.history=16"],
}
COARSEST = 16


def curve(metrics: Path, points: int = 8) -> list[list[float]]:
    """[seconds, E(S2)] of the relaxing field at the finest level, at equal intervals."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in metrics.read_text().splitlines()]
    finest = [line for line in lines if line["level"] == lines[-1]["level"] and line["stage"] == "relax"]
    every = max(1, len(finest) // points)
    return [
        [round(line["seconds"], 1), round(line["errors"]["s2"], 5)] for line in finest[every - 1 :: every]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "micrographs")
    parser.add_argument("--judge", type=Path, default=ROOT.parent / "shared" / "judge" / "judge.py")
    parser.add_argument("--only", nargs="+", default=[name for name in NAMES if "64x64" not in name])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("overrides", nargs="*", help="settings, key=value")
    arguments = parser.parse_args()
    images = files(arguments.data, arguments.only)
    levels = (arguments.size // COARSEST).bit_length()
    for name, image in images.items():
        of = {"micrograph": name, "size": arguments.size}
        found = {}
        for variant in arguments.variants:
            overrides = [part.format(levels=levels, coarsest=COARSEST) for part in VARIANTS[variant]]
            with tempfile.TemporaryDirectory() as temporary:
                out = Path(temporary) / "run"
                overrides += [f"optimizer.iterations={arguments.iterations}", "run.report=false"]
                overrides += arguments.overrides
                summary = run(image, arguments.size, out, overrides)
                errors = judged(arguments.judge, out / "volume.zarr", image, periodic=False)
                relaxed = curve(out / "metrics.jsonl")
            found[variant] = round(errors["E_S2"], 5)
            facts = {
                "benchmark": "convergence run",
                **of,
                "variant": variant,
                "threads": summary["threads"],
                "relaxed": relaxed,
                **{key: round(value, 5) for key, value in errors.items()},
                "seconds": round(summary["seconds"], 1),
            }
            print(json.dumps(facts), flush=True)
        print(json.dumps({"benchmark": "convergence", **of, **found}), flush=True)


if __name__ == "__main__":
    main()
