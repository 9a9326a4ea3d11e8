"""What patch distributions do to statistics that nothing prescribes, beside S2 and V alone.

    python benchmarks/patches.py [--data ../shared/data/micrographs] [--judge ../shared/judge/judge.py]
                                 [--only NAME ...] [--size 48] [--settings NAME ...] [key=value ...]

Prints one JSON line a micrograph and setting: the judge's errors (lags up to 16), iterations, and the processor time of
the whole run, which other work on the machine does not lengthen as it does seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from pathlib import Path

from _micrographs import files
from quality import NAMES, ROOT, SMALL, judged, run

WEIGHT, SIZES, FILTERS = (f"descriptors.patches.{key}" for key in ("weight", "sizes", "filters"))
SETTINGS: dict[str, list[str]] = {
    "S2+V": [],
    "corners": [f"{WEIGHT}=5", f"{SIZES}=[2]", f"{FILTERS}=4"],
    "small": [f"{WEIGHT}=1", f"{SIZES}=[3,6]", f"{FILTERS}=3"],
}


def processor_time() -> float:
    """Seconds that the processes which this one started and waited for have computed."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "micrographs")
    parser.add_argument("--judge", type=Path, default=ROOT.parent / "shared" / "judge" / "judge.py")
    parser.add_argument("--only", nargs="+", default=NAMES)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("overrides", nargs="*", help="settings, key=value")
    arguments = parser.parse_args()
    if not (arguments.data.is_dir() and arguments.judge.is_file()):
        sys.exit(f"{arguments.data}, {arguments.judge}: expected micrographs and the judge; see --help")
    images = files(arguments.data, arguments.only)
    common = ["optimizer.iterations=60", "runtime.threads=1", "run.report=false", *arguments.overrides]
    for name, image in images.items():
        periodic = ["target.periodic=true"] if name == SMALL else []
        for setting in arguments.settings:
            with tempfile.TemporaryDirectory() as temporary:
                place, before = Path(temporary) / "run", processor_time()
                summary = run(image, arguments.size, place, [*SETTINGS[setting], *periodic, *common])
                computed = processor_time() - before
                errors = judged(arguments.judge, place / "volume.zarr", image, periodic=bool(periodic))
            facts = {
                "benchmark": "patches",
                "micrograph": name,
                "size": arguments.size,
                "setting": setting,
                **{key: round(value, 5) for key, value in errors.items()},
                "iterations": summary["levels"][-1]["iterations"],
                "processor_seconds": round(computed, 1),
            }
            print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
