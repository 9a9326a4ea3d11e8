"""The conductor of reports: which runs are meant, and whether one is described or several are compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mcrdist.analysis import write_comparison, write_report
from mcrdist.config import ReportConfig
from mcrdist.errors import InputError
from mcrdist.store.characterized import require_volume
from mcrdist.store.lock import check
from mcrdist.store.run import FIGURES, REPORT, Run

#: The name of a comparison that was given none.
COMPARISON = "comparison.html"


def report(config: ReportConfig) -> Path:
    """Write the report of a run, or a comparison of several; return the page.

    Raises
    ------
    InputError
        One is no run directory, is being written or (of several) not finished; or the page of a comparison is there
        already.
    """
    runs = [Run.open(name) for name in named(config.runs)]
    for run in runs:
        check(run.path)
        require_volume(run)
    if len(runs) == 1:
        if config.path is not None:
            raise InputError(
                f"output.path: expected nothing (null) with one run, whose report lies in it, found {config.path}; "
                "name several runs to compare them"
            )
        return write_report(runs[0].path, config.figures)
    path = runs[0].path.parent / COMPARISON if config.path is None else Path(config.path)
    path = path.expanduser().absolute()
    if path.exists():
        raise InputError(f"output.path: expected a new file, found {path}; choose another or move it away")
    return write_comparison(runs, path, config.figures)


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
