"""Batched matrix products whose every matrix is computed with the same bits, whichever others come with it.

A BLAS may take another path through its kernels, and round otherwise, for a matrix that starts at another offset
from a cache line (MKL on processors that are not Intel's does). In a plain stack the offset of a slice depends on its
place in the batch, and so on how many ranks and threads there are. Here each one starts at a cache line.
"""

from __future__ import annotations

import torch
from torch import Tensor

LINE = 64  # bytes


def aligned(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised stack (S, H, W) of contiguous matrices, each of which starts at a cache line."""
    count, height, width = shape
    step = LINE // dtype.itemsize
    stride = -(-height * width // step) * step
    return torch.empty(count * stride, dtype=dtype, device=device).as_strided(shape, (stride, width, 1))


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """``torch.bmm`` of (S, M, K) and (S, K, N), aligned; factors that are not are copied.

    Expanded ones, and transposed ones of stacks that are aligned, are taken as they are.
    """
    shape = (a.shape[0], a.shape[1], b.shape[2])
    if a.device.type != "cpu":
        return torch.bmm(a, b)
    return torch.bmm(_in_line(a), _in_line(b), out=aligned(shape, a.dtype, a.device))


def _in_line(stack: Tensor) -> Tensor:
    bytes_between = stack.stride(0) * stack.dtype.itemsize
    dense = stack.stride()[1:] in ((stack.shape[2], 1), (1, stack.shape[1]))
    if bytes_between % LINE == 0 and dense and stack.data_ptr() % LINE == 0:
        return stack
    copy = aligned((stack.shape[0], stack.shape[1], stack.shape[2]), stack.dtype, stack.device)
    return copy.copy_(stack)
