"""Descent on objectives that look at a part of the slices at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from objectives import make
from torch import Tensor

from mcrdist.config import OptimizerConfig
from mcrdist.errors import InputError
from mcrdist.objective import Objective
from mcrdist.optimize.minimizer import Options, State
from mcrdist.optimize.planes import alone, serial_map
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.random import noise
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.solver.descent import Descent, check_ranks

SHAPE = (12, 10, 11)


def objective(every: int, **more: int) -> Objective:
    return make(SHAPE, Comm.start("cpu"), Workers(1), smoothing=math.inf, every=every, **more)


def field(of: Objective, seed: int = 0) -> Tensor:
    drawn = [noise(of.slab, seed + k, 0, "uniform") for k in range(of.phases.variables)]
    return of.phases.stack(drawn).double()


def evaluate(of: Objective, x: Tensor) -> tuple[float, Tensor]:
    gradient = torch.empty_like(x)
    return of(x, gradient).loss, gradient


def test_those_looked_at_stand_for_all() -> None:
    """The mean over a whole rotation is the whole loss where each turn has as many slices."""
    shape = (12, 8, 8)
    comm, workers = Comm.start("cpu"), Workers(1)
    full, part = (make(shape, comm, workers, every=every) for every in (1, 4))
    x = noise(Slab(shape, comm, workers, torch.float64), 0, 0, "uniform")
    losses = []
    for turn in range(4):
        part.rotate(turn)
        losses.append(part(x, None).loss)
    assert np.mean(losses) == pytest.approx(full(x, None).loss, rel=1e-10)
    assert np.std(losses) > 1e-3 * np.mean(losses)


def descend(
    name: str, of: Objective, x: Tensor, options: Options, callback: Callable[[State], bool]
) -> tuple[str, int]:
    def function(now: Tensor) -> tuple[float, Tensor]:
        return evaluate(of, now)

    config = OptimizerConfig(name=name, rotate=3)  # type: ignore[arg-type]
    descent = Descent(config, alone, serial_map)
    result = descent(of, function, x, options, callback)
    return result.stop, result.iterations


@pytest.mark.parametrize("name", ["lbfgsb", "scipy", "adam"])
def test_a_part_of_the_slices_at_a_time_does(name: str) -> None:
    full, part = objective(1), objective(4)
    x = field(part)
    seen: list[int] = []
    start = full(x, None).loss
    stop = descend(name, part, x, Options(8, 120, 0.0, 0.0), lambda state: bool(seen.append(state.iteration)))
    assert stop == ("iteration cap", 120) and seen == list(range(121))
    assert full(x, None).loss < 0.05 * start


def test_when_bursts_end() -> None:
    of = objective(4)

    def stop(options: Options, callback: Callable[[State], bool]) -> tuple[str, int]:
        return descend("lbfgsb", of, field(of), options, callback)

    assert stop(Options(8, 0, 0.0, 0.0), lambda state: False) == ("iteration cap", 0)
    assert stop(Options(8, 50, 0.0, 0.0), lambda state: state.iteration == 7) == ("interrupted", 7)
    assert stop(Options(8, 50, 0.0, 1e3), lambda state: False) == ("projected gradient", 0)
    reason, iterations = stop(Options(8, 500, 0.05, 0.0), lambda state: False)
    assert reason == "relative decrease" and 2 * 4 * 3 <= iterations < 500


def test_optimisers_of_one_process() -> None:
    assert check_ranks("lbfgsb", 3) is check_ranks("adam", 3) is check_ranks("scipy", 1) is None
    for name in ("scipy", "yeong_torquato"):
        problem = check_ranks(name, 2)
        assert isinstance(problem, InputError) and name in str(problem) and "torchrun" in str(problem)
