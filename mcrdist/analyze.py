"""The conductor of an analysis: tasks for the workers, a table of what they found, and the report."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis.drawing import svg
from mcrdist.analysis.growing import growth
from mcrdist.analysis.material import AXES, Phase, phases
from mcrdist.analysis.pictures import COLOURS
from mcrdist.analysis.report import write as write_report
from mcrdist.analysis.volume import held, image
from mcrdist.analysis.volume.clusters import Clusters, join
from mcrdist.analysis.volume.effective import content as effective_content
from mcrdist.analysis.volume.effective import effective
from mcrdist.analysis.volume.effective import rows as effective_rows
from mcrdist.analysis.volume.parts import (
    FEWEST,
    cube_tasks,
    cubes,
    default_edges,
    look_at_part,
    middle_tasks,
)
from mcrdist.analysis.volume.pores import Distances
from mcrdist.analysis.volume.survey import Survey, block_tasks, look_at_block, survey, tasks
from mcrdist.analysis.volume.table import Row, as_csv, rows
from mcrdist.analysis.volume.workers import dashboard, in_order, workers
from mcrdist.analysis.words import number
from mcrdist.config import AnalyzeConfig, VolumeSourceConfig
from mcrdist.errors import InputError
from mcrdist.store.metadata import short_unit
from mcrdist.store.place import write_atomically
from mcrdist.store.run import ANALYSIS, REPORT, Run, finite
from mcrdist.store.source import Source, open_source

#: The window of S2 in space unless told otherwise: its cost grows with it.
_LAGS = 32


@dataclass(frozen=True)
class Analysis:
    """What an analysis found.

    Attributes
    ----------
    path : Path
        The directory with ``analysis.json`` and ``analysis.csv``.
    rows : list of Row
    answers : list of str
        Of each phase whether the volume is representative, in words.
    report : Path or None
        The run's report, which has a section more.
    """

    path: Path
    rows: list[Row]
    answers: list[str]
    report: Path | None = None

    def lines(self) -> list[str]:
        """The table for a terminal."""
        out = []
        for row in self.rows:
            beside = "" if row.micrograph is None else f"  micrograph {number(row.micrograph)}"
            name = f"phase {row.phase}  {row.statistic} {row.direction}".rstrip()
            out.append(f"{name:<60}{number(row.value)} {row.unit}".rstrip() + beside)
        return out + self.answers


def analyze(config: AnalyzeConfig, say: Callable[[str], None] = lambda text: None) -> Analysis:
    """Measure a volume and write what was found.

    Parameters
    ----------
    config : AnalyzeConfig
    say : callable
        Takes the line with the dashboard's link, where there is a dashboard.

    Raises
    ------
    InputError
        No such volume, no labels, a phase that it does not have, or results that are there already.
    """
    source = open_source(config.volume)
    if source.dtype.kind not in "ui":
        raise InputError(f"{source.path}: expected labels, found {source.dtype}; segment the volume first")
    if min(source.shape) < 4:
        raise InputError(f"{source.path}: expected a volume of 4 voxels a side, found {source.shape}")
    run = None if config.volume.run is None else Run.open(config.volume.run)
    directory = _directory(config, source)
    edges = _edges(config, source)
    targets = run.targets if run is not None and config.volume.level == 0 else {}
    lags = min(config.lags or min(_LAGS, int(targets.get("lags", _LAGS))), min(source.shape) // 2)
    found: list[Row] = []
    curves: dict[str, Any] = {}
    with workers(config.dask) as client:
        link = dashboard(client)
        if link is not None:
            say(f"dask     {link}")
        others = {} if run is None else _others(config.volume, run, source, client, say)
        for phase in _phases(config.volume, run):
            wanted = _wanted(targets, phase)
            given = (config.volume, source, phase.label)
            boxes = middle_tasks(*given, config.middle, config.transport)
            cut = cube_tasks(*given, config.transport, edges, config.parts.samples)
            looked = list(in_order(client, f"phase {phase.label} boxes")(look_at_part, boxes + cut))
            whole = effective(looked[: len(boxes)], looked[len(boxes) :], source.shape)
            todo = tasks(config.volume, source, phase.label, lags, wanted)
            one = survey(source, todo, in_order(client, f"phase {phase.label}"))
            if not one.functionals["volume_fraction"]:
                raise InputError(f"volume.phase: expected a phase of {source.path}, found no {phase.label}")
            blocks = block_tasks(config.volume, source, phase.label, one.shortest_chord)
            mapped = in_order(client, f"phase {phase.label} clusters")(look_at_block, blocks)
            labelled, sizes = zip(*mapped, strict=True)
            parts = join(dict(zip((task.index for task in blocks), labelled, strict=True)), source.ours)
            pores = functools.reduce(operator.add, sizes)
            beside, paths = image.measure(targets, phase, lags)
            unit = short_unit(source.unit)
            norms = {axis: {name: _norm(v) for name, v in named.items()} for axis, named in wanted.items()}
            asked = others.get(phase.label, {})
            found += [
                Row(phase.label, f"E({name})", axis, float(errors.mean()), None, "", True)
                for axis, named in asked.items()
                for name, errors in named.items()
            ]
            found += rows(phase.label, one, parts, pores, source.voxel_size, unit, beside, norms, paths)
            curves[str(phase.label)] = _curves(one, parts, pores, norms, paths, asked)
            found += effective_rows(phase.label, whole, unit)
            curves[str(phase.label)]["representative"] = effective_content(whole)
            if whole.unfinished:
                say(
                    f"warning  {whole.unfinished} diffusivities of phase {phase.label} have not converged in "
                    f"{config.transport.iterations} iterations; raise transport.iterations"
                )
    content: dict[str, Any] = {
        "volume": str(config.volume.run or config.volume.path),
        "shape": list(source.shape),
        "voxel_size": list(source.voxel_size),
        "unit": source.unit or "voxel",
        "periodic": source.ours,
        "lags": lags,
        "rows": [asdict(row) for row in found],
        "phases": curves,
    }
    _write(directory, content, found)
    report = None
    if run is not None and directory == run.path / ANALYSIS and (run.path / REPORT).is_file():
        report = write_report(run.path)
    answers = {label: own["representative"]["headline"] for label, own in curves.items()}
    return Analysis(directory, found, [f"phase {k}  {said}" for k, said in answers.items() if said], report)


def _write(directory: Path, content: Mapping[str, Any], found: Sequence[Row]) -> None:
    """The files of an analysis."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(finite(content), indent=1, ensure_ascii=False) + "\n"
    write_atomically(directory / "analysis.json", text.encode(), "output.dir")
    write_atomically(directory / "analysis.csv", as_csv(found).encode(), "output.dir")
    for label, own in content["phases"].items():
        figure = growth(own["representative"], content["unit"])
        if figure is not None:
            picture = svg(figure).content("svg")
            write_atomically(directory / f"representative-{label}.svg", picture, "output.dir")


def _others(
    config: VolumeSourceConfig, run: Run, source: Source, client: Any, say: Callable[[str], None]
) -> held.Found:
    """Errors of what the run was held to beyond S2, variation and volume fraction."""
    if config.level:
        return {}
    descriptors, problems = held.available(run, source.shape)
    for problem in problems:
        say(f"warning  left out: {problem}")
    if descriptors is None:
        return {}
    todo = held.tasks(config, descriptors, run, source.shape)
    return held.gather(todo, in_order(client, "other descriptors"))


def _directory(config: AnalyzeConfig, source: Source) -> Path:
    """A new directory, or an empty one."""
    if config.dir is not None:
        path = Path(config.dir).expanduser().absolute()
    elif config.volume.run is not None:
        path = Path(config.volume.run).expanduser().absolute() / ANALYSIS
    else:
        path = source.path.absolute().parent / f"{source.name}_{ANALYSIS}"
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(
            f"output.dir: expected a new or empty directory, found {path}; choose another or move it away"
        )
    return path


def _edges(config: AnalyzeConfig, source: Source) -> tuple[int, ...]:
    """Edges of the cubes to cut out; of each, the volume has enough."""
    if config.parts.edges is None:
        return default_edges(source.shape, config.middle.edge)
    for edge in config.parts.edges:
        count = len(cubes(source.shape, edge, config.parts.samples))
        if count < FEWEST:
            nz, ny, nx = source.shape
            raise InputError(
                f"parts.edges: expected edges of which the volume has {FEWEST} cubes side by side, found {edge}, of "
                f"which there are {count} in {nz} x {ny} x {nx} voxels"
            )
    return tuple(sorted(set(config.parts.edges)))


def _phases(config: VolumeSourceConfig, run: Run | None) -> Sequence[Phase]:
    """Those that the run was held to, or the one that was asked for."""
    known = () if run is None else phases(run.summary, run.targets)
    if config.phase is None:
        return known or (Phase(1, 1, "phase 1", COLOURS[1]),)
    one = Phase(config.phase, config.phase, f"phase {config.phase}", COLOURS[config.phase % len(COLOURS)])
    return [phase for phase in known if phase.label == config.phase] or [one]


def _wanted(targets: Mapping[str, NDArray[Any]], phase: Phase) -> dict[str, dict[str, NDArray[Any]]]:
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
    others: Mapping[str, Mapping[str, NDArray[np.float64]]],
) -> dict[str, Any]:
    """What does not fit into a row: distributions over planes, lineal paths, chord lengths, S2 in space."""
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
    }
