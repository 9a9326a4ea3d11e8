"""Every minimiser on the same problems: closed forms, optimality, when they stop. Of L-BFGS see test_lbfgsb.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import scipy.optimize
import torch
from problems import correlation_problem, definite, quadratic
from torch import Tensor

from mcrdist.optimize import adam, lbfgsb, scipy_lbfgsb
from mcrdist.optimize.minimizer import Minimizer, Options, Progress, State
from mcrdist.optimize.planes import alone
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import partition
from mcrdist.parallel.threads import configure

LBFGSB, SCIPY, ADAM = lbfgsb.minimize, scipy_lbfgsb.minimize, partial(adam.minimize, learning_rate=0.05)
every_minimizer = pytest.mark.parametrize(
    ("minimize", "tolerance"), [(LBFGSB, 1e-5), (SCIPY, 1e-5), (ADAM, 2e-3)], ids=["lbfgsb", "scipy", "adam"]
)


@every_minimizer
@pytest.mark.parametrize("seed", range(2))
def test_bounded_quadratic(minimize: Minimizer, tolerance: float, seed: int) -> None:
    matrix, centre = definite(24, seed)
    x = torch.full((2, 3, 4), 0.5, dtype=torch.float64)
    result = minimize(quadratic(matrix, centre, x.shape), x, alone, Options(8, 800, 0.0, 1e-7))
    # The truth: min |R (x - centre)| in the box, by SciPy's active sets.
    root = np.linalg.cholesky(matrix.numpy()).T
    truth = scipy.optimize.lsq_linear(root, root @ centre.numpy(), bounds=(0, 1), method="bvls", tol=1e-14)
    assert result.x is x and 0 < np.count_nonzero((truth.x == 0) | (truth.x == 1)) < 24
    np.testing.assert_allclose(x.reshape(-1).numpy(), truth.x, atol=tolerance)
    assert result.loss == quadratic(matrix, centre, x.shape)(x)[0]


@every_minimizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_correlation(minimize: Minimizer, tolerance: float, dtype: torch.dtype) -> None:
    double, start = correlation_problem(16, 1)

    def function(x: Tensor) -> tuple[float, Tensor]:
        loss, gradient = double(x.double())
        return loss, gradient.to(x.dtype)

    x = start.clone().to(dtype)
    states: list[State] = []
    result = minimize(function, x, alone, Options(8, 60, 0.0, 0.0), lambda state: states.append(state))
    assert result.loss == function(x)[0] < 0.05 * double(start)[0]
    assert x.min() >= 0 and x.max() <= 1 and x.dtype == dtype
    assert [state.iteration for state in states] == list(range(result.iterations + 1))
    assert states[0].loss == pytest.approx(double(start)[0], rel=1e-5) and states[-1].loss == result.loss
    assert states[-1].evaluations <= result.evaluations


@every_minimizer
def test_when_to_stop(minimize: Minimizer, tolerance: float) -> None:
    function, start = correlation_problem(16, 2)

    def stop(options: Options, callback: Callable[[State], bool] | None = None) -> tuple[str, int]:
        result = minimize(function, start.clone(), alone, options, callback)
        return result.stop, result.iterations

    assert stop(Options(8, 0, 0.0, 0.0)) == ("iteration cap", 0)
    assert stop(Options(8, 3, 0.0, 0.0)) == ("iteration cap", 3)
    assert stop(Options(8, 300, 0.0, 1e3)) == ("projected gradient", 0)
    assert stop(Options(8, 300, 0.0, 0.0), lambda state: state.iteration == 2) == ("interrupted", 2)
    reason, iterations = stop(Options(8, 300, 0.5, 0.0))  # half of the loss an iteration cannot go on
    assert reason == "relative decrease" and iterations < 100


@every_minimizer
def test_values_that_are_not_finite(minimize: Minimizer, tolerance: float) -> None:
    def function(x: Tensor) -> tuple[float, Tensor]:
        return float("nan"), torch.ones_like(x)

    with pytest.raises(FloatingPointError, match="iteration 0"):
        minimize(function, torch.zeros(1, 2, 2), alone)


def test_the_relative_decrease_is_that_of_the_best_loss_so_far() -> None:
    progress = Progress(Options(8, 100, 0.1, -1.0), None, window=2)

    def stop(iteration: int, loss: float) -> str | None:
        return progress.stop(State(iteration, loss, iteration, 0.0, 0.0, torch.zeros(1)))

    assert [stop(i, loss) for i, loss in enumerate((1.0, 2.0, 0.6, 0.7))] == [None] * 4
    assert stop(4, 0.5) == "relative decrease"  # 0.1 in two iterations, of 0.5
    progress.restart()
    assert stop(5, 0.5) is None


def test_adam_stands_another_function_in_every_iteration() -> None:
    """The mean of quadratics about different centres, one at a time."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(8, 1, 5, generator=generator, dtype=torch.float64)
    turn = 0

    def function(x: Tensor) -> tuple[float, Tensor]:
        nonlocal turn
        turn += 1
        away = x - centres[turn % 8]
        return 0.5 * float(away.square().sum()), away

    x = torch.zeros(1, 5, dtype=torch.float64)
    adam.minimize(function, x, alone, Options(8, 400, 0.0, 0.0))
    np.testing.assert_allclose(x.numpy(), centres.mean(0).numpy(), atol=0.02)


def distributed() -> list[float]:
    """Losses of Adam, each rank holding some planes of a separable problem."""
    workers = configure(1)
    with Comm.start("cpu", 60.0) as comm:
        start, stop = partition(7, comm.size)[comm.rank]
        target = torch.from_numpy(np.random.default_rng(0).uniform(-0.2, 1.2, (7, 5, 3)))[start:stop].float()
        x = torch.full_like(target, 0.5)
        losses: list[float] = []

        def function(field: Tensor) -> tuple[float, Tensor]:
            away = field - target
            rows = away.double().square().flatten(1).sum(1, keepdim=True).numpy()
            return float(comm.gather_rows(np.ascontiguousarray(rows)).sum()), 2.0 * away

        def note(state: State) -> None:
            losses.append(state.loss)

        adam.minimize(function, x, comm.gather_rows, Options(8, 30, 0.0, 0.0), note)
    workers.close()
    return losses


def test_adam_on_ranks(run_ranks: Callable[..., list[list[float]]]) -> None:
    alone = distributed()
    assert alone[-1] < 0.5 * alone[0]
    assert run_ranks(distributed, 2) == [alone, alone]
