"""Discrete descent of a binary field by exchanges, where no single flip lowers the loss.

Two voxels in each other's place cost volume fraction when either is mended alone. The gains of single flips tell
which voxels come into question; pairs of the best of either phase are tried one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mcrdist.optimize.flips import FlipResult, FlipState, Function
from mcrdist.optimize.minimizer import Memory

CANDIDATES = 16  # voxels of each phase that are paired


def exchange_descent(
    function: Function,
    x: Tensor,
    evaluations: int,
    callback: Callable[[FlipState], bool | None] | None = None,
    memory: Memory | None = None,
) -> FlipResult:
    """Lower `function` over binary fields by exchanging a one with a zero, in place, all of it on this process.

    Parameters
    ----------
    function, x
        As for `flip_descent`. Voxels of gain -inf stay.
    evaluations : int
        Cap.
    callback
        Called with the `FlipState` at the start and after each exchange that was kept; returning True stops.
    memory
        What an earlier call that was cut short had in mind at `x`: goes on from there.

    Returns
    -------
    FlipResult
        Its `stop` is "no further decrease", "evaluation cap" or "interrupted".
    """
    flat = x.view(-1)
    if memory is None:
        loss, new_gain = function(x)
        gain = new_gain.flatten().clone()
        made, used = 0, 1
    else:
        gain = memory.fields["gain"][0].reshape(-1)
        loss, made, used = (memory.numbers[name] for name in ("loss", "made", "used"))

    def remember() -> Memory:
        return Memory({"loss": loss, "made": made, "used": used}, {"gain": gain.view_as(x)[None]})

    told = memory is not None  # of this exchange, by the call that was cut short
    while True:
        state = FlipState(made, loss, used, 2 * min(made, 1), True, remember)
        if told:
            told = False
        elif callback is not None and callback(state):
            return FlipResult(x, loss, made, used, 2 * made, "interrupted")
        for pair in _pairs(flat, gain):
            if used >= evaluations:
                return FlipResult(x, loss, made, used, 2 * made, "evaluation cap")
            flat[pair] = 1.0 - flat[pair]
            new_loss, new_gain = function(x)
            used += 1
            if new_loss < loss:
                loss, made = new_loss, made + 1
                gain.copy_(new_gain.flatten())
                break
            flat[pair] = 1.0 - flat[pair]
        else:
            return FlipResult(x, loss, made, used, 2 * made, "no further decrease")


def _pairs(x: Tensor, gain: Tensor) -> Tensor:
    """A one and a zero each, the most promising first: (pairs, 2) indices."""
    best = []
    for phase in (1.0, 0.0):
        own = torch.where(x == phase, gain, -math.inf)
        values, index = own.topk(min(CANDIDATES, len(own)))
        best.append((values[values > -math.inf], index[values > -math.inf]))
    (ones, first), (zeros, second) = best
    order = (ones[:, None] + zeros[None, :]).flatten().argsort(descending=True, stable=True)
    return torch.cartesian_prod(first, second)[order]
