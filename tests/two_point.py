"""S2 as autograd takes it, made of the transforms and filters that the package's terms use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mcrdist.descriptors.correlation import LagWindow
from mcrdist.descriptors.fft import irfft2, rfft2


class _TwoPoint(torch.autograd.Function):
    """S2 with its adjoint: d/dx Σ_r R(r) S2(r) = (2/N) irfft2(W F), W the filter of R."""

    @staticmethod
    def forward(ctx: Any, slices: Tensor, window: LagWindow) -> Tensor:
        spectrum = rfft2(slices)
        ctx.window = window
        ctx.save_for_backward(spectrum)
        return window.crop(spectrum)

    @staticmethod
    def backward(ctx: Any, residual: Tensor) -> tuple[Tensor, None]:
        (spectrum,) = ctx.saved_tensors
        window: LagWindow = ctx.window
        filtered = window.filter_(spectrum.clone(), residual * (2.0 / window.pixels))
        return irfft2(filtered, window.shape), None


def two_point_correlation(slices: Tensor, window: LagWindow) -> Tensor:
    """Periodic S2 (S, 2L+1, L+1) of slices (S, H, W) on the lag window, differentiable once."""
    result = _TwoPoint.apply(slices, window)
    assert isinstance(result, Tensor)
    return result
