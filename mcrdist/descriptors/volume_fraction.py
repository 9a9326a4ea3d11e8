"""Volume fraction: the mean of a slice."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.descriptors.base import Descriptor, Floats, Rider, SliceGrid, Targets, slice_sums


class VolumeFractionTerm(Rider):
    """The area fraction of the phase on every slice.

    Errors are relative to the rarer phase: one that fills 3 % of the micrograph must be as right as the rest.
    """

    name = "volume_fraction"
    follows = (0.0, 0.0, 0.0, 1.0)

    def __init__(self, target: Floats, weight: float, grid: SliceGrid) -> None:
        self.targets = Targets(target, grid, torch.float64)
        self.weight = weight
        self.norm = float(np.mean(target))
        self.scale = min(self.norm, 1.0 - self.norm)

    def accumulate(self, slices: Tensor, gradient: Tensor | None, share: float, at: range) -> Tensor:
        pixels = slices.shape[1] * slices.shape[2]
        error = (slice_sums(slices) / pixels - self.targets.of(at)) / self.scale
        if gradient is not None:
            slope = self.slope(error, at) * (share / (self.scale * pixels))
            gradient += slope.to(gradient.dtype)[:, None, None]
        return error

    def slope(self, error: Tensor, at: range) -> Tensor:
        del at
        return error * (2.0 * self.weight)


class GreynessTerm(Rider):
    """How far a slice is from two phases: the mean of x (1 − x), relative to that of the mixed slice.

    Not a descriptor of the material but the condition that a voxel belongs to one phase. Its part of the loss
    is linear, ``weight * error``: it pushes every grey voxel to the nearer phase with a force that does not
    fade, and vanishes on two phases.
    """

    name = "greyness"
    follows = (-1.0, 0.0, 0.0, 1.0)

    def __init__(self, fraction: float, weight: float, grid: SliceGrid) -> None:
        self.weight = weight
        self.targets = Targets(np.zeros(1), grid, torch.float64)
        self.scale = self.norm = fraction * (1.0 - fraction)

    def accumulate(self, slices: Tensor, gradient: Tensor | None, share: float, at: range) -> Tensor:
        pixels = slices.shape[1] * slices.shape[2]
        error = slice_sums(slices - slices * slices) / (pixels * self.scale)
        if gradient is not None:
            slope = self.weight * share / (self.scale * pixels)
            gradient.add_(slices, alpha=-2.0 * slope).add_(slope)
        return error

    def slope(self, error: Tensor, at: range) -> Tensor:
        del at
        return torch.full_like(error, self.weight)

    def loss(self, error: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.weight * error

    def misfit(self, error: NDArray[np.float64]) -> NDArray[np.float64]:
        """None: the condition is no target."""
        return np.zeros_like(error)


class VolumeFraction(Descriptor):
    """The area fraction of the phase."""

    name = "volume_fraction"

    def describe(self, image: Floats, periodic: bool) -> Floats:
        """Mean of one image (H, W), an array without dimensions."""
        del periodic
        return np.asarray(image.mean())

    def term(self, targets: Mapping[str, Floats], weight: float, grid: SliceGrid) -> VolumeFractionTerm:
        return VolumeFractionTerm(targets["volume_fraction"], weight, grid)
