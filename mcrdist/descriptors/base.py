"""What every descriptor offers: its value on a stack of slices, and its part of the loss and the gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, float64


def slice_sums(values: Tensor) -> Tensor:
    """Sum every slice of (S, H, W) in double precision, the same to the last bit for any S; (S,) float64.

    Row by row, then over the rows: in one go the order of the sum would depend on whether the rows follow one
    another in memory, and planes normal to y lie so exactly when a rank holds a single one of them. Where the
    slice index runs fastest there is no such case, and one go is faster.
    """
    if values.stride(0) < values.stride(2):
        return values.sum((1, 2), dtype=float64)
    return values.sum(2, dtype=float64).sum(1)


class Term(ABC):
    """A descriptor with the value it must reach on every slice of one direction.

    The loss of a slice is `weight` times the square of its error, the error being the distance between the
    slice's descriptor and the target over `scale` (Eq. 9 of Seibert et al. 2022; squares make it smooth).

    Attributes
    ----------
    name : str
        The descriptor's name, as in the configuration.
    weight : float
        Its weight in the loss.
    scale : float
        What one unit of error is: the size of the target in most terms, so that errors are relative.
    norm : float
        The size of the target, ‖D_des‖ of Eq. 10; reports are relative to it.
    """

    name: str
    weight: float
    scale: float
    norm: float

    @property
    def parts(self) -> tuple[Term, ...]:
        """The terms whose errors `accumulate` returns: this one, and those that ride along on its work."""
        return (self,)

    @abstractmethod
    def accumulate(self, slices: Tensor, gradient: Tensor | None, share: float) -> Tensor:
        """Add this term's part of the gradient and return the errors.

        Parameters
        ----------
        slices : Tensor (S, H, W)
            A view of any layout.
        gradient : Tensor (S, H, W) or None
            d loss / d slices is added to it.
        share : float
            What the loss of one slice counts in the whole loss, 1 / number of slices.

        Returns
        -------
        Tensor (S,) or (S, parts), float64
            ‖D_s − D_des‖ / scale, with its sign for a descriptor of one number.
        """

    def evaluate(self, slices: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Return the errors, and this term's gradient (S, H, W) as a tensor of its own; see `accumulate`."""
        gradient = torch.zeros_like(slices)
        return self.accumulate(slices, gradient, share), gradient

    def loss(self, error: NDArray[np.float64]) -> NDArray[np.float64]:
        """The loss of slices with these errors, any shape."""
        return self.weight * error**2

    def flip_constant(
        self, error: NDArray[np.float64], shape: tuple[int, int], share: float
    ) -> NDArray[np.float64]:
        """Second-order change of the loss when one voxel of a slice flips between 0 and 1.

        What a flip of voxel i does to the loss is ``gradient_i (1 - 2 x_i)`` plus this constant of its slice.

        Parameters
        ----------
        error : array (S,)
            What `accumulate` returned.
        shape : tuple of int
            (H, W) of the slices.
        share : float
            As for `accumulate`.

        Returns
        -------
        array (S,)
        """
        del shape, share
        return np.zeros_like(error)
