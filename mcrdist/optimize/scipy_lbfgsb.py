"""SciPy's L-BFGS-B in the box [0, 1]: the reference for small fields, in one process and double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.optimize
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.optimize.minimizer import (
    Callback,
    Function,
    Memory,
    Options,
    Progress,
    Result,
    State,
    projected_gradient,
)
from mcrdist.optimize.planes import Gather, Map, alone, serial_map

#: No cap of SciPy's own: the iterations are counted here.
UNLIMITED = 2**31 - 1


def minimize(
    function: Function,
    x: Tensor,
    gather: Gather = alone,
    options: Options | None = None,
    callback: Callback | None = None,
    planes_map: Map = serial_map,
    *,
    memory: Memory | None = None,
) -> Result:
    """Minimise `function` over fields in [0, 1], in place; see `lbfgsb.minimize`. `x` must be the whole field.

    Memory: about (2 history + 9) fields of float64. SciPy does not give away what it has learnt: a call with the
    `memory` of an earlier one has the iterations that are left, and starts them from `x` alone.

    Raises
    ------
    FloatingPointError
        Loss or gradient are not finite.
    """
    return _Bridge(function, x, gather, options or Options(), callback, planes_map).run(memory)


class _Bridge:
    """Between tensors of any dtype and SciPy's flat arrays of float64."""

    def __init__(
        self,
        function: Function,
        x: Tensor,
        gather: Gather,
        options: Options,
        callback: Callback | None,
        planes_map: Map,
    ) -> None:
        self.function, self.x, self.gather = function, x.clamp_(0, 1), gather
        self.options, self.planes_map = options, planes_map
        self.progress = Progress(options, callback)
        self.gradient = torch.empty(0)
        self.loss = math.nan
        self.iteration = self.evaluations = 0
        self.stop: str | None = None

    def run(self, memory: Memory | None) -> Result:
        start = self._flat(self.x)
        if memory is None:
            self._evaluate(start)
            self._report()
        else:
            self.iteration, self.evaluations = (memory.numbers[n] for n in ("iteration", "evaluations"))
            self.progress.recall(memory.numbers["seen"])
            self._evaluate(start)
            self.stop = self.progress.enough(self._state())
        if self.stop is None:
            found = scipy.optimize.minimize(
                self._evaluate,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=scipy.optimize.Bounds(0.0, 1.0),
                callback=self._note,
                options={
                    "maxcor": self.options.history,
                    "maxiter": UNLIMITED,
                    "maxfun": UNLIMITED,
                    "ftol": 0.0,
                    "gtol": 0.0,
                },
            )
            self._move(found.x)
            self.loss = float(found.fun)
        return Result(self.x, self.loss, self.iteration, self.evaluations, self.stop or "no further decrease")

    def _evaluate(self, values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        self.evaluations += 1
        self._move(values)
        self.loss, self.gradient = self.function(self.x)
        gradient = self._flat(self.gradient)
        if not (math.isfinite(self.loss) and np.isfinite(gradient).all()):
            raise FloatingPointError(
                f"iteration {self.iteration}: the loss ({self.loss}) or its gradient is not finite"
            )
        return self.loss, gradient

    def _note(self, intermediate_result: Any) -> None:
        """Count an iteration; SciPy's last evaluation before it was at the point that it accepted."""
        self.iteration += 1
        self.loss = float(intermediate_result.fun)
        self._report()
        if self.stop is not None:
            raise StopIteration

    def _report(self) -> None:
        self.stop = self.progress.stop(self._state())

    def _state(self) -> State:
        norm = projected_gradient(self.x, self.gradient, self.gather, self.planes_map)
        return State(self.iteration, self.loss, self.evaluations, norm, 1.0, self.x, self._memory)

    def _memory(self) -> Memory:
        counts = {"iteration": self.iteration, "evaluations": self.evaluations}
        return Memory(counts | {"seen": self.progress.seen})

    def _move(self, values: NDArray[np.float64]) -> None:
        self.x.copy_(torch.from_numpy(values).view_as(self.x))

    @staticmethod
    def _flat(tensor: Tensor) -> NDArray[np.float64]:
        """A copy: `function` may return the same tensor each time, while SciPy keeps what it was given."""
        return np.array(tensor.detach().cpu().numpy(), dtype=np.float64).ravel()
