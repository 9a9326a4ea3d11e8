"""Any descriptor at a coarser resolution: measured on means over squares of voxels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mcrdist.descriptors.base import Descriptor, Floats, SliceGrid, Term
from mcrdist.descriptors.fft import memory_order


def averaged(image: Floats, factor: int) -> Floats:
    """Means over squares of factor x factor pixels; what is left at the far edges is dropped."""
    if factor == 1:
        return image
    height, width = (n // factor for n in image.shape)
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor)
    return np.asarray(blocks.mean((1, 3)))


class PooledTerm(Term):
    """A term that sees slices averaged over squares of `factor` x `factor` voxels.

    Parameters
    ----------
    term : Term
        For slices of the averaged shape.
    name : str
    factor : int
        Divides the sides of the slices.
    """

    def __init__(self, term: Term, name: str, factor: int) -> None:
        self.name = name
        self.weight, self.scale, self.norm, self.every = term.weight, term.scale, term.norm, term.every
        self._term, self._factor = term, factor

    @property
    def redraws(self) -> bool:
        return self._term.redraws

    def accumulate(self, slices: Tensor, gradient: Tensor | None, share: float, at: range) -> Tensor:
        small = self._averaged(slices)
        if gradient is None:
            return self._term.accumulate(small, None, share, at)
        errors, own = self._term.evaluate(small, share, at)
        own = own / self._factor**2
        for row in range(self._factor):
            for column in range(self._factor):
                gradient[:, row :: self._factor, column :: self._factor] += own
        return errors

    def loss(self, error: Floats) -> Floats:
        return self._term.loss(error)

    def misfit(self, error: Floats) -> Floats:
        return self._term.misfit(error)

    def redraw(self, round: int) -> None:
        self._term.redraw(round)

    def flip_constant(self, error: Floats, shape: tuple[int, int], share: float) -> Floats:
        """A flip moves a mean by 1 / factor²: what is of second order by the square of that."""
        small = (shape[0] // self._factor, shape[1] // self._factor)
        return self._term.flip_constant(error, small, share) / self._factor**4

    def _averaged(self, slices: Tensor) -> Tensor:
        """Means in the memory order of `slices`, summed voxel by voxel: the same bits in every layout."""
        count, height, width = slices.shape
        shape = (count, height // self._factor, width // self._factor)
        means = torch.empty_permuted(
            shape, memory_order(slices), dtype=slices.dtype, device=slices.device
        ).zero_()
        for row in range(self._factor):
            for column in range(self._factor):
                means += slices[:, row :: self._factor, column :: self._factor]
        return means.div_(self._factor**2)


class Pooled(Descriptor):
    """A descriptor of images averaged over squares of `factor` x `factor` voxels.

    Parameters
    ----------
    descriptor : Descriptor
    factor : int
        Must divide the sides of slices; of a micrograph, what is left at the far edges is dropped.
    """

    def __init__(self, descriptor: Descriptor, factor: int) -> None:
        self.name = f"{descriptor.name}@{factor}"
        self.balance = descriptor.balance
        self.descriptor, self.factor = descriptor, factor

    def describe(self, image: Floats, periodic: bool) -> Floats:
        return self.descriptor.describe(averaged(image, self.factor), periodic)

    def term(self, targets: Mapping[str, Floats], weight: float, grid: SliceGrid) -> PooledTerm:
        height, width = grid.shape
        assert height % self.factor == 0 and width % self.factor == 0, (grid.shape, self.factor)
        small = SliceGrid((height // self.factor, width // self.factor), grid.dtype, grid.device)
        own = {**targets, self.descriptor.name: targets[self.name]}
        return PooledTerm(self.descriptor.term(own, weight, small), self.name, self.factor)
