"""Reconstruct real volumes from three of their planes, and compare with what the volumes are.

    python benchmarks/truth.py [--data ../shared/data/volumes] [--only ketton separator_rods] [--size 128]
                               [--coarsen 1] [--workers 2] [--keep DIRECTORY] [key=value ...]

The planes in the middle of a volume, one normal to each axis, are the micrographs of a run with the settings given,
and of a Gaussian random field with their S2 (`method=gaussian`). Both have `--size` voxels a side. All three are
cut into boxes as large as fit into both the true volume and the made ones, and every box is measured as a volume
without periodicity, as `mcrdist analyze truth.path=` does; what is compared are means over boxes, and the true boxes'
scatter is shown.

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
from mcrdist.analysis.material import Phase
from mcrdist.analysis.volume.measure import Job, Measured, measure
from mcrdist.analysis.volume.truth import Beside, compare, pieces
from mcrdist.analysis.volume.workers import Crew
from mcrdist.analysis.volume.workers import workers as started
from mcrdist.config import AnalyzeConfig, DaskConfig, MiddleConfig, VolumeSourceConfig

ROOT = Path(__file__).resolve().parent.parent
VOLUMES = {
    "ketton": ("ketton.zip", {1: "solid", 0: "pores"}),
    "separator_rods": ("separator_rods.tif", {1: "phase 1", 0: "phase 0"}),
}
#: The same for a phase and for the rest.
SHARED = ("volume fraction", "boundaries", "specific", "integral", "anisotropy", "Euler", "S2 in space")
#: Follow from others: the tortuosity factor from fraction and diffusivity; or are of this box alone.
LEFT_OUT = ("tortuosity", "local thickness, median")
#: The window of S2 in space.
LAGS = 24


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
    volumes = {"truth": truth, "ours": ours, "gaussian": random}
    found = analysed(volumes, shape, phases, place, arguments.workers)
    true = found["truth"]
    wins = losses = 0
    mine, other = (
        {label: compare(found[who][label], true[label]) for label in phases} for who in ("ours", "gaussian")
    )
    for phase, said in phases.items():
        for statistic, direction, unit, values in statistics(phase, mine[phase], other[phase], true[phase]):
            value, scatter, own, others = values
            near = nearer(value, own, others)
            wins += near == "ours"
            losses += near == "gaussian"
            yield {
                "benchmark": f"truth_{name}",
                "size": arguments.size,
                "phase": said,
                "statistic": statistic,
                "direction": direction,
                "unit": unit,
                "truth": rounded(value),
                "scatter": rounded(scatter),
                "ours": rounded(own),
                "gaussian": rounded(others),
                "nearer": near,
            }
    yield {
        "benchmark": "truth",
        "volume": name,
        "size": arguments.size,
        "coarsen": arguments.coarsen,
        "settings": " ".join(arguments.overrides),
        "boxes": [len(own[1]) for own in found.values()],
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
            "ours": flow(mine[phase]),
            "gaussian": flow(other[phase]),
            "scatter": spread(mine[phase]),
            "by_fraction": by_fraction(true[phase], found["ours"][phase]),
        }


def reconstructed(out: Path, settings: Sequence[str]) -> NDArray[np.uint8]:
    """The labels of a run."""
    command = [sys.executable, "-m", "mcrdist", "reconstruct", *settings, f"run.dir={out}"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return np.asarray(mcrdist.open(out).phase)


def analysed(
    volumes: dict[str, NDArray[np.uint8]],
    shape: tuple[int, int, int],
    phases: dict[int, str],
    place: Path,
    workers: int,
) -> dict[str, dict[int, list[Measured]]]:
    """Measure all boxes of every volume, phase by phase."""
    lags = min(LAGS, min(shape) // 2)
    todo: dict[str, dict[int, list[Job]]] = {}
    for name, volume in volumes.items():
        path = place / f"boxed_{name}.npy"
        np.save(path, volume)
        there = VolumeSourceConfig(path=str(path))
        config = AnalyzeConfig(there, middle=MiddleConfig(edge=None))
        todo[name] = {
            label: pieces(there, Phase(label, label, said, ""), shape, lags, config, most=4096)
            for label, said in phases.items()
        }
    work = sum(job.work for own in todo.values() for jobs in own.values() for job in jobs)
    with started(DaskConfig(workers=workers)) as client, Crew(client, work) as crew:
        return {
            name: {
                label: [measure(job, crew, f"{name}, {phases[label]}") for job in jobs]
                for label, jobs in own.items()
            }
            for name, own in todo.items()
        }


def statistics(
    phase: int, mine: Beside, other: Beside, true: Sequence[Measured]
) -> Iterator[tuple[str, str, str, tuple[float, float, float, float]]]:
    """Of everything that is counted: name, direction, unit; truth, its scatter, ours, and the random field's."""
    units = {(row.statistic, row.direction): row.unit for row in [*true[0].rows, *true[0].inside]}
    for (name, axis), (own, value, scatter) in mine.values.items():
        if not name.startswith(LEFT_OUT) and (phase == 1 or not name.startswith(SHARED)):
            yield name, axis, units[name, axis], (value, scatter, own, other.values[name, axis][0])
    for (name, axis), (own, scatter) in mine.curves.items():
        if phase == 1 or not name.startswith(SHARED):
            yield f"E({name})", axis, "", (0.0, scatter, own, other.curves[name, axis][0])


def nearer(truth: float, ours: float, other: float) -> str:
    """Who is nearer; "-" where nobody is, or where a value is not known of the truth or of both."""
    a, b = abs(ours - truth), abs(other - truth)
    if math.isnan(a) or math.isnan(b):
        return "-" if math.isnan(a) == math.isnan(b) else "gaussian" if math.isnan(a) else "ours"
    if math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12):
        return "-"
    return "ours" if a < b else "gaussian"


FLOWS = [("effective diffusivity", axis) for axis in "zyx"]


def flow(own: Beside) -> list[float | None]:
    """Relative error of the diffusivity along z, y, x, and of its mean."""
    pairs = [(own.values[key][1], own.values[key][0]) for key in FLOWS]
    pairs.append(tuple(np.mean(pairs, axis=0)))
    return [rounded(b / a - 1) if a > 0 else None for a, b in pairs]


def spread(own: Beside) -> float | None:
    """Relative scatter of the true boxes' diffusivity, mean over the axes."""
    values = [own.values[key] for key in FLOWS]
    return rounded(float(np.mean([s / m for _, m, s in values if m > 0] or [math.nan])))


def by_fraction(truth: Sequence[Measured], ours: Sequence[Measured]) -> float | None:
    """How far the diffusivity of true boxes with our volume fraction is from the mean of all of them, relative.

    By a power law D = a φ^b through the true boxes: what is amiss because three planes have another fraction than the
    volume, and not because of the reconstruction. None where boxes are few or let nothing through.
    """

    def conducts(box: Measured) -> float:
        return float(np.mean([row.value for row in box.inside if (row.statistic, row.direction) in FLOWS]))

    fraction, flow = np.array([(box.fraction, conducts(box)) for box in truth]).T
    if len(truth) < 4 or flow.min() <= 0:
        return None
    power, constant = np.polyfit(np.log(fraction), np.log(flow), 1)
    at = np.mean([box.fraction for box in ours])
    return rounded(float(np.exp(constant + power * np.log(at)) / flow.mean() - 1))


def rounded(value: float) -> float | None:
    """Five digits; None for NaN, which JSON has not."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


if __name__ == "__main__":
    main()
