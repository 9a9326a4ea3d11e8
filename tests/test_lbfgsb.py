"""Projected L-BFGS: against closed forms, optimality conditions and SciPy's L-BFGS-B."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import correlation_problem, definite, quadratic
from torch import Tensor

from mcrdist.optimize import sweeps
from mcrdist.optimize.history import History
from mcrdist.optimize.lbfgsb import minimize
from mcrdist.optimize.minimizer import Options, State
from mcrdist.optimize.planes import alone

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
    result = minimize(quadratic(matrix, centre, x.shape), x, alone, EXACT)
    # The truth: min |R (x - centre)| in the box, by SciPy's active sets.
    root = np.linalg.cholesky(matrix.numpy()).T
    truth = scipy.optimize.lsq_linear(root, root @ centre.numpy(), bounds=(0, 1), method="bvls", tol=1e-14)
    assert result.stop == "projected gradient"
    assert 0 < np.count_nonzero((truth.x == 0) | (truth.x == 1)) < 24
    np.testing.assert_allclose(result.x.reshape(-1).numpy(), truth.x, atol=2e-6)


def test_separable_quadratic_is_clamped_at_once() -> None:
    centre = torch.tensor([-0.5, 0.25, 0.5, 2.0], dtype=torch.float64)
    x = torch.full((1, 4), 0.5, dtype=torch.float64)
    result = minimize(quadratic(torch.eye(4, dtype=torch.float64), centre, (1, 4)), x, alone, EXACT)
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

        minimize(counted, start.clone(), alone, Options(10, 1000, 0.0, 0.0), watch)
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
    result = minimize(function, x, alone, Options(10, 2000, 0.0, 1e-7))
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

    result = minimize(function, x, alone, Options(history, 40, 1e-8, 0.0), watch)
    assert result.loss == losses[-1] == inner(x)[0]
    assert result.iterations == len(losses) - 1 < result.evaluations


def test_direction_is_the_newton_step_of_the_subspace() -> None:
    # With exact pairs in all eigendirections B is the Hessian; on the free set d must solve B_FF d = -g_F.
    matrix, _ = definite(6, 3, 10.0)
    end = torch.tensor([[0.5, 0.0, 0.4, 0.6, 1.0, 0.0]], dtype=torch.float64)
    final = torch.tensor([[1.0, 2.0, 3.0, -4.0, -5.0, -6.0]], dtype=torch.float64)
    free = torch.tensor([True, False, True, True, False, True])
    steps = [0.01 * torch.from_numpy(step.copy())[None] for step in np.linalg.eigh(matrix.numpy())[1].T]

    def gradient(x: Tensor) -> Tensor:
        return final + (x - end) @ matrix

    x = end - sum(steps)
    history = History(x, 6)
    history.begin(x, gradient(x))
    for step in steps:
        assert history.learn(x + step, x, gradient(x + step))
        x = x + step
    x = x.clamp(0, 1)  # rounding
    c = history.coefficients()
    assert c is not None
    d = sum(value * history.rows[row, 0] for row, value in c)[free]
    inside = matrix[free][:, free]
    np.testing.assert_allclose(d.numpy(), -torch.linalg.solve(inside, final[0, free]).numpy(), rtol=1e-8)
    trial = torch.empty_like(x)
    slope = history.move(x, c, 0.05, trial)
    wanted = x.clone()
    wanted[0, free] += 0.05 * d
    np.testing.assert_allclose(trial.numpy(), wanted.clamp(0, 1).numpy(), atol=1e-14)
    assert slope == pytest.approx(float((final * (trial - x)).sum()), rel=1e-12)


def wander(
    history: History, shape: tuple[int, ...], steps: int, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    """Take some steps in the box, some of them without curvature; the points and gradients after each."""
    generator = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    x, gradient = (0.5 + 0.5 * draw()).clamp(0, 1), draw()
    history.begin(x, gradient)
    yield x, gradient
    for number in range(steps):
        last, x = x, (x + 0.1 * draw()).clamp(0, 1)
        sign = -1.0 if number in (1, 5) else 1.0
        gradient = gradient + sign * (x - last) + 0.01 * draw()
        assert history.learn(x, last, gradient) == (sign > 0)
        yield x, gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("compiled", [True, False])
def test_products_that_are_carried_along_are_those_of_the_rows(
    dtype: torch.dtype, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(sweeps, "learn", sweeps.learn_by_torch)
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    shape = (3, 50, 49)  # a block and a bit of another
    history = History(torch.empty(shape, dtype=kind), 3, dtype)
    tolerance = 1e-12 if kind == torch.float64 else 1e-5
    for x, gradient in wander(history, shape, 9, kind):
        rows = history.rows.double()
        free = sweeps.is_free(x, rows[0].view(shape).to(kind)).view(rows.shape[1:])
        used = [0] + [row for slot in history._order for row in (1 + 2 * slot, 2 + 2 * slot)]
        whole, masked = (
            torch.einsum("apv,bpv->ab", rows, rows * mask)[used][:, used] for mask in (1.0, free)
        )
        size = np.sqrt(np.diag(whole))
        unit = np.outer(size, size)
        pairs = np.ix_(used[1:], used[1:])
        np.testing.assert_allclose(
            history._whole[pairs] / unit[1:, 1:], whole[1:, 1:] / unit[1:, 1:], atol=tolerance
        )
        np.testing.assert_allclose(history._free[np.ix_(used, used)] / unit, masked / unit, atol=tolerance)
        largest = torch.where(gradient > 0, torch.minimum(gradient, x), torch.minimum(-gradient, 1 - x)).max()
        assert history.projected_gradient == float(largest)
        assert history.largest_free == float((rows[0].abs() * free).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_compiled_sweeps_write_what_torch_writes(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    shape = (2, 37, 61)
    found = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(sweeps, "learn", sweeps.learn_by_torch)
            monkeypatch.setattr(sweeps, "move", sweeps.move_by_torch)
        history = History(torch.zeros(shape, dtype=kind), 2, dtype)
        history.rows.zero_()
        *_, (x, _) = wander(history, shape, 4, kind)
        trial = torch.empty_like(x)
        slope = history.move(x, [(0, -0.05), (1, 0.3), (4, -0.1)], 0.7, trial)
        found.append((history.rows, trial, slope))
    (rows, trial, slope), (other_rows, other_trial, other_slope) = found
    assert torch.equal(rows, other_rows)
    torch.testing.assert_close(trial, other_trial, rtol=0, atol=1e-6)
    assert slope == pytest.approx(other_slope, rel=1e-5)


def test_the_ring_gives_up_the_oldest_pair() -> None:
    x = torch.full((1, 3), 0.5, dtype=torch.float64)
    history = History(x, 2)
    history.begin(x, torch.ones_like(x))
    taken = []
    for value in (1.0, -1.0, 2.0, 3.0, -2.0, 4.0):
        step = torch.tensor([[0.01, 0.01 * value, 0.0]], dtype=torch.float64)
        taken.append(history.learn(x + step, x, torch.ones_like(x) + value * step))
        history.learn(x, x, torch.ones_like(x))  # back, and nothing learnt
    assert taken == [True, False, True, True, False, True]
    assert history.coefficients() is not None


def test_dependent_pairs_shorten_the_history() -> None:
    x = torch.full((1, 3), 0.5, dtype=torch.float64)
    gradient = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    history = History(x, 3)
    history.begin(x, gradient)
    for wiggle in (0.0, 1e-12, 2e-12):
        step = torch.tensor([[0.1, wiggle, 0.0]], dtype=torch.float64)
        change = torch.tensor([[0.2, 0.0, wiggle]], dtype=torch.float64)
        assert history.learn(x + step, x, gradient + change)
        x, gradient = x + step, gradient + change
    c = history.coefficients()
    assert c is not None and max(abs(value) for _, value in c) < 1e3


@pytest.mark.parametrize("seed", range(3))
def test_half_precision_history_finds_as_good_a_minimum(seed: int) -> None:
    function, x = correlation_problem(24, seed)

    def single(point: Tensor) -> tuple[float, Tensor]:
        loss, gradient = function(point.double())
        return loss, gradient.float()

    found = [
        minimize(single, x.float().clone(), alone, Options(8, 80, 0.0, 0.0, dtype)).loss
        for dtype in (None, torch.bfloat16)
    ]
    assert found[1] <= 1.5 * found[0]
    assert found[1] < 0.01 * function(x)[0]


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

    result = minimize(plateau, x, alone, Options(5, 30, 0.0, 1e-6))
    assert 1 <= sum(length > 0 for length in cleared) <= 3  # not again and again
    assert result.stop in ("projected gradient", "no further decrease", "iteration cap")
    assert base(x)[0] == pytest.approx(minimize(base, x.clone(), alone, EXACT).loss, rel=1e-3)


def test_descends_a_non_smooth_valley() -> None:
    # Kinks spoil the curvature: steps shrink, until the history is dropped.
    centre = torch.linspace(0.1, 0.9, 12, dtype=torch.float64).reshape(3, 4)

    def function(x: Tensor) -> tuple[float, Tensor]:
        d = x - centre
        return float(d.abs().sum() + 5 * d.sum().abs()), d.sign() + 5 * d.sum().sign()

    x = torch.zeros((3, 4), dtype=torch.float64)
    start = function(x)[0]
    assert minimize(function, x, alone, Options(5, 200, 0.0, 0.0)).loss < 0.2 * start


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_not_finite_at_the_start(what: str) -> None:
    x = torch.full((2, 3), 0.5)
    bad = (math.nan, x) if what == "loss" else (1.0, torch.full_like(x, math.nan))
    with pytest.raises(FloatingPointError, match="iteration 0"):
        minimize(lambda _: bad, x, alone)


def test_backs_away_from_not_finite_losses() -> None:
    def function(x: Tensor) -> tuple[float, Tensor]:
        # a wall at 0.52, close to the start
        loss = float((1 - x).sum()) if x.max() < 0.52 else math.nan
        return loss, torch.full_like(x, -1.0)

    x = torch.full((2, 3), 0.5, dtype=torch.float64)
    result = minimize(function, x, alone, Options(5, 20, 0.0, 0.0), lambda s: s.loss < 3.0 - 0.05)
    assert result.loss < 3.0 - 0.05
    assert 0.5 < x.max() < 0.52


def test_not_finite_everywhere_near_names_the_iteration() -> None:
    x = torch.full((2, 3), 0.5)
    start = x.clone()

    def function(point: Tensor) -> tuple[float, Tensor]:
        return (1.0 if torch.equal(point, start) else math.nan), torch.ones_like(point)

    with pytest.raises(FloatingPointError, match="iteration 1"):
        minimize(function, x, alone)
    assert torch.equal(x, start)


def test_not_finite_gradient_keeps_the_last_good_point() -> None:
    x = torch.full((2, 3), 0.5)
    start = x.clone()

    def function(point: Tensor) -> tuple[float, Tensor]:
        good = torch.equal(point, start)
        return float(point.sum()), torch.full_like(point, 1.0 if good else math.nan)

    with pytest.raises(FloatingPointError, match=r"iteration 1.*gradient"):
        minimize(function, x, alone)
    assert torch.equal(x, start)


def test_without_planes() -> None:
    # A rank may hold nothing: it hears the loss of the others.
    x = torch.empty((0, 4, 5))
    result = minimize(lambda v: (3.0, torch.empty_like(v)), x, alone)
    assert result.stop == "projected gradient"


def test_a_rank_without_planes_decides_as_the_others() -> None:
    function, x = correlation_problem(12, 0)
    record: list[np.ndarray] = []
    losses: list[float] = []

    def spoken(point: Tensor) -> tuple[float, Tensor]:
        loss, gradient = function(point)
        losses.append(loss)
        return loss, gradient

    def said(rows: np.ndarray) -> np.ndarray:
        record.append(rows)
        return rows

    def heard(rows: np.ndarray) -> np.ndarray:
        others = record.pop(0)
        assert len(rows) == 0 and rows.shape[1:] == others.shape[1:]
        return others

    options = Options(3, 15, 0.0, 0.0)
    there = minimize(spoken, x, said, options)
    replay = iter(losses)
    nothing = torch.empty((0, 12), dtype=x.dtype)
    here = minimize(lambda v: (next(replay), v), nothing, heard, options)
    assert not record
    assert (here.loss, here.evaluations, here.stop) == (there.loss, there.evaluations, there.stop)


def test_flat_loss_stops() -> None:
    x = torch.full((2, 3), 0.5)
    result = minimize(lambda v: (1.0, torch.zeros_like(v)), x, alone)
    assert result.stop == "projected gradient" and result.evaluations == 1
    result = minimize(lambda v: (1.0, torch.ones_like(v)), x, alone)  # the gradient lies
    assert result.stop == "no further decrease"
    assert torch.equal(x, torch.full((2, 3), 0.5))


def test_stops() -> None:
    matrix, centre = definite(24, 0)
    function = quadratic(matrix, centre, (2, 12))

    def run(options: Options, at: int = -1) -> str:
        x = torch.full((2, 12), 0.5, dtype=torch.float64)
        return minimize(function, x, alone, options, lambda s: s.iteration == at).stop

    assert run(Options(5, 3, 0.0, 0.0)) == "iteration cap"
    assert run(Options(5, 300, 1e-3, 0.0)) == "relative decrease"
    assert run(Options(5, 300, 0.0, 1e-3)) == "projected gradient"
    assert run(Options(5, 300, 0.0, 0.0), at=2) == "interrupted"
    assert run(Options(5, 0, 0.0, 0.0)) == "iteration cap"
