"""What every descriptor offers: its value on images, and its part of the loss and the gradient of slices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, float64

Floats = NDArray[np.float64]


def slice_sums(values: Tensor) -> Tensor:
    """Sum every slice of (S, H, W) in double precision, the same to the last bit for any S; (S,) float64.

    Row by row, then over the rows: in one go the order of the sum would depend on whether the rows follow one
    another in memory, and planes normal to y lie so exactly when a rank holds a single one of them. Where the
    slice index runs fastest there is no such case, and one go is faster.
    """
    if values.stride(0) < values.stride(2):
        return values.sum((1, 2), dtype=float64)
    return values.sum(2, dtype=float64).sum(1)


def row_norms(residual: Tensor) -> Tensor:
    """Euclidean length of every row of (S, ...) in double precision, row by row; (S,) float64."""
    if not len(residual):
        return torch.zeros(0, dtype=float64, device=residual.device)
    return torch.stack([torch.linalg.vector_norm(row.to(float64).flatten()) for row in residual])


@dataclass(frozen=True)
class SliceGrid:
    """What the slices of one direction at one level have in common.

    Attributes
    ----------
    shape : tuple of int
        (H, W) of a slice, in voxels.
    dtype, device
        Of the tensors.
    """

    shape: tuple[int, int]
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class Descriptor(ABC):
    """A statistic of images of one phase: how to measure it, and how to hold slices to it.

    Attributes
    ----------
    name : str
        As in the configuration, in reports and in ``targets.npz``.
    balance : float
        What a weight of 1 in the configuration means in the loss, so that 1 suits every descriptor.
    """

    name: str
    balance: float = 1.0

    @abstractmethod
    def describe(self, image: Floats, periodic: bool) -> Floats:
        """Measure the descriptor on one image.

        Parameters
        ----------
        image : float64 array (H, W)
            The indicator of the phase: 0 and 1, or in between where it was averaged.
        periodic : bool
            Wrap around at the border, or count only what lies inside the image.

        Returns
        -------
        float64 array
            Of a shape that does not depend on the image.
        """

    @abstractmethod
    def term(self, targets: Mapping[str, Floats], weight: float, grid: SliceGrid) -> Term:
        """Hold slices to a target.

        Parameters
        ----------
        targets : mapping of name to float64 array (T, ...)
            The targets of all descriptors in use, ``targets[self.name]`` among them; "volume_fraction" (T,)
            always is. T is 1, or the number of slices where every slice has a target of its own.
        weight : float
            In the loss, `balance` already multiplied in.
        grid : SliceGrid
        """


class Targets:
    """A stack of targets on the device: one for all slices, or one a slice."""

    def __init__(self, values: Floats, grid: SliceGrid, dtype: torch.dtype | None = None) -> None:
        self._values = torch.as_tensor(values, dtype=dtype or grid.dtype, device=grid.device)

    def of(self, at: range) -> Tensor:
        """The targets of the slices `at`: (1, ...) or (len(at), ...).

        Slices beyond the last one, with which a batch is filled up, get the last one's.
        """
        if len(self._values) == 1:
            return self._values
        index = torch.arange(at.start, at.stop, at.step, device=self._values.device)
        return self._values[index.clamp_(max=len(self._values) - 1)]


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
    every : int
        Only each `every`-th slice is looked at, others as the optimisation goes on; for costly descriptors.
    costly : bool
        An evaluation takes long: the last voxels are not tried one by one.
    """

    name: str
    weight: float
    scale: float
    norm: float
    every: int = 1
    costly: bool = False

    @property
    def parts(self) -> tuple[Term, ...]:
        """The terms whose errors `accumulate` returns: this one, and those that ride along on its work."""
        return (self,)

    @abstractmethod
    def accumulate(self, slices: Tensor, gradient: Tensor | None, share: float, at: range) -> Tensor:
        """Add this term's part of the gradient and return the errors.

        The result for a slice must not depend, to the last bit, on which others come with it: ranks and threads
        have different ones. So sums go slice by slice and matrix products are batched (`torch.bmm`).

        Parameters
        ----------
        slices : Tensor (S, H, W)
            A view of any layout.
        gradient : Tensor (S, H, W) or None
            d loss / d slices is added to it.
        share : float
            What the loss of one slice counts in the whole loss, 1 / number of slices.
        at : range
            Which slices of the direction these are; it may go beyond the last one, and have a step.

        Returns
        -------
        Tensor (S,) or (S, parts), float64
            ‖D_s − D_des‖ / scale, with its sign for a descriptor of one number.
        """

    def evaluate(self, slices: Tensor, share: float, at: range) -> tuple[Tensor, Tensor]:
        """Return the errors, and this term's gradient (S, H, W) as a tensor of its own; see `accumulate`."""
        gradient = torch.zeros_like(slices)
        return self.accumulate(slices, gradient, share, at), gradient

    def loss(self, error: Floats) -> Floats:
        """The loss of slices with these errors, any shape."""
        return self.weight * error**2

    def misfit(self, error: Floats) -> Floats:
        """The part of the loss that fades as the slices come near their targets."""
        return self.loss(error)

    @property
    def redraws(self) -> bool:
        """Whether the descriptor has random parts that `redraw` takes anew."""
        return type(self).redraw is not Term.redraw

    def redraw(self, round: int) -> None:
        """Take the random parts of the descriptor anew, if it has any: the same for the same round."""
        del round

    def flip_constant(self, error: Floats, shape: tuple[int, int], share: float) -> Floats:
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


class Rider(Term):
    """A term of one number that the two-point correlation of a slice has in it, and so costs nothing beside that.

    The number is ``a S2(0) + b S2(e1) + c S2(e2) + d φ`` of ``follows = (a, b, c, d)``: e1 and e2 are one pixel along
    the first and the second in-plane axis, φ is the mean. Where S2 is not asked for, `accumulate` does without.
    """

    follows: ClassVar[tuple[float, float, float, float]]
    targets: Targets

    @abstractmethod
    def slope(self, error: Tensor, at: range) -> Tensor:
        """d loss / d error of the slices `at`, (S,) float64."""
