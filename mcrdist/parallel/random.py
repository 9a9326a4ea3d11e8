"""Random fields that do not depend on how many ranks draw them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.parallel.slab import Slab

Kind = Literal["normal", "uniform"]


def plane_noise(
    seed: int, level: int, plane: int, shape: tuple[int, int], kind: Kind = "normal", stream: int = 0
) -> NDArray[np.float64]:
    """Draw the noise of one plane.

    Parameters
    ----------
    seed, level, plane, stream : int
        Not negative. Planes that differ in any of these are independent of one another. `stream` tells
        apart the noises that one level needs.
    shape : (ny, nx)
        Pixels of the plane.
    kind : {"normal", "uniform"}
        Standard normal, or uniform in [0, 1).

    Returns
    -------
    float64 array (ny, nx)
    """
    key = np.random.SeedSequence([seed, level, plane, stream])
    generator = np.random.Generator(np.random.Philox(key))
    return generator.standard_normal(shape) if kind == "normal" else generator.random(shape)


def noise(slab: Slab, seed: int, level: int, kind: Kind = "normal", stream: int = 0) -> Tensor:
    """Draw a whole field, each rank its planes; the same for any number of ranks. See `plane_noise`.

    Returns
    -------
    tensor (planes, ny, nx)
        Drawn in float64 and rounded to the slab's dtype, so runs in either precision start alike.
    """
    local = slab.empty()

    def draw(index: int) -> None:
        values = plane_noise(seed, level, slab.start + index, slab.shape[1:], kind, stream)
        local[index].copy_(torch.from_numpy(values))

    slab.workers.map(draw, range(slab.planes))
    return local
