"""What every direction and level must reach, wherever it comes from: images, statistics, or between two of them."""

from mcrdist.descriptors.settling import SETTLED
from mcrdist.targets.base import Target, Targets
from mcrdist.targets.estimate import SMALLEST_WINDOW, settled_lag
from mcrdist.targets.interpolation import Interpolation
from mcrdist.targets.load import load_targets
from mcrdist.targets.micrographs import MicrographTargets
from mcrdist.targets.statistics import StatisticsTargets

__all__ = [
    "SETTLED",
    "SMALLEST_WINDOW",
    "Interpolation",
    "MicrographTargets",
    "StatisticsTargets",
    "Target",
    "Targets",
    "load_targets",
    "settled_lag",
]
