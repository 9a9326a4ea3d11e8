"""Run directories made without a reconstruction, for the tests of store and analysis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from mcrdist.descriptors.correlation import two_point
from mcrdist.descriptors.variation import variation
from mcrdist.store import Run, RunDirectory, VolumeWriter
from mcrdist.store.run import environment

AXES = ("z", "y", "x")


def smooth_field(shape: Sequence[int], width: Sequence[float], fraction: float, seed: int) -> np.ndarray:
    """A relaxed field: a smoothed noise cut softly at a volume fraction."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), width, mode="wrap")
    level = np.quantile(noise, 1 - fraction)
    return np.clip(0.5 + (noise - level) / (0.08 * noise.std()), 0, 1).astype(np.float32)


def smooth_phase(
    shape: tuple[int, int, int], width: float = 1.5, fraction: float = 0.4, seed: int = 0
) -> np.ndarray:
    """Where such a field, of the same width in all directions, is above one half."""
    return smooth_field(shape, (width,) * 3, fraction, seed) > 0.5


def build(
    path: Path,
    shape: tuple[int, int, int] = (64, 64, 64),
    *,
    width: tuple[float, float, float] = (3.0, 3.0, 3.0),
    micrograph: int = 96,
    lags: int = 20,
    method: str = "descriptors",
    status: str = "complete",
    pixel_size: float | None = 0.25,
    separate: bool = False,
    source: str = "sem.tif",
    levels: int = 3,
) -> Run:
    """A run directory as a reconstruction leaves it; `status` "killed" lacks volume and summary."""
    run = RunDirectory.create(
        path,
        {"micrograph": {"path": source}, "volume": {"shape": list(shape)}, "method": method, "seed": 0},
        environment(ranks=2),
    )
    fields = [
        smooth_field([n >> k for n in shape], [w / 2**k for w in width], 0.36, k) for k in range(levels)
    ]
    phase = (fields[0] >= 0.5).astype(np.uint8)
    targets: dict[str, Any] = {"lags": lags, "periodic": False}
    wide = {"z": (width[1], width[2]), "y": (width[0], width[2]), "x": (width[0], width[1])}
    for number, axis in enumerate(AXES):
        seed = number if separate else 0
        grey = smooth_field((micrograph, micrograph), wide[axis], 0.36, 90 + seed)
        planes = np.moveaxis(phase, number, 0).astype(float)
        # A mean over planes, disturbed a little: what a good reconstruction would have been asked for.
        s2 = two_point(planes, lags, True).mean(0) * (1 + 0.01 * np.cos(np.arange(lags + 1) / 4))
        targets[f"{axis}/s2"] = s2
        targets[f"{axis}/variation"] = variation(planes, True).mean() * 1.01
        targets[f"{axis}/volume_fraction"] = s2[lags, 0]
        targets[f"{axis}/micrograph"] = (grey >= 0.5).astype(np.uint8)
        if separate:
            targets[f"{axis}/grey"] = np.rint(255 * grey).astype(np.uint8)
        targets[f"{axis}/phase"] = 1
        targets[f"{axis}/source"] = source
    np.savez(run.targets, **targets)
    if method == "descriptors":
        _write_metrics(run, shape, levels, 12 if status == "killed" else 60)
    if status == "killed":
        return Run.open(run.path)
    size = None if pixel_size is None else (pixel_size,) * 3
    writer = VolumeWriter.create(run.volume, [f.shape for f in fields], size, "um")
    for level, field in enumerate(fields):
        for z in range(0, len(field), writer.depth):
            writer.write_field(level, z, field[z : z + writer.depth])
    for z in range(0, len(phase), writer.depth):
        writer.write_phase(z, phase[z : z + writer.depth])
    writer.finish_phase()
    run.write_summary(_summary(shape, method, status, levels, fields[0], phase))
    return Run.open(run.path)


def _write_metrics(run: RunDirectory, shape: Sequence[int], levels: int, iterations: int) -> None:
    rng = np.random.default_rng(0)
    evaluations, seconds = 0, 0.0
    with run.metrics() as metrics:
        for level in range(levels):
            coarse = levels - 1 - level
            start = 0.3 / 2**level
            for i in range(iterations):
                evaluations += 1 + (i % 9 == 0)
                seconds += 0.4 / 6**coarse
                error = start * np.exp(-i / 14) + 0.005 + 0.0004 * rng.random()
                metrics.write(
                    {
                        "level": level,
                        "shape": [n >> coarse for n in shape],
                        "iteration": i,
                        "loss": 40 * error**2,
                        "errors": {"s2": error, "variation": error * 0.7},
                        "evaluations": evaluations,
                        "seconds": seconds,
                        "memory": 5e8,
                        "projected_gradient": error / 50,
                        "grey": 0.01 + 0.3 * np.exp(-i / 20),
                    }
                )


def _summary(
    shape: Sequence[int], method: str, status: str, levels: int, field: np.ndarray, phase: np.ndarray
) -> dict[str, Any]:
    def errors(s2: float) -> dict[str, Any]:
        return {
            axis: {"s2": s2 * (1 + 0.1 * k), "variation": s2 * 0.8, "volume_fraction": 0.0008 * (k + 1)}
            for k, axis in enumerate(AXES)
        }

    stops = ["iteration cap", "relative decrease", "projected gradient"]
    return {
        "status": status,
        "method": method,
        "shape": list(shape),
        "seed": 0,
        "ranks": 2,
        "threads": 1,
        "seconds": 83.2,
        "memory": 1.3e9,
        "levels": []
        if method == "gaussian"
        else [
            {
                "level": k,
                "shape": [n >> (levels - 1 - k) for n in shape],
                "iterations": 60,
                "evaluations": 67,
                "seconds": 24.0 / 6 ** (levels - 1 - k),
                "loss": 1.2e-3 / (k + 1),
                "stop": stops[k % 3] if status == "complete" or k < levels - 1 else "interrupted",
            }
            for k in range(levels)
        ],
        "errors": {"relaxed": errors(0.0071), "rounded": errors(0.0083)},
        "volume_fraction": {
            "target": {axis: 0.3604 for axis in AXES},
            "relaxed": float(field.mean()),
            "rounded": float(phase.mean()),
        },
        "grey_fraction": float(((field > 0.05) & (field < 0.95)).mean()),
    }


def build_phases(
    path: Path, shape: tuple[int, int, int] = (16, 18, 20), directions: Sequence[str] = (*AXES, "y+z")
) -> Run:
    """A run directory of three phases, with descriptors of several kinds, one of them without figures."""
    run = RunDirectory.create(
        path, {"micrograph": {"path": "three.tif"}, "volume": {"shape": list(shape)}}, environment()
    )
    labels = np.digitize(smooth_field(shape, (2, 2, 2), 0.5, 1), (0.2, 0.8)).astype(np.uint8)
    image = np.digitize(smooth_field((40, 40), (2, 2), 0.5, 2), (0.2, 0.8)).astype(np.uint8)
    targets: dict[str, Any] = {"lags": 6, "periodic": False, "phases": np.arange(3)}
    for axis in AXES:
        for prefix, label in ((axis, 1), *((f"{axis}/{k}", k) for k in range(3))):
            described = (image == label).astype(float)[None]
            targets[f"{prefix}/s2"] = two_point(described, 6, False)[0]
            targets[f"{prefix}/variation"] = variation(described, False)[0]
            targets[f"{prefix}/volume_fraction"] = described.mean()
        targets[f"{axis}/micrograph"] = image
        targets[f"{axis}/phase"] = 1
        targets[f"{axis}/source"] = "three.tif"
        for label in range(3):
            indicator = (image == label).astype(float)[None]
            targets[f"{axis}/{label}/s2"] = two_point(indicator, 6, False)[0]
            targets[f"{axis}/{label}/variation"] = variation(indicator, False)[0]
    np.savez(run.targets, **targets)
    writer = VolumeWriter.create(run.volume, [shape], None, None, labels=3, channels=3)
    for z in range(0, shape[0], writer.depth):
        block = labels[z : z + writer.depth]
        writer.write_phase(z, block)
        for channel in range(3):
            writer.write_field(0, z, (block == channel).astype(np.float32), channel)
    writer.finish_phase()

    def errors(size: float, joint: bool) -> dict[str, Any]:
        own = {
            "s2": size,
            "s2@4": size / 2,
            "lineal_path": size / 3,
            "own_name": None,
            "volume_fraction": 1e-3,
        }
        return {d: own | ({"cross_correlation": 0.0123} if joint else {}) for d in directions}

    def fraction(label: int) -> dict[str, Any]:
        got = float((labels == label).mean())
        wanted = {d: float((image == label).mean()) for d in directions}
        return {"target": wanted, "relaxed": got, "rounded": got}

    kinds = ("relaxed", "rounded")
    run.write_summary(
        {
            "status": "complete",
            "method": "descriptors",
            "shape": list(shape),
            "seed": 0,
            "errors": {kind: errors(0.03, True) for kind in kinds},
            "phases": {
                str(label): {
                    "volume_fraction": fraction(label),
                    "errors": {kind: errors(0.01 * (label + 1), label == 0) for kind in kinds},
                }
                for label in range(3)
            },
        }
    )
    with run.metrics() as metrics:
        for i in range(9):
            names = ("s2", "s2@4", "variation", "lineal_path", "patches", "gram", "s3", "own_name")
            figures = {name: 0.5 / (i + 1) / (k + 1) for k, name in enumerate(names)}
            figures["gram"] = None if i % 2 else 0.2  # looked at every other time
            metrics.write(
                {"level": 0, "shape": list(shape), "loss": 1 / (i + 1), "errors": figures, "grey": 0.1}
            )
    return Run.open(run.path)
