"""Errors of a descriptor that has several parts, each relative to its own size."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mcrdist.descriptors.base import Floats, SliceGrid, Targets, row_norms


class RelativeErrors:
    """The root mean square, over parts, of ‖D_part − D_part,des‖ / ‖D_part,des‖.

    Phases that are rare and pairs of phases that seldom meet count as much as the others.

    Parameters
    ----------
    target : array (T, parts, …)
        One for all slices or one a slice.
    grid : SliceGrid
    """

    def __init__(self, target: Floats, grid: SliceGrid) -> None:
        self.parts = target.shape[1]
        sizes = np.linalg.norm(target.reshape(len(target), self.parts, -1), axis=2).mean(0)
        sizes[sizes == 0.0] = 1.0  # a part that is absent from the micrograph has no size to be relative to
        shape = (1, self.parts) + (1,) * (target.ndim - 2)
        units = (sizes * np.sqrt(self.parts)).reshape(shape)
        self._units = torch.as_tensor(units, dtype=torch.float64, device=grid.device)
        self._targets = Targets(target, grid, torch.float64)

    def __call__(self, values: Tensor, at: range) -> tuple[Tensor, Tensor]:
        """The errors (S,) of values (S, parts, …), and half the derivative of their squares, both float64."""
        residual = (values.to(torch.float64) - self._targets.of(at)) / self._units
        return row_norms(residual), residual / self._units
