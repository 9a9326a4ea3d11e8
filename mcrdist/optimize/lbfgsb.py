"""Projected L-BFGS in the box [0, 1], on a field of which each rank holds some planes.

Each iteration fixes the variables that sit at a bound and are pushed outward, takes the quasi-Newton step of
the others in their subspace, and searches along the arc of its projections. All that is summed over the field comes
through `gather`, the same on all ranks; hence all ranks decide alike. On the fields of
this program one evaluation an iteration is the rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from mcrdist.optimize.history import History
from mcrdist.optimize.minimizer import Callback, Function, Memory, Options, Progress, Result, State
from mcrdist.optimize.planes import Gather, Map, alone, serial_map

ARMIJO = 1e-4
TRIALS = 20
# Where the loss is concave along a step (about a saddle: a noisy start is one) there is no curvature to learn
# and the steps that the old one scales are far too short: each such step makes the next one longer.
EXPANSION = 10.0
ROUNDING = 2.0**-52  # a decrease by this fraction of the loss cannot be seen
FIRST_CHANGE = 0.1  # largest change of a variable in a step that no curvature scales
STALL = 1e-6  # relative decrease of an iteration that does not count as progress, ...
STALLED = 3  # ... and how many of them drop the history
RECOVERED = 0.99  # of the loss at the last such restart: only below it, another one is worth its evaluations

_Taken = TypeVar("_Taken")

#: What is remembered of an iteration beside the history and the losses so far.
_NUMBERS = ("loss", "iteration", "evaluations", "first_trial", "stalled", "restart_below", "step", "scale")


def minimize(
    function: Function,
    x: Tensor,
    gather: Gather = alone,
    options: Options | None = None,
    callback: Callback | None = None,
    planes_map: Map = serial_map,
    *,
    memory: Memory | None = None,
    room: Callable[[Tensor], Tensor] = torch.empty_like,
) -> Result:
    """Minimise `function` over fields in [0, 1], in place.

    Memory: (2 history + 1) fields for the history and its gradient, half of that where they are bfloat16, and one for
    the trial point; with `x` and the gradient that `function` owns, (history + 3.5) float32 fields at bfloat16 and
    (2 history + 4) otherwise. Temporaries are a few kilobytes.

    Parameters
    ----------
    function
        ``function(x) -> (loss, gradient)``; the loss the same float on all ranks, the gradient shaped as `x`.
        It may return the same tensor each time: the gradient is copied before the next call. It must not keep
        or change `x`, which is one of two tensors in turn.
    x
        (planes, ...), contiguous, the planes that this rank holds, perhaps none. Clamped to [0, 1] first; the
        minimiser when all is done. In between, the callback's `State` has the current point.
    gather
        The sums of all planes, on all ranks.
    options
        See `Options`.
    callback
        Called with the `State` at the start and after each iteration; returning True stops. All ranks must
        return the same.
    planes_map
        ``map(work, planes)`` as of a pool of threads; work on different planes is independent.
    memory
        What an earlier call that was cut short had in mind at `x`: goes on from there, bit for bit, without telling
        the callback of that iteration again. Where the optional `Options.forget` made it `light`, its history is not
        needed for that; otherwise, without it or with another `history`, curvature is learnt anew.
    room
        Makes the trial point, a tensor shaped as `x`; on all ranks together.

    Returns
    -------
    Result
        Its `stop` is "relative decrease", "projected gradient", "iteration cap", "no further decrease" or
        "interrupted".

    Raises
    ------
    FloatingPointError
        Loss or gradient are not finite at the start, or in all trials along a direction, or the gradient at a
        point that was accepted. The message names the iteration. `x` holds the last good point.
    """
    return _Minimizer(function, x, gather, options or Options(), callback, planes_map, room).run(memory)


class _Minimizer:
    def __init__(
        self,
        function: Function,
        x: Tensor,
        gather: Gather,
        options: Options,
        callback: Callback | None,
        planes_map: Map,
        room: Callable[[Tensor], Tensor],
    ) -> None:
        self.function, self.given = function, x.clamp_(0, 1)
        # The trial point that is accepted becomes the current one, which is the next trial's room.
        self.x, self.trial = self.given, room(x)
        self.progress = Progress(options, callback)
        self.history = History(x, options.history, options.history_dtype, gather, planes_map)
        self.loss, self.gradient = math.nan, torch.empty(0)
        self.first_trial = 1.0
        self.iteration = self.evaluations = self.stalled = 0
        self.restart_below, self.step = math.inf, 0.0
        self.scale = 0.0  # of the first step after all was forgotten; 0: nobody knows
        self.light = True

    def run(self, memory: Memory | None) -> Result:
        try:
            return self._run(memory)
        finally:
            if self.x is not self.given:
                self.given.copy_(self.x)

    def _run(self, memory: Memory | None) -> Result:
        stop = self._report() if self._begin(memory) else self.progress.enough(self._state())
        while stop is None:
            if self.stalled >= STALLED and self.loss < self.restart_below and len(self.history):
                self.history.clear()
                self.restart_below = RECOVERED * self.loss
                self.progress.restart()
                self.stalled = 0
            self.iteration += 1
            before = self.loss
            found = self._step()
            if found is None:
                self.iteration -= 1
                return self._result("no further decrease")
            self.step = found
            self.stalled = self.stalled + 1 if before - self.loss < STALL * abs(before) else 0
            self._forget_in_time()
            stop = self._report()
        return self._result(stop)

    def _begin(self, memory: Memory | None) -> bool:
        """Evaluate the start, or recall what was known of it; return whether it is news."""
        if memory is not None:
            for name in _NUMBERS:
                setattr(self, name, memory.numbers[name])
            self.progress.recall(memory.numbers["seen"])
            rows = memory.fields.pop("history", None)  # one is enough to hold
            if rows is not None and self.history.fits(memory.numbers, rows):
                self.history.restore(memory.numbers, rows)
                return False
        self.loss, gradient = self._evaluate(self.x)
        if not math.isfinite(self.loss):
            raise FloatingPointError(
                f"iteration {self.iteration}: the loss is not finite ({self.loss}) at the start"
            )
        self._take(lambda: self.history.begin(self.x, gradient))
        return memory is None

    def _forget_in_time(self) -> None:
        """Forget what one who is given `x` alone does not know, if it is time to."""
        options = self.progress.options
        self.light = bool(options.forget) and (
            self.iteration % options.forget == 0 or self.iteration >= options.iterations
        )
        if self.light:
            self.scale = self.history.scale if len(self.history) else 0.0
            self.history.begin(self.x, self.gradient)
            self.progress.restart()

    def _report(self) -> str | None:
        return self.progress.stop(self._state())

    def _state(self) -> State:
        norm = self.history.projected_gradient
        now = (self.iteration, self.loss, self.evaluations, norm, self.step, self.x)
        return State(*now, self._memory, self.light or not self.progress.options.forget)

    def _memory(self) -> Memory:
        numbers = {name: getattr(self, name) for name in _NUMBERS} | {"seen": self.progress.seen}
        if self.progress.options.forget:
            return Memory(numbers | {"evaluations": self.evaluations - 1}, repeats=1)
        return Memory(numbers | self.history.numbers(), {"history": self.history.used()})

    def _result(self, stop: str) -> Result:
        return Result(self.given, self.loss, self.iteration, self.evaluations, stop)

    def _evaluate(self, x: Tensor) -> tuple[float, Tensor]:
        self.evaluations += 1
        loss, self.gradient = self.function(x)
        return loss, self.gradient

    def _step(self) -> float | None:
        """One iteration: the step length, or None when even steepest descent finds no decrease."""
        while True:
            coefficients = self.history.coefficients()
            if coefficients is None:
                self.history.clear()
                largest = self.history.largest_free
                unscaled = FIRST_CHANGE / largest if largest > 0 else 0.0
                coefficients = [(0, -(self.scale or unscaled))]
            steepest = not len(self.history) and not self.scale
            step = self._search(coefficients)
            self.scale = 0.0
            self.first_trial = self.first_trial if step is not None else 1.0
            if step is not None or steepest:
                return step
            self.history.clear()

    def _search(self, coefficients: list[tuple[int, float]]) -> float | None:
        """Backtrack along the projection arc; accept, and learn the pair. None: nothing found."""
        t, loss = self.first_trial, self.loss
        for _ in range(TRIALS):
            slope = self.history.move(self.x, coefficients, t, self.trial)
            if abs(slope) <= ROUNDING * abs(self.loss):
                break
            if slope > 0:
                # Variables at a bound that the direction pushes outward are held back: what is left may
                # ascend.
                t *= 0.5
                continue
            loss, gradient = self._evaluate(self.trial)
            if loss <= self.loss + ARMIJO * slope:
                self._accept(loss, gradient)
                return t
            if math.isfinite(loss):  # the minimum of the parabola, within reason
                t *= min(max(-0.5 * slope / (loss - self.loss - slope), 0.1), 0.5)
            else:
                t *= 0.1
        if not len(self.history) and not math.isfinite(loss):
            raise FloatingPointError(
                f"iteration {self.iteration}: the loss is not finite ({loss}) anywhere near"
            )
        return None

    def _accept(self, loss: float, gradient: Tensor) -> None:
        learnt = self._take(lambda: self.history.learn(self.trial, self.x, gradient))
        self.first_trial = 1.0 if learnt else EXPANSION * self.first_trial
        self.x, self.trial = self.trial, self.x
        self.loss = loss

    def _take(self, gradient: Callable[[], _Taken]) -> _Taken:
        try:
            return gradient()
        except FloatingPointError as error:
            raise FloatingPointError(f"iteration {self.iteration}: {error}") from None
