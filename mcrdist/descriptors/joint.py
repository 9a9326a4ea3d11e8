"""Descriptors that look at several phases of a slice at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor

from mcrdist.descriptors.base import Floats, SliceGrid


class JointDescriptor(ABC):
    """As `Descriptor`, of the indicators of all phases together."""

    name: str
    balance: float = 1.0

    @abstractmethod
    def describe(self, images: Sequence[Floats], periodic: bool) -> Floats:
        """Measure the indicators (H, W) of the phases of one image; see `Descriptor.describe`."""

    @abstractmethod
    def term(self, targets: Mapping[str, Floats], weight: float, grid: SliceGrid) -> JointTerm:
        """Hold slices to ``targets[self.name]`` (T, ...); see `Descriptor.term`."""


class JointTerm(ABC):
    """As `Term`, of the channels of all phases together; the attributes are the same."""

    name: str
    weight: float
    scale: float
    norm: float
    every: int = 1
    costly: bool = False

    @abstractmethod
    def accumulate(
        self, channels: Sequence[Tensor], gradients: Sequence[Tensor] | None, share: float, at: range
    ) -> Tensor:
        """Add this term's part of the gradients (S, H, W), one a channel; return errors (S,), float64."""

    def loss(self, error: Floats) -> Floats:
        """The loss of slices with these errors, any shape."""
        return self.weight * error**2

    def misfit(self, error: Floats) -> Floats:
        """The part of the loss that fades as the slices come near their targets."""
        return self.loss(error)
