"""A true volume beside the one that is measured: both cut into pieces of one size, and measured in one way.

A volume that was made is periodic and a true one is not; of a large one clusters are larger, and chords that its border
does not cut are longer. So both are cut into boxes as large as fit into both, and each of these is measured as a
volume without periodicity. What is compared are means over boxes; how far boxes of the truth lie apart tells how near
one may hope to come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis.material import AXES, Phase
from mcrdist.analysis.volume.labels import Question, question
from mcrdist.analysis.volume.measure import Job, Measured, job, measure
from mcrdist.analysis.volume.parts import Index, centred, choice
from mcrdist.analysis.volume.table import APART, Row
from mcrdist.analysis.volume.workers import Crew
from mcrdist.config import AnalyzeConfig, VolumeSourceConfig
from mcrdist.errors import InputError
from mcrdist.store.metadata import METRES
from mcrdist.store.source import Source, open_source

#: Compared to the micrograph or to other cubes, not to the truth.
_LEFT_OUT = ("E(", "representative edge")
#: A row's statistic and direction.
Key = tuple[str, str]


@dataclass(frozen=True)
class Beside:
    """What the truth has beside a phase.

    Attributes
    ----------
    values : dict
        By statistic and direction: that of the volume, measured as the truth is, that of the truth, and the standard
        deviation of the truth's boxes (NaN of a single one).
    curves : dict
        By curve and direction: the relative distance from the true one (Eq. 10), and the mean one of a true box.
    paths : dict of str to list of float
        The true lineal path along each axis.
    unfinished : int
        Diffusivities that have not converged.
    """

    values: dict[Key, tuple[float, float, float]]
    curves: dict[Key, tuple[float, float]]
    paths: dict[str, list[float]]
    unfinished: int = 0

    def rows(self, found: Sequence[Row]) -> list[Row]:
        """The rows of a phase with the truth's values beside theirs, and a row more for each curve."""
        out = []
        for row in found:
            known = self.values.get((row.statistic, row.direction))
            if known is None:
                out.append(row)
            else:
                alike, true, scatter = (None if math.isnan(value) else value for value in known)
                out.append(replace(row, alike=alike, truth=true, scatter=scatter))
        phase = found[0].phase
        for (name, axis), (distance, scatter) in self.curves.items():
            spread = None if math.isnan(scatter) else scatter
            out.append(
                Row(phase, f"{APART}{name}", axis, distance, alike=distance, truth=0.0, scatter=spread)
            )
        return out


@dataclass(frozen=True)
class Pieces:
    """The boxes of both volumes, by the phase's label.

    Attributes
    ----------
    source : Source
        The truth.
    edges : (z, y, x)
        Of a box, in voxels.
    lags : int
        The window of S2 in space, which is no longer than half a box.
    mine, true : dict of int to sequence of Job
    whole : bool
        Whether the one box of the volume is all of it.
    middle : (z, y, x)
        Edges of the box in the middle of each, for what is too costly for all of it.
    """

    source: Source
    edges: Index
    lags: int
    mine: Mapping[int, Sequence[Job]]
    true: Mapping[int, Sequence[Job]]
    whole: bool
    middle: Index

    @property
    def all(self) -> list[Job]:
        """Every job."""
        return [job for some in (self.mine, self.true) for jobs in some.values() for job in jobs]

    def question(self, chosen: bool) -> Question:
        """Whether the true boxes have the phases; `chosen`: whether somebody named their label there."""
        jobs = next(iter(self.true.values()))
        labels = [own[0].phase.label for own in self.true.values()]
        return question(self.source, "truth", labels, chosen, [job.volume for job in jobs])

    def content(self) -> dict[str, Any]:
        """For ``analysis.json``."""
        label = next(iter(self.true))
        return {
            "path": str(self.source.path),
            "phase": {str(k): jobs[0].phase.label for k, jobs in self.true.items()},
            "edges": list(self.edges),
            "lags": self.lags,
            "middle": None if self.middle == self.edges else list(self.middle),
            "boxes": len(self.true[label]),
            "boxes_of_the_volume": max(1, len(self.mine[label])),
        }

    def measure(self, label: int, own: Measured, crew: Crew) -> Beside:
        """Carry out the jobs of a phase.

        Parameters
        ----------
        own : Measured
            The whole volume.
        """
        true = [
            measure(todo, crew, f"phase {label}, truth {k + 1} of {len(self.true[label])}")
            for k, todo in enumerate(self.true[label])
        ]
        mine = [measure(todo, crew, f"phase {label}, as the truth") for todo in self.mine[label]]
        if self.whole:  # what is inside is the same, periodic or not
            mine = [replace(one, inside=own.inside) for one in mine or [own]]
        return compare(mine, true)


def jobs(config: AnalyzeConfig, source: Source, of: Sequence[Phase], lags: int, window: int) -> Pieces:
    """Plan what there is to measure; `lags` and `window` are those of the whole volume, see `measure.job`.

    Raises
    ------
    InputError
        There is no such volume, it has other voxels, or no labels.
    """
    if config.truth.phase is not None and len(of) > 1:
        raise InputError(
            f"truth.phase: expected null where {len(of)} phases are measured, found {config.truth.phase}; "
            "choose one with volume.phase="
        )
    there = config.truth.volume
    there = _same_voxels(there, open_source(there), source)
    truth = open_source(there)
    z, y, x = (min(a, b) for a, b in zip(source.shape, truth.shape, strict=True))
    edges, whole = (z, y, x), (z, y, x) == source.shape
    lags = min(lags, min(edges) // 2)
    mine: dict[int, Sequence[Job]] = {}
    true: dict[int, Sequence[Job]] = {}
    for phase in of:
        label = phase.label if config.truth.phase is None else config.truth.phase
        there_too = Phase(label, label, phase.name, phase.colour)
        true[phase.label] = pieces(there, there_too, edges, lags, config, config.truth.samples, window=window)
        if whole and not source.ours:
            mine[phase.label] = []  # measured already
        else:
            mine[phase.label] = pieces(
                config.volume, phase, edges, lags, config, config.truth.samples, not whole, window
            )
    return Pieces(truth, edges, lags, mine, true, whole, centred(edges, config.middle.edge)[1])


def pieces(
    volume: VolumeSourceConfig,
    phase: Phase,
    edges: Index,
    lags: int,
    config: AnalyzeConfig,
    most: int,
    inside: bool = True,
    window: int | None = None,
) -> list[Job]:
    """A job for each of at most so many boxes of a volume, which are taken for volumes by themselves.

    Parameters
    ----------
    inside : bool
        Whether local thickness and transport are found too.
    """
    found = []
    for corner in side_by_side(open_source(volume).shape, edges, most):
        box = replace(volume, box=(corner, edges))
        found.append(job(box, open_source(box), phase, lags, config, inside=inside, window=window))
    return found


def side_by_side(shape: Index, edges: Index, most: int) -> list[Index]:
    """Corners of boxes that fill a volume but for what is left over at its ends; of more than `most`, a choice.

    The choice is random, and the same every time.
    """
    counts = [n // edge for n, edge in zip(shape, edges, strict=True)]
    first = [(n - c * edge) // 2 for n, c, edge in zip(shape, counts, edges, strict=True)]
    corners: list[Index] = []
    for index in np.ndindex(*counts):
        z, y, x = (f + k * edge for f, k, edge in zip(first, index, edges, strict=True))
        corners.append((z, y, x))
    return choice(corners, most, most)


def compare(mine: Sequence[Measured], true: Sequence[Measured]) -> Beside:
    """Means over boxes of both, and how far the truth's boxes lie apart."""
    own, other = _by_key(mine), _by_key(true)
    values = {
        key: (_mean(own[key]), _mean(numbers), _scatter(numbers))
        for key, numbers in other.items()
        if key in own and not key[0].startswith(_LEFT_OUT)
    }
    got, wanted = _curves(mine), _curves(true)
    single = [_curves([one]) for one in true] if len(true) > 1 else []
    curves = {}
    for key, curve in wanted.items():
        scatter = float(np.mean([apart(one[key], curve) for one in single])) if single else math.nan
        curves[key] = (apart(got[key], curve), scatter)
    paths = {axis: wanted["lineal path", axis].tolist() for axis in AXES}
    return Beside(values, curves, paths, sum(one.unfinished for one in [*mine, *true]))


def _by_key(boxes: Sequence[Measured]) -> dict[Key, list[float]]:
    found: dict[Key, list[float]] = {}
    for box in boxes:
        for row in [*box.rows, *box.inside]:
            found.setdefault((row.statistic, row.direction), []).append(row.value)
    return found


def _known(numbers: Sequence[float]) -> list[float]:
    return [value for value in numbers if math.isfinite(value)]


def _mean(numbers: Sequence[float]) -> float:
    return float(np.mean(_known(numbers))) if _known(numbers) else math.nan


def _scatter(numbers: Sequence[float]) -> float:
    return float(np.std(_known(numbers), ddof=1)) if len(_known(numbers)) > 1 else math.nan


def _curves(boxes: Sequence[Measured]) -> dict[Key, NDArray[np.float64]]:
    """Means over boxes: S2 in space, lineal path, and the shares of chords and of distances in and beyond each bin."""
    found: dict[Key, NDArray[np.float64]] = {("S2 in space", ""): np.mean([one.s2 for one in boxes], axis=0)}
    for axis in AXES:
        found["lineal path", axis] = np.mean([one.curves["lineal_path"][axis] for one in boxes], axis=0)
        found["chord lengths", axis] = _beyond(np.sum([one.curves["chords"][axis] for one in boxes], axis=0))
    longest = max(len(one.curves["distances"]) for one in boxes)
    distances = np.zeros(longest)
    for one in boxes:
        distances[: len(one.curves["distances"])] += one.curves["distances"]
    found["distances to the boundary", ""] = _beyond(distances)
    return found


def _beyond(counts: NDArray[Any]) -> NDArray[np.float64]:
    """The share in and beyond each bin."""
    return np.asarray(np.cumsum(counts[::-1])[::-1] / max(1, counts.sum()), np.float64)


def apart(curve: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """‖a - b‖ / ‖b‖ (Eq. 10), the shorter curve continued by zeros; NaN where the true one is nothing."""
    if curve.ndim == 1:
        length = max(len(curve), len(true))
        curve, true = (np.pad(one, (0, length - len(one))) for one in (curve, true))
    norm = float(np.linalg.norm(true))
    return float(np.linalg.norm(curve - true)) / norm if norm else math.nan


def _same_voxels(there: VolumeSourceConfig, truth: Source, volume: Source) -> VolumeSourceConfig:
    """The truth with lengths in the volume's unit; where one of the two knows none, voxels are the same."""
    if truth.dtype.kind not in "ui":
        raise InputError(f"truth.path: expected labels, found {truth.dtype}; segment {truth.path} first")
    if min(truth.shape) < 4:
        raise InputError(f"truth.path: expected a volume of 4 voxels a side, found {truth.shape}")
    sides = volume.voxel_size
    if truth.unit is not None and volume.unit is not None:
        factor = METRES[truth.unit] / METRES[volume.unit]
        wide = tuple(side * factor for side in truth.voxel_size)
        if not np.allclose(wide, sides, rtol=1e-3):
            raise InputError(
                f"truth.voxel_size: expected voxels as wide as the volume's, {_sides(sides)} {volume.unit} (z, y, x), "
                f"found {_sides(wide)}; resample one of them, or take another truth.level or volume.level"
            )
    return replace(there, voxel_size=sides, unit=volume.unit)


def _sides(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:g}" for length in lengths)
