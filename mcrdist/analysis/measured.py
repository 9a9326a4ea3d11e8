"""The report's section on what `mcrdist analyze` measured; absent where nobody has run it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mcrdist.analysis.figures import CURVES, WANTED, style, svg
from mcrdist.analysis.material import AXES
from mcrdist.errors import InputError

#: Of one material in two pieces, lineal paths and boundaries differ by a few per cent; more than this is worth a word.
_APART = 0.1
_DASHED = (0, (4, 2))


def section(path: Path) -> dict[str, Any] | None:
    """What the template shows of ``analysis.json``, or None without one.

    Raises
    ------
    InputError
        The file is damaged.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            "phases": [
                {
                    "label": label,
                    "groups": _groups([row for row in content["rows"] if str(row["phase"]) == label]),
                    "errors": _distribution(curves["errors"]),
                    "paths": _paths(curves),
                }
                for label, curves in content["phases"].items()
            ],
            "periodic": content["periodic"],
        }
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected the results of mcrdist analyze ({error}); run it again"
        ) from error


def _groups(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one statistic together: its value along each axis, or a single one; Eq. 10 has a table of its own."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["prescribed"] and row["statistic"].startswith("E("):
            continue
        group = found.setdefault(row["statistic"], {"unit": row["unit"], "values": {}, "beside": {}})
        group["values"][row["direction"]] = row["value"]
        if row["micrograph"] is not None:
            group["beside"][row["direction"]] = row["micrograph"]
    return [{"statistic": _said(name)} | group | {"apart": _apart(group)} for name, group in found.items()]


def _said(statistic: str) -> str:
    return "E(lineal path), relative" if statistic == "E(lineal_path)" else statistic.replace("S2", "S₂")


def _apart(group: Mapping[str, Any]) -> bool:
    """Whether the volume differs from the micrograph by more than two pieces of one material would."""
    values, beside = group["values"], group["beside"]
    pairs = [(values[axis], beside[axis]) for axis in beside if values[axis] is not None]
    return any(abs(value - other) > _APART * abs(other) for value, other in pairs)


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


def _paths(curves: Mapping[str, Any]) -> str:
    """Lineal paths along z, y, x, the micrographs' dashed."""
    with style():
        figure = Figure(figsize=(10.5, 2.8), layout="constrained")
        axes = figure.subplots()
        for number, axis in enumerate(AXES):
            got = np.array(curves["lineal_path"][axis])
            colour = CURVES[number]
            axes.plot(np.arange(1, len(got) + 1), _positive(got), color=colour, lw=1.4, label=f"along {axis}")
            wanted = np.array(curves["lineal_path_micrograph"].get(axis, []))
            if len(wanted):
                axes.plot(np.arange(1, len(wanted) + 1), _positive(wanted), color=colour, lw=1.1, ls=_DASHED)
        if curves["lineal_path_micrograph"]:
            axes.plot([], [], color=WANTED, lw=1.1, ls=_DASHED, label="micrograph")
        axes.set_yscale("log")
        axes.set_ylim(bottom=1e-4, top=1)
        axes.set_xlim(left=1)
        axes.set_xlabel("length of the segment (voxels)")
        axes.set_ylabel("lineal path")
        axes.legend(loc="upper right")
        return svg(figure)


def _positive(values: Any) -> Any:
    """Without zeros, which a logarithmic axis cannot show."""
    return np.where(values > 0, values, np.nan)
