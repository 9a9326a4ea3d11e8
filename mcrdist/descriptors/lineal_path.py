"""Lineal path: the probability that a segment along the rows or columns lies in one phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mcrdist.descriptors.base import Descriptor, Floats, SliceGrid, Term, slice_sums
from mcrdist.descriptors.relative import RelativeErrors

#: Products of one batch that are held at once: they stay in a processor's cache, or fill a graphics card.
CACHED, ON_CARD = 2**20, 2**26
#: Segments are followed up to the length that this share of the phase's voxels begin.
HARDLY_EVER = 0.01


def lineal_path(image: Floats, length: int, periodic: bool) -> Floats:
    """P(n) = ⟨I(x) I(x + e) … I(x + (n − 1) e)⟩ for segments of n = 1 … `length` voxels.

    Parameters
    ----------
    image : array (H, W)
        Indicator of a phase.
    length : int
        At most the shorter side.
    periodic : bool
        Wrap around at the border, or count only the segments inside the image.

    Returns
    -------
    array (2, length)
        Along the first axis (down the columns), and along the second.
    """
    found = np.empty((2, length))
    for axis in (0, 1):
        lines = np.moveaxis(image, axis, 1)
        size = lines.shape[1]
        far = np.concatenate([lines, lines[:, : length - 1]], axis=1) if periodic else lines
        products = np.ones_like(far)
        for n in range(length):
            kept = size if periodic else size - n
            products = products[:, :kept] * far[:, n : n + kept]
            found[axis, n] = products.mean()
    return found


def telling_length(images: Sequence[Floats], periodic: bool, most: int) -> int:
    """The shortest segment that hardly ever lies in one phase, of any of the images or its complement."""
    longest = 2
    for image in images:
        for phase in (image, 1.0 - image):
            paths = lineal_path(phase, most, periodic)
            often = np.flatnonzero((paths >= HARDLY_EVER * paths[:, :1]).any(0))
            longest = max(longest, int(often[-1]) + 2)
    return min(longest, most)


class LinealPathTerm(Term):
    """The lineal paths of the phase and of its complement on every slice, periodic.

    A product of grey values instead of "all voxels are in the phase": the same on two phases, and differentiable.

    Parameters
    ----------
    target : array (T, 2, 2, length)
        Phase and complement, down and across, segments of 1 … length voxels.
    weight : float
    grid : SliceGrid
    """

    name = "lineal_path"

    def __init__(self, target: Floats, weight: float, grid: SliceGrid) -> None:
        self.weight = weight
        self.scale = self.norm = 1.0  # errors are relative already
        self._errors = RelativeErrors(target, grid)
        self._length = target.shape[-1]
        self._pixels = grid.shape[0] * grid.shape[1]
        held = CACHED if grid.device.type == "cpu" else ON_CARD
        self._batch = max(1, held // (self._pixels * self._length))

    def accumulate(self, slices: Tensor, gradient: Tensor | None, share: float, at: range) -> Tensor:
        slices = slices.contiguous()
        errors = []
        for start in range(0, len(slices), self._batch):
            stop = min(start + self._batch, len(slices))
            part = slices[start:stop]
            paths = [[_Paths(p, axis, self._length) for axis in (1, 2)] for p in (part, 1.0 - part)]
            found = torch.stack([torch.stack([own.sums() for own in both], 1) for both in paths], 1)
            error, slope = self._errors(found / self._pixels, at[start:stop])
            errors.append(error)
            if gradient is not None:
                slope = (slope * (2.0 * self.weight * share / self._pixels)).to(slices.dtype)
                for phase, both in enumerate(paths):
                    for direction, own in enumerate(both):
                        pull = own.spread(slope[:, phase, direction])
                        gradient[start:stop].add_(pull, alpha=1.0 - 2.0 * phase)
        return torch.cat(errors)


class _Paths:
    """Running products along one axis of slices (S, H, W), segments of 1 … `length` voxels."""

    def __init__(self, slices: Tensor, axis: int, length: int) -> None:
        self._axis, self._size = axis, slices.shape[axis]
        self._far = torch.cat([slices, slices.narrow(axis, 0, length - 1)], dim=axis)
        self._products = [slices]
        for n in range(1, length):
            self._products.append(self._products[-1] * self._ahead(self._far, n))

    def _ahead(self, far: Tensor, n: int) -> Tensor:
        return far.narrow(self._axis, n, self._size)

    def sums(self) -> Tensor:
        """How many segments of each length lie in the phase: (S, length) float64."""
        return torch.stack([slice_sums(products) for products in self._products], dim=1)

    def spread(self, slope: Tensor) -> Tensor:
        """The derivative (S, H, W) of Σ_n slope_n · sums_n, for slopes (S, length): from long to short."""
        pull = torch.zeros_like(self._far)
        own = slope[:, -1, None, None].expand_as(self._products[0]).clone()
        for n in range(len(self._products) - 1, 0, -1):
            self._ahead(pull, n).addcmul_(own, self._products[n - 1])
            own = own.mul_(self._ahead(self._far, n)).add_(slope[:, n - 1, None, None])
        beyond = len(self._products) - 1
        near = pull.narrow(self._axis, 0, self._size)
        near.narrow(self._axis, 0, beyond).add_(pull.narrow(self._axis, self._size, beyond))
        return near.add_(own)


class LinealPath(Descriptor):
    """The probabilities that segments of 1 … `length` voxels lie wholly in the phase, or wholly outside it.

    Parameters
    ----------
    length : int
    """

    name = "lineal_path"
    # As for S3: products of many voxels make the problem stiff.
    balance = 0.1

    def __init__(self, length: int) -> None:
        self.length = length

    def describe(self, image: Floats, periodic: bool) -> Floats:
        """Of one image (H, W): (2, 2, length), see `LinealPathTerm`."""
        return np.stack([lineal_path(phase, self.length, periodic) for phase in (image, 1.0 - image)])

    def term(self, targets: Mapping[str, Floats], weight: float, grid: SliceGrid) -> LinealPathTerm:
        return LinealPathTerm(targets[self.name], weight, grid)
