"""How near a volume can come to a micrograph's S2 in the mean over its planes, whatever its voxels are.

    python benchmarks/realizable.py [--size 48] [--lags 16] [--periodic] [--only NAME ...] [--data DIRECTORY]

As `mcrdist characterize` tells it (mcrdist/spectrum.py says why there is such a thing), with more iterations. E(S2) of
Eq. 10, the mean over planes and directions, is at least `bound` for relaxed and for rounded volumes; `nearest` is what
the directions have when the error is spread by least squares. Both are found to about a hundredth of themselves, from
above, and may come out a little lower with a larger `--size`.

Prints one JSON line a micrograph. With `--periodic`, its S2 is that of runs with `target.periodic=true`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from _micrographs import files
from quality import NAMES, ROOT

from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.directions import AXES
from mcrdist.imagefile import read
from mcrdist.spectrum import nearest

ITERATIONS = 1500


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=48, help="of the periodic volume, in voxels")
    parser.add_argument("--lags", type=int, default=16, help="at most 16")
    parser.add_argument(
        "--periodic", action="store_true", help="pairs may cross the border of the micrograph"
    )
    parser.add_argument("--only", nargs="+", default=NAMES)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "micrographs")
    arguments = parser.parse_args()
    for name, path in files(arguments.data, arguments.only).items():
        image = read(path).array
        phase = (image == image.max()).astype(float)
        s2 = TwoPointCorrelation(arguments.lags).describe(phase, arguments.periodic)
        found = nearest(dict.fromkeys(range(3), s2), arguments.size, ITERATIONS)
        facts = {
            "benchmark": "realizable",
            "micrograph": name,
            "size": arguments.size,
            "lags": found.lags,
            "periodic": arguments.periodic,
            "nearest": round(found.mean, 5),
            "directions": {AXES[axis]: round(error, 5) for axis, error in found.errors.items()},
            "bound": round(found.bound, 5),
        }
        print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
