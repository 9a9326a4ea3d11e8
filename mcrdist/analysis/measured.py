"""The report's section on what `mcrdist analyze` measured; absent where nobody has run it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mcrdist.analysis.drawing import WANTED, Picture, pen, style, svg
from mcrdist.analysis.growing import growth
from mcrdist.analysis.material import AXES
from mcrdist.analysis.volume.table import APART, LINEAL, titled
from mcrdist.errors import InputError

#: Of one material in two pieces, lineal paths and boundaries differ by a few per cent; more than this is worth a word.
_NOTABLE = 0.1
_KEYS = ("phase", "statistic", "direction", "value", "micrograph", "unit", "prescribed")
_DASHED, _DOTTED = (0, (4, 2)), (0, (1, 1.5))
#: Lineal paths below are nothing to anybody.
_LEAST = 1e-4


def load(path: Path) -> dict[str, Any] | None:
    """The content of ``analysis.json``, or None without one.

    Raises
    ------
    InputError
        The file is damaged.
    """
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for row in content["rows"]:
            _ = [row[name] for name in _KEYS]
        section(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: expected the results of mcrdist analyze ({error}); run it again"
        ) from error
    return content


def section(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of the content of ``analysis.json``."""
    truth = content.get("truth")
    return {
        "truth": truth,
        "phases": [
            {
                "label": label,
                "groups": _groups([row for row in content["rows"] if str(row["phase"]) == label]),
                "errors": _distribution(curves["errors"]),
                "beside": None
                if truth is None
                else beside([row for row in content["rows"] if str(row["phase"]) == label]),
                "paths": _paths(label, curves),
                "representative": _representative(
                    label, curves.get("representative"), content.get("unit", "voxel")
                ),
            }
            for label, curves in content["phases"].items()
        ],
        "periodic": content["periodic"],
    }


def _groups(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one statistic together: its value along each axis, or a single one; Eq. 10 has a table of its own."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["prescribed"] and row["statistic"].startswith("E("):
            continue
        if row["statistic"].startswith(APART):
            continue  # beside the truth
        name = titled(row["statistic"], row.get("box"))
        group = found.setdefault(name, {"unit": row["unit"], "values": {}, "beside": {}})
        group["values"][row["direction"]] = row["value"]
        if row["micrograph"] is not None:
            group["beside"][row["direction"]] = row["micrograph"]
    return [{"statistic": said(name)} | group | {"apart": _apart(group)} for name, group in found.items()]


def beside(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Statistics that are known of the truth too, and how many of them are as near to it as its own boxes are.

    Returns
    -------
    dict
        "groups" as in the table of the volume, each with "cells" by direction; "near" of "known" statistics.
    """
    groups: dict[str, dict[str, Any]] = {}
    near = known = 0
    for row in rows:
        value, truth, scatter = (row.get(name) for name in ("alike", "truth", "scatter"))
        if truth is None:
            continue
        far = None if value is None else abs(value - truth) > _allowed(truth, scatter)
        known += far is not None
        near += far is False
        own = groups.setdefault(row["statistic"], {"unit": row["unit"], "cells": {}})
        own["cells"][row["direction"]] = {"value": value, "truth": truth, "scatter": scatter, "far": far}
    named = [
        {
            "statistic": said(name),
            "curve": name.startswith(APART),
            "far": any(cell["far"] for cell in group["cells"].values()),
        }
        | group
        for name, group in groups.items()
    ]
    return {"groups": named, "near": near, "known": known}


def _allowed(truth: float, scatter: float | None) -> float:
    """How far from the truth is no further than one of its own boxes may well be."""
    if scatter is not None:
        return max(2 * scatter, 1e-9 * abs(truth))
    return _NOTABLE * (abs(truth) or 1.0)  # of a single box, and of curves, whose distances are relative


def said(statistic: str) -> str:
    """A statistic for people."""
    if statistic.startswith(APART):
        return f"{statistic.removeprefix(APART).replace('S2', 'S₂')}, relative distance"
    return f"{LINEAL}, relative" if statistic == LINEAL else statistic.replace("S2", "S₂")


def _apart(group: Mapping[str, Any]) -> bool:
    """Whether the volume differs from the micrograph by more than two pieces of one material would."""
    values, beside = group["values"], group["beside"]
    pairs = [(values[axis], beside[axis]) for axis in beside if values[axis] is not None]
    return any(abs(value - other) > _NOTABLE * abs(other) for value, other in pairs)


def _distribution(errors: Mapping[str, Mapping[str, list[float]]]) -> list[dict[str, Any]]:
    """Eq. 10 of each direction and descriptor, with percentiles over planes."""
    return [
        {
            "axis": axis,
            "name": name,
            "mean": float(np.mean(values)),
            "low": float(np.percentile(values, 5)),
            "high": float(np.percentile(values, 95)),
            "worst": float(np.max(values)),
            "at": int(np.argmax(values)),
        }
        for axis, named in errors.items()
        for name, values in named.items()
    ]


def _representative(label: str, found: Mapping[str, Any] | None, unit: str) -> dict[str, Any] | None:
    """The answer in words and the figure; None where no cubes were cut out."""
    figure = None if found is None else growth(found, unit)
    if found is None or figure is None:
        return None
    return {
        "figure": svg(figure, f"representative-phase-{label}"),
        "headline": found["headline"],
        "sentences": [one["words"] for one in found["answers"]],
        "middle": found["middle"],
    }


def _paths(label: str, curves: Mapping[str, Any]) -> Picture:
    """Lineal paths along z, y, x, the micrographs' dashed."""
    with style():
        figure = Figure(figsize=(7.5, 2.7), layout="constrained")
        axes = figure.subplots()
        for number, axis in enumerate(AXES):
            got = np.array(curves["lineal_path"][axis])
            how = pen(number, int((got >= _LEAST).sum()))
            axes.plot(np.arange(1, len(got) + 1), _positive(got), lw=1.4, label=f"along {axis}", **how)
            wanted = np.array(curves["lineal_path_micrograph"].get(axis, []))
            if len(wanted):
                how = pen(number, int((wanted >= _LEAST).sum())) | {"mfc": "none", "mew": 0.8, "ls": _DASHED}
                axes.plot(np.arange(1, len(wanted) + 1), _positive(wanted), lw=1.1, **how)
            true = np.array(curves.get("lineal_path_truth", {}).get(axis, []))
            if len(true):
                axes.plot(
                    np.arange(1, len(true) + 1), _positive(true), lw=1.1, color=how["color"], ls=_DOTTED
                )
        if curves["lineal_path_micrograph"]:
            axes.plot([], [], color=WANTED, lw=1.1, ls=_DASHED, label="micrograph")
        if "lineal_path_truth" in curves:
            axes.plot([], [], color=WANTED, lw=1.1, ls=_DOTTED, label="truth")
        axes.set_yscale("log")
        axes.set_ylim(bottom=_LEAST, top=1)
        axes.set_xlim(left=1)
        axes.set_xlabel("length of the segment (voxels)")
        axes.set_ylabel("lineal path")
        axes.legend(loc="upper right")
        return svg(figure, f"lineal-path-phase-{label}")


def _positive(values: Any) -> Any:
    """Without zeros, which a logarithmic axis cannot show."""
    return np.where(values > 0, values, np.nan)
