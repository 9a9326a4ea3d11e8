"""Inner products and maxima of fields: what an optimiser asks of whoever stores the field.

A distributed implementation answers for the whole field on every rank, with the same bits on each, so that
all ranks take the same decisions and need no further communication. `SerialProducts` is the reference for one
process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Map = Callable[[Callable[[int], Any], Iterable[int]], list[Any]]
"""``map(work, planes)``: the results in order, computed one after another or by a pool of threads."""


def serial_map(work: Callable[[int], Any], planes: Iterable[int]) -> list[Any]:
    """The plain loop."""
    return [work(plane) for plane in planes]


class Products(Protocol):
    """Inner products over the whole field, of which this process may hold a part, or nothing."""

    def __call__(self, A: Tensor, B: Tensor, mask: Tensor | None = None) -> NDArray[np.float64]:
        """Inner products of the rows of `A` (K, planes, ...) and `B` (J, planes, ...), restricted to `mask`.

        Returns
        -------
        float64 array (K, J)
            Identical on all ranks. `B` may be the same object as `A` (a Gram matrix: one pass).
        """
        ...

    def maximum(self, x: Tensor) -> float:
        """The largest element of `x` over all ranks."""
        ...


class SerialProducts:
    """Inner products in one process, in float64 throughout, a plane at a time."""

    def __call__(self, A: Tensor, B: Tensor, mask: Tensor | None = None) -> NDArray[np.float64]:
        total = torch.zeros((A.shape[0], B.shape[0]), dtype=torch.float64, device=A.device)
        for plane in range(A.shape[1]):
            a = A[:, plane].to(torch.float64).reshape(A.shape[0], -1)
            if mask is not None:
                a = a * mask[plane].reshape(-1)
            b = a if B is A else B[:, plane].to(torch.float64).reshape(B.shape[0], -1)
            total += a @ b.T
        return np.asarray(total.cpu().numpy(), dtype=np.float64)

    def maximum(self, x: Tensor) -> float:
        return float(x.max()) if x.numel() else -float("inf")
