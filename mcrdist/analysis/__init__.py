"""What a volume is worth: statistics, figures and the report, from the run directory alone."""

from mcrdist.analysis.comparison import write as write_comparison
from mcrdist.analysis.report import write as write_report
from mcrdist.analysis.sweep import write as write_sweep_report
from mcrdist.analysis.targets_figure import targets_figure

__all__ = ["targets_figure", "write_comparison", "write_report", "write_sweep_report"]
