"""Inner products of distributed fields: the same bits on any number of ranks and threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.parallel.comm import Comm
from mcrdist.parallel.threads import Workers

Fields: TypeAlias = Tensor | Sequence[Tensor]

# Elements of a plane that are multiplied at once in the fields' precision, before float64 takes over: short
# enough for small rounding errors and, with twenty fields, for the cache of a core.
_BLOCK = 8192


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

    def __call__(self, A: Fields, B: Fields, mask: Tensor | None = None) -> NDArray[np.float64]:
        """Return the matrix of inner products of the fields of `A` with those of `B`. Collective.

        Each plane is summed alone, in blocks of one size, and the planes are added in their order, so the
        result knows neither the slabs nor the threads. The temporaries are a few blocks a thread.

        Parameters
        ----------
        A, B : tensor (K, planes, ny, nx), (J, planes, ny, nx), or sequences of tensors (planes, ny, nx)
            Contiguous, of one dtype. Fields in a sequence need not lie together in memory: nothing is
            stacked. When `B` is `A` its fields are read once and the result is exactly symmetric.
        mask : bool tensor (planes, ny, nx), optional
            Voxels that count; all by default.

        Returns
        -------
        float64 array (K, J)
            The same on every rank.
        """
        rows = [_planes(field) for field in A]
        columns = rows if B is A else [_planes(field) for field in B]
        masks = None if mask is None else _planes(mask)
        planes = len(rows[0])
        sums = torch.zeros(planes, len(rows), len(columns), dtype=torch.float64, device=rows[0].device)

        def add_plane(plane: int) -> None:
            left = _blocks(rows, plane)
            right = left if columns is rows else _blocks(columns, plane)
            weights = None if masks is None else _split(masks[plane].to(rows[0].dtype))
            for k in range(len(left)):
                # Blocks are always copied: a GEMM may sum differently by the alignment of its operands, and
                # where a plane lies in memory depends on the slab. Fresh tensors are all aligned alike.
                one = torch.stack(left[k])
                other = one if right is left else torch.stack(right[k])
                if weights is not None:
                    one.mul_(weights[k])  # once suffices, except in a Gram matrix, where 0² = 0 and 1² = 1
                sums[plane].add_(one @ other.T)

        self.workers.map(add_plane, range(planes))
        every = self.comm.gather_rows(sums.flatten(1).cpu().numpy())
        total: NDArray[np.float64] = every.sum(axis=0).reshape(len(rows), len(columns))
        if columns is rows:
            total = np.triu(total) + np.triu(total, 1).T
        return total

    def maximum(self, x: Tensor) -> float:
        """Return the largest element of `x` on any rank; NaN if one is NaN, -inf if there is none."""
        local = float(x.max()) if x.numel() else -float("inf")
        return float(self.comm.gather_rows(np.array([[local]])).max())


def _planes(field: Tensor) -> Tensor:
    return field.view(field.shape[0], field.shape[1] * field.shape[2])


def _split(plane: Tensor) -> Sequence[Tensor]:
    full, rest = divmod(len(plane), _BLOCK)
    return plane.split_with_sizes([_BLOCK] * full + [rest] * (rest > 0))


def _blocks(fields: Sequence[Tensor], plane: int) -> list[tuple[Tensor, ...]]:
    """Cut one plane of all fields into blocks: for each block, the pieces of the fields."""
    return list(zip(*(_split(field[plane]) for field in fields), strict=True))
