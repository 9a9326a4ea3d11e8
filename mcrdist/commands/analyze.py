"""``mcrdist analyze``: the statistics of a volume."""

from __future__ import annotations

from collections.abc import Sequence

from mcrdist.commands.compose import compose
from mcrdist.commands.terminal import program, relative, say
from mcrdist.config import analyze_from_mapping


def run(overrides: Sequence[str]) -> int:
    """Analyse and say where the results are; return the exit status."""
    config = analyze_from_mapping(compose("analyze", overrides))
    from mcrdist.analyze import analyze

    result = analyze(config, say)
    for line in result.lines():
        say(line)
    say(f"analysis {result.path}")
    if result.report is not None:
        say(f"report   {result.report}")
        say(f"figures  {program()} report run.dir={relative(result.report.parent)} report.figures=pdf")
    return 0
