"""Levels from coarse to fine, and the way up from one to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from torch import Tensor

from mcrdist.config import LevelsConfig
from mcrdist.descriptors.pooled import averaged
from mcrdist.parallel.halo import fetch
from mcrdist.parallel.random import noise
from mcrdist.parallel.slab import Slab

#: A level is worth solving while averaging leaves the micrographs this share of their variance: below, their
#: features are smaller than a voxel, and what is settled there is made undone, or worse, survives as blocks.
RESOLVED = 0.5
#: Standard deviation of the noise that is added after upsampling, in grey values: enough to decide the voxels that
#: lie between two coarse ones.
UPSAMPLING_NOISE = 0.1
#: Of the spline between grids. A volume of 128³ voxels that was made on five grids has, on its busiest planes modulo
#: 2, 4 or 8, 1.10 times the mean number of interfaces with order 1 and 1.03 times with 3; with 5 it has what chance
#: makes of one grid, 1.02.
ORDER = 5


@dataclass(frozen=True)
class Level:
    """One grid: its number from the coarsest, 0, its shape (nz, ny, nx), and pixels a voxel."""

    number: int
    shape: tuple[int, int, int]
    factor: int


def levels(
    shape: tuple[int, int, int],
    images: Mapping[str, NDArray[np.float64]],
    config: LevelsConfig,
    smooth_start: bool,
) -> list[Level]:
    """The grids to solve on, coarsest first.

    Each has half the voxels a side of the next, rounded. Where the configuration leaves it open, a spectral
    start (`smooth_start`) begins on the finest, since it has all length scales in it from the beginning; any
    other begins on the coarsest that resolves the micrographs and has at least 8 voxels a side. A single plane
    stays one.
    """
    smallest = config.coarsest or 8
    sides = shape if shape[0] > 1 else shape[1:]
    factors = [1]
    while config.count is None or len(factors) < config.count:
        factor = 2 * factors[-1]
        if min(round(n / factor) for n in sides) < smallest:
            break
        if min(min(image.shape) // factor for image in images.values()) < 4:
            break
        chosen_by_hand = config.count is not None or config.coarsest is not None
        if not chosen_by_hand and (smooth_start or not _resolves(images, factor)):
            break
        factors.append(factor)
    factors.reverse()
    result = []
    for number, factor in enumerate(factors):
        nz, ny, nx = (max(1, round(n / factor)) for n in shape)
        result.append(Level(number, (nz, ny, nx), factor))
    return result


def _resolves(images: Mapping[str, NDArray[np.float64]], factor: int) -> bool:
    return all(averaged(image, factor).var() >= RESOLVED * image.var() for image in images.values())


def upsample(field: Tensor, coarse: Slab, fine: Slab) -> Tensor:
    """Periodic B-spline from one slab-distributed grid to another. Collective.

    A finished volume must not show on which grids it was begun. So nothing is interpolated: a spline through the coarse
    values, a trilinear one above all, is sharp at their centres and soft between, and the optimiser, which works on
    grey voxels, leaves more interfaces there. The spline that has the coarse values as its coefficients smooths all
    places nearly alike. And the fine grid is laid half a fine voxel off, its first centre on the first coarse one,
    which in a periodic volume is no loss: with centres side by side every interface of the coarse solution would fall
    on a face between coarse cells.

    Every rank receives just the coarse planes around its fine ones.

    Parameters
    ----------
    field : Tensor (coarse planes, ny, nx)

    Returns
    -------
    Tensor (fine planes, ny, nx)
    """
    nz, ny, nx = fine.shape
    field = _along(_along(field, 2, nx), 1, ny)
    cells, weights = _stencil(coarse.shape[0], nz)
    needed = [np.unique(cells[own.start : own.stop]) for own in fine.owners[0]]
    planes = fetch(field, coarse, needed)
    places = np.searchsorted(needed[fine.comm.rank], cells[fine.start : fine.stop])
    result = fine.empty()

    def blend(index: int) -> None:
        shares = [float(weight) for weight in weights[fine.start + index]]
        plane = torch.mul(planes[places[index, 0]], shares[0], out=result[index])
        for place, share in zip(places[index, 1:], shares[1:], strict=True):
            plane.add_(planes[place], alpha=share)
        plane.clamp_(0.0, 1.0)  # the shares add up to 1 but for rounding

    fine.workers.map(blend, range(fine.planes))
    return result


def perturb(field: Tensor, slab: Slab, seed: int, level: int, stream: int = 0) -> Tensor:
    """Add the upsampling noise, in place, and stay in [0, 1]."""
    return field.add_(noise(slab, seed, level, stream=stream).to(field.dtype), alpha=UPSAMPLING_NOISE).clamp_(
        0.0, 1.0
    )


def _along(field: Tensor, axis: int, n: int) -> Tensor:
    cells, weights = _stencil(field.shape[axis], n)
    shape = [1, 1, 1]
    shape[axis] = n
    result = None
    for cell, weight in zip(cells.T, weights.T, strict=True):
        part = field.index_select(axis, torch.as_tensor(cell, device=field.device))
        part *= torch.as_tensor(weight, dtype=field.dtype, device=field.device).view(shape)
        result = part if result is None else result.add_(part)
    assert result is not None
    return result


def _stencil(coarse: int, fine: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each fine cell, the coarse cells around it (periodic) and their weights: (fine, ORDER + 1) both."""
    position = np.arange(fine) * (coarse / fine)
    below = np.floor(position).astype(np.int64)
    reach = (ORDER + 1) // 2
    offsets = np.arange(1 - reach, reach + 1)
    spline = BSpline.basis_element(np.arange(-reach, reach + 1), extrapolate=False)
    weights = np.nan_to_num(spline((position - below)[:, None] - offsets))
    return (below[:, None] + offsets) % coarse, weights
