"""Projected L-BFGS in the box [0, 1], on a field of which each rank holds some planes.

Each iteration fixes the variables that sit at a bound and are pushed outward, takes the quasi-Newton step of
the others in their subspace, and searches along the arc of its projections. The only reductions over the
field are those of `Products`, which are the same on all ranks; hence all ranks decide alike. On the fields of
this program one evaluation an iteration is the rule.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mcrdist.optimize.history import History
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
from mcrdist.optimize.products import Map, Products, serial_map

# A variable this close to a bound, and pushed outward, is taken to the bound with a full step (Bertsekas
# 1982): without the margin, variables that approach a bound would cut the steps of all others short.
MARGIN = 1e-3
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

#: What is remembered of an iteration beside the history and the losses so far.
_NUMBERS = ("loss", "iteration", "evaluations", "first_trial", "stalled", "restart_below", "step")


def minimize(
    function: Function,
    x: Tensor,
    products: Products,
    options: Options | None = None,
    callback: Callback | None = None,
    planes_map: Map = serial_map,
    *,
    memory: Memory | None = None,
) -> Result:
    """Minimise `function` over fields in [0, 1], in place.

    Memory: (2 history + 1) fields for the history, the gradient and the direction, one for the trial point
    and a quarter of one (float32) for the free set; with `x` and the gradient that `function` owns, (2
    history + 4.25) fields. Temporaries are a few planes.

    Parameters
    ----------
    function
        ``function(x) -> (loss, gradient)``; the loss the same float on all ranks, the gradient shaped as `x`.
        It may return the same tensor each time: the gradient is copied before the next call. It must not keep
        or change `x`.
    x
        (planes, ...), the planes that this rank holds, perhaps none. Changed in place; clamped to [0, 1]
        first.
    products
        Inner products and maxima over all ranks.
    options
        See `Options`.
    callback
        Called with the `State` at the start and after each iteration; returning True stops. All ranks must
        return the same.
    planes_map
        ``map(work, planes)`` as of a pool of threads; work on different planes is independent.
    memory
        What an earlier call that was cut short had in mind at `x`: goes on from there, bit for bit, without telling
        the callback of that iteration again. Without its fields, or with another `history`, curvature is learnt
        anew.

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
    return _Minimizer(function, x, products, options or Options(), callback, planes_map).run(memory)


class _Minimizer:
    def __init__(
        self,
        function: Function,
        x: Tensor,
        products: Products,
        options: Options,
        callback: Callback | None,
        planes_map: Map,
    ) -> None:
        self.function, self.x, self.products = function, x.clamp_(0, 1), products
        self.progress, self.planes_map = Progress(options, callback), planes_map
        self.history = History(x, options.history)
        self.trial = torch.empty_like(x)
        self.free = torch.empty(x.shape, dtype=torch.bool, device=x.device)
        self.loss = math.nan
        self.first_trial = 1.0
        self.iteration = self.evaluations = self.stalled = 0
        self.restart_below, self.step = math.inf, 0.0

    def run(self, memory: Memory | None) -> Result:
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
            stop = self._report()
        return self._result(stop)

    def _begin(self, memory: Memory | None) -> bool:
        """Evaluate the start, or recall what was known of it; return whether it is news."""
        if memory is not None:
            for name in _NUMBERS:
                setattr(self, name, memory.numbers[name])
            self.progress.recall(memory.numbers["seen"])
            if memory.fields and len(memory.numbers["gram"]) == len(self.history.rows):
                self.history.restore(memory.numbers, memory.fields.pop("history"))  # one is enough to hold
                return False
        self.loss, gradient = self._evaluate(self.x)
        self.history.gradient.copy_(gradient)
        start = self.history.rows[:1]
        if not math.isfinite(self.loss) or not math.isfinite(self.products(start, start, None)[0, 0]):
            raise FloatingPointError(
                f"iteration {self.iteration}: the loss ({self.loss}) or its gradient is not finite at the start"
            )
        return memory is None

    def _report(self) -> str | None:
        return self.progress.stop(self._state())

    def _state(self) -> State:
        norm = projected_gradient(self.x, self.history.gradient, self.products, self.planes_map)
        return State(self.iteration, self.loss, self.evaluations, norm, self.step, self.x, self._memory)

    def _memory(self) -> Memory:
        numbers = {name: getattr(self, name) for name in _NUMBERS} | {"seen": self.progress.seen}
        return Memory(numbers | self.history.numbers(), {"history": self.history.used()})

    def _result(self, stop: str) -> Result:
        return Result(self.x, self.loss, self.iteration, self.evaluations, stop)

    def _evaluate(self, x: Tensor) -> tuple[float, Tensor]:
        self.evaluations += 1
        return self.function(x)

    def _step(self) -> float | None:
        """One iteration: the step length, or None when even steepest descent finds no decrease."""
        self._find_free()
        while True:
            c = self.history.coefficients(self.products, self.free)
            if c is None:
                self.history.clear()
                largest = maximum(
                    self.x,
                    lambda p: (self.history.gradient[p] * self.free[p]).abs().max(),
                    self.products,
                    self.planes_map,
                )
                coefficients = [(0, -FIRST_CHANGE / largest if largest > 0 else 0.0)]
            else:
                coefficients = [(row, float(value)) for row, value in enumerate(c) if value != 0]
            steepest = not len(self.history)
            # The direction lives in the row of the next y, which is not needed before the direction has done
            # its work; that row may belong to the oldest pair, which takes part in the sum: `_combine` goes
            # plane by plane.
            self._combine(coefficients, self.history.next_rows()[1])
            change, direction = self.history.reserve()
            step = self._search(change, direction)
            self.first_trial = self.first_trial if step is not None else 1.0
            if step is not None or steepest:
                return step
            self.history.clear()

    def _find_free(self) -> None:
        x, g = self.x, self.history.gradient

        def work(p: int) -> None:
            bound = ((x[p] <= MARGIN) & (g[p] > 0)) | ((x[p] >= 1 - MARGIN) & (g[p] < 0))
            torch.logical_not(bound, out=self.free[p])

        self.planes_map(work, range(x.shape[0]))

    def _combine(self, coefficients: list[tuple[int, float]], out: Tensor) -> None:
        """`out` = sum of coefficient times row on the free set, the way to the bound elsewhere."""
        rows, x = self.history.rows, self.x

        def work(p: int) -> None:
            # One elementwise operation a row, on whole planes, so that the bits do not depend on how many
            # planes this rank holds.
            total = torch.zeros_like(x[p])
            for row, value in coefficients:
                total.add_(rows[row, p], alpha=value)
            to_bound = torch.where(rows[0, p] > 0, -x[p], 1 - x[p])
            torch.where(self.free[p], total, to_bound, out=out[p])

        self.planes_map(work, range(x.shape[0]))

    def _search(self, change: Tensor, direction: Tensor) -> float | None:
        """Backtrack along the projection arc; accept, and learn the pair. None: nothing found."""
        gradient_row = self.history.rows[:1]
        t, loss = self.first_trial, self.loss

        def move(p: int) -> None:
            torch.add(self.x[p], direction[p], alpha=t, out=self.trial[p])
            self.trial[p].clamp_(0, 1)
            torch.sub(self.trial[p], self.x[p], out=change[p])

        planes = range(self.x.shape[0])
        for _ in range(TRIALS):
            self.planes_map(move, planes)
            slope = float(self.products(gradient_row, change[None], None)[0, 0])
            if abs(slope) <= ROUNDING * abs(self.loss):
                break
            if slope > 0:
                # Variables at a bound that the direction pushes outward are held back: what is left may
                # ascend.
                t *= 0.5
                continue
            loss, gradient = self._evaluate(self.trial)
            if loss <= self.loss + ARMIJO * slope:
                self._accept(loss, gradient, direction)
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

    def _accept(self, loss: float, gradient: Tensor, y: Tensor) -> None:
        torch.sub(gradient, self.history.gradient, out=y)
        try:
            learnt = self.history.push(self.products)
        except FloatingPointError as error:
            raise FloatingPointError(f"iteration {self.iteration}: {error}") from None
        self.first_trial = 1.0 if learnt else EXPANSION * self.first_trial
        self.history.gradient.copy_(gradient)
        self.x.copy_(self.trial)
        self.loss = loss
