"""The two passes of projected L-BFGS over one plane of its history: compiled on a CPU, by torch elsewhere.

`rows` (R, planes, voxels) holds the gradient in row 0 and the pair of slot j in rows 1 + 2j (s) and 2 + 2j (y), in
the fields' type or, on a float32 field, as bfloat16: what is learnt is then what was stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.optimize import kernels

# A variable this close to a bound, and pushed outward, is taken to the bound with a full step (Bertsekas
# 1982): without the margin, variables that approach a bound would cut the steps of all others short.
MARGIN = 1e-3


@dataclass(frozen=True)
class Sums:
    """What one plane adds to the products of the history.

    Attributes
    ----------
    found : array (3,)
        Largest component of the projected gradient, largest of the stored gradient where it is free, and the sum of
        the squares of the gradient.
    products : array (R, 5)
        Of every row in use, the new ones included, with s, y, s_F, y_F and g_F, F being the free set.
    changes : array (R, R)
        By how much the products over the free set of the older rows differ from those over the last one; the lower
        triangle.
    """

    found: NDArray[np.float64]
    products: NDArray[np.float64]
    changes: NDArray[np.float64]

    @classmethod
    def zeros(cls, count: int) -> Sums:
        """Of `count` rows."""
        return cls(np.zeros(3), np.zeros((count, 5)), np.zeros((count, count)))


def is_free(x: Tensor, g: Tensor) -> Tensor:
    """Which variables are not held at a bound: bool, shaped as `x`."""
    return ~(((x <= MARGIN) & (g > 0)) | ((x >= 1 - MARGIN) & (g < 0)))


def learn(
    rows: Tensor, plane: int, slot: int, old: NDArray[np.int64], point: Tensor, last: Tensor, gradient: Tensor
) -> Sums:
    """Take in the step from `last` to `point`, where there is `gradient`: write their pair, and multiply.

    Parameters
    ----------
    rows : Tensor (R, planes, voxels)
    plane : int
    slot : int
        Of the new pair; -1 at the start, where there is none.
    old : int64 array
        The rows of the other pairs, ascending.
    point, last, gradient : Tensor (planes, voxels)
    """
    sums = Sums.zeros(len(rows))
    if rows.device.type == "cpu":
        x, before, g = (_array(tensor) for tensor in (point, last, gradient))
        margin = x.dtype.type(MARGIN)
        kernels.learn(
            _array(rows), plane, slot, old, x, before, g, margin, sums.found, sums.products, sums.changes
        )
        return sums
    return learn_by_torch(rows, plane, slot, old, point, last, gradient)


def move(
    rows: Tensor,
    plane: int,
    coefficients: list[tuple[int, float]],
    step: float,
    point: Tensor,
    trial: Tensor,
) -> float:
    """Write the trial point of one plane, and return its part of g · (trial − point).

    It lies at `step` times the sum of coefficient times row on the free set, and the way to the bound elsewhere, within
    the bounds.
    """
    if rows.device.type == "cpu":
        numbers = np.array([number for number, _ in coefficients], dtype=np.int64)
        x = _array(point)
        kind = x.dtype
        factors = np.array([factor for _, factor in coefficients], dtype=kind)
        step, margin = kind.type(step), kind.type(MARGIN)
        return float(kernels.move(_array(rows), plane, numbers, factors, step, x, margin, _array(trial)))
    return move_by_torch(rows, plane, coefficients, step, point, trial)


def learn_by_torch(
    rows: Tensor, plane: int, slot: int, old: NDArray[np.int64], point: Tensor, last: Tensor, gradient: Tensor
) -> Sums:
    """`learn` in torch's operations."""
    sums = Sums.zeros(len(rows))
    x, g = point[plane], gradient[plane]
    before = is_free(last[plane], rows[0, plane].to(x.dtype))
    if slot >= 0:
        rows[1 + 2 * slot, plane] = x - last[plane]
        rows[2 + 2 * slot, plane] = g - rows[0, plane].to(x.dtype)
    rows[0, plane] = g
    free = is_free(x, rows[0, plane].to(x.dtype))
    projected = torch.where(g > 0, torch.minimum(g, x), torch.minimum(-g, 1 - x))
    largest = [
        float(values.max().clamp_min(0)) for values in (projected, rows[0, plane].to(x.dtype).abs() * free)
    ]
    sums.found[:] = [*largest, float(g.double().square().sum())]
    new = [] if slot < 0 else [1 + 2 * slot, 2 + 2 * slot]
    used = np.array([0, *old, *new], dtype=np.int64)
    values = rows[torch.as_tensor(used), plane].double()
    masked = values * free
    with_gradient = values @ masked[0]
    sums.products[used, 4] = with_gradient.cpu().numpy()
    if slot >= 0:
        sums.products[used, :2] = (values @ values[-2:].T).cpu().numpy()
        sums.products[used, 2:4] = (values @ masked[-2:].T).cpu().numpy()
        others = values[1 : 1 + len(old)]
        change = others * (free.double() - before.double()) @ others.T
        sums.changes[np.ix_(old, old)] = np.tril(change.cpu().numpy())
    return sums


def move_by_torch(
    rows: Tensor,
    plane: int,
    coefficients: list[tuple[int, float]],
    step: float,
    point: Tensor,
    trial: Tensor,
) -> float:
    """`move` in torch's operations."""
    x = point[plane]
    g = rows[0, plane].to(x.dtype)
    total = torch.zeros_like(x)
    for number, factor in coefficients:
        total.add_(rows[number, plane].to(x.dtype), alpha=factor)
    way = torch.where(is_free(x, g), total, torch.where(g > 0, -x, 1 - x))
    torch.add(x, way, alpha=step, out=trial[plane])
    trial[plane].clamp_(0, 1)
    return float((g.double() * (trial[plane] - x).double()).sum())


def _array(tensor: Tensor) -> NDArray[Any]:
    """The tensor's memory; bfloat16 as uint16, since NumPy has no such type."""
    half = tensor.dtype == torch.bfloat16
    return np.asarray((tensor.view(torch.uint16) if half else tensor).numpy())
