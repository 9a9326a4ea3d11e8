"""Projected Adam in the box [0, 1] (Kingma and Ba 2015): for losses that are another one in every iteration.

Steps have the size of the learning rate in every voxel, whatever the gradient's, and nothing is searched, so the
loss need neither fall in each iteration nor be the same function in two of them. The rate falls to nothing along
half a cosine over the iterations: a constant one would leave the field trembling by as much as it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mcrdist.optimize.minimizer import (
    Callback,
    Function,
    Memory,
    Options,
    Progress,
    Result,
    State,
    maximum,
    projected_gradient,
)
from mcrdist.optimize.planes import Gather, Map, alone, serial_map

MEAN, SQUARE = 0.9, 0.99  # what the running means of gradient and squared gradient keep of themselves
FLAT = 1e-8  # a gradient below this share of the largest at the start moves a voxel by less than a full step
WINDOW = 50  # iterations over which the relative decrease is measured: the loss goes up and down


def minimize(
    function: Function,
    x: Tensor,
    gather: Gather = alone,
    options: Options | None = None,
    callback: Callback | None = None,
    planes_map: Map = serial_map,
    *,
    learning_rate: float = 0.05,
    memory: Memory | None = None,
) -> Result:
    """Minimise `function` over fields in [0, 1], in place; see `lbfgsb.minimize`.

    Memory: two fields. One evaluation an iteration. The loss of the result is that of its last iteration.

    Parameters
    ----------
    learning_rate : float
        Size of the first step, in grey values.
    memory : Memory, optional
        As for `lbfgsb.minimize`, with its fields.

    Raises
    ------
    FloatingPointError
        The loss is not finite; the message names the iteration.
    """
    options = options or Options()
    x.clamp_(0, 1)
    progress = Progress(options, callback, WINDOW)
    if memory is None:
        mean, square = torch.zeros_like(x), torch.zeros_like(x)
        loss, gradient = _evaluate(function, x, 0)
        largest = maximum(x, lambda p: gradient[p].abs().max(), gather, planes_map)
        unit = 1.0 / largest if largest > 0.0 else 1.0  # float32 cannot hold the squares of small gradients
        iteration, step = 0, 0.0
    else:
        mean, square, gradient = memory.fields["moments"]
        loss, unit, iteration, step = (memory.numbers[name] for name in ("loss", "unit", "iteration", "step"))
        progress.recall(memory.numbers["seen"])

    def remember() -> Memory:
        numbers = {"loss": loss, "unit": unit, "iteration": iteration, "step": step, "seen": progress.seen}
        return Memory(numbers, {"moments": torch.stack([mean, square, gradient])})

    def move(p: int) -> None:
        g = gradient[p] * unit
        mean[p].lerp_(g, 1.0 - MEAN)
        square[p].lerp_(g.square_(), 1.0 - SQUARE)
        size = (square[p] / (1.0 - SQUARE**iteration)).sqrt_().add_(FLAT)
        x[p].addcdiv_(mean[p], size, value=-step / (1.0 - MEAN**iteration)).clamp_(0, 1)

    told = memory is not None  # of this iteration, by the call that was cut short
    while True:
        norm = projected_gradient(x, gradient, gather, planes_map)
        if not math.isfinite(norm):  # before anybody keeps it
            raise FloatingPointError(f"iteration {iteration}: the gradient has values that are not finite")
        state = State(iteration, loss, iteration + 1, norm, step, x, remember)
        stop = progress.enough(state) if told else progress.stop(state)
        told = False
        if stop is not None:
            return Result(x, loss, iteration, iteration + 1, stop)
        step = learning_rate * 0.5 * (1.0 + math.cos(math.pi * iteration / options.iterations))
        iteration += 1
        planes_map(move, range(x.shape[0]))
        loss, gradient = _evaluate(function, x, iteration)


def _evaluate(function: Function, x: Tensor, iteration: int) -> tuple[float, Tensor]:
    loss, gradient = function(x)
    if not math.isfinite(loss):
        raise FloatingPointError(f"iteration {iteration}: the loss is not finite ({loss})")
    return loss, gradient
