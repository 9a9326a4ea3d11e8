"""The settings of a report: which runs it is about, and whether its figures become files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mcrdist.config.kinds import choice, text, text_or_texts
from mcrdist.config.schema import Section, checks_of, setting
from mcrdist.errors import InputError


@dataclass(frozen=True)
class ReportConfig:
    """What `mcrdist report` needs.

    Attributes
    ----------
    runs : str or tuple of str
        A run directory, or several; a text may name several with commas between them.
    figures : str or None
        What every figure is saved as.
    path : str or None
        Of the page that compares several runs.
    """

    runs: str | tuple[str, ...]
    figures: Literal["svg", "pdf"] | None = setting(choice("svg", "pdf", optional=True, example="pdf"), None)
    path: str | None = None


def _build(given: dict[str, Any], key: str) -> ReportConfig:
    runs = (given.get("run") or {}).get("dir")
    if runs is None:
        raise InputError(
            "run.dir: expected a run directory, or several with commas between them, found nothing (null); e.g. "
            "mcrdist report run.dir=out"
        )
    path = (given.get("output") or {}).get("path")
    return ReportConfig(runs, (given.get("report") or {}).get("figures"), path)


REPORT = Section(
    {
        "run": Section(
            {"dir": text_or_texts("the path of a run directory", optional=True, example="out")},
            lambda given, key: given,
        ),
        "report": Section(checks_of(ReportConfig), lambda given, key: given),
        "output": Section(
            {"path": text("the path of a new file", optional=True, example="comparison.html")},
            lambda given, key: given,
        ),
    },
    _build,
)


def report_from_mapping(mapping: Any) -> ReportConfig:
    """Return the validated configuration of a report; see :func:`mcrdist.config.from_mapping`."""
    REPORT.verify(mapping, "")
    config: ReportConfig = REPORT(mapping, "")
    return config
