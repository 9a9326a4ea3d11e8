"""Quantile functions of samples, and the order of many of them at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, float64


def cell_means(values: Tensor, cells: int) -> Tensor:
    """Means over `cells` equal parts of [0, 1] of the step function that has `values` on equal parts of it.

    Of the sorted values of a sample that step function is the quantile function. Where a part overlaps several
    steps each of them counts by its overlap, so the numbers need not divide one another. From c cells back to n the
    same function is n / c times the transpose of its way there.

    Parameters
    ----------
    values : Tensor (..., n)
    cells : int

    Returns
    -------
    Tensor (..., cells), float64
    """
    n = values.shape[-1]
    if n % cells == 0:
        return values.reshape(*values.shape[:-1], cells, n // cells).mean(-1, dtype=float64)
    if cells % n == 0:
        return values.to(float64).repeat_interleave(cells // n, dim=-1)
    integral = torch.nn.functional.pad(values.to(float64).cumsum(-1), (1, 0))
    edges = torch.arange(cells + 1, dtype=torch.int64, device=values.device) * n
    below = torch.div(edges, cells, rounding_mode="floor").clamp_(max=n - 1)
    share = (edges - below * cells).to(float64) / cells
    at_edges = torch.lerp(integral[..., below], integral[..., below + 1], share)
    return at_edges.diff(dim=-1) * (cells / n)


def ascending(values: Tensor) -> Tensor:
    """Indices (..., n), int64, that sort `values` along the last axis; equal values keep their order.

    Single precision on a CPU goes another way than torch's sort, at a sixth of its time: the bits of the value,
    made to order as integers do, above the index in one integer, which NumPy sorts with vector instructions.
    """
    if values.dtype != torch.float32 or values.device.type != "cpu":
        return torch.sort(values, dim=-1, stable=True).indices
    bits = (values + 0.0).numpy().view(np.int32)  # + 0 makes −0 equal to 0
    bits ^= (bits >> 31) & 0x7FFFFFFF  # negative floats are ordered backwards
    keys = bits.astype(np.int64) << 32
    keys |= np.arange(values.shape[-1])
    keys.sort(axis=-1)
    keys &= 0xFFFFFFFF
    return torch.from_numpy(keys)
