"""Two or more ranks try out what a reconstruction needs of them.

``torchrun --nproc-per-node 2 -m mcrdist.parallel.selftest``: the last line that rank 0 prints says how it
went, and a rank that finds something wrong raises.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from mcrdist.parallel import shared
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.random import noise
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import configure

_SHAPE = (61, 67, 64)  # odd: slabs differ in size
_TIMEOUT = 60.0


def main() -> None:
    """Exchange a field and a sum, and check both against arithmetic."""
    with Comm.start("cpu", timeout=_TIMEOUT) as comm:
        workers = configure(1)
        slab = Slab(_SHAPE, comm, workers)
        together = shared.possible(comm)
        _check_slices(slab)
        _check_slices(slab, seen=True)
        _check_sum(slab)
        comm.barrier()  # so far the ranks have also made their connections; now they are timed
        start, sent = time.perf_counter(), comm.bytes_sent
        _check_slices(slab)
        rate = (comm.bytes_sent - sent) / (time.perf_counter() - start) / 1e6
        start = time.perf_counter()
        slab.gather_rows(np.zeros((slab.planes, 1)))
        latency = time.perf_counter() - start
        workers.close()
        if comm.rank == 0:
            shape = "x".join(map(str, _SHAPE))
            print(
                f"gloo, {comm.size} ranks: field of {shape} exchanged at {rate:.0f} MB/s, "
                f"sums in {latency * 1e3:.1f} ms; memory is {'shared' if together else 'not shared'}",
                flush=True,
            )


def _check_slices(slab: Slab, seen: bool = False) -> None:
    """Let each slice of each axis add its number: a voxel's gradient is then z + y + x, as is the field.

    With `seen`, in memory that the ranks share, if they can.
    """
    positions = [torch.arange(n, dtype=slab.dtype) for n in slab.shape]
    z, y, x = torch.meshgrid(positions[0][slab.start : slab.stop], *positions[1:], indexing="ij")
    field, gradient = z + y + x, slab.zeros()
    if seen:
        field, gradient = slab.seen(field), slab.seen(gradient)

    def work(first: int, fields: list[Tensor], gradients: list[Tensor] | None) -> None:
        assert gradients is not None
        (slices,), (below,) = fields, gradients
        numbers, rows, columns = (torch.arange(n, dtype=slices.dtype) for n in slices.shape)
        numbers = (numbers + first).view(-1, 1, 1)
        if not torch.equal(slices, numbers + rows.view(-1, 1) + columns):
            raise RuntimeError("slices arrived wrongly")
        below.add_(numbers)

    for axis in range(3):
        slab.visit(axis, [field], [gradient], work)
    if not torch.equal(gradient, field):
        raise RuntimeError("a gradient came home to the wrong voxels")


def _check_sum(slab: Slab) -> None:
    local = noise(slab, seed=0, level=0, kind="uniform")
    rows = np.stack([local.double().sum((1, 2)).numpy(), np.full(len(local), local[:1].numel())], axis=1)
    total, voxels = slab.gather_rows(np.ascontiguousarray(rows, dtype=np.float64)).sum(axis=0)
    if voxels != np.prod(slab.shape) or not 0.49 < total / voxels < 0.51:
        raise RuntimeError(f"ranks sum wrongly: {total} over {voxels} voxels")


if __name__ == "__main__":
    main()
