"""The same statistics on the micrographs, which are not periodic, to stand beside those of the volume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis.material import AXES, Phase
from mcrdist.analysis.slices import IN_PLANE
from mcrdist.analysis.volume.chords import chords, lineal_path, mean_chord
from mcrdist.analysis.volume.lags import integral_range
from mcrdist.analysis.volume.minkowski import configurations, euler_of_sections

#: What is measured along an axis, on each micrograph that has it.
ALONG = ("crossings", "mean_chord", "integral_range")


def measure(
    targets: Mapping[str, NDArray[Any]], phase: Phase, lags: int
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """Statistics of a phase on the micrographs, in pixels, means over those that show an axis.

    Returns
    -------
    dict
        "volume_fraction", "euler_section" (mean over all), and "crossings_z", "mean_chord_z", "integral_range_z"
        and so on along the axes; what cannot be known is left out.
    dict
        The lineal path along each axis, for segments of 1, 2, ... pixels.
    """
    found: dict[str, list[float]] = {}
    paths: dict[str, list[NDArray[np.float64]]] = {}
    for axis in AXES:
        if f"{axis}/micrograph" not in targets:
            continue
        mask = targets[f"{axis}/micrograph"] == phase.source
        found.setdefault("volume_fraction", []).append(float(mask.mean()))
        counts = configurations(np.stack([mask, mask]))
        found.setdefault("euler_section", []).append(euler_of_sections(counts, 0))
        for side, along in enumerate(IN_PLANE[axis]):
            lines = mask if side == 1 else mask.T
            counted = chords(lines, False)
            found.setdefault(f"crossings_{along}", []).append(float((lines[:, 1:] != lines[:, :-1]).mean()))
            found.setdefault(f"mean_chord_{along}", []).append(mean_chord(counted))
            longest = max(1, min(lines.shape[1] // 2, 4 * lags))
            paths.setdefault(along, []).append(lineal_path(counted, len(lines), longest, False))
            found.setdefault(f"integral_range_{along}", []).append(_range(lines, lags))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    shortest = {along: min(map(len, curves)) for along, curves in paths.items()}
    curves = {along: np.mean([c[: shortest[along]] for c in own], axis=0) for along, own in paths.items()}
    return means, curves


def _range(lines: NDArray[np.bool_], lags: int) -> float:
    """Integral range along lines (m, n), as in the volume."""
    n = lines.shape[1]
    s2 = [float((lines[:, : n - lag] & lines[:, lag:]).mean()) for lag in range(min(lags, n // 2) + 1)]
    return integral_range(np.array(s2), lines.mean(0), False)
