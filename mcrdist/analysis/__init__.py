"""What a volume is worth: statistics, figures and the report, from the run directory alone."""

from mcrdist.analysis.figures import targets_figure
from mcrdist.analysis.report import write as write_report
from mcrdist.analysis.sweep import write as write_sweep_report

__all__ = ["targets_figure", "write_report", "write_sweep_report"]
