"""What was found, as rows of a table: each with the micrograph's value beside it where there is one."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis.material import AXES
from mcrdist.analysis.volume.clusters import Clusters
from mcrdist.analysis.volume.pores import Distances
from mcrdist.analysis.volume.survey import Survey
from mcrdist.analysis.words import shape

#: How rows begin that tell how far a curve is from the true one, relative (Eq. 10).
APART = "apart from the truth: "
#: How far the lineal path of the volume is from the micrographs': along all its lines, and not plane by plane, as it is
#: where a run was held to it (the descriptor's E(lineal_path)).
LINEAL = "E(lineal path in space)"


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes
    ----------
    phase : int
    statistic : str
    direction : str
        An axis, or "" for what has none.
    value : float
    micrograph : float or None
    unit : str
    prescribed : bool
        Whether the volume was made to have it.
    alike, truth, scatter : float or None
        Where a true volume is given: the value of this one when it is measured as the truth is, in pieces without
        periodicity, the truth's value, and the standard deviation of the truth's pieces.
    box : three of int or None
        Edges (z, y, x) in voxels of the box in the middle that the value is of; None: of the whole volume.
    """

    phase: int
    statistic: str
    direction: str
    value: float
    micrograph: float | None = None
    unit: str = ""
    prescribed: bool = False
    alike: float | None = None
    truth: float | None = None
    scatter: float | None = None
    box: tuple[int, int, int] | None = None


def titled(statistic: str, box: Sequence[int] | None) -> str:
    """A statistic with the box that it is of, for people."""
    return statistic if box is None else f"{statistic} (middle {shape(box)})"


def rows(
    phase: int,
    survey: Survey,
    found: Clusters,
    pores: Distances,
    voxel_size: Sequence[float],
    unit: str,
    micrograph: Mapping[str, float],
    norms: Mapping[str, Mapping[str, float]],
    paths: Mapping[str, NDArray[np.float64]],
) -> list[Row]:
    """Return all rows of a phase; `micrograph` counts in pixels as wide as voxels are."""
    size = dict(zip(AXES, voxel_size, strict=True))
    volume = float(np.prod(voxel_size))
    own = survey.functionals
    fraction = own["volume_fraction"]
    asked = any(survey.errors.values())
    out = [
        Row(phase, f"E({name})", axis, float(errors.mean()) / norms[axis][name], None, "", True)
        for axis, named in survey.errors.items()
        for name, errors in named.items()
    ]
    out.append(Row(phase, "volume fraction", "", fraction, micrograph.get("volume_fraction"), "", asked))

    def scaled(name: str, axis: str, power: int) -> float | None:
        value = micrograph.get(f"{name}_{axis}")
        return None if value is None else value * size[axis] ** power

    crossings = [scaled("crossings", axis, -1) for axis in AXES]
    known = [value for value in crossings if value is not None]
    surface = 2 * float(np.mean(known)) if len(known) == 3 else None
    out += [
        Row(phase, "boundaries crossed", axis, own[f"crossings_{axis}"], beside, f"1/{unit}", asked)
        for axis, beside in zip(AXES, crossings, strict=True)
    ]
    out.append(Row(phase, "specific surface", "", own["specific_surface"], surface, f"1/{unit}"))
    section = micrograph.get("euler_section")
    area = volume ** (2 / 3)
    curvature = None if section is None else 2 * math.pi * section / area
    out.append(Row(phase, "integral of mean curvature", "", own["mean_curvature"], curvature, f"1/{unit}²"))
    out += [
        Row(phase, f"Euler number ({k}-connected)", "", own[f"euler_{k}"], None, f"1/{unit}³")
        for k in (6, 26)
    ]
    for axis in AXES:
        chord = survey.mean_chord(axis) * size[axis]
        out.append(Row(phase, "mean chord", axis, chord, scaled("mean_chord", axis, 1), unit))
    out.append(Row(phase, "mean distance to the boundary", "", pores.mean, None, unit))
    out.append(Row(phase, "radius of the largest sphere inside", "", pores.largest, None, unit))
    for axis in (axis for axis in AXES if axis in paths):
        count = min(len(paths[axis]), len(survey.lineal_path[axis]))
        wanted = paths[axis][:count]
        if wanted.any():  # else the micrographs show nothing of the phase, and the distance has no measure
            error = float(np.linalg.norm(survey.lineal_path[axis][:count] - wanted) / np.linalg.norm(wanted))
            out.append(Row(phase, LINEAL, axis, error))
    for axis in AXES:
        beside = scaled("integral_range", axis, 1)
        out.append(Row(phase, "integral range of S2", axis, survey.ranges[axis] * size[axis], beside, unit))
    lengths = [survey.ranges[axis] * size[axis] for axis in AXES]
    anisotropy = max(lengths) / min(lengths) if min(lengths) > 0 else math.nan
    out.append(Row(phase, "anisotropy (largest by smallest integral range)", "", anisotropy))
    out.append(Row(phase, "clusters", "", found.number / (volume * survey.voxels), None, f"1/{unit}³"))
    out.append(Row(phase, "share of the largest cluster", "", found.largest))
    out += [Row(phase, "share that percolates", axis, found.percolating[axis]) for axis in AXES]
    out += [
        Row(phase, "largest correlation at long range", axis, value)
        for axis, value in survey.repetition.items()
    ]
    return out


def as_csv(table: Sequence[Row]) -> str:
    """With a line of names; what is not known is empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    for row in table:
        cells: dict[str, Any] = asdict(row)
        for name in ("value", "micrograph", "alike", "truth", "scatter"):
            value = cells[name]
            cells[name] = "" if value is None or not math.isfinite(value) else repr(float(value))
        cells["box"] = "" if row.box is None else "x".join(map(str, row.box))
        writer.writerow(cells)
    return buffer.getvalue()
