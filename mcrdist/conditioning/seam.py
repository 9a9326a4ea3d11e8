"""How well what is given joins the rest of the volume: change across the border, compared with that elsewhere."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mcrdist.directions import AXES
from mcrdist.parallel.halo import fetch
from mcrdist.parallel.slab import Slab


def seams(labels: Tensor, known: Tensor, slab: Slab) -> dict[str, dict[str, float]]:
    """Compare pairs of neighbours of which one is given with pairs of which none is; collective.

    Parameters
    ----------
    labels : uint8 Tensor (planes, ny, nx)
    known : bool Tensor (planes, ny, nx)
    slab : Slab

    Returns
    -------
    dict
        For every axis along which there is such a border: ``below`` and ``above``, the share of neighbours that
        differ where the given voxel is the upper or the lower one, over the share elsewhere (1: no seam), and
        ``spread``, the standard deviation of that share from plane to plane over its mean: what chance does.
    """
    return {name: found for axis, name in enumerate(AXES) if (found := _along(axis, labels, known, slab))}


def _along(axis: int, labels: Tensor, known: Tensor, slab: Slab) -> dict[str, float]:
    differ = labels != _next(labels, axis, slab)
    there = _next(known.to(torch.uint8), axis, slab) > 0
    kinds = {"below": there & ~known, "above": known & ~there, "elsewhere": ~known & ~there}
    counts = {name: _by_plane(axis, kind, slab) for name, kind in kinds.items()}
    if not counts["below"].sum() or not counts["above"].sum() or not counts["elsewhere"].sum():
        return {}
    changes = {name: _by_plane(axis, kind & differ, slab) for name, kind in kinds.items()}
    rate = changes["elsewhere"].sum() / counts["elsewhere"].sum()
    if not rate:
        return {}
    inside = counts["elsewhere"] > 0
    each = changes["elsewhere"][inside] / counts["elsewhere"][inside]
    found = {name: float(changes[name].sum() / counts[name].sum() / rate) for name in ("below", "above")}
    return found | {"spread": float(each.std() / rate)}


def _next(values: Tensor, axis: int, slab: Slab) -> Tensor:
    """The neighbours above, periodic."""
    if axis:
        return torch.roll(values, -1, axis)
    nz = slab.shape[0]
    last = fetch(
        values, slab, [np.array([own.stop % nz][: len(own)], dtype=np.int64) for own in slab.owners[0]]
    )
    return torch.cat([values[1:], last])


def _by_plane(axis: int, mask: Tensor, slab: Slab) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """How many voxels of a mask lie in each plane normal to `axis`, over all ranks."""
    own = mask.sum([i for i in range(3) if i != axis]).cpu().numpy().astype(np.int64)
    if axis == 0:
        counts = np.zeros(slab.shape[0], dtype=np.int64)
        counts[slab.start : slab.stop] = own
        own = counts
    return slab.comm.sum_integers(own)
