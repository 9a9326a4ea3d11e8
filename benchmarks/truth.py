"""Reconstruct real volumes from three of their planes, and compare with what the volumes are.

    python benchmarks/truth.py [--data ../shared/data/volumes] [--only ketton separator_rods] [--size 128]
                               [--coarsen 1] [--workers 2] [--keep DIRECTORY] [key=value ...]

The planes in the middle of a volume, one normal to each axis, are the micrographs of a run with the settings given,
and of a Gaussian random field with their S2 (`method=gaussian`). Both have `--size` voxels a side. All three are
cut into boxes as large as fit into both the true volume and the made ones, and every box is analysed as a volume
without periodicity by `mcrdist analyze`; what is compared are means over boxes, and the true boxes' scatter is shown.

Prints one JSON line a statistic ("benchmark": "truth_NAME"), then one that counts on how many of them the
reconstruction is nearer to the truth than the random field ("truth"), and one a phase with the errors of its
diffusivity ("truth_flow"). What the two phases share is
counted once; statistics on which all agree are not counted. `--coarsen 2` makes everything from the volume averaged
over 2 x 2 x 2 voxels: the same structure in an eighth of the voxels.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

import mcrdist

ROOT = Path(__file__).resolve().parent.parent
VOLUMES = {
    "ketton": ("ketton.zip", {1: "solid", 0: "pores"}),
    "separator_rods": ("separator_rods.tif", {1: "phase 1", 0: "phase 0"}),
}
#: The same for a phase and for the rest.
SHARED = ("volume fraction", "boundaries", "specific", "integral", "anisotropy", "Euler", "E(S2")
#: Follow from others: the tortuosity factor from fraction and diffusivity; or are of this box alone.
LEFT_OUT = ("tortuosity", "representative", "local thickness, median")
#: The window of S2 in space.
LAGS = 24

Key = tuple[int, str, str, str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "volumes")
    parser.add_argument("--only", nargs="+", choices=VOLUMES, default=list(VOLUMES))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--coarsen", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="threads of the analysis")
    parser.add_argument("--keep", type=Path, default=None, help="keep the run directories here")
    parser.add_argument("overrides", nargs="*", help="settings of the run, key=value")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.only:
            file, phases = VOLUMES[name]
            if not (arguments.data / file).is_file():
                sys.exit(f"{arguments.data / file}: expected a volume; see --help")
            place = (arguments.keep or Path(temporary)) / name
            place.mkdir(parents=True, exist_ok=True)
            truth = coarsened(load(arguments.data / file), arguments.coarsen)
            for line in compared(name, truth, phases, place, arguments):
                print(json.dumps(line), flush=True)


def load(path: Path) -> NDArray[np.uint8]:
    """Labels 0 and 1, of a TIFF stack that may be in an archive."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
            volume = tifffile.imread(file)
    else:
        volume = tifffile.imread(path)
    return np.asarray(volume > 0, np.uint8)


def coarsened(volume: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The phase that fills more of each block of voxels; of equal shares, this one and that in turn."""
    z, y, x = (n // factor for n in volume.shape)
    cut = volume[: z * factor, : y * factor, : x * factor]
    share = cut.reshape(z, factor, y, factor, x, factor).mean((1, 3, 5))
    turn = np.indices(share.shape).sum(0) % 2 == 0
    return np.where(share == 0.5, turn, share > 0.5).astype(np.uint8)


def compared(
    name: str, truth: NDArray[np.uint8], phases: dict[int, str], place: Path, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """The lines of a volume."""
    micrographs = []
    for axis, normal in enumerate("zyx"):
        path = place / f"plane_{normal}.npy"
        np.save(path, np.take(truth, truth.shape[axis] // 2, axis))
        micrographs.append(f"micrograph.{normal}.path={path}")
    common = [*micrographs, f"volume.size={arguments.size}", "seed=0"]
    start = time.perf_counter()
    ours = reconstructed(place / "ours", [*common, *arguments.overrides])
    seconds = time.perf_counter() - start
    random = reconstructed(place / "gaussian", [*common, "method=gaussian"])
    shape = tuple(min(n, arguments.size) for n in truth.shape)
    found = {
        of: [
            analysed(box, place / of / str(k), phases, arguments.workers)
            for k, box in enumerate(boxes(v, shape))
        ]
        for of, v in (("boxes_truth", truth), ("boxes_ours", ours), ("boxes_gaussian", random))
    }
    true, mine, other = (means(own, found["boxes_truth"]) for own in found.values())
    wins = losses = 0
    for key, (value, scatter) in true.items():
        phase, statistic, direction, unit = key
        near = nearer(value, mine[key][0], other[key][0])
        wins += near == "ours"
        losses += near == "gaussian"
        yield {
            "benchmark": f"truth_{name}",
            "size": arguments.size,
            "phase": phases[phase],
            "statistic": statistic,
            "direction": direction,
            "unit": unit,
            "truth": rounded(value),
            "scatter": rounded(scatter),
            "ours": rounded(mine[key][0]),
            "gaussian": rounded(other[key][0]),
            "nearer": near,
        }
    yield {
        "benchmark": "truth",
        "volume": name,
        "size": arguments.size,
        "coarsen": arguments.coarsen,
        "settings": " ".join(arguments.overrides),
        "boxes": [len(own) for own in found.values()],
        "nearer": wins,
        "of": wins + losses,
        "share": round(wins / max(1, wins + losses), 3),
        "planes_fraction": round(float(np.mean([np.load(p.split("=")[1]).mean() for p in micrographs])), 4),
        "seconds": round(seconds, 1),
    }
    for phase, said in phases.items():
        yield {
            "benchmark": "truth_flow",
            "volume": name,
            "size": arguments.size,
            "settings": " ".join(arguments.overrides),
            "phase": said,
            "ours": flow(phase, true, mine),
            "gaussian": flow(phase, true, other),
            "scatter": spread(phase, true),
            "by_fraction": by_fraction(phase, found["boxes_truth"], found["boxes_ours"]),
        }


def reconstructed(out: Path, settings: Sequence[str]) -> NDArray[np.uint8]:
    """The labels of a run."""
    command = [sys.executable, "-m", "mcrdist", "reconstruct", *settings, f"run.dir={out}"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return np.asarray(mcrdist.open(out).phase)


def boxes(volume: NDArray[np.uint8], shape: tuple[int, ...]) -> Iterator[NDArray[np.uint8]]:
    """Cut a volume into boxes; what is left over at the ends stays out, the same at both."""
    counts = [n // edge for n, edge in zip(volume.shape, shape, strict=True)]
    first = [(n - c * edge) // 2 for n, c, edge in zip(volume.shape, counts, shape, strict=True)]
    for index in np.ndindex(*counts):
        corner = [f + k * edge for f, k, edge in zip(first, index, shape, strict=True)]
        yield volume[tuple(slice(c, c + edge) for c, edge in zip(corner, shape, strict=True))]


def analysed(
    box: NDArray[np.uint8], place: Path, phases: Sequence[int] | dict[int, str], workers: int
) -> dict[int, Any]:
    """Rows and curves of each phase."""
    place.parent.mkdir(exist_ok=True)
    np.save(place.with_suffix(".npy"), box)
    found = {}
    for phase in phases:
        result = mcrdist.analyze(
            volume={"path": place.with_suffix(".npy"), "phase": phase},
            dask={"workers": workers},
            lags=LAGS,
            middle={"edge": None},
            parts={"edges": []},
            output={"dir": f"{place}_{phase}"},
        )
        content = json.loads((result.path / "analysis.json").read_text())
        found[phase] = (result.rows, content["phases"][str(phase)])
    return found


def means(own: list[dict[int, Any]], truth: list[dict[int, Any]]) -> dict[Key, tuple[float, float]]:
    """Mean and standard deviation over boxes of every statistic that is counted.

    Of curves, how far the mean over boxes is from the true one, relative: 0 for the truth.
    """
    found: dict[Key, tuple[float, float]] = {}
    for phase in own[0]:
        values: dict[Key, list[float]] = {}
        for box in own:
            for row in box[phase][0]:
                if not row.statistic.startswith(LEFT_OUT):
                    values.setdefault((phase, row.statistic, row.direction, row.unit), []).append(row.value)
        for key, numbers in values.items():
            found[key] = mean_and_scatter(numbers)
        wanted = curves([box[phase][1] for box in truth])
        single = [curves([box[phase][1]]) for box in own] if own is truth else []
        for (statistic, axis), curve in curves([box[phase][1] for box in own]).items():
            key = (phase, statistic, axis, "")
            others = [apart(one[statistic, axis], wanted[statistic, axis]) for one in single]
            scatter = float(np.mean(others)) if len(others) > 1 else math.nan
            found[key] = apart(curve, wanted[statistic, axis]), scatter
    return {key: value for key, value in found.items() if key[0] == 1 or not key[1].startswith(SHARED)}


def mean_and_scatter(numbers: Sequence[float]) -> tuple[float, float]:
    known = [value for value in numbers if math.isfinite(value)]
    if not known:
        return math.nan, math.nan
    return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else math.nan


def curves(content: Sequence[dict[str, Any]]) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Means over boxes: lineal path, S2 in space, and the distributions of chords and of distances (cumulative)."""
    found: dict[tuple[str, str], NDArray[np.float64]] = {}
    found["E(S2 in space)", ""] = np.mean([own["s2"] for own in content], axis=0)
    for axis in "zyx":
        found["E(lineal path)", axis] = np.mean([own["lineal_path"][axis] for own in content], axis=0)
        chords = np.sum([own["chords"][axis] for own in content], axis=0)
        found["E(chord lengths)", axis] = beyond(chords)
    longest = max(len(own["distances"]) for own in content)
    distances = sum(np.pad(own["distances"], (0, longest - len(own["distances"]))) for own in content)
    found["E(distances to the boundary)", ""] = beyond(np.asarray(distances))
    return found


def beyond(counts: NDArray[Any]) -> NDArray[np.float64]:
    """The share in and beyond each bin."""
    return np.asarray(np.cumsum(counts[::-1])[::-1] / max(1, counts.sum()), np.float64)


def apart(curve: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """‖a − b‖ / ‖b‖ (Eq. 10), the shorter curve continued by zeros."""
    if curve.ndim == 1:
        length = max(len(curve), len(wanted))
        curve, wanted = (np.pad(c, (0, length - len(c))) for c in (curve, wanted))
    return float(np.linalg.norm(curve - wanted) / np.linalg.norm(wanted))


def nearer(truth: float, ours: float, other: float) -> str:
    """Who is nearer; "-" where nobody is, or where a value is not known of the truth or of both."""
    a, b = abs(ours - truth), abs(other - truth)
    if math.isnan(a) or math.isnan(b):
        return "-" if math.isnan(a) == math.isnan(b) else "gaussian" if math.isnan(a) else "ours"
    if math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12):
        return "-"
    return "ours" if a < b else "gaussian"


def flow(
    phase: int, true: dict[Key, tuple[float, float]], own: dict[Key, tuple[float, float]]
) -> list[float]:
    """Relative error of the diffusivity along z, y, x, and of its mean."""
    pairs = [
        (true[phase, "effective diffusivity", a, ""][0], own[phase, "effective diffusivity", a, ""][0])
        for a in "zyx"
    ]
    pairs.append(tuple(np.mean(pairs, axis=0)))
    return [rounded(b / a - 1) if a > 0 else None for a, b in pairs]


def spread(phase: int, true: dict[Key, tuple[float, float]]) -> float | None:
    """Relative scatter of the true boxes' diffusivity, mean over the axes."""
    values = [true[phase, "effective diffusivity", a, ""] for a in "zyx"]
    return rounded(float(np.mean([s / m for m, s in values if m > 0] or [math.nan])))


def by_fraction(phase: int, truth: list[dict[int, Any]], ours: list[dict[int, Any]]) -> float | None:
    """How far the diffusivity of true boxes with our volume fraction is from the mean of all of them, relative.

    By a power law D = a φ^b through the true boxes: what is amiss because three planes have another fraction than the
    volume, and not because of the reconstruction. None where boxes are few or let nothing through.
    """

    def measured(box: dict[int, Any]) -> tuple[float, float]:
        rows = box[phase][0]
        flows = [row.value for row in rows if row.statistic == "effective diffusivity"]
        fraction = next(row.value for row in rows if row.statistic == "volume fraction")
        return fraction, float(np.mean(flows))

    fraction, flow = np.array([measured(box) for box in truth]).T
    if len(truth) < 4 or flow.min() <= 0:
        return None
    power, constant = np.polyfit(np.log(fraction), np.log(flow), 1)
    at = np.mean([measured(box)[0] for box in ours])
    return rounded(float(np.exp(constant + power * np.log(at)) / flow.mean() - 1))


def rounded(value: float) -> float | None:
    """Five digits; None for NaN, which JSON has not."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


if __name__ == "__main__":
    main()
