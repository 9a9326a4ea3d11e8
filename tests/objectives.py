"""Objectives for the tests: random micrographs, another for every direction and phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.descriptors.base import Descriptor, SliceGrid, Term
from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.descriptors.variation import Variation
from mcrdist.descriptors.volume_fraction import GreynessTerm, VolumeFraction
from mcrdist.directions import Direction, directions
from mcrdist.objective import Held, Objective
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.phases import Phases

Shape = tuple[int, int, int]
Values = dict[str, NDArray[np.float64]]
WEIGHTS = {"s2": 0.7, "variation": 0.3, "volume_fraction": 0.5, "greyness": 0.2}
LABELS = {1: (1,), 3: (0, 1, 2), 4: (0, 1, 2, 5)}


def descriptors(shape: tuple[int, int], lags: int, smoothing: float) -> list[Descriptor]:
    return [TwoPointCorrelation(min(lags, min(shape) // 2)), Variation(smoothing), VolumeFraction()]


def values_for(
    shape: Shape, of: Sequence[Direction], phases: int = 1, lags: int = 4
) -> dict[str, list[Values]]:
    """Another target in every direction and phase, or exchanged ones would not be found out."""
    rng = np.random.default_rng(5)
    found = {}
    for number, direction in enumerate(of):
        edges = np.cumsum([0.2 + 0.05 * number] + [0.6 / phases] * (phases - 1))
        classes = np.digitize(rng.random((40, 40)), edges)
        measures = descriptors(direction.slice_shape(shape), lags, 0.5)
        found[direction.name] = [
            {d.name: d.describe((classes == k).astype(float), False)[None] for d in measures}
            for k in range(phases)
        ]
    return found


def terms(
    values: Mapping[str, NDArray[np.float64]], grid: SliceGrid, lags: int, smoothing: float
) -> tuple[Term, ...]:
    found = [d.term(values, WEIGHTS[d.name], grid) for d in descriptors(grid.shape, lags, smoothing)]
    return (*found, GreynessTerm(float(values["volume_fraction"][0]), WEIGHTS["greyness"], grid))


def make(
    shape: Shape,
    comm: Comm,
    workers: Workers,
    *,
    phases: int = 1,
    diagonals: bool = False,
    every: int = 1,
    lags: int = 4,
    smoothing: float = 0.5,
    dtype: torch.dtype = torch.float64,
    fixed: torch.Tensor | None = None,
    lanes: int | None = None,
) -> Objective:
    stacks = directions(shape, diagonals)
    values = values_for(shape, stacks, phases, lags)
    held = {}
    for direction in stacks:
        grid = SliceGrid(direction.slice_shape(shape), dtype, comm.device)
        channels = [terms(one, grid, lags, smoothing) for one in values[direction.name]]
        for own in channels:
            own[0].every = every
        held[direction] = Held(tuple(channels))
    slab = Slab(shape, comm, workers, dtype)
    return Objective(slab, Phases(LABELS[phases], workers), held, comm, workers, fixed, lanes=lanes)


def of_labels(phases: Phases, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """Variables of 0 and 1 (planes, variables, ny, nx) whose phases are `labels`, uint8 (planes, ny, nx)."""
    return phases.stack([(labels == label).to(dtype) for label in phases.labels[: phases.variables]])
