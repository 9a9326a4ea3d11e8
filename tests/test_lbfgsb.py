"""Projected L-BFGS: against closed forms, optimality conditions and SciPy's L-BFGS-B."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import correlation_problem, definite, quadratic
from torch import Tensor

from mcrdist.optimize.history import History
from mcrdist.optimize.lbfgsb import minimize
from mcrdist.optimize.minimizer import Options, State
from mcrdist.optimize.products import SerialProducts

products = SerialProducts()
EXACT = Options(history=8, iterations=500, relative_decrease=0.0, projected_gradient=1e-6)


def test_gradient_of_the_correlation_problem() -> None:
    function, x = correlation_problem(8, 0)
    gradient = function(x)[1].clone()
    step = 1e-5
    for index in [(0, 0), (3, 5), (7, 7)]:
        up, down = x.clone(), x.clone()
        up[index] += step
        down[index] -= step
        difference = (function(up)[0] - function(down)[0]) / (2 * step)
        assert gradient[index].item() == pytest.approx(difference, rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_bounded_quadratic_finds_the_active_set(seed: int) -> None:
    matrix, centre = definite(24, seed)
    x = torch.full((2, 3, 4), 0.5, dtype=torch.float64)
    result = minimize(quadratic(matrix, centre, x.shape), x, products, EXACT)
    # The truth: min |R (x - centre)| in the box, by SciPy's active sets.
    root = np.linalg.cholesky(matrix.numpy()).T
    truth = scipy.optimize.lsq_linear(root, root @ centre.numpy(), bounds=(0, 1), method="bvls", tol=1e-14)
    assert result.stop == "projected gradient"
    assert 0 < np.count_nonzero((truth.x == 0) | (truth.x == 1)) < 24
    np.testing.assert_allclose(result.x.reshape(-1).numpy(), truth.x, atol=2e-6)


def test_separable_quadratic_is_clamped_at_once() -> None:
    centre = torch.tensor([-0.5, 0.25, 0.5, 2.0], dtype=torch.float64)
    x = torch.full((1, 4), 0.5, dtype=torch.float64)
    result = minimize(quadratic(torch.eye(4, dtype=torch.float64), centre, (1, 4)), x, products, EXACT)
    np.testing.assert_allclose(x[0].numpy(), centre.clamp(0, 1).numpy(), atol=1e-6)
    assert result.evaluations <= 8
    assert result.x is x


@pytest.mark.parametrize("seed", range(4))
def test_as_good_as_scipy_for_the_same_evaluations(seed: int) -> None:
    function, start = correlation_problem(24, seed)
    for budget in (40, 80):
        losses: list[float] = []

        def counted(x: Tensor, losses: list[float] = losses) -> tuple[float, Tensor]:
            loss, gradient = function(x)
            losses.append(loss)
            return loss, gradient

        ours: list[float] = []

        def watch(state: State, ours: list[float] = ours, budget: int = budget) -> bool:
            if state.evaluations <= budget:
                ours.append(state.loss)
            return state.evaluations >= budget

        minimize(counted, start.clone(), products, Options(10, 1000, 0.0, 0.0), watch)
        losses.clear()
        scipy.optimize.minimize(
            lambda v: (lambda fg: (fg[0], fg[1].numpy().reshape(-1)))(
                counted(torch.from_numpy(v.reshape(start.shape).copy()))
            ),
            start.numpy().reshape(-1),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, 1)] * start.numel(),
            options={"maxcor": 10, "maxiter": 1000, "maxfun": budget, "ftol": 0, "gtol": 0},
        )
        assert ours[-1] <= 1.5 * min(losses[:budget])


def test_optimality_conditions_hold_at_convergence() -> None:
    function, x = correlation_problem(16, 1)
    result = minimize(function, x, products, Options(10, 2000, 0.0, 1e-7))
    assert result.stop == "projected gradient"
    _, gradient = function(x)
    inside = (x > 0) & (x < 1)
    assert gradient[inside].abs().max() <= 1e-7 if inside.any() else True
    assert gradient[x == 0].min() >= -1e-7 if (x == 0).any() else True
    assert gradient[x == 1].max() <= 1e-7 if (x == 1).any() else True


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    condition=st.floats(1, 1e6),
    history=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    scale=st.sampled_from([1e-9, 1.0, 1e6]),
)
def test_always_feasible_and_never_uphill(
    n: int, seed: int, condition: float, history: int, dtype: torch.dtype, scale: float
) -> None:
    matrix, centre = definite(2 * n, seed, condition)
    x = torch.from_numpy(np.random.default_rng(seed).uniform(-0.2, 1.2, (2, n))).to(dtype)
    inner = quadratic((scale * matrix).to(dtype), centre.to(dtype), (2, n))
    losses: list[float] = []

    def function(point: Tensor) -> tuple[float, Tensor]:
        assert point.min() >= 0 and point.max() <= 1
        return inner(point)

    def watch(state: State) -> None:
        assert state.x.min() >= 0 and state.x.max() <= 1
        assert not losses or state.loss <= losses[-1]
        assert state.iteration == len(losses)
        losses.append(state.loss)

    result = minimize(function, x, products, Options(history, 40, 1e-8, 0.0), watch)
    assert result.loss == losses[-1] == inner(x)[0]
    assert result.iterations == len(losses) - 1 < result.evaluations


def test_direction_is_the_newton_step_of_the_subspace() -> None:
    # With exact pairs in all coordinate directions B is the Hessian; on the free set d must solve B_FF d =
    # -g_F.
    matrix, _ = definite(6, 3, 10.0)
    x = torch.zeros((1, 6), dtype=torch.float64)
    history = History(x, 6)
    for step in np.linalg.eigh(matrix.numpy())[1].T:
        s, y = history.reserve()
        s[0] = torch.from_numpy(step.copy())
        y[0] = matrix @ s[0]
        assert history.push(products)
    history.gradient[0] = torch.arange(1.0, 7.0)
    free = torch.tensor([[True, False, True, True, False, True]])
    c = history.coefficients(products, free)
    assert c is not None
    d = (torch.from_numpy(c)[:, None] * history.rows[:, 0]).sum(0)[free[0]]
    inside = matrix[free[0]][:, free[0]]
    np.testing.assert_allclose(
        d.numpy(), -torch.linalg.solve(inside, history.gradient[free]).numpy(), rtol=1e-9
    )


def test_pairs_without_curvature_are_left_out_and_the_ring_goes_on() -> None:
    x = torch.zeros((1, 3), dtype=torch.float64)
    history = History(x, 2)
    taken = []
    for value in (1.0, -1.0, 2.0, 3.0, -2.0, 4.0):
        s, y = history.reserve()
        s[0] = torch.tensor([1.0, value, 0.0])
        y[0] = value * s[0]
        taken.append(history.push(products))
    assert taken == [True, False, True, True, False, True]
    history.gradient.fill_(1.0)
    assert history.coefficients(products, torch.ones(1, 3, dtype=torch.bool)) is not None


def test_dependent_pairs_shorten_the_history() -> None:
    x = torch.zeros((1, 3), dtype=torch.float64)
    history = History(x, 3)
    for wiggle in (0.0, 1e-12, 2e-12):
        s, y = history.reserve()
        s[0] = torch.tensor([1.0, wiggle, 0.0])
        y[0] = torch.tensor([2.0, 0.0, wiggle])
        assert history.push(products)
    history.gradient[0] = torch.tensor([1.0, 1.0, 0.0])
    c = history.coefficients(products, torch.ones(1, 3, dtype=torch.bool))
    assert c is not None and np.abs(c).max() < 1e3


def test_stalled_history_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    cleared = []
    clear = History.clear
    monkeypatch.setattr(History, "clear", lambda self: (cleared.append(len(self)), clear(self))[1])
    matrix, centre = definite(8, 0, 10.0)
    base = quadratic(matrix, centre, (2, 4))
    x = torch.full((2, 4), 0.5, dtype=torch.float64)

    def plateau(point: Tensor) -> tuple[float, Tensor]:
        loss, gradient = base(point)
        return loss + 1e9, gradient  # decreases are real, but below 1e-6 of the loss

    result = minimize(plateau, x, products, Options(5, 30, 0.0, 1e-6))
    assert 1 <= sum(length > 0 for length in cleared) <= 3  # not again and again
    assert result.stop in ("projected gradient", "no further decrease", "iteration cap")
    assert base(x)[0] == pytest.approx(minimize(base, x.clone(), products, EXACT).loss, rel=1e-3)


def test_descends_a_non_smooth_valley() -> None:
    # Kinks spoil the curvature: steps shrink, until the history is dropped.
    centre = torch.linspace(0.1, 0.9, 12, dtype=torch.float64).reshape(3, 4)

    def function(x: Tensor) -> tuple[float, Tensor]:
        d = x - centre
        return float(d.abs().sum() + 5 * d.sum().abs()), d.sign() + 5 * d.sum().sign()

    x = torch.zeros((3, 4), dtype=torch.float64)
    start = function(x)[0]
    assert minimize(function, x, products, Options(5, 200, 0.0, 0.0)).loss < 0.2 * start


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_not_finite_at_the_start(what: str) -> None:
    x = torch.full((2, 3), 0.5)
    bad = (math.nan, x) if what == "loss" else (1.0, torch.full_like(x, math.nan))
    with pytest.raises(FloatingPointError, match="iteration 0"):
        minimize(lambda _: bad, x, products)


def test_backs_away_from_not_finite_losses() -> None:
    def function(x: Tensor) -> tuple[float, Tensor]:
        # a wall at 0.52, close to the start
        loss = float((1 - x).sum()) if x.max() < 0.52 else math.nan
        return loss, torch.full_like(x, -1.0)

    x = torch.full((2, 3), 0.5, dtype=torch.float64)
    result = minimize(function, x, products, Options(5, 20, 0.0, 0.0), lambda s: s.loss < 3.0 - 0.05)
    assert result.loss < 3.0 - 0.05
    assert 0.5 < x.max() < 0.52


def test_not_finite_everywhere_near_names_the_iteration() -> None:
    x = torch.full((2, 3), 0.5)
    start = x.clone()

    def function(point: Tensor) -> tuple[float, Tensor]:
        return (1.0 if torch.equal(point, start) else math.nan), torch.ones_like(point)

    with pytest.raises(FloatingPointError, match="iteration 1"):
        minimize(function, x, products)
    assert torch.equal(x, start)


def test_not_finite_gradient_keeps_the_last_good_point() -> None:
    x = torch.full((2, 3), 0.5)
    start = x.clone()

    def function(point: Tensor) -> tuple[float, Tensor]:
        good = torch.equal(point, start)
        return float(point.sum()), torch.full_like(point, 1.0 if good else math.nan)

    with pytest.raises(FloatingPointError, match=r"iteration 1.*gradient"):
        minimize(function, x, products)
    assert torch.equal(x, start)


def test_without_planes() -> None:
    # A rank may hold nothing: it hears the loss of the others.
    x = torch.empty((0, 4, 5))
    result = minimize(lambda v: (3.0, torch.empty_like(v)), x, products)
    assert result.stop == "projected gradient"


class OnFirstOfTwo(SerialProducts):
    """A rank without planes hears what the other one, whose answers were recorded, heard."""

    def __init__(self, record: list[np.ndarray | float], replay: bool) -> None:
        self.record, self.replay = record, replay

    def __call__(self, A: Tensor, B: Tensor, mask: Tensor | None = None) -> np.ndarray:
        own = super().__call__(A, B, mask)
        if not self.replay:
            self.record.append(own)
            return own
        heard = self.record.pop(0)
        assert isinstance(heard, np.ndarray) and heard.shape == own.shape and not own.any()
        return heard

    def maximum(self, x: Tensor) -> float:
        own = super().maximum(x)
        if self.replay:
            heard = self.record.pop(0)
            assert isinstance(heard, float) and own <= heard
            return heard
        self.record.append(own)
        return own


def test_a_rank_without_planes_decides_as_the_others() -> None:
    function, x = correlation_problem(12, 0)
    record: list[np.ndarray | float] = []
    losses: list[float] = []

    def spoken(point: Tensor) -> tuple[float, Tensor]:
        loss, gradient = function(point)
        losses.append(loss)
        return loss, gradient

    options = Options(3, 15, 0.0, 0.0)
    there = minimize(spoken, x, OnFirstOfTwo(record, False), options)
    heard = iter(losses)
    nothing = torch.empty((0, 12), dtype=x.dtype)
    here = minimize(lambda v: (next(heard), v), nothing, OnFirstOfTwo(record, True), options)
    assert not record
    assert (here.loss, here.evaluations, here.stop) == (there.loss, there.evaluations, there.stop)


def test_flat_loss_stops() -> None:
    x = torch.full((2, 3), 0.5)
    result = minimize(lambda v: (1.0, torch.zeros_like(v)), x, products)
    assert result.stop == "projected gradient" and result.evaluations == 1
    result = minimize(lambda v: (1.0, torch.ones_like(v)), x, products)  # the gradient lies
    assert result.stop == "no further decrease"
    assert torch.equal(x, torch.full((2, 3), 0.5))


def test_stops() -> None:
    matrix, centre = definite(24, 0)
    function = quadratic(matrix, centre, (2, 12))

    def run(options: Options, at: int = -1) -> str:
        x = torch.full((2, 12), 0.5, dtype=torch.float64)
        return minimize(function, x, products, options, lambda s: s.iteration == at).stop

    assert run(Options(5, 3, 0.0, 0.0)) == "iteration cap"
    assert run(Options(5, 300, 1e-3, 0.0)) == "relative decrease"
    assert run(Options(5, 300, 0.0, 1e-3)) == "projected gradient"
    assert run(Options(5, 300, 0.0, 0.0), at=2) == "interrupted"
    assert run(Options(5, 0, 0.0, 0.0)) == "iteration cap"
