"""Three-dimensional Fourier filters of fields that no rank holds whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.parallel.slab import Slab

Transfer = Callable[[range], NDArray[Any]]


class SlabFFT:
    """Real DFT of a slab-distributed field: planes (y, x) at home, lines along z on the owners of y-rows.

    Every one-dimensional transform is part of a call of fixed shape, one plane or one row of the spectrum,
    so the result is bit for bit the same on any number of ranks and threads. Besides the field and the result a
    rank holds its share of the spectrum, and among several ranks about three times that. On a GPU the transforms
    themselves are done by the CPU.

    Parameters
    ----------
    slab : Slab
        Gives the shape, the ranks and the threads.
    """

    def __init__(self, slab: Slab) -> None:
        self.slab = slab

    def filter(self, field: Tensor, transfer: Transfer, out: Tensor | None = None) -> Tensor:
        """Multiply the spectrum of a field with a transfer function. Collective.

        Parameters
        ----------
        field : tensor (planes, ny, nx)
            Of float32 or float64; the transform has its precision.
        transfer : callable (ys: range) -> array (nz, len(ys), nx // 2 + 1)
            Real or complex, for the modes ky in `ys` in the order of ``numpy.fft.fftfreq``, all kz likewise,
            and kx as in ``numpy.fft.rfftfreq``. It is called for one row at a time, from several threads.
        out : tensor, optional
            Where the result goes; it may be `field`.

        Returns
        -------
        tensor (planes, ny, nx)
            The filtered field, of the dtype of `field`.
        """
        slab, comm = self.slab, self.slab.comm
        nz, ny, nx = slab.shape
        plane = (ny, nx // 2 + 1)
        real = field.detach().cpu().numpy()
        local = np.empty((slab.planes, *plane), dtype=np.result_type(real.dtype, np.complex64))

        def forward(z: int) -> None:
            local[z] = scipy.fft.rfft2(real[z])

        slab.workers.map(forward, range(slab.planes))
        # Complex numbers travel as pairs of real ones, which every backend knows, from the device of the ranks. Alone
        # they stay where they are.
        pairs = torch.view_as_real(torch.from_numpy(local))
        if comm.size > 1:
            pairs = pairs.to(comm.device)
        cuts, shape = slab.owners[1], pairs.shape
        part = slab.whole(slab.gather(pairs, 1, cuts).wait(), 1, cuts, shape).cpu()
        del pairs
        rows = torch.view_as_complex(part).numpy()  # (nz, own y, nx // 2 + 1)

        def along_z(index: int) -> None:
            y = slab.owned(1)[index]
            factor = transfer(range(y, y + 1))
            assert factor.shape == (nz, 1, plane[1]), factor.shape
            modes = scipy.fft.fft(rows[:, index], axis=0) * factor[:, 0]
            rows[:, index] = scipy.fft.ifft(modes.astype(rows.dtype, copy=False), axis=0)

        slab.workers.map(along_z, range(rows.shape[1]))
        if comm.size > 1:  # alone, the rows are those of `local`
            home = slab.scatter(part.to(comm.device), 1, cuts, shape)
            for piece, cut in zip(slab.returned(home, 1, cuts, shape), cuts, strict=True):
                local[:, cut.start : cut.stop] = torch.view_as_complex(piece.cpu()).numpy()
        result = torch.empty_like(field) if out is None else out

        def inverse(z: int) -> None:
            result[z] = torch.from_numpy(scipy.fft.irfft2(local[z], s=(ny, nx)))

        slab.workers.map(inverse, range(slab.planes))
        return result
