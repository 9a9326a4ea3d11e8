"""The conductor of reports: which runs are meant, and whether one is described, a sweep, or several are compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mcrdist.analysis import write_comparison, write_report, write_sweep_report
from mcrdist.config import ReportConfig
from mcrdist.errors import InputError
from mcrdist.store.characterized import require_volume
from mcrdist.store.lock import check
from mcrdist.store.run import FIGURES, REPORT, Run, is_sweep

#: The name of a comparison that was given none.
COMPARISON = "comparison.html"


def report(config: ReportConfig) -> Path:
    """Write the report of a run or of a sweep, or a comparison of several runs; return the page.

    Raises
    ------
    InputError
        One is no run directory, is being written or (of several) not finished; or the page of a comparison is there
        already.
    """
    names = named(config.runs)
    if len(names) == 1 and is_sweep(Path(names[0]).expanduser()):
        return _of_sweep(Path(names[0]).expanduser().absolute(), config)
    runs = [Run.open(name) for name in names]
    for run in runs:
        check(run.path)
        require_volume(run)
    if len(runs) == 1:
        _check_no_path(config, "one run")
        return write_report(runs[0].path, config.figures)
    path = runs[0].path.parent / COMPARISON if config.path is None else Path(config.path)
    path = path.expanduser().absolute()
    if path.exists():
        raise InputError(f"output.path: expected a new file, found {path}; choose another or move it away")
    return write_comparison(runs, path, config.figures)


def _of_sweep(path: Path, config: ReportConfig) -> Path:
    """Make the report of a sweep again, from what its runs have come to since."""
    _check_no_path(config, "a sweep")
    if config.figures is not None:
        raise InputError(
            f"report.figures: expected nothing (null) with the sweep {path}, found {config.figures}; name one of its "
            f"runs, or several to compare them"
        )
    for one in sorted(path.iterdir()):
        if one.is_dir():
            check(one)
    return write_sweep_report(path)


def _check_no_path(config: ReportConfig, what: str) -> None:
    if config.path is not None:
        raise InputError(
            f"output.path: expected nothing (null) with {what}, whose report lies in it, found {config.path}; "
            "name several runs to compare them"
        )


def named(runs: str | Sequence[str]) -> list[str]:
    """The run directories that a setting names.

    A list names one with each entry. In a text, commas separate them, but for those that belong to the name of a
    directory that is there: ``seed=0,volume.size=64``.
    """
    if not isinstance(runs, str):
        return list(runs)
    parts = runs.split(",")
    found: list[str] = []
    while parts:
        ends = range(len(parts), 1, -1)
        end = next((k for k in ends if Path(",".join(parts[:k])).expanduser().is_dir()), 1)
        found.append(",".join(parts[:end]).strip())
        parts = parts[end:]
    if not all(found):
        raise InputError(
            f"run.dir: expected run directories with a comma between them, found {runs!r}; e.g. run.dir=a,b"
        )
    return found


def figures_of(page: Path) -> Path:
    """Where the figures of a page are saved."""
    return page.parent / (FIGURES if page.name == REPORT else f"{page.stem}_{FIGURES}")
