"""The same statistics on the micrographs, which are not periodic, to stand beside those of the volume."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis.material import AXES, Phase, images, shown
from mcrdist.analysis.slices import IN_PLANE
from mcrdist.analysis.volume.chords import chords, lineal_path, mean_chord
from mcrdist.analysis.volume.lags import integral_range
from mcrdist.analysis.volume.minkowski import configurations, euler_of_sections

#: By name; of lineal paths, by axis.
Values = dict[str, float]
Curves = dict[str, NDArray[np.float64]]


def window(targets: Mapping[str, NDArray[Any]], lags: int) -> int:
    """The longest lag, up to `lags`, that all micrographs have room for: half of the smallest."""
    halves = [int(min(one.shape)) // 2 for axis in AXES for one in images(targets, axis)]
    return min([lags, *halves])


def measure(targets: Mapping[str, NDArray[Any]], phase: Phase, lags: int) -> tuple[Values, Curves]:
    """Statistics of a phase on the micrographs, in pixels.

    `lags` is the window of integral ranges, see `window`; lineal paths are four times as long where there is room.

    As for targets, they are means over the micrographs of a direction, whatever their sizes; and of these, means over
    the directions that show an axis.

    Returns
    -------
    dict
        "volume_fraction", "euler_section" (mean over all), and "crossings_z", "mean_chord_z", "integral_range_z"
        and so on along the axes; what cannot be known is left out.
    dict
        The lineal path along each axis, for segments of 1, 2, ... pixels.
    """
    directions = []
    for axis in AXES:
        several = [_described(mask, IN_PLANE[axis], lags) for mask in shown(targets, axis, phase.label)]
        directions.append((_mean([own for own, _ in several]), _mean_curve([own for _, own in several])))
    return _mean([own for own, _ in directions]), _mean_curve([own for _, own in directions])


def _described(mask: NDArray[np.bool_], sides: Sequence[str], lags: int) -> tuple[Values, Curves]:
    """One micrograph (rows, columns), whose sides lie along two axes."""
    counts = configurations(np.stack([mask, mask]))
    found = {"volume_fraction": float(mask.mean()), "euler_section": euler_of_sections(counts, 0)}
    paths = {}
    for along, lines in zip(sides, (mask.T, mask), strict=True):
        counted = chords(lines, False)
        found[f"crossings_{along}"] = float((lines[:, 1:] != lines[:, :-1]).mean())
        found[f"mean_chord_{along}"] = mean_chord(counted)
        found[f"integral_range_{along}"] = _range(lines, lags)
        longest = max(1, min(lines.shape[1] // 2, 4 * lags))
        paths[along] = lineal_path(counted, len(lines), longest, False)
    return found, paths


def _mean(found: Sequence[Values]) -> Values:
    """Means of what is known: no chord, for one, may be whole."""
    names = dict.fromkeys(name for own in found for name in own)
    known = {name: [own[name] for own in found if math.isfinite(own.get(name, math.nan))] for name in names}
    return {name: float(np.mean(values)) for name, values in known.items() if values}


def _mean_curve(found: Sequence[Curves]) -> Curves:
    """Means as far as the shortest curve of an axis goes."""
    several = {along: [own[along] for own in found if along in own] for own in found for along in own}
    return {
        along: np.mean([curve[: min(map(len, curves))] for curve in curves], axis=0)
        for along, curves in several.items()
    }


def _range(lines: NDArray[np.bool_], lags: int) -> float:
    """Integral range along lines (m, n), as in the volume."""
    n = lines.shape[1]
    s2 = [float((lines[:, : n - lag] & lines[:, lag:]).mean()) for lag in range(lags + 1)]
    return integral_range(np.array(s2), lines.mean(0), False)
