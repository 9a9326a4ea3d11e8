"""The conductor of an analysis: tasks for the workers, a table of what they found, and the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mcrdist.analysis.drawing import svg
from mcrdist.analysis.growing import growth
from mcrdist.analysis.material import Phase, phases
from mcrdist.analysis.pictures import COLOURS
from mcrdist.analysis.report import write as write_report
from mcrdist.analysis.volume import held, image, truth
from mcrdist.analysis.volume.labels import question
from mcrdist.analysis.volume.measure import job, measure
from mcrdist.analysis.volume.parts import FEWEST, cubes, default_edges
from mcrdist.analysis.volume.table import APART, Row, as_csv, titled
from mcrdist.analysis.volume.workers import Crew, dashboard, workers
from mcrdist.analysis.words import number
from mcrdist.config import AnalyzeConfig, VolumeSourceConfig
from mcrdist.errors import InputError
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
            if row.truth is not None and not row.statistic.startswith(APART):
                beside += f"  truth {number(row.truth)}"
                beside += "" if row.scatter is None else f" ± {number(row.scatter, 2)}"
                beside += "" if row.alike in (None, row.value) else f" (measured alike {number(row.alike)})"
            name = f"phase {row.phase}  {titled(row.statistic, row.box)} {row.direction}".rstrip()
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
    lags = _lags(config, source, targets)
    window = image.window(targets, lags)
    of = _phases(config.volume, run)
    jobs = [job(config.volume, source, phase, lags, config, edges, targets, window=window) for phase in of]
    pieces = None if config.truth.path is None else truth.jobs(config, source, of, lags, window)
    to_hold = [] if run is None else _others(config.volume, run, source, say)
    asked = [
        question(source, "volume", [p.label for p in of], config.volume.phase is not None, [config.volume])
    ]
    asked += [] if pieces is None else [pieces.question(config.truth.phase is not None)]
    every = [
        *(t for one in asked for t in one.tasks),
        *jobs,
        *(() if pieces is None else pieces.all),
        *to_hold,
    ]
    found: list[Row] = []
    curves: dict[str, Any] = {}
    problems: list[str] = []
    with workers(config.dask) as client:
        link = dashboard(client)
        if link is not None:
            say(f"dask     {link}")
        with Crew(client, sum(one.work for one in every)) as crew:
            for one_asked in asked:
                one_asked.ask(crew.doing("labels"))
            others = held.gather(to_hold, crew.doing("other descriptors"))
            for todo in jobs:
                label = todo.phase.label
                one = measure(todo, crew, f"phase {label}", others.get(label))
                own, unfinished = [*one.rows, *one.inside], one.unfinished
                curves[str(label)] = one.curves
                if pieces is not None:
                    beside = pieces.measure(label, one, crew)
                    own, unfinished = beside.rows(own), unfinished + beside.unfinished
                    curves[str(label)]["lineal_path_truth"] = beside.paths
                found += own
                if unfinished:
                    problems.append(f"{unfinished} diffusivities of phase {label} have not converged")
    if window < lags:
        say(
            f"warning  integral ranges are summed over lags up to {window}, half of the smallest micrograph, as there"
        )
    for problem in problems:
        say(f"warning  {problem} in {config.transport.iterations} iterations; raise transport.iterations")
    content: dict[str, Any] = {
        "volume": str(config.volume.run or config.volume.path),
        "shape": list(source.shape),
        "voxel_size": list(source.voxel_size),
        "unit": source.unit or "voxel",
        "periodic": source.ours,
        "lags": lags,
        "window": window,
        "truth": None if pieces is None else pieces.content(),
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
    config: VolumeSourceConfig, run: Run, source: Source, say: Callable[[str], None]
) -> list[held.HeldTask]:
    """The tasks for errors of what the run was held to beyond S2, variation and volume fraction."""
    if config.level:
        return []
    descriptors, problems = held.available(run, source.shape)
    for problem in problems:
        say(f"warning  left out: {problem}")
    return [] if descriptors is None else held.tasks(config, descriptors, run, source.shape)


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


def _lags(config: AnalyzeConfig, source: Source, targets: Mapping[str, Any]) -> int:
    """The window of S2 in space: what was asked for, or that of the run."""
    most = min(source.shape) // 2
    if config.lags is not None and config.lags > most:
        nz, ny, nx = source.shape
        raise InputError(
            f"lags: expected an integer of at most {most}, half the shortest edge of {nz} x {ny} x {nx} voxels, found "
            f"{config.lags}"
        )
    return config.lags or min(_LAGS, int(targets.get("lags", _LAGS)), most)


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
