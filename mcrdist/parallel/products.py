"""Inner products of distributed fields: the same bits on any number of ranks and threads."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.parallel.comm import Comm
from mcrdist.parallel.threads import Workers

# Elements of a plane that are multiplied at once in the fields' precision, before float64 takes over: few
# enough for small rounding errors.
_BLOCK = 8192
# Elements of each field that are copied at once: many enough to be worth a call, few enough for the cache.
_COPIED = 16384
# Elements in 64 bytes of float32, the alignment of torch's own memory.
_ALIGNED = 16


class Products:
    """Inner products between all pairs of two lists of fields.

    Parameters
    ----------
    comm : Comm
        The ranks that hold the fields' slabs.
    workers : Workers
        The threads that share the planes.
    """

    def __init__(self, comm: Comm, workers: Workers) -> None:
        self.comm, self.workers = comm, workers

    def __call__(self, A: Tensor, B: Tensor, mask: Tensor | None = None) -> NDArray[np.float64]:
        """Return the matrix of inner products of the fields of `A` with those of `B`. Collective.

        Each plane is summed alone, in blocks of fixed shape, and the planes are added in their order, so the
        result knows neither the slabs nor the threads. The temporaries are 16384 voxels of each field a
        thread.

        Parameters
        ----------
        A, B : tensor (K, planes, ..., ny, nx), (J, planes, ..., ny, nx)
            Of one dtype; each field contiguous. When `B` is `A`, it is read once and the result is exactly
            symmetric.
        mask : bool tensor (planes, ..., ny, nx), optional
            Voxels that count; all by default.

        Returns
        -------
        float64 array (K, J)
            The same on every rank.
        """
        planes, voxels = A.shape[1], math.prod(A.shape[2:])
        left, right = A.view(len(A), planes, voxels), B.view(len(B), planes, voxels)
        weights = None if mask is None else mask.view(1, planes, voxels)
        width = min(voxels, _BLOCK)
        depth = max(1, _COPIED // width)
        sums = torch.zeros(planes, len(A), len(B), dtype=torch.float64, device=A.device)

        def add(start: int) -> None:
            part = slice(start, min(start + depth, planes))
            for column in range(0, voxels, width):
                block = part, slice(column, column + width)
                ones = _copy(left, block, weights)
                others = ones if B is A else _copy(right, block, None)
                pairs = zip(ones.unbind(), others.unbind(), strict=True)
                sums[part] += torch.stack([one @ other.T for one, other in pairs])

        self.workers.map(add, range(0, planes, depth))
        every = self.comm.gather_rows(sums.flatten(1).cpu().numpy())
        total: NDArray[np.float64] = every.sum(axis=0).reshape(len(A), len(B))
        return np.triu(total) + np.triu(total, 1).T if B is A else total

    def maximum(self, x: Tensor) -> float:
        """Return the largest element of `x` on any rank; NaN if one is NaN, -inf if there is none."""
        local = float(x.max()) if x.numel() else -float("inf")
        return float(self.comm.gather_rows(np.array([[local]])).max())


def _copy(fields: Tensor, block: tuple[slice, slice], weights: Tensor | None) -> Tensor:
    """Copy some columns of some planes of all `fields` (K, planes, voxels), as (planes, K, columns).

    A GEMM may sum differently by how its operands are aligned, and where a plane lies in memory depends on
    the slab. In a copy each row starts at a multiple of 64 bytes, whatever the plane. One of two factors
    needs the `weights` of 0 and 1; so does a factor that is multiplied with itself.
    """
    view = fields[:, *block].transpose(0, 1)
    planes, count, columns = view.shape
    copy = view.new_empty(planes, count, -(-columns // _ALIGNED) * _ALIGNED)[:, :, :columns]
    copy.copy_(view)
    if weights is not None:
        copy.mul_(weights[:, *block].transpose(0, 1).to(copy.dtype))
    return copy
