"""What a finished volume is like: its errors, volume fractions and greyness, for ``summary.json``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor, float64

from mcrdist.conditioning.seam import seams
from mcrdist.objective import costly
from mcrdist.parallel.comm import Comm
from mcrdist.solver.grid import Grid
from mcrdist.solver.level import Outcome


def describe(grid: Grid, outcome: Outcome, comm: Comm, hurried: bool = False) -> dict[str, Any]:
    """Evaluate the relaxed and the rounded field with the exact variation; every rank calls this.

    One that is `hurried`, since it was asked to end, does without costly descriptors: of all slices they take minutes.

    Returns
    -------
    dict
        ``errors`` (Eq. 10) by field, direction and descriptor, ``volume_fraction`` wanted and found,
        ``grey_fraction``; the ``thresholds`` of rounding; of known voxels their number, and how they join the rest
        (`seam.seams`); ``spread`` where there are several micrographs. With several phases the errors are means
        over them, and ``phases`` has each one's own.
    """
    objective = grid.objective(smoothing=0.0, without=costly if hurried else None, report=True)
    fields = {"relaxed": outcome.relaxed, "rounded": outcome.rounded}
    evaluations = {which: objective(field, None) for which, field in fields.items()}
    voxels = math.prod(grid.slab.shape)
    grey = comm.sum_integers(np.array([grid.phases.grey(outcome.relaxed)]))
    found: dict[str, Any] = {
        "errors": {which: objective.relative(evaluation) for which, evaluation in evaluations.items()},
        "grey_fraction": int(grey[0]) / voxels,
    }
    if outcome.thresholds is not None:
        found["thresholds"] = list(outcome.thresholds)
    if grid.fixed is not None:
        known = comm.sum_integers(np.array([int(grid.fixed.sum())]))
        labels = grid.phases.label(outcome.rounded)
        found["conditioning"] = {"voxels": int(known[0]), "seam": seams(labels, grid.fixed, grid.slab)}
    if spread := grid.spread():
        found["spread"] = spread
    fractions = _fractions(grid, fields)
    if len(fractions) == 1:
        return found | {"volume_fraction": fractions[0]}
    found["phases"] = {
        str(label): {
            "volume_fraction": fractions[channel],
            "errors": {
                which: objective.relative(evaluation, channel) for which, evaluation in evaluations.items()
            },
        }
        for channel, label in enumerate(grid.phases.labels)
    }
    return found


def _fractions(grid: Grid, fields: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Volume fraction of every channel, wanted in each direction and found in each field."""
    voxels = math.prod(grid.slab.shape)
    found: list[dict[str, Any]] = [{"target": wanted} for wanted in grid.fractions()]
    for which, field in fields.items():
        # plane by plane: torch would make a float64 copy of all that it sums
        sums = [[float(plane.sum(dtype=float64)) for plane in part] for part in grid.phases.channels(field)]
        totals = grid.slab.gather_rows(np.ascontiguousarray(np.transpose(sums))).sum(0)
        for channel, total in enumerate(totals):
            found[channel][which] = float(total) / voxels
    return found
