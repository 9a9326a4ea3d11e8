"""Annealing of a volume: from a field to two phases with the wanted volume fraction, then by swaps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.annealing.energy import slice_energies
from mcrdist.annealing.swaps import Swaps
from mcrdist.objective import Objective
from mcrdist.optimize.yeong_torquato import AnnealOptions, AnnealResult, AnnealState, anneal


def anneal_volume(
    field: Tensor,
    objective: Objective,
    fraction: float,
    sweeps: int,
    rng: np.random.Generator,
    note: Callable[[AnnealState, Tensor], bool],
    start: AnnealState | None = None,
) -> AnnealResult:
    """Overwrite `field` (nz, ny, nx), all of it on this process, with the annealed volume of zeros and ones.

    Parameters
    ----------
    fraction : float
        Volume fraction, which swaps conserve.
    sweeps : int
        Of one attempted swap a voxel.
    note
        Called at the start and after each sweep with the field as it is then; returning True stops.
    start
        Of an earlier run that was cut short after this sweep, when the field was as given; other swaps are drawn.
    """
    fixed = None if objective.fixed is None else objective.fixed.cpu().numpy()
    energies = slice_energies(objective)
    labels = with_fraction(field.cpu().numpy(), fraction, rng, fixed)
    swaps = Swaps(labels, energies, rng, fixed)

    def show(state: AnnealState) -> bool:
        field.copy_(torch.from_numpy(swaps.labels))
        return note(state, field)

    return anneal(swaps, AnnealOptions(sweeps, field.numel()), show, start)


def with_fraction(
    field: NDArray[np.floating],
    fraction: float,
    rng: np.random.Generator,
    fixed: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Round a field so that its mean is `fraction`, to the voxel; equal values are ordered by chance.

    Voxels that are `fixed` are rounded at one half, and the others make up for them.
    """
    values = field.ravel().astype(np.float64)
    if fixed is not None:
        given = fixed.ravel()
        values[given] = np.where(values[given] > 0.5, np.inf, -np.inf)
    order = np.lexsort((rng.random(values.size), values))
    labels = np.zeros(values.size, dtype=np.uint8)
    labels[order[values.size - round(fraction * values.size) :]] = 1
    if fixed is not None:
        labels[given] = values[given] > 0.0
    return labels.reshape(field.shape)
