"""One phase of one volume, measured: what there is to do, and all that it adds up to."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis.material import AXES, Phase
from mcrdist.analysis.volume import image
from mcrdist.analysis.volume.clusters import Clusters, join
from mcrdist.analysis.volume.effective import Effective, effective
from mcrdist.analysis.volume.effective import content as effective_content
from mcrdist.analysis.volume.effective import rows as effective_rows
from mcrdist.analysis.volume.parts import PartTask, cube_tasks, look_at_part, middle_tasks
from mcrdist.analysis.volume.pores import Distances
from mcrdist.analysis.volume.survey import Survey, Task, block_tasks, look_at_block, survey, tasks
from mcrdist.analysis.volume.table import Row, rows
from mcrdist.analysis.volume.workers import Crew
from mcrdist.config import AnalyzeConfig, VolumeSourceConfig
from mcrdist.store.metadata import short_unit
from mcrdist.store.source import Source

Targets = Mapping[str, NDArray[Any]]
#: Of each direction by descriptor; of planes (planes,).
Errors = Mapping[str, Mapping[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class Job:
    """What there is to do.

    Attributes
    ----------
    volume : VolumeSourceConfig
    source : Source
        The same volume.
    phase : Phase
    window : int
        Lags that integral ranges are summed over.
    targets : mapping
        Of the run that made the volume; empty for others.
    planes : sequence of Task
    middle, cubes : sequence of PartTask
    """

    volume: VolumeSourceConfig
    source: Source
    phase: Phase
    window: int
    targets: Targets
    planes: Sequence[Task]
    middle: Sequence[PartTask] = ()
    cubes: Sequence[PartTask] = ()

    @property
    def work(self) -> float:
        """About as many nanoseconds."""
        blocks = block_tasks(self.volume, self.source, self.phase.label, 1.0)
        return sum(task.work for some in (self.planes, self.middle, self.cubes, blocks) for task in some)


@dataclass(frozen=True)
class Measured:
    """What was found in a phase.

    Attributes
    ----------
    fraction : float
        Of the volume.
    rows : list of Row
        Of the whole volume.
    inside : list of Row
        Of the boxes inside it: local thickness, transport, and how large a cube must be.
    curves : dict
        What does not fit into a row, for ``analysis.json``.
    s2 : (L + 1, 2 L + 1, 2 L + 1) float64
        In space, see `survey.Survey`.
    unfinished : int
        Diffusivities that have not converged.
    """

    fraction: float
    rows: list[Row]
    inside: list[Row]
    curves: dict[str, Any]
    s2: NDArray[np.float64]
    unfinished: int = 0


def job(
    volume: VolumeSourceConfig,
    source: Source,
    phase: Phase,
    lags: int,
    config: AnalyzeConfig,
    edges: Sequence[int] = (),
    targets: Targets | None = None,
    inside: bool = True,
    window: int | None = None,
) -> Job:
    """Plan the tasks.

    Parameters
    ----------
    lags : int
        Of S2 in space.
    edges : sequence of int
        Of the cubes.
    inside : bool
        Whether boxes inside the volume are looked at.
    window : int, optional
        Lags that integral ranges are summed over, where they are fewer.
    """
    targets = targets or {}
    window = lags if window is None else min(window, lags)
    planes = tasks(volume, source, phase.label, lags, wanted(targets, phase))
    if not inside:
        return Job(volume, source, phase, window, targets, planes)
    given = (volume, source, phase.label)
    middle = middle_tasks(*given, config.middle, config.transport)
    cubes = cube_tasks(*given, config.transport, edges, config.parts.samples)
    return Job(volume, source, phase, window, targets, planes, middle, cubes)


def measure(todo: Job, crew: Crew, name: str = "", others: Errors | None = None) -> Measured:
    """Carry out a job.

    Parameters
    ----------
    name : str
        What is shown while it goes on: "phase 1".
    others : mapping, optional
        Errors of what the run was held to beyond S2, variation and volume fraction.
    """
    source, phase, others = todo.source, todo.phase, others or {}
    boxes = [*todo.middle, *todo.cubes]
    looked = list(crew.doing(f"{name}: boxes inside")(look_at_part, boxes))
    whole = effective(looked[: len(todo.middle)], looked[len(todo.middle) :], source.shape)
    one = survey(source, list(todo.planes), crew.doing(f"{name}: planes"), todo.window)
    blocks = block_tasks(todo.volume, source, phase.label, one.shortest_chord)
    mapped = list(crew.doing(f"{name}: clusters and pores")(look_at_block, blocks))
    parts = join({task.index: own for task, (own, _) in zip(blocks, mapped, strict=True)}, source.ours)
    pores = functools.reduce(operator.add, (sizes for _, sizes in mapped))
    beside, paths = image.measure(todo.targets, phase, todo.window)
    unit = short_unit(source.unit)
    norms = {
        axis: {name: _norm(v) for name, v in named.items()}
        for axis, named in wanted(todo.targets, phase).items()
    }
    found = [
        Row(phase.label, f"E({name})", axis, float(errors.mean()), None, "", True)
        for axis, named in others.items()
        for name, errors in named.items()
    ]
    found += rows(phase.label, one, parts, pores, source.voxel_size, unit, beside, norms, paths)
    return Measured(
        one.functionals["volume_fraction"],
        found,
        effective_rows(phase.label, whole, unit, source.shape),
        _curves(one, parts, pores, norms, paths, others, whole),
        one.s2,
        whole.unfinished,
    )


def wanted(targets: Targets, phase: Phase) -> dict[str, dict[str, NDArray[Any]]]:
    """Targets of each direction by descriptor; of a graded material, those of every plane."""
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for axis in AXES:
        own = f"{axis}/{phase.source}"
        prefix = own if f"{own}/s2" in targets else axis
        if prefix == axis and phase.label != 1:
            continue  # another phase than the one that was described
        for name in ("s2", "variation", "volume_fraction"):
            for key in (f"{prefix}/slices/{name}", f"{prefix}/{name}"):
                if key in targets:
                    found.setdefault(axis, {})[name] = targets[key]
                    break
    return found


def _norm(target: NDArray[Any]) -> float:
    """‖D_des‖, of a graded material the mean over planes."""
    values = np.asarray(target, np.float64)
    if values.ndim == 3:
        return float(np.linalg.norm(values, axis=(1, 2)).mean())
    return float(np.linalg.norm(values)) if values.ndim == 2 else float(np.abs(values).mean())


def _curves(
    one: Survey,
    parts: Clusters,
    pores: Distances,
    norms: Mapping[str, Mapping[str, float]],
    paths: Mapping[str, NDArray[np.float64]],
    others: Errors,
    whole: Effective,
) -> dict[str, Any]:
    """Distributions over planes, lineal paths, chord lengths, S2 in space, and the boxes inside."""
    return {
        "errors": {
            axis: {
                name: (errors / norms[axis][name]).tolist()
                for name, errors in one.errors.get(axis, {}).items()
            }
            | {name: errors.tolist() for name, errors in others.get(axis, {}).items()}
            for axis in dict.fromkeys([*one.errors, *others])
        },
        "lineal_path": {axis: path.tolist() for axis, path in one.lineal_path.items()},
        "lineal_path_micrograph": {axis: path.tolist() for axis, path in paths.items()},
        "chords": {axis: counts[1].tolist() for axis, counts in one.chords.items()},
        "s2": one.s2.tolist() if one.s2.size <= 2**16 else None,
        "clusters": asdict(parts),
        "distances": np.trim_zeros(pores.counts, "b").tolist(),  # a bin each half voxel
        "representative": effective_content(whole),
    }
