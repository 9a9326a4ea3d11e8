"""From a function of slices that autograd can differentiate to a descriptor with its term."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mcrdist.descriptors.base import Descriptor, Floats, SliceGrid, Targets, Term


class DifferentiableDescriptor(Descriptor):
    """A descriptor that is one differentiable function: write `measure`, autograd does the rest."""

    #: Slices that `measure` is given at once.
    batch = 1

    @abstractmethod
    def measure(self, slices: Tensor) -> Tensor:
        """Measure slices (S, H, W), values in [0, 1], periodic: (S, ...) of a shape independent of H and W."""

    def describe(self, image: Floats, periodic: bool) -> Floats:
        """Measure one image (H, W) in double precision, as a slice: with wrap-around, whatever `periodic` says."""
        del periodic
        with torch.no_grad():
            return np.asarray(self.measure(torch.as_tensor(image, dtype=torch.float64)[None])[0].numpy())

    def term(self, targets: Mapping[str, Floats], weight: float, grid: SliceGrid) -> DifferentiableTerm:
        return DifferentiableTerm(self, targets[self.name], weight, grid)


class DifferentiableTerm(Term):
    """Distance to the target of a `DifferentiableDescriptor`, relative to the target's size."""

    def __init__(
        self, descriptor: DifferentiableDescriptor, target: Floats, weight: float, grid: SliceGrid
    ) -> None:
        self.name = descriptor.name
        self.weight = weight
        self.norm = float(np.mean([np.linalg.norm(one) for one in target]))
        self.scale = self.norm or 1.0  # a target of zeros has no size to be relative to
        self._descriptor = descriptor
        self._targets = Targets(target, grid)

    def accumulate(self, slices: Tensor, gradient: Tensor | None, share: float, at: range) -> Tensor:
        errors = []
        for start in range(0, len(slices), self._descriptor.batch):
            stop = min(start + self._descriptor.batch, len(slices))
            # A copy starts at a cache line, wherever the slice lies in the slab: a BLAS rounds by that.
            part = slices[start:stop].detach().clone(memory_format=torch.contiguous_format)
            target = self._targets.of(at[start:stop])
            with torch.set_grad_enabled(gradient is not None):
                part.requires_grad_(gradient is not None)
                residual = (self._descriptor.measure(part) - target) / self.scale
                squares = residual.reshape(len(residual), -1).square()
                loss = squares.to(torch.float64).sum(1)
            if gradient is not None:
                (own,) = torch.autograd.grad(loss.sum() * (self.weight * share), part)
                gradient[start:stop] += own
            errors.append(loss.detach().sqrt())
        return torch.cat(errors) if errors else torch.zeros(0, dtype=torch.float64, device=slices.device)
