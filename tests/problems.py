"""Functions to minimise in the box [0, 1]."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Function = Callable[[Tensor], tuple[float, Tensor]]


def quadratic(matrix: Tensor, centre: Tensor, shape: tuple[int, ...]) -> Function:
    """(x - centre)' matrix (x - centre) / 2, with one gradient tensor for all calls."""
    reused = torch.empty(shape, dtype=matrix.dtype)

    def function(x: Tensor) -> tuple[float, Tensor]:
        force = matrix @ (x.reshape(-1) - centre)
        reused.copy_(force.reshape(shape))
        return 0.5 * float(force @ (x.reshape(-1) - centre)), reused

    return function


def definite(n: int, seed: int, condition: float = 100.0) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    q, _ = np.linalg.qr(generator.standard_normal((n, n)))
    matrix = (q * np.geomspace(1, condition, n)) @ q.T
    return torch.from_numpy((matrix + matrix.T) / 2), torch.from_numpy(generator.uniform(-0.7, 1.7, n))


def correlation_problem(n: int, seed: int) -> tuple[Function, Tensor]:
    """Match the autocorrelation of all rows of a field to that of a smooth pattern: nonconvex, bounded."""
    generator = np.random.default_rng(seed)
    lowpass = np.exp(-((np.fft.fftfreq(n) * 12) ** 2))
    smooth = np.fft.ifft(np.fft.fft(generator.standard_normal((n, n))) * lowpass)
    rows = torch.from_numpy((smooth.real > 0).astype(float))
    target = (torch.fft.rfft(rows).abs() ** 2).mean(0) / n**2

    def function(x: Tensor) -> tuple[float, Tensor]:
        spectrum = torch.fft.rfft(x)
        power = spectrum.real**2 + spectrum.imag**2
        residual = power / n**2 - target
        weight = torch.full((spectrum.shape[-1],), 2.0, dtype=x.dtype)
        weight[0] = weight[-1] = 1.0
        loss = float((weight * residual**2).sum())
        return loss, torch.fft.irfft(residual * spectrum, n=n) * (4 / n)

    return function, torch.from_numpy(generator.uniform(0.3, 0.7, (n, n)))
