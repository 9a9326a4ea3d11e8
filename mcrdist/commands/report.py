"""``mcrdist report``: a run's report again, or several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

from mcrdist.commands.compose import compose
from mcrdist.commands.terminal import say
from mcrdist.config import report_from_mapping


def run(overrides: Sequence[str]) -> int:
    """Write the page and say where it is; return the exit status."""
    config = report_from_mapping(compose("report", overrides))
    from mcrdist.reporting import figures_of, report

    page = report(config)
    say(f"report  {page}")
    if config.figures is not None:
        say(f"figures {figures_of(page)}")
    return 0
