"""Curvature pairs of L-BFGS, and the subspace direction they give, in coefficient space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.optimize.products import Products

# Pairs with a smaller cosine between step and change of gradient carry rounding errors, not curvature.
CURVATURE = 1e-8
# Directions with a smaller cosine to the steepest descent are not trusted.
DESCENT = 1e-7
# Condition (of the scaled coefficient matrix) at which its solution has no digits left, the Gram matrix being
# sums of float32 products.
CONDITION = 1e8


class History:
    """Gradient and the last `size` pairs (s, y) in one preallocated ring, and their products.

    Row 0 of ``rows`` (2 size + 1, \\*shape) is the current gradient, rows 1 + 2j and 2 + 2j are s and y of
    slot j: one Gram matrix of a contiguous range of rows then holds everything that a direction needs.
    Products of all pairs without a mask are kept, a new row and column for each new pair.

    Parameters
    ----------
    x
        A vector of the space, (planes, ...); only its shape, type and device are used.
    size
        Pairs kept, at least 1.
    """

    def __init__(self, x: Tensor, size: int) -> None:
        assert size >= 1, size
        self.size = size
        # Zeros, since rows of unused slots below a used one enter products (with no weight) and must be
        # finite.
        self.rows = torch.zeros((2 * size + 1, *x.shape), dtype=x.dtype, device=x.device)
        self._gram = np.zeros((2 * size + 1, 2 * size + 1))
        self._order: list[int] = []  # slots in use, oldest first

    def __len__(self) -> int:
        return len(self._order)

    @property
    def gradient(self) -> Tensor:
        """The current gradient, a view."""
        return self.rows[0]

    def clear(self) -> None:
        """Forget all pairs."""
        self._order.clear()

    def numbers(self) -> dict[str, Any]:
        """What `restore` needs beside the rows, as plain data."""
        return {"gram": self._gram.tolist(), "order": list(self._order)}

    def used(self) -> Tensor:
        """The rows that matter, a view."""
        return self.rows[: 3 + 2 * max(self._order, default=-1)]

    def restore(self, numbers: Mapping[str, Any], rows: Tensor) -> None:
        """Become what another one was when it gave these `numbers` and `used` rows."""
        self._gram[:] = numbers["gram"]
        self._order[:] = numbers["order"]
        self.rows[: len(rows)].copy_(rows)

    def reserve(self) -> tuple[Tensor, Tensor]:
        """Room for the next pair, as views: s and y. The oldest pair is given up for it when the ring is
        full."""
        slot = self._next()
        if slot in self._order:
            self._order.remove(slot)
        return self.rows[1 + 2 * slot], self.rows[2 + 2 * slot]

    def _next(self) -> int:
        free = [slot for slot in range(self.size) if slot not in self._order]
        return free[0] if free else self._order[0]

    def next_rows(self) -> tuple[Tensor, Tensor]:
        """The rows that `reserve` would return, nothing being given up yet."""
        slot = self._next()
        return self.rows[1 + 2 * slot], self.rows[2 + 2 * slot]

    def push(self, products: Products) -> bool:
        """Take what was written into the reserved rows as the newest pair, if it has positive curvature.

        Raises
        ------
        FloatingPointError
            The change of the gradient is not finite.
        """
        slot = self._next()
        assert slot not in self._order, "push without reserve"
        first, last = 1 + 2 * slot, 3 + 2 * slot
        stop = max([last, *(3 + 2 * other for other in self._order)])
        rows = products(self.rows[1:stop], self.rows[first:last], None)
        ss, sy, yy = rows[first - 1, 0], rows[first - 1, 1], rows[first, 1]
        if not np.isfinite([ss, sy, yy]).all():
            raise FloatingPointError("the gradient has values that are not finite")
        if not sy > CURVATURE * np.sqrt(ss * yy):
            return False
        self._gram[1:stop, first:last] = rows
        self._gram[first:last, 1:stop] = rows.T
        self._order.append(slot)
        return True

    def coefficients(self, products: Products, free: Tensor) -> NDArray[np.float64] | None:
        """Coefficients c of the direction d_F = sum_i c_i rows_i on the free set F; None when there is none.

        d_F = -B_FF^-1 g_F with B = theta I - W M W^T, W = [Y, theta S] (Byrd, Nocedal and Schnabel 1994),
        restricted to F: by Sherman, Morrison and Woodbury d_F = -g_F / theta - W_F (M^-1 - W_F^T W_F /
        theta)^-1 W_F^T g_F / theta^2. One pass over the history, for the Gram matrix of the free parts of all
        rows. Should the matrix of coefficients be ill-conditioned or the direction no descent, fewer pairs
        are tried, the newest: this costs no further pass.

        Parameters
        ----------
        free
            bool (planes, ...), the free set.

        Returns
        -------
        float64 array (2 size + 1,) or None
            None without pairs, or when no number of pairs gives a direction of descent.
        """
        if not self._order:
            return None
        used = self.rows[: 3 + 2 * max(self._order)]
        masked = products(used, used, free)
        order: Sequence[int] = self._order
        while order:
            c = self._solve(masked, order)
            if c is not None:
                return c
            order = order[(len(order) + 1) // 2 :]
        return None

    def _solve(self, masked: NDArray[np.float64], order: Sequence[int]) -> NDArray[np.float64] | None:
        k = len(order)
        s = 1 + 2 * np.asarray(order)
        y = s + 1
        ys = np.concatenate([y, s])
        SY = self._gram[np.ix_(s, y)]
        SS = self._gram[np.ix_(s, s)]
        theta = self._gram[y[-1], y[-1]] / SY[-1, -1]
        D, L = np.diag(np.diag(SY)), np.tril(SY, -1)
        scale = np.concatenate([np.ones(k), np.full(k, theta)])  # of the columns of W
        A = np.block([[-D, L.T], [L, theta * SS]])
        A -= scale[:, None] * masked[np.ix_(ys, ys)] * scale / theta
        # Pairs of very different length are no ill-conditioning: bring all columns of W to unit length.
        unit = 1 / (scale * np.sqrt(np.diag(self._gram)[ys]))
        A *= unit[:, None] * unit * theta
        if not np.isfinite(A).all() or np.linalg.cond(A) > CONDITION:
            return None
        z = np.linalg.solve(A, unit * scale * masked[ys, 0]) * unit * scale / theta
        c = np.zeros(2 * self.size + 1)
        c[0] = -1 / theta
        c[ys] = -z
        # Slope and length of the direction follow from the same Gram matrix.
        n = masked.shape[0]
        slope = float(c[:n] @ masked[:, 0])
        length = float(c[:n] @ masked @ c[:n])
        if not slope <= -DESCENT * np.sqrt(max(length, 0.0) * masked[0, 0]):
            return None
        return c
