"""What every minimiser of fields in [0, 1] is given and gives back: when to stop, how far it is, how it ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mcrdist.optimize.planes import Gather, Map

WINDOW = 10  # iterations over which the relative decrease is measured

Function = Callable[[Tensor], tuple[float, Tensor]]


@dataclass(frozen=True)
class Options:
    """When to stop, and how much to remember.

    Attributes
    ----------
    history
        Curvature pairs kept; each takes two fields of memory.
    history_dtype
        In which they are kept: that of the field by default; bfloat16 halves those of a float32 field.
    iterations
        Cap.
    relative_decrease
        Stop when the loss fell by less than this fraction an iteration, on average over the last 10.
    projected_gradient
        Stop when the largest component of the projected gradient, min(g, x) or min(-g, 1 - x), is not above
        this.
    forget
        Iterations after which all curvature is forgotten, whatever happens: there `x` and a few numbers are all that
        there is to know, and a minimiser that is given them goes on as this one does. 0: never.
    """

    history: int = 10
    iterations: int = 300
    relative_decrease: float = 1e-4
    projected_gradient: float = 0.0
    history_dtype: torch.dtype | None = None
    forget: int = 0


@dataclass(frozen=True)
class Memory:
    """What a minimiser knows beside `x` at the end of an iteration, to go on from there as if it had not stopped.

    Attributes
    ----------
    numbers
        Plain data that JSON can write.
    fields
        Tensors (rows, planes, ...); views, which the next iteration changes. A minimiser that is given none goes on
        from `x` all the same, with nothing learnt yet.
    repeats
        Evaluations that whoever goes on makes again.
    """

    numbers: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Tensor] = field(default_factory=dict)
    repeats: int = 0


@dataclass(frozen=True)
class State:
    """What a callback is told; iteration 0 is the start. `x` is to be read, not kept: it changes in place.

    `memory()` is what the minimiser needs to go on from here. With `Options.forget` it can be had where `light`, and
    has no fields.
    """

    iteration: int
    loss: float
    evaluations: int
    projected_gradient: float
    step: float
    x: Tensor
    memory: Callable[[], Memory] = Memory
    light: bool = True


@dataclass(frozen=True)
class Result:
    """The minimiser (the tensor that was given, changed in place) and how it was found."""

    x: Tensor
    loss: float
    iterations: int
    evaluations: int
    stop: str


Callback = Callable[[State], bool | None]


class Minimizer(Protocol):
    """Minimise a function over fields in [0, 1], in place; `lbfgsb.minimize` says what the arguments are."""

    def __call__(
        self,
        function: Function,
        x: Tensor,
        gather: Gather = ...,
        options: Options | None = None,
        callback: Callback | None = None,
        planes_map: Map = ...,
        *,
        memory: Memory | None = None,
    ) -> Result: ...


class Progress:
    """Tells the callback of every iteration, and says when to stop and why.

    Parameters
    ----------
    options, callback
        As the minimiser was given them.
    window : int
        Iterations over which the relative decrease is measured; more where the loss does not fall in each.
    """

    def __init__(self, options: Options, callback: Callback | None, window: int = WINDOW) -> None:
        self.options, self.callback, self.window = options, callback, window
        self._best: deque[float] = deque(maxlen=window + 1)

    def restart(self) -> None:
        """Give what follows a whole window."""
        latest = self._best[-1]
        self._best.clear()
        self._best.append(latest)

    @property
    def seen(self) -> list[float]:
        """What is remembered of the losses so far; `recall` takes it."""
        return list(self._best)

    def recall(self, seen: Sequence[float]) -> None:
        """Go on where another one was when it had `seen` this."""
        self._best.extend(seen)

    def stop(self, state: State) -> str | None:
        """Tell the callback; return why to stop after this iteration, None to go on."""
        self._best.append(min(state.loss, self._best[-1]) if self._best else state.loss)
        if self.callback is not None and self.callback(state):
            return "interrupted"
        return self.enough(state)

    def enough(self, state: State) -> str | None:
        """Why to stop after an iteration that was told already; None to go on."""
        options = self.options
        if state.projected_gradient <= options.projected_gradient:
            return "projected gradient"
        if state.iteration >= options.iterations:
            return "iteration cap"
        enough = self.window * options.relative_decrease * abs(self._best[-1])
        if len(self._best) > self.window and self._best[0] - self._best[-1] < enough:
            return "relative decrease"
        return None


def projected_gradient(x: Tensor, gradient: Tensor, gather: Gather, planes_map: Map) -> float:
    """Largest |x - P(x - g)| over all ranks, without the cancellation that hides small gradients.

    NaN where a component of the gradient is not finite.
    """

    def largest(p: int) -> Tensor:
        g = gradient[p]
        step = torch.where(g > 0, torch.minimum(g, x[p]), torch.minimum(-g, 1 - x[p]))
        return step.add_(0.0 * g).max()

    return maximum(x, largest, gather, planes_map)


def maximum(x: Tensor, of_plane: Callable[[int], Tensor], gather: Gather, planes_map: Map) -> float:
    """Maximum over the planes of all ranks, at least 0; NaN if one is NaN."""
    values = planes_map(lambda p: float(of_plane(p)), range(x.shape[0]))
    return float(gather(np.array(values, dtype=np.float64).reshape(-1, 1)).max(initial=0.0))
