"""Rounding: from variables in [0, 1] to phases, at one half, at a given value, or to the exact volume fractions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mcrdist.parallel.comm import Comm
from mcrdist.phases import Phases

Threshold = float | Literal["auto", "exact"]
#: Bisections of a threshold: enough to tell any two float32 numbers in [0, 1] apart that are worth it.
BISECTIONS = 48


#: Volume fractions of one material in planes of different directions that differ by more are no chance of counting.
_AGREE = 0.005


def contradict(fractions: Iterable[float]) -> bool:
    """Whether the planes of different directions ask for different volume fractions, which one volume cannot have.

    The loss would settle on too little of the phase: every direction's error is relative to what it wants, so that
    the one that wants least counts most, and of two phases the answer would depend on which one is described. The
    mean of the directions does not.
    """
    found = list(fractions)
    return max(found) - min(found) > _AGREE * max(found)


def goals(fractions: Sequence[float], voxels: int) -> list[int]:
    """How many voxels each phase, but the last of several, should have.

    Parameters
    ----------
    fractions : sequence of float
        Of every channel.
    voxels : int
        Of the volume.
    """
    return [round(fraction * voxels) for fraction in fractions[: max(1, len(fractions) - 1)]]


def thresholds(
    field: Tensor, phases: Phases, wanted: Threshold, goal: Sequence[int], comm: Comm
) -> list[float]:
    """The threshold of every variable; collective.

    The variable of a further phase decides among the voxels that the phases before it have left, so its threshold is
    found among them.

    Parameters
    ----------
    field : Tensor (planes, ny, nx) or (planes, variables, ny, nx)
    wanted : float, "exact", or "auto" for one half
        For all variables, or those at which the phases have as nearly as possible the voxels of `goal`. Nearly:
        voxels of one value stay together, and a field that was driven to two phases has few values.
    goal : sequence of int
        See `goals`.
    """
    if wanted != "exact":
        return [0.5 if wanted == "auto" else wanted] * phases.variables
    found = []
    left: Tensor | None = None
    for variable, count in zip(phases.split(field), goal, strict=True):
        values = variable if left is None else variable.masked_fill(~left, -1.0)
        found.append(_threshold(values, count, comm))
        taken = values > found[-1]
        left = ~taken if left is None else left & ~taken
    return found


def _threshold(values: Tensor, count: int, comm: Comm) -> float:
    """The value in [0, 1) above which the number of voxels comes nearest to `count`."""

    def above(threshold: float) -> int:
        # In the field's own precision: a comparison with a float64 number would round it anyway.
        found = sum(int(torch.count_nonzero(plane > threshold)) for plane in values)
        return int(comm.sum_integers(np.array([found]))[0])

    low, high = 0.0, 1.0 - 2.0**-24
    most, least = above(low), above(high)
    for _ in range(BISECTIONS):
        if most <= count or least >= count:
            break
        middle = 0.5 * (low + high)
        found = above(middle)
        if found >= count:
            low, most = middle, found
        else:
            high, least = middle, found
    return low if abs(most - count) <= abs(least - count) else high


def few(voxels: int) -> int:
    """So many of all voxels hardly know of one another when they are flipped at once."""
    return max(40, voxels // 1000)


def settle_all(
    field: Tensor,
    look: Callable[[], tuple[float, Tensor]],
    phases: Phases,
    goal: Sequence[int],
    fixed: Tensor | None,
    comm: Comm,
    rounds: int,
    most: int,
) -> list[float]:
    """Give every phase exactly its voxels, by at most `most` flips in each round but the last; collective.

    Parameters
    ----------
    look : callable
        Returns the loss of the field as it is, and the gains of `settle`.
    goal : sequence of int
        See `goals`.

    Returns
    -------
    list of float
        The losses.
    """
    losses = []
    for variable, wanted in enumerate(goal):
        for left in reversed(range(rounds)):
            loss, gains = look()
            losses.append(loss)
            if not settle(field, gains, phases, variable, wanted, fixed, comm, most if left else None):
                break
    return losses


def settle(
    field: Tensor,
    gains: Tensor,
    phases: Phases,
    variable: int,
    goal: int,
    fixed: Tensor | None,
    comm: Comm,
    most: int | None = None,
) -> int:
    """Bring one phase nearer to `goal` voxels, in place, by the flips of its variable that gain most; collective.

    Parameters
    ----------
    field : Tensor (planes, ny, nx) or (planes, variables, ny, nx)
        Variables of 0 and 1.
    gains : Tensor, shaped as `field`
        By how much the flip of a variable lowers the loss. Overwritten.
    variable : int
        Phases before this one keep their voxels.
    fixed : bool Tensor (planes, ny, nx), optional
        Voxels that must stay as they are.
    most : int, optional
        Flips at a time: what one gains is not what it gains beside others in its plane.

    Returns
    -------
    int
        How many voxels are still missing, or too many, and can be flipped.
    """
    parts = phases.split(field)
    own = parts[variable]
    may = torch.ones_like(own, dtype=torch.bool) if fixed is None else ~fixed
    left = torch.ones_like(may)
    for earlier in parts[:variable]:
        left &= earlier < 0.5
    count = int(comm.sum_integers(np.array([int((left & (own > 0.5)).sum())]))[0])
    may &= left & ((own > 0.5) if count > goal else (own < 0.5))
    gain = phases.split(gains)[variable].masked_fill_(~may, -torch.inf)
    missing = abs(count - goal)
    chosen = largest(gain, missing if most is None else min(missing, most), comm)
    for plane, flips in zip(own, chosen, strict=True):
        plane.copy_(torch.where(flips, 1.0 - plane, plane))
    flipped = int(comm.sum_integers(np.array([int(chosen.sum())]))[0])
    return missing - flipped if flipped else 0


def largest(gain: Tensor, count: int, comm: Comm) -> Tensor:
    """The `count` largest finite values of a field, exactly as many, the same on any number of ranks; collective.

    Parameters
    ----------
    gain : Tensor (planes, ...)
        -inf where a voxel may not be taken.

    Returns
    -------
    bool Tensor, shaped as `gain`
        All that may be taken, where there are fewer.
    """

    def total(reaching: int) -> int:
        found = sum(int((_keys(plane) >= reaching).sum()) for plane in gain)
        return int(comm.sum_integers(np.array([found]))[0])

    if total(_NEVER + 1) <= count:
        return torch.isfinite(gain)
    low, high = _NEVER + 1, 2**31  # at least `count` voxels reach `low`, fewer reach `high`
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) >= count else (low, middle)
    missing = count - total(low + 1)
    before = np.zeros(comm.size, dtype=np.int64)
    before[comm.rank] = sum(int((_keys(plane) == low).sum()) for plane in gain)
    turn = int(comm.sum_integers(before)[: comm.rank].sum())
    chosen = torch.empty(gain.shape, dtype=torch.bool, device=gain.device)
    for plane, own in zip(gain, chosen, strict=True):
        keys = _keys(plane)
        ties = (keys == low).flatten()
        order = turn + torch.cumsum(ties, 0)
        own.copy_((keys > low) | (ties & (order <= missing)).view_as(plane))
        turn += int(ties.sum())
    return chosen


#: Below the key of every number.
_NEVER = -(2**31)


def _keys(plane: Tensor) -> Tensor:
    """Integers (int64) ordered as the float32 numbers of a plane are; `_NEVER` for what is not finite."""
    bits = plane.to(torch.float32).contiguous().view(torch.int32).to(torch.int64)
    # The bits of negative numbers run the other way.
    keys = torch.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))
    return keys.masked_fill_(~torch.isfinite(plane), _NEVER)
