"""The report of a run: one self-contained HTML file, from the run directory alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from mcrdist.analysis import figures, view3d, words
from mcrdist.analysis.pictures import centre_crop, coarsened, label_png
from mcrdist.analysis.slices import AXES, IN_PLANE, correlations, planes, spread
from mcrdist.errors import InputError
from mcrdist.store.metadata import short_unit
from mcrdist.store.run import REPORT, Run, write_atomically
from mcrdist.store.volume import Volume

#: Slices embedded in each direction, pixels along their longest edge, and bytes of all of them together.
_SLICES, _PIXELS, _BYTES = 64, 512, 6_000_000


def write(run_dir: str | Path) -> Path:
    """Write ``report.html`` into a run directory.

    Parameters
    ----------
    run_dir
        A run directory: complete, interrupted, of any method; whatever is missing is left out.

    Returns
    -------
    Path
        The report. It is replaced in one piece and loads nothing from a network.

    Raises
    ------
    InputError
        `run_dir` is no run directory, its files are damaged, or the report cannot be written.
    """
    run = Run.open(run_dir)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mcrdist.analysis"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in (words.number, words.percent, words.duration, words.memory, words.shape):
        environment.filters[filter_.__name__] = filter_
    page = environment.get_template("report.html.j2").render(_content(run))
    path = run.path / REPORT
    write_atomically(path, page.encode())
    return path


def _content(run: Run) -> dict[str, Any]:
    """What the template wants to know."""
    summary, metrics, volume = run.summary, run.metrics, _volume(run)
    targets = run.targets
    unit = None if volume is None else volume.unit
    size = dict(zip(AXES, (1.0, 1.0, 1.0) if volume is None else volume.voxel_size, strict=True))
    found = [] if volume is None else correlations(volume, targets)
    return {
        "name": run.path.name,
        "summary": summary,
        "shape": summary.get("shape") or (volume.shape if volume else None),
        "extent": _extent(volume),
        "verdict": words.verdict(summary, metrics[-1] if metrics else None),
        "view": None if volume is None else _view(volume, targets),
        "mesh": None if volume is None else view3d.figure(volume),
        "correlations": [
            {
                "axis": item.axis,
                "planes": item.planes,
                "of": item.of,
                "error": item.error,
                "variation": item.variation,
                "variation_wanted": item.variation_wanted,
                "curves": figures.correlation_curves(item, size, unit),
                "maps": figures.correlation_maps(item),
                "lags": item.lags,
            }
            for item in found
        ],
        "convergence": figures.convergence(metrics),
        "errors": _error_table(summary),
        "levels": summary.get("levels") or [],
        "sources": _sources(targets),
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
        "environment": yaml.safe_dump(run.environment, sort_keys=False, allow_unicode=True),
        "plotly": get_plotlyjs(),
        "in_plane": IN_PLANE,
    }


def _volume(run: Run) -> Volume | None:
    """The volume, or None if the run ended before it wrote a whole one."""
    try:
        volume = run.volume
    except InputError:
        return None
    last = volume.read(volume.phase(), slice(volume.shape[0] - 1, None))
    return None if (last == 255).all() else volume


def _extent(volume: Volume | None) -> str | None:
    """Size of the volume in its unit."""
    if volume is None or volume.unit is None:
        return None
    lengths = [words.number(n * h) for n, h in zip(volume.shape, volume.voxel_size, strict=True)]
    return f"{' × '.join(lengths)} {short_unit(volume.unit)}"  # noqa: RUF001


def _sources(targets: Mapping[str, NDArray[Any]]) -> list[str]:
    """Micrographs by name, each once."""
    return list(dict.fromkeys(str(targets[f"{a}/source"]) for a in AXES if f"{a}/source" in targets))


def _error_table(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Rows and columns of the table of errors (Eq. 10)."""
    errors = summary.get("errors") or {}
    axes = [a for a in AXES if words.dig(errors, "rounded", a) or words.dig(errors, "relaxed", a)]
    if not axes:
        return None
    kinds = ("relaxed", "rounded")
    names = [
        name
        for name in dict.fromkeys(n for k in kinds for a in axes for n in (words.dig(errors, k, a) or {}))
        if name != "volume_fraction"
    ]
    rows = [
        {
            "axis": axis,
            "errors": [[words.dig(errors, kind, axis, name) for kind in kinds] for name in names],
            "spread": [words.dig(summary, "spread", axis, name) for name in names],
            "wanted": words.dig(summary, "volume_fraction", "target", axis),
            "got": [words.dig(summary, "volume_fraction", kind) for kind in kinds],
            "fraction": [words.dig(errors, kind, axis, "volume_fraction") for kind in kinds],
        }
        for axis in axes
    ]
    mean = [
        [_mean([words.dig(errors, kind, axis, name) for axis in axes]) for kind in kinds] for name in names
    ]
    return {
        "names": [words.DESCRIPTORS.get(name, name) for name in names],
        "rows": rows,
        "mean": mean,
        "spread": any(spread is not None for row in rows for spread in row["spread"]),
    }


def _mean(values: list[Any]) -> float | None:
    numbers = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    return sum(numbers) / len(numbers) if numbers else None


def _view(volume: Volume, targets: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Slices and micrographs as pictures, all with pixels of the same size."""
    level = 0
    while level + 1 < volume.levels("phase") and max(volume.phase(level).shape) > _PIXELS:
        level += 1
    array, factor = volume.phase(level), 2**level
    size = dict(zip(AXES, array.shape, strict=True))
    most = _SLICES
    while True:
        chosen = {axis: spread(size[axis], most) for axis in AXES}
        found = planes(volume, array, chosen)
        pictures = {axis: [label_png(plane) for plane in found[axis]] for axis in AXES}
        if most <= 16 or sum(len(p) for images in pictures.values() for p in images) <= _BYTES:
            break
        most //= 2
    slices = {
        axis: {
            "index": [int(k) * factor for k in chosen[axis]],
            "last": volume.shape[AXES.index(axis)] - 1,
            "rows": size[IN_PLANE[axis][0]],
            "columns": size[IN_PLANE[axis][1]],
            "images": pictures[axis],
        }
        for axis in AXES
    }
    bar = 2 ** round(math.log2(max(volume.shape) / 4))
    width = volume.voxel_size[2]
    return {
        "slices": slices,
        "size": size,
        "factor": factor,
        "voxel": list(volume.voxel_size),
        "unit": short_unit(volume.unit),
        "known": volume.unit is not None,
        "bar": {"pixels": bar / factor, "voxels": bar, "length": bar * width},
        **_micrographs(targets, size, factor),
    }


def _micrographs(targets: Mapping[str, NDArray[Any]], size: Mapping[str, int], factor: int) -> dict[str, Any]:
    """One picture where all directions share a micrograph, else one a direction; cut to the slices' size."""
    masks = {}
    for axis in AXES:
        if f"{axis}/micrograph" in targets:
            mask = targets[f"{axis}/micrograph"] == int(targets.get(f"{axis}/phase", np.int64(1)))
            masks[axis] = coarsened(mask, factor)
    if not masks:
        return {"shared": True, "micrographs": []}
    first = next(iter(masks.values()))
    shared = len(masks) < len(AXES) or all(np.array_equal(first, mask) for mask in masks.values())
    out = []
    for axis in [next(iter(masks))] if shared else AXES:
        served = AXES if shared else (axis,)
        rows, columns = (max(size[IN_PLANE[a][k]] for a in served) for k in (0, 1))
        part = centre_crop(masks[axis], rows, columns)
        out.append(
            {
                "axis": axis,
                "image": label_png(part),
                "rows": part.shape[0],
                "columns": part.shape[1],
                "source": str(targets.get(f"{axis}/source", "micrograph")),
                "cut": part.shape != masks[axis].shape,
                "whole": [n * factor for n in masks[axis].shape],
            }
        )
    return {"shared": shared, "micrographs": out}
