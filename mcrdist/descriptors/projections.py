"""Patches of slices as columns of a matrix, to be projected on filters; and the adjoint of taking them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from mcrdist.descriptors.aligned import aligned
from mcrdist.descriptors.base import Floats


@dataclass(frozen=True)
class PatchKind:
    """Square patches of `size` x `size` cells, a cell being the mean of `pooled` x `pooled` pixels."""

    size: int
    pooled: int = 1

    @property
    def side(self) -> int:
        """Of a patch, in pixels."""
        return self.size * self.pooled

    def filters(self, count: int, number: int) -> Floats:
        """The `number`-th set of random directions in the space of patches: (count, size²), rows of length 1.

        The same in every run: targets that were measured in one suit another.
        """
        generator = np.random.default_rng([self.size, self.pooled, number])
        drawn = generator.standard_normal((count, self.size**2))
        return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))

    def unfold(self, slices: Tensor) -> Tensor:
        """The patches that begin at every pixel of slices (S, H, W), periodic: (S, size², H W)."""
        cells = slices
        if self.pooled > 1:
            cells = avg_pool2d(_wrapped(slices, 0, self.pooled - 1), self.pooled, 1)
        count, height, width = cells.shape
        wide = _wrapped(cells, 0, (self.size - 1) * self.pooled)
        plane, row, column = wide.stride()
        view = wide.as_strided(
            (count, self.size, self.size, height, width),
            (plane, self.pooled * row, self.pooled * column, row, column),
        )
        columns = aligned((count, self.size**2, height * width), slices.dtype, slices.device)
        columns.view_as(view).copy_(view)
        return columns

    def fold(self, columns: Tensor, shape: tuple[int, int]) -> Tensor:
        """The transpose of `unfold`: columns (S, size², H W) to slices (S, H, W)."""
        height, width = shape
        beyond = (self.size - 1) * self.pooled
        wide = columns.new_zeros(len(columns), height + beyond, width + beyond)
        for cell in range(self.size**2):
            top, left = (self.pooled * place for place in divmod(cell, self.size))
            wide[:, top : top + height, left : left + width] += columns[:, cell].view(-1, height, width)
        wide[:, :beyond] += wide[:, height:]
        wide[:, :height, :beyond] += wide[:, :height, width:]
        cells = wide[:, :height, :width]
        if self.pooled > 1:
            cells = avg_pool2d(_wrapped(cells, self.pooled - 1, 0), self.pooled, 1)
        return cells


def _wrapped(slices: Tensor, before: int, after: int) -> Tensor:
    """Slices (S, H, W) with so many pixels from beyond the border on the two ends of both axes."""
    return pad(slices, (before, after, before, after), mode="circular")
