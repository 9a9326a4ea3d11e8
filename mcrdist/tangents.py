"""What a costly descriptor remembers of the slices that it does not look at: the tangents of their losses.

If those looked at stood for all, every subset would pull the volume its own way. As in the stochastic average
gradient (Le Roux, Schmidt and Bach 2012), a slice counts instead with its loss and gradient from when it was last
seen: f(x) ≈ f(x₀) + ⟨∇f(x₀), x − x₀⟩. At any point where all have been seen the gradient is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mcrdist.descriptors.base import slice_sums


class Tangents:
    """Tangents of the loss of one term on the slices of one direction that this rank owns.

    Memory: the volume once more for each direction and term.

    Parameters
    ----------
    owned : range
        The slices.
    shape : tuple of int
        (H, W) of a slice.
    channels : int
        Phases that the term looks at.
    """

    def __init__(
        self, owned: range, shape: tuple[int, int], channels: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._origin = owned.start
        self._slopes = [
            torch.zeros((len(owned), *shape), dtype=dtype, device=device) for _ in range(channels)
        ]
        self._values = torch.zeros(len(owned), dtype=torch.float64, device=device)

    def learn(self, at: range, slices: Sequence[Tensor], slopes: Sequence[Tensor], losses: Tensor) -> None:
        """Take the slices `at`, (S, H, W) a channel, with their gradients and losses (S,) for what they are now."""
        rows = slice(at.start - self._origin, at.stop - self._origin, at.step)
        values = losses.clone()
        for own, part, slope in zip(self._slopes, slices, slopes, strict=True):
            own[rows] = slope
            values -= slice_sums(part * slope)
        self._values[rows] = values

    def add(self, at: Tensor, slices: Sequence[Tensor], gradients: Sequence[Tensor], rows: Tensor) -> Tensor:
        """Add the slopes of the slices `at` to rows of the gradients; return the losses of their tangents (S,).

        Parameters
        ----------
        at : int64 Tensor (S,)
            Numbers of the slices in their direction.
        slices, gradients : sequence of Tensor (batch, H, W)
            A channel each.
        rows : int64 Tensor (S,)
            Where the slices are in the batch.
        """
        index = at - self._origin
        losses = self._values[index]
        for own, part, gradient in zip(self._slopes, slices, gradients, strict=True):
            slope = own[index]
            gradient[rows] += slope
            losses += slice_sums(part[rows].contiguous() * slope)
        return losses
