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

from mcrdist.analysis import evidence, measured, plates, view3d, words
from mcrdist.analysis.drawing import save
from mcrdist.analysis.figures import convergence, correlation_curves, correlation_maps
from mcrdist.analysis.material import AXES, Phase, as_it_came, phases, plane_axes
from mcrdist.analysis.pictures import averaged, centre_crop, grey_png, label_png
from mcrdist.analysis.slices import IN_PLANE, correlations, planes, spread
from mcrdist.errors import InputError
from mcrdist.store.metadata import short_unit
from mcrdist.store.place import write_atomically
from mcrdist.store.run import ANALYSIS, FIGURES, REPORT, Run
from mcrdist.store.volume import Volume

#: Slices embedded in each direction, and bytes of all of them together.
_SLICES, _BYTES = 64, 6_000_000


def write(run_dir: str | Path, figures: str | None = None) -> Path:
    """Write ``report.html`` into a run directory.

    Parameters
    ----------
    run_dir
        A run directory: complete, interrupted, of any method; whatever is missing is left out.
    figures
        "svg" or "pdf": save every figure in ``figures/`` too, in that format.

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
    content = _content(run)
    page = render("report.html.j2", content)
    path = run.path / REPORT
    if figures is not None:
        save(content, run.path / FIGURES, figures)
    write_atomically(path, page.encode())
    return path


def render(template: str, content: Mapping[str, Any]) -> str:
    """A page from one of the templates; text in `content` cannot become mark-up."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mcrdist.analysis"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in (words.number, words.percent, words.duration, words.memory, words.shape, words.descriptor):
        environment.filters[filter_.__name__] = filter_
    return environment.get_template(template).render(content)


def _content(run: Run) -> dict[str, Any]:
    """What the template wants to know."""
    summary, metrics, volume = run.summary, run.metrics, _volume(run)
    targets = run.targets
    unit = None if volume is None else volume.unit
    size = dict(zip(AXES, (1.0, 1.0, 1.0) if volume is None else volume.voxel_size, strict=True))
    material = phases(summary, targets)
    shown = () if volume is None else view3d.drawn(volume, material)
    found = [] if volume is None else correlations(volume, targets, of=material)
    analysis = measured.load(run.path / ANALYSIS / "analysis.json")
    return {
        "name": run.path.name,
        "summary": summary,
        "shape": summary.get("shape") or (volume.shape if volume else None),
        "extent": _extent(volume),
        "verdict": evidence.judge(run, volume, material, analysis),
        "phases": material,
        "view": None if volume is None else _view(volume, targets, material),
        "plates": None
        if volume is None
        else {
            "slices": plates.middle_planes(volume, targets, material),
            "block": plates.block(volume),
        },
        "mesh": None if volume is None else view3d.figure(volume, shown),
        "meshed": shown,
        "correlations": [
            {
                "phase": item.phase,
                "axis": item.axis,
                "planes": item.planes,
                "of": item.of,
                "error": item.error,
                "variation": item.variation,
                "variation_wanted": item.variation_wanted,
                "curves": correlation_curves(item, size, unit),
                "maps": correlation_maps(item),
                "lags": item.lags,
            }
            for item in found
        ],
        "measured": None if analysis is None else measured.section(analysis),
        "convergence": convergence(metrics),
        "tables": _error_tables(summary),
        "headline": words.mean(
            words.dig(summary, "errors", "rounded", name, "s2")
            for name in words.dig(summary, "errors", "rounded") or {}
        ),
        "fractions": _fractions(summary, material),
        "levels": summary.get("levels") or [],
        "sources": evidence.sources(targets),
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


_KINDS = ("relaxed", "rounded")


def _error_tables(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table of errors (Eq. 10); with several phases their means, then one table a phase."""
    own: Mapping[str, Any] = summary.get("phases") or {}
    tables = [_error_table("mean over phases" if own else None, summary)]
    for label, part in own.items():
        # What looks at all phases at once belongs to none.
        others = [_names(other) for k, other in own.items() if k != label]
        names = [name for name in _names(part) if all(name in other for other in others)]
        tables.append(_error_table(f"phase {label}", part, names))
    return [table for table in tables if table is not None]


def _names(part: Mapping[str, Any]) -> list[str]:
    """Descriptors with errors in any direction, each once."""
    found = [words.dig(part, "errors", kind) or {} for kind in _KINDS]
    return list(dict.fromkeys(name for directions in found for one in directions.values() for name in one))


def _error_table(
    title: str | None, part: Mapping[str, Any], names: list[str] | None = None
) -> dict[str, Any] | None:
    """Rows (directions) and columns (descriptors) of one table; None where nothing was measured."""
    errors = part.get("errors") or {}
    directions = list(dict.fromkeys(d for kind in _KINDS for d in words.dig(errors, kind) or {}))
    names = [name for name in names or _names(part) if name != "volume_fraction"]
    if not directions or not (names or _names(part)):
        return None
    rows = [
        {
            "direction": name,
            "errors": [[words.dig(errors, kind, name, d) for kind in _KINDS] for d in names],
            "spread": [words.dig(part, "spread", name, d) for d in names],
            "wanted": words.dig(part, "volume_fraction", "target", name),
            "got": [words.dig(part, "volume_fraction", kind) for kind in _KINDS],
            "fraction": [words.dig(errors, kind, name, "volume_fraction") for kind in _KINDS],
        }
        for name in directions
    ]
    mean = [
        [words.mean(words.dig(errors, kind, name, d) for name in directions) for kind in _KINDS]
        for d in names
    ]
    return {
        "title": title,
        "names": [words.descriptor(name) for name in names],
        "rows": rows,
        "mean": mean,
        "counted": "volume_fraction" in part,
        "spread": any(spread is not None for row in rows for spread in row["spread"]),
    }


def _fractions(summary: Mapping[str, Any], material: tuple[Phase, ...]) -> list[dict[str, Any]]:
    """Volume fraction of each of several phases, wanted (mean over directions) and got."""
    own: Mapping[str, Any] = summary.get("phases") or {}
    return [
        {
            "phase": phase,
            "wanted": words.mean(
                (words.dig(own, str(phase.label), "volume_fraction", "target") or {}).values()
            ),
            "got": [words.dig(own, str(phase.label), "volume_fraction", kind) for kind in _KINDS],
        }
        for phase in material
        if own
    ]


def _view(volume: Volume, targets: Mapping[str, NDArray[Any]], material: tuple[Phase, ...]) -> dict[str, Any]:
    """Slices and micrographs as pictures, all with pixels of the same size."""
    level = plates.level_for(volume)
    array, factor, axes = volume.phase(level), 2**level, plane_axes(volume.shape)
    size = dict(zip(AXES, array.shape, strict=True))
    most = _SLICES
    while True:
        chosen = {axis: spread(size[axis], most) for axis in axes}
        found = planes(volume, array, chosen)
        pictures = {axis: [label_png(plane) for plane in found[axis]] for axis in axes}
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
        for axis in axes
    }
    bar = 2 ** round(math.log2(max(volume.shape) / 4))
    width = volume.voxel_size[2]
    return {
        "axes": list(axes),
        "slices": slices,
        "size": size,
        "factor": factor,
        "voxel": list(volume.voxel_size),
        "unit": short_unit(volume.unit),
        "known": volume.unit is not None,
        "bar": {"pixels": bar / factor, "voxels": bar, "length": bar * width},
        **_micrographs(targets, size, factor, axes, len(material) > 1),
    }


def _micrographs(
    targets: Mapping[str, NDArray[Any]],
    size: Mapping[str, int],
    factor: int,
    axes: tuple[str, ...],
    several: bool,
) -> dict[str, Any]:
    """One picture where all directions share a micrograph, else one a direction; cut to the slices' size.

    Of one phase, that phase against the rest; of several, the labels.
    """
    found = {axis: plates.micrograph(targets, axis, several, factor) for axis in axes}
    images = {axis: image for axis, image in found.items() if image is not None}
    if not images:
        return {"shared": True, "micrographs": []}
    first = next(iter(images.values()))
    shared = len(images) < len(axes) or all(np.array_equal(first, image) for image in images.values())
    out = []
    for axis in [next(iter(images))] if shared else axes:
        served = axes if shared else (axis,)
        rows, columns = (max(size[IN_PLANE[a][k]] for a in served) for k in (0, 1))
        part, grey = centre_crop(images[axis], rows, columns), as_it_came(targets, axis)
        out.append(
            {
                "axis": axis,
                "image": label_png(part),
                "grey": None
                if grey is None
                else grey_png(centre_crop(averaged(grey, factor), rows, columns)),
                "rows": part.shape[0],
                "columns": part.shape[1],
                "source": str(targets.get(f"{axis}/source", "micrograph")),
                "cut": part.shape != images[axis].shape,
                "whole": [n * factor for n in images[axis].shape],
            }
        )
    return {"shared": shared, "micrographs": out}
