"""The stacks of parallel slices that a volume is cut into: along its three axes, and along diagonals (footnote 4).

A diagonal lattice plane such as {y + z = s} meets every z-plane in one row. Shifted by z rows, cyclically, the
planes of the volume bring these rows under one another: the diagonal slices of a volume are the plain slices,
normal to y, of the sheared one. Each z-plane, or each row of one, moves as a whole, so no rank needs another's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mcrdist.errors import InputError

AXES = ("z", "y", "x")


@dataclass(frozen=True)
class Direction:
    """One stack of slices.

    Attributes
    ----------
    name : str
        "z", "y", "x", or the normal of a diagonal plane: "y+z", "y-z", "x+z", "x-z", "x+y", "x-y".
    axis : int
        The axis of the (sheared) volume that numbers the slices: 0, 1, 2 for z, y, x.
    by : int or None
        The axis whose coordinate says how far the volume is shifted along `axis`.
    sign : int
        Slice s of a diagonal holds the voxels with ``axis + sign * by == s``.
    """

    name: str
    axis: int
    by: int | None = None
    sign: int = 1

    def slices(self, shape: tuple[int, int, int]) -> int:
        """How many slices a volume of this shape has."""
        return shape[self.axis]

    def slice_shape(self, shape: tuple[int, int, int]) -> tuple[int, int]:
        """(H, W) of a slice."""
        height, width = (n for i, n in enumerate(shape) if i != self.axis)
        return height, width

    @property
    def spacing(self) -> tuple[float, float]:
        """Distance of neighbouring rows, and of neighbouring columns, in voxels."""
        kept = [i for i in range(3) if i != self.axis]
        rows, columns = (math.sqrt(2.0) if i == self.by else 1.0 for i in kept)
        return rows, columns

    def sheared(self, field: Tensor, start: int, out: Tensor | None = None) -> Tensor:
        """The planes `start`, ... of the sheared volume, from those of the volume; a copy unless it is the same.

        The copy is `out`, where that is given.

        ``sheared[…, s, …] = field[…, s − sign·c, …]`` with c the coordinate along `by`, all cyclic.
        """
        return self._rolled(field, start, self.sign, out)

    def unsheared(self, field: Tensor, start: int) -> Tensor:
        """The inverse of `sheared`, which is its transpose too."""
        return self._rolled(field, start, -self.sign, None)

    def _rolled(self, field: Tensor, start: int, sign: int, out: Tensor | None) -> Tensor:
        if self.by is None:
            return field
        result = torch.empty_like(field) if out is None else out
        if self.by == 0:
            for plane in range(field.shape[0]):
                shift = sign * (start + plane)
                result[plane] = torch.roll(field[plane], shift, self.axis - 1)
        else:
            for row in range(field.shape[1]):
                result[:, row] = torch.roll(field[:, row], sign * row, 1)
        return result


ORTHOGONAL = tuple(Direction(name, axis) for axis, name in enumerate(AXES))
DIAGONAL = (
    Direction("y+z", 1, 0, 1),
    Direction("y-z", 1, 0, -1),
    Direction("x+z", 2, 0, 1),
    Direction("x-z", 2, 0, -1),
    Direction("x+y", 2, 1, 1),
    Direction("x-y", 2, 1, -1),
)


def directions(shape: tuple[int, int, int], diagonals: bool) -> tuple[Direction, ...]:
    """The stacks that a volume of this shape is held to: one plane alone is its own only slice.

    Raises
    ------
    InputError
        Diagonals of a volume whose sides differ: they do not close on themselves.
    """
    if shape[0] == 1:
        return ORTHOGONAL[:1]
    if not diagonals:
        return ORTHOGONAL
    if len(set(shape)) > 1:
        raise InputError(
            f"target.diagonals: expected a cube, since diagonal slices of others are not periodic, found "
            f"volume.shape={list(shape)}; set volume.size or target.diagonals=false"
        )
    return ORTHOGONAL + DIAGONAL
