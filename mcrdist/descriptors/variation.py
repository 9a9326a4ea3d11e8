"""Variation: the amount of phase boundary (Eqs. 5 to 9 of Seibert et al. 2022), matched, minimised or prescribed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.descriptors.base import Descriptor, Floats, Rider, SliceGrid, Targets, slice_sums

#: What is asked of the variation: the target as nearly as the other descriptors allow (Eq. 9), as little as they
#: allow (Eq. 7, Bostanabad 2020), or the target itself, as a constraint (footnote 7).
Mode = Literal["match", "minimize", "constrain"]
#: ε of the smoothed absolute value, see `VariationTerm`. The mean square of the steps has no kink to stall on and costs
#: nothing beside S2, of which it is a part. But the larger ε is, the less a grey interface counts beside a sharp one,
#: and greyness becomes a way to meet a constraint that rounding brings to light.
SMOOTHING: Mapping[Mode, float] = {"match": math.inf, "minimize": math.inf, "constrain": 0.1}


def variation(slices: NDArray[np.float64], periodic: bool, smoothing: float = 0.0) -> NDArray[np.float64]:
    """Mean absolute difference to the two in-plane neighbours, per pixel (Eq. 5 over I·J).

    Parameters
    ----------
    slices : array (S, H, W)
    periodic : bool
        Count the pairs across the border too; without them the mean is over the pairs inside.
    smoothing : float
        Of the absolute value, see `VariationTerm`: of no consequence where all voxels are 0 or 1.

    Returns
    -------
    array (S,)
    """
    total = np.zeros(len(slices))
    for axis in (1, 2):
        steps = _lengths(np.diff(slices, axis=axis), smoothing)
        if periodic:
            wrap = _lengths(np.take(slices, 0, axis) - np.take(slices, -1, axis), smoothing)
            total += (steps.sum((1, 2)) + wrap.sum(1)) / slices[0].size
        else:
            total += steps.mean((1, 2))
    return total


def step_length(image: Floats, axis: int, lag: int, periodic: bool, smoothing: float = 0.0) -> float:
    """Mean absolute difference of pixels of an image (H, W) that lie `lag` apart along an axis; see `variation`."""
    size = image.shape[axis]
    far = np.roll(image, -lag, axis) if periodic else np.take(image, range(lag, size), axis)
    near = image if periodic else np.take(image, range(size - lag), axis)
    return float(_lengths(far - near, smoothing).mean())


def _lengths(steps: NDArray[np.float64], smoothing: float) -> NDArray[np.float64]:
    """The smoothed absolute value, 0 and 1 at 0 and 1."""
    if math.isinf(smoothing):
        return np.square(steps)
    root = np.sqrt(np.square(steps) + smoothing**2)
    return np.asarray((root - smoothing) / (math.sqrt(1.0 + smoothing**2) - smoothing))


class VariationTerm(Rider):
    """The variation of every slice.

    With e the relative error of a slice, its part of the loss is ``weight e²`` when the variation is matched
    (Section 2.3.3), ``weight V / V_des``, linear, when it is minimised (Section 2.3.2), and ``weight e² + μ_s e`` with
    a multiplier a slice when it is a constraint: at the right μ the minimum has e = 0 whatever the weight.

    The absolute value has a kink at every pair of equal voxels, on which a quasi-Newton method stalls. It is
    replaced by c (√(d² + ε²) − ε), c such that the value is exact for differences of 0 and 1: on two phases
    this is Eq. 5 for any ε, while grey steps count less the larger ε is, up to d² for ε → ∞. That is what follows
    from S2: the mean square of the steps along an axis is 2 S2(0) − 2 S2(one pixel).

    Parameters
    ----------
    target : array (T,)
        Variation of the micrograph, per pixel; one for all slices or one a slice.
    weight : float
    smoothing : float
        ε in grey values; 0 is the absolute value itself and infinity the square.
    mode : {"match", "minimize", "constrain"}
    """

    name = "variation"
    follows = (4.0, -2.0, -2.0, 0.0)

    def __init__(
        self, target: Floats, weight: float, smoothing: float, grid: SliceGrid, mode: Mode = "match"
    ) -> None:
        self.mode = mode
        self._grid = grid
        self.multipliers = np.zeros(1)
        self.targets = Targets(target, grid, torch.float64)
        self.weight = weight
        self.smoothing = smoothing
        self.norm = self.scale = float(np.mean(target))

    @property
    def multipliers(self) -> Floats:
        """μ (1,) or (slices,), of a constraint; zero in the other modes."""
        return self._multipliers

    @multipliers.setter
    def multipliers(self, values: Floats) -> None:
        self._multipliers = values
        self._on_device = Targets(values, self._grid, torch.float64)

    def loss(self, error: Floats) -> Floats:
        """The loss of slices with these errors, (slices,): of all slices, since each has its own multiplier."""
        if self.mode == "minimize":
            return self.weight * (1.0 + error)
        return self.weight * error**2 + self.multipliers * error

    def misfit(self, error: Floats) -> Floats:
        """Without the part that is there when the targets are met: that of a variation that is minimised."""
        return np.zeros_like(error) if self.mode == "minimize" else self.loss(error)

    def slope(self, error: Tensor, at: range) -> Tensor:
        if self.mode == "minimize":
            return torch.full_like(error, self.weight)
        return error * (2.0 * self.weight) + self._on_device.of(at)

    def accumulate(self, slices: Tensor, gradient: Tensor | None, share: float, at: range) -> Tensor:
        pixels = slices.shape[1] * slices.shape[2]
        slopes = []
        total = torch.zeros(len(slices), dtype=torch.float64, device=slices.device)
        for axis in (1, 2):
            steps = _difference(slices, axis)
            length, slope = self._length(steps)
            total += slice_sums(length)
            slopes.append(slope)
        error = (total / pixels - self.targets.of(at)) / self.scale
        if gradient is not None:
            factor = self.slope(error, at) * (share / (self.scale * pixels))
            for axis, slope in zip((1, 2), slopes, strict=True):
                slope *= factor.to(slope.dtype)[:, None, None]
                _add_adjoint(gradient, slope, axis)
        return error

    def flip_constant(
        self, error: NDArray[np.float64], shape: tuple[int, int], share: float
    ) -> NDArray[np.float64]:
        """Each of the four pairs of a voxel changes by 2 d δ + 1 where d² is the length of a step d."""
        slope = self.slope(torch.as_tensor(error, device=self._grid.device), range(len(error)))
        return np.asarray(slope.cpu().numpy()) * (4.0 * share / (self.scale * shape[0] * shape[1]))

    def _length(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the length of every step and its derivative; `steps` is overwritten."""
        if self.smoothing == 0.0:
            return steps.abs(), steps.sign_()
        if math.isinf(self.smoothing):
            return steps.square(), steps.mul_(2.0)
        epsilon = self.smoothing
        norm = 1.0 / (math.sqrt(1.0 + epsilon**2) - epsilon)
        root = steps.square().add_(epsilon**2).sqrt_()
        slope = steps.div_(root).mul_(norm)
        return root.sub_(epsilon).mul_(norm), slope


def _difference(slices: Tensor, axis: int) -> Tensor:
    """x_i − x_{i−1} along `axis`, periodic, in the layout of `slices`."""
    n = slices.shape[axis]
    steps = torch.empty_like(slices)
    torch.sub(slices.narrow(axis, 1, n - 1), slices.narrow(axis, 0, n - 1), out=steps.narrow(axis, 1, n - 1))
    torch.sub(slices.narrow(axis, 0, 1), slices.narrow(axis, n - 1, 1), out=steps.narrow(axis, 0, 1))
    return steps


def _add_adjoint(gradient: Tensor, slope: Tensor, axis: int) -> None:
    """Add the transpose of `_difference`, applied to `slope`, to `gradient`."""
    n = slope.shape[axis]
    gradient += slope
    gradient.narrow(axis, 0, n - 1).sub_(slope.narrow(axis, 1, n - 1))
    gradient.narrow(axis, n - 1, 1).sub_(slope.narrow(axis, 0, 1))


class Variation(Descriptor):
    """The amount of phase boundary: mean absolute difference to the two in-plane neighbours, per pixel.

    Parameters
    ----------
    smoothing : float, optional
        Of the term, see `VariationTerm`, and of the images that it is held to, which are grey where they were averaged.
        By default that of the mode.
    mode : {"match", "minimize", "constrain"}
        Of the term.
    """

    name = "variation"
    # A tenth of what S2 has brings it below 1 %; more would only stiffen the problem.
    balance = 0.1

    def __init__(self, smoothing: float | None = None, mode: Mode = "match") -> None:
        self.smoothing, self.mode = SMOOTHING[mode] if smoothing is None else smoothing, mode

    def describe(self, image: Floats, periodic: bool) -> Floats:
        """Variation of one image (H, W), an array without dimensions; of grey steps as the term sees them."""
        return np.asarray(variation(image[None], periodic, self.smoothing)[0])

    def term(self, targets: Mapping[str, Floats], weight: float, grid: SliceGrid) -> VariationTerm:
        return VariationTerm(targets["variation"], weight, self.smoothing, grid, self.mode)
