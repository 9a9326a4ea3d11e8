"""A Gaussian random field that agrees with what is known of its cut.

Of the field z, cut at h, only the phases I = [z > h] of some voxels are known. To first order they are a noisy
measurement, I = Φ + φ(h) z + noise, so kriging by the field's own covariance ρ turns an unconditional field into one
that has nearly these phases, and that is as smooth across the border of what is known as it is elsewhere. Voxels that
are still on the wrong side of the cut are then reflected, and the field is kriged to that.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from mcrdist.parallel.fft3 import SlabFFT, Transfer
from mcrdist.parallel.slab import Slab

#: Reflections; each halves, about, the voxels that are on the wrong side.
PASSES = 6
#: Iterations of the linear solver: its errors need not be smaller than what one reflection leaves.
ITERATIONS = 25
#: Variance of the noise with which a reflected value is known.
NUGGET = 0.02


def conditioned(
    field: Tensor, slab: Slab, covariance: Transfer, cut: float, mask: Tensor, inside: Tensor
) -> Tensor:
    """The field, changed so that its cut has the given phases; collective.

    Parameters
    ----------
    field : float64 Tensor (planes, ny, nx)
        Of mean 0 and variance 1.
    slab : Slab
        Of float64.
    covariance : callable
        The transform of ρ, as `SlabFFT.filter` takes it; ρ(0) = 1.
    cut : float
        h.
    mask : bool Tensor (planes, ny, nx)
        The voxels that are known.
    inside : bool Tensor (planes, ny, nx)
        Those of them where the field is above the cut.

    Returns
    -------
    Tensor (planes, ny, nx)
    """
    fft = SlabFFT(slab)
    known = mask.to(field.dtype)

    def correlate(weights: Tensor) -> Tensor:
        return fft.filter(weights, covariance)

    density = math.exp(-0.5 * cut**2) / math.sqrt(2.0 * math.pi)
    above = float(ndtr(-cut))
    noise = max(above * (1.0 - above) - density**2, NUGGET) / density**2
    wrong = (inside.to(field.dtype) - (field > cut).to(field.dtype)) / density
    field = field + correlate(_solve(correlate, known, wrong * known, noise, slab))
    for _ in range(PASSES):
        agrees = (field > cut) == inside
        step = torch.where(agrees, torch.zeros_like(field), 2.0 * (cut - field)) * known
        field = field + correlate(_solve(correlate, known, step, NUGGET, slab))
    return field


def _solve(
    correlate: Callable[[Tensor], Tensor], known: Tensor, wanted: Tensor, noise: float, slab: Slab
) -> Tensor:
    """Weights w on the known voxels with ``(ρ + noise) w = wanted`` there, by conjugate gradients."""

    def product(a: Tensor, b: Tensor) -> float:
        rows = (a * b).sum(2).sum(1).cpu().numpy()[:, None]
        return float(slab.gather_rows(np.ascontiguousarray(rows, dtype=np.float64)).sum())

    weights = torch.zeros_like(wanted)
    residual = wanted.clone()
    direction = residual.clone()
    size = first = product(residual, residual)
    for _ in range(ITERATIONS):
        if size <= 1e-6 * first:
            break
        image = known * correlate(direction) + noise * direction
        step = size / product(direction, image)
        weights += step * direction
        residual -= step * image
        before, size = size, product(residual, residual)
        direction = residual + (size / before) * direction
    return weights
