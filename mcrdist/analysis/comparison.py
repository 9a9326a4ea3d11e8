"""Runs side by side in one self-contained page: what was set otherwise, and what came of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from mcrdist.analysis import evidence, gallery, imprint, measured, words
from mcrdist.analysis.drawing import save
from mcrdist.analysis.ensemble import Member
from mcrdist.analysis.material import AXES, Phase, phases, plane_axes
from mcrdist.analysis.report import render
from mcrdist.analysis.scatter import Fall, correlation_curves, errors_over_time
from mcrdist.analysis.slices import correlations, spread
from mcrdist.analysis.volume.table import titled
from mcrdist.config import MicrographConfig
from mcrdist.errors import InputError
from mcrdist.store.place import write_atomically
from mcrdist.store.run import ANALYSIS, FIGURES, Run

#: Positions of the slices that can be looked at, and planes that S2 is averaged over.
_POSITIONS, _PLANES = 9, 32
#: Settings that say where a run is, not what.
_ELSEWHERE = ("run.dir", "run.report")
#: What a micrograph is asked for where nothing is said.
_USUAL = {field.name: field.default for field in fields(MicrographConfig)}


def write(runs: Sequence[Run], path: Path, figures: str | None = None) -> Path:
    """Write a page that compares finished runs.

    Parameters
    ----------
    runs : sequence of Run
        Two or more.
    path : Path
        Of the page, which loads nothing from a network.
    figures : str, optional
        "svg" or "pdf": save every figure beside the page too.

    Raises
    ------
    InputError
        A run is not finished or damaged, or the page cannot be written.
    """
    for run in runs:
        if run.summary.get("status") != "complete":
            raise InputError(
                f"{run.path}: expected a finished run, found one that was "
                f"{run.summary.get('status', 'interrupted')}; go on with it (resume=true) or leave it out"
            )
    content = _content(dict(zip(labels([run.path for run in runs]), runs, strict=True)))
    content["reports"] = [
        None if run.report is None else os.path.relpath(run.report, path.parent) for run in runs
    ]
    write_atomically(path, render("comparison.html.j2", content).encode(), "output.path")
    if figures is not None:
        save(content, path.parent / f"{path.stem}_{FIGURES}", figures)
    return path


def labels(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart; numbers where the same run comes twice."""
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path.name} ({number})" for number, path in enumerate(paths, 1)]


def _content(runs: Mapping[str, Run]) -> dict[str, Any]:
    """What the template wants to know."""
    members = {name: Member(run, {}, int(run.summary.get("seed") or 0)) for name, run in runs.items()}
    material = {name: phases(run.summary, run.targets) for name, run in runs.items()}
    analyses = {name: measured.load(run.path / ANALYSIS / "analysis.json") for name, run in runs.items()}
    names = list(dict.fromkeys(error for member in members.values() for error in member.errors()))
    return {
        "names": list(runs),
        "verdicts": [
            evidence.judge(run, run.volume, material[name], analyses[name]) for name, run in runs.items()
        ],
        "settings": differing({name: run.config for name, run in runs.items()}),
        "errors": {words.descriptor(e): [m.errors().get(e) for m in members.values()] for e in names},
        "facts": _facts(members, material),
        "statistics": _statistics(analyses),
        "analysed": [name for name, analysis in analyses.items() if analysis is not None],
        "slices": _slices(runs, material),
        "phases": max(material.values(), key=len),
        "times": [
            figure
            for error in ("s2", "variation")
            if (figure := errors_over_time({n: Fall.of(m, error) for n, m in members.items()}, error))
            is not None
        ],
        "curves": _curves(runs, material),
    }


def flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def differing(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The settings that are not the same in all runs, as one would type them.

    What one run sets and another has no place for, as all of a second micrograph's, is one only if it was set.
    """
    every = [flat(config) for config in configs.values()]
    keys = dict.fromkeys(key for one in every for key in one if key not in _ELSEWHERE)
    found = {}
    for key in keys:
        own = [one[key] for one in every if key in one]
        if len(own) < len(every) and all(value == _USUAL.get(key.rpartition(".")[2]) for value in own):
            continue
        values = [_typed(one[key]) if key in one else words.DASH for one in every]
        if len(set(values)) > 1:
            found[key] = values
    return found


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _facts(members: Mapping[str, Member], material: Mapping[str, Sequence[Phase]]) -> dict[str, list[str]]:
    """Rows of figures that are not errors."""
    facts: dict[str, list[str]] = {"voxels": [words.shape(m.run.volume.shape) for m in members.values()]}
    several = any(len(found) > 1 for found in material.values())
    for label in sorted({phase.label for found in material.values() for phase in found}):
        row = []
        for name, member in members.items():
            own = next((phase for phase in material[name] if phase.label == label), None)
            got = None if own is None else member.fraction(own, len(material[name]) > 1)
            row.append(words.number(got, 4))
        facts["volume fraction" + (f" of phase {label}" if several else "")] = row
    summaries = [member.run.summary for member in members.values()]
    facts["undecided before rounding"] = [words.percent(one.get("grey_fraction")) for one in summaries]
    grid = [imprint.measure(m.run.volume) if m.run.volume.shape[0] > 1 else None for m in members.values()]
    facts["grid imprint (by chance)"] = [
        words.DASH if found is None else f"{words.number(found[0])} ({words.number(found[1])})"
        for found in grid
    ]
    facts["evaluations"] = [
        str(sum(level.get("evaluations") or 0 for level in one.get("levels") or [])) for one in summaries
    ]
    facts["time"] = [words.duration(one.get("seconds")) for one in summaries]
    facts["memory"] = [words.memory(one.get("memory")) for one in summaries]
    return facts


def _statistics(analyses: Mapping[str, Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """Rows of what `mcrdist analyze` measured in any of the runs, with the micrograph's value of the first."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, analysis in enumerate(analyses.values()):
        for row in () if analysis is None else analysis["rows"]:
            if row["prescribed"] and row["statistic"].startswith("E("):
                continue
            statistic = titled(row["statistic"], row.get("box"))
            key = (row["phase"], statistic, row["direction"], row["unit"])
            own = found.setdefault(key, {"values": [None] * len(analyses), "micrograph": row["micrograph"]})
            own["values"][number] = row["value"]
    several = len({phase for phase, *_ in found}) > 1
    return [
        {
            "statistic": measured.said(statistic) + (f" along {direction}" if direction else ""),
            "phase": phase if several else None,
            "unit": unit,
            **own,
        }
        for (phase, statistic, direction, unit), own in found.items()
    ]


def _slices(runs: Mapping[str, Run], material: Mapping[str, Sequence[Phase]]) -> list[dict[str, Any]]:
    """For each axis, pictures of every run at the same positions between its first and last plane."""
    shapes = {name: dict(zip(AXES, run.volume.shape, strict=True)) for name, run in runs.items()}
    axes = [axis for axis in AXES if all(axis in plane_axes(run.volume.shape) for run in runs.values())]
    count = min(_POSITIONS, *(shapes[name][axis] for name in runs for axis in axes))
    positions = {name: {axis: spread(shapes[name][axis], count).tolist() for axis in axes} for name in runs}
    found = {name: gallery.of_volume(run, name, positions[name]) for name, run in runs.items()}
    return [
        {
            "axis": axis,
            "micrographs": _micrographs(runs, material, axis),
            "runs": [found[name][axis] for name in runs],
            "count": count,
        }
        for axis in axes
    ]


def _micrographs(
    runs: Mapping[str, Run], material: Mapping[str, Sequence[Phase]], axis: str
) -> list[dict[str, Any]]:
    """The micrographs of a direction, each once, with the runs that it belongs to unless it is that of all."""
    pictures: dict[str, dict[str, Any]] = {}
    owners: dict[str, list[str]] = {}
    for name, run in runs.items():
        picture = gallery.of_micrograph(run, material[name], axis)
        if picture is not None:
            pictures.setdefault(picture["what"], picture)
            owners.setdefault(picture["what"], []).append(name)
    return [
        picture
        if owners[what] == list(runs)
        else picture | {"name": f"Micrograph of {', '.join(owners[what])}"}
        for what, picture in pictures.items()
    ]


def _curves(runs: Mapping[str, Run], material: Mapping[str, Sequence[Phase]]) -> list[dict[str, Any]]:
    """A figure of S2 of all runs for every phase and direction that all of them have."""
    found = {
        name: {
            (one.phase.label, one.axis): one
            for one in correlations(run.volume, run.targets, _PLANES, material[name])
        }
        for name, run in runs.items()
    }
    shared = [key for key in next(iter(found.values())) if all(key in one for one in found.values())]
    return [
        {
            "phase": found[next(iter(runs))][key].phase,
            "axis": key[1],
            "figure": correlation_curves({name: [one[key]] for name, one in found.items()}),
        }
        for key in shared
    ]
