"""Curvature pairs of L-BFGS, and the subspace direction they give, in coefficient space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.optimize import sweeps
from mcrdist.optimize.planes import Gather, Map, alone, serial_map

# Pairs with a smaller cosine between step and change of gradient carry rounding errors, not curvature.
CURVATURE = 1e-8
# Directions with a smaller cosine to the steepest descent are not trusted.
DESCENT = 1e-7
# Condition (of the scaled coefficient matrix) at which its solution has no digits left, the Gram matrix being
# sums of float32 products.
CONDITION = 1e8


class History:
    """Gradient and the last `size` pairs (s, y) in one preallocated ring, and their products.

    Row 0 of ``rows`` (2 size + 1, planes, voxels) is the current gradient, rows 1 + 2j and 2 + 2j are s and y of slot
    j. Two Gram matrices of the rows are kept: of whole rows, and of their parts on the free set. A new pair brings a
    row and a column for each of its two rows; what the free set has gained and lost since the last iteration, a few
    per cent of the voxels, is all that the products of older pairs need.

    Parameters
    ----------
    x
        A vector of the space, (planes, ...); only its shape, type and device are used.
    size
        Pairs kept, at least 1.
    dtype
        Of the rows: that of `x` by default, or bfloat16 for a float32 field, which halves them.
    gather, planes_map
        As for `lbfgsb.minimize`.

    Attributes
    ----------
    projected_gradient : float
        Largest |x − P(x − g)| over all planes.
    largest_free : float
        Largest component of the gradient on the free set.
    """

    def __init__(
        self,
        x: Tensor,
        size: int,
        dtype: torch.dtype | None = None,
        gather: Gather = alone,
        planes_map: Map = serial_map,
    ) -> None:
        assert size >= 1, size
        self.size = size
        shape = (2 * size + 1, x.shape[0], x[:1].numel())
        self.rows = torch.empty(shape, dtype=dtype or x.dtype, device=x.device)
        self.projected_gradient = self.largest_free = 0.0
        self._gather, self._map = gather, planes_map
        self._whole = np.zeros((len(self.rows), len(self.rows)))
        self._free = np.zeros_like(self._whole)
        self._order: list[int] = []  # slots in use, oldest first

    def __len__(self) -> int:
        return len(self._order)

    @property
    def scale(self) -> float:
        """Length of a step along the gradient, as the newest pair has it; there is one."""
        s, y = 1 + 2 * self._order[-1], 2 + 2 * self._order[-1]
        return float(self._whole[s, y] / self._whole[y, y])

    def clear(self) -> None:
        """Forget all pairs."""
        self._order.clear()

    def numbers(self) -> dict[str, Any]:
        """What `restore` needs beside the rows, as plain data."""
        return {
            "whole": self._whole.tolist(),
            "free": self._free.tolist(),
            "order": list(self._order),
            "largest": [self.projected_gradient, self.largest_free],
        }

    def used(self) -> Tensor:
        """The rows that matter, a view."""
        return self.rows[: 3 + 2 * max(self._order, default=-1)]

    def fits(self, numbers: Mapping[str, Any], rows: Tensor) -> bool:
        """Whether another one's state is one that this can have: of the same size and precision."""
        return len(numbers["whole"]) == len(self.rows) and rows.dtype == self.rows.dtype

    def restore(self, numbers: Mapping[str, Any], rows: Tensor) -> None:
        """Become what another one was when it gave these `numbers` and `used` rows."""
        self._whole[:], self._free[:] = numbers["whole"], numbers["free"]
        self._order[:] = numbers["order"]
        self.projected_gradient, self.largest_free = numbers["largest"]
        self.rows[: len(rows)].copy_(rows.view(len(rows), *self.rows.shape[1:]))

    def begin(self, x: Tensor, gradient: Tensor) -> None:
        """Take the gradient at the start; no pairs.

        Raises
        ------
        FloatingPointError
            The gradient is not finite.
        """
        self.clear()
        self._take(x, x, gradient, -1)

    def learn(self, x: Tensor, last: Tensor, gradient: Tensor) -> bool:
        """Take the gradient after the step from `last` to `x`, and their pair if it has positive curvature.

        The pair takes the place of the oldest one when the ring is full.

        Raises
        ------
        FloatingPointError
            The gradient is not finite.
        """
        unused = [slot for slot in range(self.size) if slot not in self._order]
        slot = unused[0] if unused else self._order.pop(0)
        self._take(x, last, gradient, slot)
        s, y = 1 + 2 * slot, 2 + 2 * slot
        ss, sy, yy = self._whole[s, s], self._whole[s, y], self._whole[y, y]
        if not sy > CURVATURE * np.sqrt(ss * yy):
            return False
        self._order.append(slot)
        return True

    def _take(self, x: Tensor, last: Tensor, gradient: Tensor, slot: int) -> None:
        count = len(self.rows)
        old = np.array([row for j in sorted(self._order) for row in (1 + 2 * j, 2 + 2 * j)], dtype=np.int64)
        point, before, slope = (tensor.view(self.rows.shape[1:]) for tensor in (x, last, gradient))

        def work(plane: int) -> NDArray[np.float64]:
            sums = sweeps.learn(self.rows, plane, slot, old, point, before, slope)
            return np.concatenate([sums.found, sums.products.ravel(), sums.changes.ravel()])

        own = self._map(work, range(len(point)))
        every = self._gather(np.array(own).reshape(len(own), 3 + count * (5 + count)))
        if not np.isfinite(every[:, 2]).all():
            raise FloatingPointError("the gradient has values that are not finite")
        self.projected_gradient, self.largest_free = (float(every[:, k].max(initial=0.0)) for k in (0, 1))
        sums = every[:, 3:].sum(axis=0)
        products, changes = sums[: 5 * count].reshape(count, 5), sums[5 * count :].reshape(count, count)
        if slot >= 0:
            self._free += np.tril(changes) + np.tril(changes, -1).T
            s, y = 1 + 2 * slot, 2 + 2 * slot
            for matrix, first in ((self._whole, 0), (self._free, 2)):
                matrix[:, [s, y]] = products[:, first : first + 2]
                matrix[[s, y], :] = products[:, first : first + 2].T
                matrix[s, y] = matrix[y, s]
        self._free[:, 0] = self._free[0, :] = products[:, 4]

    def coefficients(self) -> list[tuple[int, float]] | None:
        """Coefficients c of the direction d_F = sum_i c_i rows_i on the free set F; None when there is none.

        d_F = -B_FF^-1 g_F with B = theta I - W M W^T, W = [Y, theta S] (Byrd, Nocedal and Schnabel 1994),
        restricted to F: by Sherman, Morrison and Woodbury d_F = -g_F / theta - W_F (M^-1 - W_F^T W_F /
        theta)^-1 W_F^T g_F / theta^2. Should the matrix of coefficients be ill-conditioned or the direction no
        descent, fewer pairs are tried, the newest.

        Returns
        -------
        list of (row, coefficient), or None
            None without pairs, or when no number of pairs gives a direction of descent.
        """
        order: Sequence[int] = self._order
        while order:
            c = self._solve(order)
            if c is not None:
                return [(row, float(value)) for row, value in enumerate(c) if value != 0]
            order = order[(len(order) + 1) // 2 :]
        return None

    def move(self, x: Tensor, coefficients: Sequence[tuple[int, float]], step: float, trial: Tensor) -> float:
        """Write the trial point `step` along the direction of the coefficients; return g · (trial − x).

        Where a variable is not free the direction is the way to its bound.
        """
        point, there = x.view(self.rows.shape[1:]), trial.view(self.rows.shape[1:])
        chosen = list(coefficients)

        def work(plane: int) -> float:
            return sweeps.move(self.rows, plane, chosen, step, point, there)

        slopes = self._map(work, range(len(point)))
        return float(self._gather(np.array(slopes, dtype=np.float64).reshape(-1, 1)).sum())

    def _solve(self, order: Sequence[int]) -> NDArray[np.float64] | None:
        k, whole, free = len(order), self._whole, self._free
        s = 1 + 2 * np.asarray(order)
        y = s + 1
        ys = np.concatenate([y, s])
        SY = whole[np.ix_(s, y)]
        SS = whole[np.ix_(s, s)]
        theta = whole[y[-1], y[-1]] / SY[-1, -1]
        D, L = np.diag(np.diag(SY)), np.tril(SY, -1)
        scale = np.concatenate([np.ones(k), np.full(k, theta)])  # of the columns of W
        A = np.block([[-D, L.T], [L, theta * SS]])
        A -= scale[:, None] * free[np.ix_(ys, ys)] * scale / theta
        # Pairs of very different length are no ill-conditioning: bring all columns of W to unit length.
        unit = 1 / (scale * np.sqrt(np.diag(whole)[ys]))
        A *= unit[:, None] * unit * theta
        if not np.isfinite(A).all() or np.linalg.cond(A) > CONDITION:
            return None
        z = np.linalg.solve(A, unit * scale * free[ys, 0]) * unit * scale / theta
        # Slope and length of the direction follow from the same products.
        used = np.concatenate([[0], ys])
        c = np.concatenate([[-1 / theta], -z])
        slope = float(c @ free[used, 0])
        length = float(c @ free[np.ix_(used, used)] @ c)
        if not slope <= -DESCENT * np.sqrt(max(length, 0.0) * free[0, 0]):
            return None
        result = np.zeros(len(self.rows))
        result[used] = c
        return result
