"""Batched voxel flips: the selection is exact and does not know the ranks; the descent descends."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mcrdist.optimize.flips import (
    ENOUGH,
    FORWARD,
    FORWARD_LEAST,
    FlipOptions,
    FlipState,
    GainSelector,
    Selection,
    flip_descent,
)

SHAPE = (7, 6, 5)


def noise_from(start: int, shape: tuple[int, int] = SHAPE[1:]) -> Callable[[int, int], np.ndarray]:
    return lambda plane, iteration: np.random.default_rng([iteration, start + plane]).random(shape)


def serial(**keywords: float) -> GainSelector:
    return GainSelector(lambda counts: counts, noise_from(0), (0, SHAPE[0]), **keywords)


def mask_of(selection: Selection, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Bool (planes, ny, nx): the chosen voxels."""
    mask = torch.zeros(shape, dtype=torch.bool)
    for plane, places in zip(mask, selection.places, strict=True):
        plane.view(-1)[torch.from_numpy(places)] = True
    return mask


class SumOverThreads:
    """An all-reduce between threads that play ranks."""

    def __init__(self, size: int) -> None:
        self.parts: list[np.ndarray] = [np.zeros(0)] * size
        self.barrier = threading.Barrier(size, timeout=120)

    def of(self, rank: int) -> Callable[[np.ndarray], np.ndarray]:
        def sum_integers(counts: np.ndarray) -> np.ndarray:
            self.parts[rank] = counts
            self.barrier.wait()
            total = np.sum(self.parts, axis=0)
            self.barrier.wait()
            return total

        return sum_integers


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 250), share=st.sampled_from([0.3, 1.0]))
def test_takes_the_largest_gains_of_the_subset(seed: int, count: int, share: float) -> None:
    gain = torch.from_numpy(np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32))
    chosen = serial(share=share, crowding=1e9)(gain, count, seed)
    noise = np.stack([noise_from(0)(p, seed) for p in range(SHAPE[0])])
    candidates = np.where((noise < share) & (gain.numpy() > 0), gain.numpy(), -np.inf)
    best = np.sort(candidates[candidates > 0])[::-1][:count]
    assert chosen.count == len(best) == int(mask_of(chosen).sum())
    np.testing.assert_array_equal(np.sort(candidates[mask_of(chosen).numpy()])[::-1], best)


def test_ties_are_broken_by_noise() -> None:
    gain = torch.ones(SHAPE)
    chosen = serial(share=1.0, crowding=1e9)(gain, 50, 3)
    assert 50 <= chosen.count <= 52  # noise of 16 bits hardly ties
    noise = np.stack([noise_from(0)(p, 3) for p in range(SHAPE[0])])
    assert noise[mask_of(chosen).numpy()].min() >= np.sort(noise.ravel())[-chosen.count]


def test_nothing_to_gain() -> None:
    for gain in (torch.zeros(SHAPE), -torch.ones(SHAPE), torch.full(SHAPE, float("nan"))):
        assert serial()(gain, 10, 0).count == 0


def test_what_crowded_slices_may_not_take_is_chosen_elsewhere() -> None:
    gain = torch.full(SHAPE, 0.01)
    gain[3] = 1.0  # all the best are in one plane
    crowded = serial(share=1.0, crowding=1e9)(gain, 30, 0)
    assert mask_of(crowded)[3].sum() == crowded.count == 30
    spread = mask_of(serial(share=1.0, crowding=2.0)(gain, 30, 0))
    assert ENOUGH * 30 <= spread.sum() <= 40
    assert spread[3].sum() <= 2.5 * 2.0 * 30 / len(spread)  # by dice


def test_one_crowded_slice_does_not_keep_the_others_from_theirs() -> None:
    shape, count = (6, 40, 30), 120
    gain = torch.full(shape, 0.01)
    gain[:, 7, :] = 1.0  # of each plane, the best are in one row
    selector = GainSelector(lambda counts: counts, noise_from(0, shape[1:]), (0, shape[0]), share=1.0)
    chosen = mask_of(selector(gain, count, 1), shape)
    assert 0 < chosen[:, 7].sum() <= 3 * count / shape[1]
    assert chosen.sum() >= ENOUGH * count


def test_few_that_gain_are_not_lost_to_the_dice() -> None:
    gain = torch.zeros(SHAPE)
    gain[3, 2] = 1.0  # one row: of three of its five voxels the dice would leave one, or none
    for seed in range(40):
        assert serial(share=1.0)(gain, 3, seed).count >= 1


@pytest.mark.parametrize("cuts", [(0, 7), (0, 4, 7), (0, 3, 3, 7)])  # the last with a rank that holds nothing
@pytest.mark.parametrize("kind", ["random", "ties"])
def test_any_number_of_ranks_chooses_the_same(cuts: tuple[int, ...], kind: str) -> None:
    gain = torch.from_numpy(np.random.default_rng(0).standard_normal(SHAPE))
    gain = gain if kind == "random" else gain.round()
    expected = serial()(gain, 20, 5)
    size = len(cuts) - 1
    ranks = SumOverThreads(size)

    def run(rank: int) -> Selection:
        start, stop = cuts[rank], cuts[rank + 1]
        selector = GainSelector(ranks.of(rank), noise_from(start), (start, SHAPE[0]))
        return selector(gain[start:stop], 20, 5)

    with ThreadPoolExecutor(size) as pool:
        parts = list(pool.map(run, range(size)))
    assert [list(places) for part in parts for places in part.places] == [
        list(places) for places in expected.places
    ]
    assert {part.count for part in parts} == {expected.count}


def test_where_every_voxel_gains_few_are_collected() -> None:
    """Memory is bounded by the batch, not by how much is wrong; the best are among those, on any number of ranks."""
    shape, count = (6, 40, 30), 200
    gain = torch.from_numpy(np.random.default_rng(0).random(shape))
    most = math.ceil(FORWARD * count / shape[0])
    assert FORWARD_LEAST < most < shape[1] * shape[2] / 4

    def part(sums: Callable[[np.ndarray], np.ndarray], start: int, stop: int) -> Selection:
        selector = GainSelector(sums, noise_from(start, shape[1:]), (start, shape[0]), share=1.0)
        for plane in range(stop - start):
            found = selector._candidates(gain[start:stop], plane, most, 1)
            assert set(found.places) == set(np.argsort(gain[start + plane].numpy().ravel())[-most:])
        return selector(gain[start:stop], count, 1)

    expected = part(lambda counts: counts, 0, shape[0])
    assert ENOUGH * count <= expected.count <= 1.1 * count
    ranks = SumOverThreads(2)
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda rank: part(ranks.of(rank), *((0, 2), (2, 6))[rank]), range(2)))
    assert [list(p) for one in parts for p in one.places] == [list(p) for p in expected.places]


def test_batches_grow_no_further_than_told() -> None:
    shape = (12, 10, 8)
    function, x = slice_sums_problem(shape)
    selector = GainSelector(lambda counts: counts, noise_from(0, shape[1:]), (0, shape[0]))
    asked: list[int] = []

    def select(gain: Tensor, count: int, iteration: int) -> Selection:
        asked.append(count)
        return selector(gain, count, iteration)

    flip_descent(function, x, select, FlipOptions(20, 1, 30, largest=25))
    assert 20 < max(asked) <= 25


def slice_sums_problem(
    shape: tuple[int, int, int],
) -> tuple[Callable[[Tensor], tuple[float, Tensor]], Tensor]:
    """Match the number of ones in every slice of every direction; the gain of one flip is exact."""
    generator = np.random.default_rng(1)
    hidden = torch.from_numpy(
        (generator.random(shape) < generator.random((shape[0], 1, 1))).astype(np.float32)
    )
    pairs = [(1, 2), (0, 2), (0, 1)]
    targets = [hidden.sum(pair, keepdim=True) for pair in pairs]
    gain = torch.empty(shape)  # the same tensor at each call

    def function(x: Tensor) -> tuple[float, Tensor]:
        gain.zero_()
        loss = 0.0
        for pair, target in zip(pairs, targets, strict=True):
            residual = x.sum(pair, keepdim=True) - target
            loss += float((residual**2).sum())
            gain.sub_(2 * residual * (1 - 2 * x) + 1)
        return loss, gain

    return function, torch.from_numpy((generator.random(shape) < 0.5).astype(np.float32))


def test_descends_and_stays_binary() -> None:
    shape = (12, 10, 8)
    function, x = slice_sums_problem(shape)
    selector = GainSelector(lambda counts: counts, noise_from(0, shape[1:]), (0, shape[0]))
    start, before = function(x)[0], x.clone()
    states: list[FlipState] = []
    result = flip_descent(function, x, selector, FlipOptions(100, 1, 200), states.append)
    assert result.x is x and bool(((x == 0) | (x == 1)).all())
    assert result.loss == function(x)[0] <= 0.02 * start
    assert result.stop in ("no candidates", "no further decrease")
    losses = [state.loss for state in states]
    assert all(
        b < a if s.accepted else b == a for a, b, s in zip(losses, losses[1:], states[1:], strict=False)
    )
    assert result.flips == sum(s.count for s in states if s.accepted) >= int((x != before).sum())


def test_a_rejected_batch_leaves_no_trace() -> None:
    x = (torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    before, calls = x.clone(), []

    def worse(point: Tensor) -> tuple[float, Tensor]:
        calls.append(point.clone())
        return (1.0 if len(calls) == 1 else float("nan") if len(calls) == 2 else 2.0), torch.ones(SHAPE)

    result = flip_descent(worse, x, serial(), FlipOptions(40, 5, 100))
    assert torch.equal(x, before) and result.loss == 1.0 and result.flips == 0
    assert result.stop == "no further decrease"
    assert len(calls) == result.evaluations > 2 and not torch.equal(calls[1], before)


def test_stops() -> None:
    function, x = slice_sums_problem((12, 10, 8))
    selector = GainSelector(lambda counts: counts, noise_from(0, (10, 8)), (0, 12))
    assert flip_descent(function, x.clone(), selector, FlipOptions(10, 1, 2)).stop == "iteration cap"
    assert flip_descent(function, x.clone(), selector, None, lambda s: True).stop == "interrupted"
    nothing = lambda v: (1.0, torch.zeros_like(v))  # noqa: E731
    assert flip_descent(nothing, x.clone(), selector).stop == "no candidates"
    with pytest.raises(FloatingPointError, match="first flip"):
        flip_descent(lambda v: (float("inf"), v), x, selector)
