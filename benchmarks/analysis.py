"""`mcrdist analyze` on volumes of growing size: seconds, seconds a voxel, and the memory of the process.

    python benchmarks/analysis.py [--sizes 64 128 256] [--workers 1] [--all]

All statistics but those of boxes inside the volume (transport, local thickness, whether it is representative), whose
cost does not grow with it; with `--all` those too, as `mcrdist analyze` does by default.

Every volume is a Gaussian structure of 64 x 64 x 64 voxels, repeated, so that all sizes have the same structure in
them. The volume is written in slabs and analysed in a process of its own. Prints one JSON line a size.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _timing import seconds
from scipy import ndimage

import mcrdist
from mcrdist.store import VolumeWriter

TILE, WIDTH, FRACTION = 64, 3.0, 0.4
#: Of boxes inside the volume, at a cost that does not grow with it.
WITHOUT = {"transport": {"enabled": False}, "middle": {"thickness": False}, "parts": {"edges": []}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--all", action="store_true", help="with the boxes inside")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measure(arguments.one, arguments.sizes[0], arguments.workers, arguments.all)))
        return
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "volume.zarr"
            write(path, size)
            command = [sys.executable, __file__, "--one", str(path), "--sizes", str(size)]
            more = ["--all"] if arguments.all else []
            subprocess.run([*command, "--workers", str(arguments.workers), *more], check=True)


def write(path: Path, size: int) -> None:
    """Write a volume as a run would."""
    noise = np.random.default_rng(0).standard_normal((TILE,) * 3)
    smooth = ndimage.gaussian_filter(noise, WIDTH, mode="wrap")
    tile = (smooth > np.quantile(smooth, 1 - FRACTION)).astype(np.uint8)
    writer = VolumeWriter.create(path, [(size, size, size)])
    for z in range(0, size, writer.depth):
        planes = np.arange(z, min(z + writer.depth, size)) % TILE
        block = tile[planes][:, np.arange(size) % TILE][:, :, np.arange(size) % TILE]
        writer.write_phase(z, np.ascontiguousarray(block))
    writer.finish_phase()


def measure(path: Path, size: int, workers: int, everything: bool) -> dict[str, float | str]:
    """Analyse the volume at `path`; what has to be imported is before."""
    write(path.parent / "first.zarr", 16)
    without = {} if everything else WITHOUT
    mcrdist.analyze(volume={"path": path.parent / "first.zarr"}, dask={"workers": workers}, **without)
    settings = {"volume": {"path": path}, "dask": {"workers": workers}, **without}
    took = seconds(lambda: mcrdist.analyze(output={"dir": path.parent / "analysis"}, **settings))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "benchmark": "analysis_all" if everything else "analysis",
        "size": size,
        "workers": workers,
        "seconds": round(took, 2),
        "nanoseconds_a_voxel": round(1e9 * took / size**3, 1),
        "memory": peak,
    }


if __name__ == "__main__":
    main()
