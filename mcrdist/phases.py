"""Phases of a material: from variables in the box [0, 1] to indicator channels that sum to one, and back.

For one phase against the rest the variable is its indicator. C phases have C − 1 variables, each the share of a
phase in what the phases before it have left over:

    x_1 = y_1,   x_2 = (1 − y_1) y_2,   …,   x_C = (1 − y_1) ⋯ (1 − y_{C−1}),

so the channels are not negative and sum to one whatever the variables are, and variables of 0 and 1 make a voxel
one phase. No penalty keeps them there, and the optimiser knows a box only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mcrdist.parallel.threads import Workers

#: A voxel is grey between these values: it belongs to no phase yet.
GREY = (0.05, 0.95)

#: Makes an uninitialised tensor for a channel of that number, contiguous and else as the given one.
Room = Callable[[int, Tensor], Tensor]


class Phases:
    """The channels of a field of variables.

    Parameters
    ----------
    labels : tuple of int
        A label a channel: one (that phase against the rest) or all of three phases or more.
    workers : Workers
    """

    def __init__(self, labels: tuple[int, ...], workers: Workers) -> None:
        assert len(labels) == 1 or len(labels) > 2, labels
        self.labels = labels
        self._workers = workers

    @property
    def variables(self) -> int:
        """Variables of a voxel."""
        return max(1, len(self.labels) - 1)

    @property
    def highest(self) -> int:
        """The largest label of a volume: one phase is 1 there and the rest 0, whatever it is in the micrograph."""
        return 1 if self.variables == 1 else max(self.labels)

    def stack(self, variables: Sequence[Tensor]) -> Tensor:
        """The field of the optimiser: (planes, ny, nx) of one variable, else (planes, variables, ny, nx)."""
        assert len(variables) == self.variables
        return variables[0] if len(variables) == 1 else torch.stack(list(variables), dim=1)

    def split(self, field: Tensor) -> list[Tensor]:
        """Views (planes, ny, nx) of the variables; the inverse of `stack`."""
        return [field] if self.variables == 1 else list(field.unbind(1))

    def channels(self, field: Tensor, room: Room | None = None) -> list[Tensor]:
        """Indicators (planes, ny, nx) of the phases; of one phase, the field itself, else of ``room(number, like)``."""
        if self.variables == 1:
            return [field]
        room = room or (lambda number, like: torch.empty_like(like, memory_format=torch.contiguous_format))
        channels = [room(number, field[:, 0]) for number in range(len(self.labels))]

        def fill(plane: int) -> None:
            for channel, share in zip(channels, self._shares(field[plane : plane + 1]), strict=True):
                channel[plane] = share[0]

        self._workers.map(fill, range(len(field)))
        return channels

    def _shares(self, field: Tensor) -> list[Tensor]:
        """The indicators of several phases, of some planes."""
        rest = torch.ones_like(field[:, 0])
        shares = []
        for k in range(self.variables):
            shares.append(rest * field[:, k])
            rest = rest * (1.0 - field[:, k])
        return [*shares, rest]

    def pull(self, field: Tensor, slopes: Sequence[Tensor], gradient: Tensor) -> None:
        """Overwrite `gradient` with d loss / d variables, from `slopes` = d loss / d channels."""
        if self.variables == 1:
            assert slopes[0] is gradient
            return

        def chain(plane: int) -> None:
            self._backward(field[plane], [slope[plane] for slope in slopes], gradient[plane], 1.0)

        self._workers.map(chain, range(len(field)))

    def exchanged(self, field: Tensor, costs: Sequence[Tensor]) -> Tensor:
        """For variables of 0 and 1: the sum of the costs of the two phases that a flip of a variable exchanges.

        Parameters
        ----------
        field : Tensor (ny, nx) or (variables, ny, nx)
            One plane.
        costs : sequence of Tensor (ny, nx)
            A channel's cost at every voxel.

        Returns
        -------
        Tensor, shaped as `field`
            0 where the flip changes nothing.
        """
        if self.variables == 1:
            return costs[0]
        result = torch.empty_like(field)
        self._backward(field, costs, result, -1.0)
        return result

    def _backward(self, y: Tensor, slopes: Sequence[Tensor], out: Tensor, sign: float) -> None:
        """``out_k = rest_k (slope_k − sign · h_{k+1})`` with h_k = y_k slope_k + (1 − y_k) h_{k+1}, h_C = slope_C.

        h is what the phases from the k-th on make of what is left over for them.
        """
        later = slopes[-1]
        for k in range(self.variables - 1, -1, -1):
            torch.sub(slopes[k], later, alpha=sign, out=out[k])
            if k:
                later = torch.lerp(later, slopes[k], y[k])
        rest = 1.0 - y[0]
        for k in range(1, self.variables):
            out[k] *= rest
            if k + 1 < self.variables:
                rest = rest * (1.0 - y[k])

    def grey(self, field: Tensor) -> int:
        """Voxels of this rank that belong to no phase yet."""

        def count(plane: int) -> int:  # plane by plane: counts of a whole field take three times its memory
            values = field[plane : plane + 1]
            if self.variables == 1:
                return int(torch.count_nonzero((values > GREY[0]) & (values < GREY[1])))
            return int(torch.count_nonzero(torch.stack(self._shares(values)).amax(0) < GREY[1]))

        return sum(self._workers.map(count, range(len(field))))

    def rounded(self, field: Tensor, thresholds: Sequence[float] | None = None) -> Tensor:
        """Variables of 0 and 1: those above their thresholds, 0.5 by default, become 1."""
        if thresholds is None:
            return torch.gt(field, 0.5).to(field.dtype)
        parts = [
            torch.gt(part, threshold).to(field.dtype)
            for part, threshold in zip(self.split(field), thresholds, strict=True)
        ]
        return self.stack(parts)

    def label(self, rounded: Tensor) -> Tensor:
        """uint8 labels (planes, ny, nx) of variables of 0 and 1; of one phase, 1 where it is and 0 elsewhere."""
        if self.variables == 1:
            return rounded.to(torch.uint8)
        labels = torch.full_like(rounded[:, 0], self.labels[-1], dtype=torch.uint8)
        for k in range(self.variables - 1, -1, -1):
            labels[rounded[:, k] > 0.5] = self.labels[k]
        return labels

    def from_channels(self, channels: Sequence[Tensor]) -> Tensor:
        """Variables whose channels are the given ones, which sum to one (the inverse of `channels`)."""
        if self.variables == 1:
            return channels[0]
        rest = torch.ones_like(channels[0])
        variables = []
        for channel in channels[:-1]:
            # What is left over for nobody may be split in any way.
            share = torch.where(rest > 0.0, channel / rest.clamp_min(1e-12), torch.full_like(rest, 0.5))
            variables.append(share.clamp_(0.0, 1.0))
            rest = (rest - channel).clamp_min_(0.0)
        return self.stack(variables)
