"""Planes that other ranks have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.parallel.slab import Slab


def fetch(field: Tensor, slab: Slab, wanted: Sequence[NDArray[np.int64]]) -> Tensor:
    """Bring planes of a slab-distributed field here. Collective.

    Parameters
    ----------
    field : tensor (planes, ny, nx)
    slab : Slab
    wanted : sequence of int array
        For each rank, the planes of the volume that it wants, in any order and perhaps several times; the same on
        every rank.

    Returns
    -------
    tensor (len(wanted[rank]), ny, nx)
        In the order in which this rank wanted them.
    """
    comm = slab.comm
    starts = np.array([owned.start for owned in slab.owners[0]])

    def owner(planes: NDArray[np.int64]) -> NDArray[np.int64]:
        # Ranks without planes share the start of none: the last one that starts there has it.
        return np.searchsorted(starts, planes, side="right") - 1

    size = field[0].numel() if len(field) else int(np.prod(field.shape[1:]))
    sent = [planes[owner(planes) == comm.rank] for planes in wanted]
    mine = wanted[comm.rank]
    owners = owner(mine)
    packed = field[torch.as_tensor(np.concatenate(sent) - slab.start, device=field.device)]
    pending = comm.exchange(
        packed,
        [len(planes) * size for planes in sent],
        [int((owners == rank).sum()) * size for rank in range(comm.size)],
    )
    arrived = pending.wait().view(-1, *field.shape[1:])
    if (np.diff(owners) >= 0).all():
        return arrived  # by owner, as they were wanted
    place = np.empty(len(mine), dtype=np.int64)
    place[np.argsort(owners, kind="stable")] = np.arange(len(mine))
    return arrived[torch.as_tensor(place, device=field.device)]
