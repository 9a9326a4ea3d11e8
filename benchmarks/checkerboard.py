"""The checkerboard of the paper's Fig. 2: error against iterations and seconds, of a gradient method and of annealing.

    python benchmarks/checkerboard.py [--size 64] [--sweeps 2000] [--seed 0] [--only lbfgsb] [key=value ...]

A checkerboard is reconstructed in two dimensions from its two-point correlation, on all lags of the periodic image.
Prints one JSON line a recorded iteration (of the gradient method) or sweep (one attempted swap a pixel), and one at
the end of each run with the errors of the rounded image and its pixels that differ from the checkerboard, wherever that
one lies.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import mcrdist
from mcrdist.synthetic import Checkerboard


def wrong_pixels(image: NDArray[np.uint8], found: NDArray[np.uint8]) -> int:
    """Pixels that differ, for the best of all translations of a periodic image."""
    spectra = np.fft.rfft2(1.0 - 2.0 * image).conj() * np.fft.rfft2(1.0 - 2.0 * found)
    agreement = np.fft.irfft2(spectra, s=image.shape).max()
    return round((image.size - agreement) / 2)


def run(name: str, size: int, iterations: int, seed: int, overrides: list[str]) -> None:
    image = Checkerboard(square=size / 8).draw((size, size), np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / name
        result = mcrdist.reconstruct(
            *overrides,
            micrograph=image,
            volume={"shape": [size, size]},
            target={"periodic": True, "lags": size // 2},
            initial="noise",
            optimizer={"name": name, "iterations": iterations},
            runtime={"threads": 1},
            run={"dir": str(place), "report": False},
            seed=seed,
        )
        facts = {"benchmark": "checkerboard", "optimizer": name, "size": size, "seed": seed}
        for line in (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            kept = {
                key: record[key] for key in ("level", "stage", "iteration", "evaluations", "loss", "seconds")
            }
            print(json.dumps(facts | kept | {"error": record["errors"]["s2"]}))
        facts |= {
            "rounded": next(iter(result.summary["errors"]["rounded"].values())),
            "wrong_pixels": wrong_pixels(image, result.phase.reshape(image.shape)),
            "seconds": result.summary["seconds"],
        }
        print(json.dumps(facts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=2000, help="of the gradient method, at most")
    parser.add_argument("--sweeps", type=int, default=2000, help="of the annealing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("lbfgsb", "yeong_torquato"), default=None)
    parser.add_argument("overrides", nargs="*", help="settings, key=value")
    arguments = parser.parse_args()
    for name, iterations in (("lbfgsb", arguments.iterations), ("yeong_torquato", arguments.sweeps)):
        if arguments.only in (None, name):
            run(name, arguments.size, iterations, arguments.seed, arguments.overrides)


if __name__ == "__main__":
    main()
