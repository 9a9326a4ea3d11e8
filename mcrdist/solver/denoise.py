"""Total-variation denoising of the relaxed field (Eq. 6 of Seibert et al. 2022), as post-processing.

scikit-image's `denoise_tv_chambolle` minimises ½‖M − M_noise‖² + λ V(M), V being the sum of the gradient's lengths. It
knows neither ranks nor periodic borders, so it is given blocks of whole planes, laid out the same for any number of
ranks, with some of what lies beyond their borders; that is cut off again.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.parallel.halo import fetch
from mcrdist.parallel.slab import Slab
from mcrdist.phases import Phases

#: Planes of a block, and what is added beyond all of its borders: the weights in use reach a few voxels far.
BLOCK, HALO = 32, 12
#: Iterations: always as many, since a rule for when to stop would see the blocks.
ITERATIONS = 60


def denoised(field: Tensor, weight: float, slab: Slab, phases: Phases) -> Tensor:
    """The field with less variation, as near to the given one as `weight` lets it be; collective.

    Parameters
    ----------
    field : Tensor (planes, ny, nx) or (planes, variables, ny, nx)
        Variables in [0, 1]; not changed.
    weight : float
        λ of Eq. 6, in grey values times voxels: features thinner than about 2 λ fade.
    slab : Slab
    phases : Phases

    Returns
    -------
    Tensor, shaped as `field`
    """
    channels = [_periodic(channel, weight, slab).clamp_(0.0, 1.0) for channel in phases.channels(field)]
    if len(channels) > 1:
        total = torch.stack(channels).sum(0).clamp_min_(1e-6)
        channels = [channel.div_(total) for channel in channels]
    return phases.from_channels(channels)


def _periodic(field: Tensor, weight: float, slab: Slab) -> Tensor:
    """One channel. A block that two ranks share is computed by both: so its planes are the same everywhere."""
    nz = slab.shape[0]
    result = torch.empty_like(field)
    blocks = [range(own.start // BLOCK, -(-own.stop // BLOCK)) for own in slab.owners[0]]
    for turn in range(max(map(len, blocks))):
        wanted = [
            _with_halo(own[turn], nz) if turn < len(own) else np.empty(0, dtype=np.int64) for own in blocks
        ]
        planes = fetch(field, slab, wanted)
        if not len(planes):
            continue
        first = blocks[slab.comm.rank][turn] * BLOCK
        start, stop = max(first, slab.start), min(first + BLOCK, slab.stop)
        smooth = _smoothed(planes.cpu().numpy(), weight)[HALO + start - first : HALO + stop - first]
        result[start - slab.start : stop - slab.start] = torch.from_numpy(smooth).to(field)
    return result


def _with_halo(block: int, nz: int) -> NDArray[np.int64]:
    return np.arange(block * BLOCK - HALO, min((block + 1) * BLOCK, nz) + HALO) % nz


def _smoothed(planes: NDArray[np.floating], weight: float) -> NDArray[np.floating]:
    """Denoise planes, periodic in the plane; those near the first and the last one are of no use."""
    # Here, not above: scikit-image takes a second to import.
    from skimage.restoration import denoise_tv_chambolle

    padded = np.pad(planes, ((0, 0), (HALO, HALO), (HALO, HALO)), mode="wrap")
    smooth = denoise_tv_chambolle(padded, weight, eps=0.0, max_num_iter=ITERATIONS)
    return np.ascontiguousarray(smooth[:, HALO:-HALO, HALO:-HALO])
