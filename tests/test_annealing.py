"""Annealing by swaps: its counts and energy against recounting, its rules against systems that can be checked."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from objectives import make

from mcrdist.annealing.energy import slice_energies
from mcrdist.annealing.swaps import Swaps, pair_counts
from mcrdist.annealing.volume import anneal_volume, with_fraction
from mcrdist.config import from_mapping
from mcrdist.descriptors.volume_fraction import GreynessTerm
from mcrdist.errors import InputError
from mcrdist.objective import Held, Objective
from mcrdist.optimize.yeong_torquato import AnnealOptions, AnnealState, anneal, first_temperature
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.threads import Workers
from mcrdist.solver.descent import check_phases

Shape = tuple[int, int, int]
#: In three dimensions and in two; windows up to half a side, where the pixels ahead and behind are the same one.
SHAPES: list[tuple[Shape, int]] = [((8, 10, 9), 4), ((12, 9, 11), 3), ((1, 16, 12), 6)]


def objective(shape: Shape, lags: int = 4, fixed: torch.Tensor | None = None, **more: int) -> Objective:
    """S2, variation and volume fraction of random micrographs, another in each direction."""
    made = make(shape, Comm.start("cpu"), Workers(1), lags=lags, smoothing=math.inf, fixed=fixed, **more)
    for direction, held in made.held.items():
        channels = tuple(tuple(t for t in own if not isinstance(t, GreynessTerm)) for own in held.channels)
        made.held[direction] = Held(channels, held.joint)  # type: ignore[index]
    return made


def volume(shape: Shape, seed: int = 0) -> NDArray[np.uint8]:
    return (np.random.default_rng(seed).random(shape) < 0.4).astype(np.uint8)


def loss(of: Objective, labels: NDArray[np.uint8]) -> float:
    return of(torch.from_numpy(labels.astype(np.float64)), None).loss


def swaps(of: Objective, seed: int = 0, labels: NDArray[np.uint8] | None = None) -> Swaps:
    start = volume(of.slab.shape) if labels is None else labels
    fixed = None if of.fixed is None else of.fixed.numpy()
    return Swaps(start, slice_energies(of), np.random.default_rng(seed), fixed)


@pytest.mark.parametrize(("shape", "lags"), SHAPES)
def test_the_energy_is_the_objective_s_loss(shape: Shape, lags: int) -> None:
    of = objective(shape, lags)
    assert swaps(of).energy == pytest.approx(loss(of, volume(shape)), rel=1e-9)


@pytest.mark.parametrize(("shape", "lags"), SHAPES)
def test_the_price_of_a_swap_is_what_the_loss_changes_by(shape: Shape, lags: int) -> None:
    of = objective(shape, lags)
    before = loss(of, volume(shape))
    # The same generator draws the same swaps, made one at a time from the same start.
    prices = swaps(of, seed=3).probe(5)
    draws = np.random.default_rng(3).random((5, 3))
    ones, zeros = (np.flatnonzero(volume(shape) == phase) for phase in (1, 0))
    for price, (i, j, _) in zip(prices, draws, strict=True):
        labels = volume(shape).ravel()
        labels[ones[int(i * len(ones))]], labels[zeros[int(j * len(zeros))]] = 0, 1
        assert price == pytest.approx(loss(of, labels.reshape(shape)) - before, rel=1e-4, abs=1e-7 * before)


@pytest.mark.parametrize(("shape", "lags"), SHAPES)
def test_counts_are_exact_after_a_thousand_swaps(shape: Shape, lags: int) -> None:
    of = objective(shape, lags)
    system = swaps(of)
    assert system.attempt(1000, temperature=math.inf) == 1000
    labels = system.labels
    assert (labels != volume(shape)).any() and labels.sum() == volume(shape).sum()
    for direction, counts in zip(of.held, system.counts, strict=True):
        stack = np.moveaxis(labels, direction.axis, 0)
        assert (counts == pair_counts(stack, counts.shape[2] - 1)).all()
    assert system.energy == pytest.approx(loss(of, labels), rel=1e-9)


def test_pair_counts_by_hand() -> None:
    image = np.array([[[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]], dtype=np.uint8)
    counts = pair_counts(image, 1)[0]
    # rows are lags -1, 0, 1 down, columns 0, 1 to the right
    assert counts.tolist() == [[1, 0], [4, 1], [1, 2]]


def test_without_temperature_the_energy_falls_with_every_swap() -> None:
    system = swaps(objective((8, 10, 9)))
    energies = [system.energy]
    for _ in range(10):
        system.attempt(50, temperature=0.0)
        energies.append(system.energy)
    assert all(after <= before for before, after in itertools.pairwise(energies))
    assert (
        energies[-1] < 0.85 * energies[0]
    )  # the directions' fractions differ: there is no volume without energy


def test_given_voxels_stay() -> None:
    shape = (8, 10, 9)
    fixed = torch.zeros(shape, dtype=torch.bool)
    fixed[2] = True
    system = swaps(objective(shape, fixed=fixed))
    system.attempt(500, temperature=math.inf)
    changed = system.labels != volume(shape)
    assert changed.any() and not changed[2].any()


def test_nothing_to_swap() -> None:
    shape = (8, 10, 9)
    system = swaps(objective(shape), labels=np.zeros(shape, dtype=np.uint8))
    result = anneal(system, AnnealOptions(sweeps=3, attempts=10))
    assert (result.stop, result.sweeps) == ("frozen", 1)


def annealed(seed: int) -> tuple[NDArray[np.float64], float, list[float]]:
    of = objective((8, 10, 9))
    field = torch.from_numpy(np.random.default_rng(1).random((8, 10, 9)))
    seen: list[float] = []

    def note(state: AnnealState, now: torch.Tensor) -> bool:
        assert now.mean() == pytest.approx(0.4, abs=1e-3)  # 288 of 720 voxels
        seen.append(state.energy)
        return False

    result = anneal_volume(field, of, 0.4, 12, np.random.default_rng(seed), note)
    assert result.energy == pytest.approx(of(field, None).loss, rel=1e-9)
    return field.numpy(), result.energy, seen


def test_the_same_seed_anneals_to_the_same_volume() -> None:
    first, energy, seen = annealed(5)
    again, energy_again, _ = annealed(5)
    other, _, _ = annealed(6)
    assert (first == again).all() and energy == energy_again
    assert (first != other).any()
    assert set(np.unique(first)) == {0.0, 1.0}
    assert 2 < len(seen) <= 13 and energy == seen[-1] < 0.85 * seen[0]


def test_rounding_keeps_the_fraction_to_the_voxel() -> None:
    rng = np.random.default_rng(0)
    field = rng.random((5, 6, 7))
    labels = with_fraction(field, 0.3, rng)
    assert labels.sum() == round(0.3 * field.size)
    assert field[labels == 1].min() > field[labels == 0].max()
    assert with_fraction(np.full((5, 6, 7), 0.5), 0.3, rng).sum() == round(0.3 * field.size)  # all alike
    fixed = np.zeros((5, 6, 7), dtype=bool)
    fixed[0] = True
    labels = with_fraction(field, 0.3, rng, fixed)
    assert labels.sum() == round(0.3 * field.size)
    assert (labels[0] == (field[0] > 0.5)).all()


class TwoLevels:
    """A system whose swaps all cost 1 or gain 1, by turns."""

    def __init__(self) -> None:
        self.temperatures: list[float] = []

    @property
    def energy(self) -> float:
        return 1.0

    def attempt(self, attempts: int, temperature: float) -> int:
        self.temperatures.append(temperature)
        return attempts

    def probe(self, attempts: int) -> NDArray[np.float64]:
        return np.resize([1.0, -1.0], attempts)


def test_cooling_is_geometric_and_starts_where_half_the_rises_are_accepted() -> None:
    system = TwoLevels()
    states: list[AnnealState] = []
    result = anneal(system, AnnealOptions(sweeps=5, attempts=10), lambda state: states.append(state))
    first = system.temperatures[0]
    assert math.exp(-1.0 / first) == pytest.approx(0.5)
    ratios = np.divide(system.temperatures[1:], system.temperatures[:-1])
    assert np.allclose(ratios, ratios[0]) and ratios[0] < 1.0
    assert (result.stop, result.sweeps, len(states)) == ("iteration cap", 5, 6)
    assert first_temperature(np.array([-1.0, 0.0])) == 0.0


def test_a_callback_stops_the_annealing() -> None:
    result = anneal(TwoLevels(), AnnealOptions(sweeps=5, attempts=10), lambda state: state.sweep == 2)
    assert (result.stop, result.sweeps) == ("interrupted", 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"descriptors": {"gram": {"weight": 1.0}}}, r"^descriptors: expected s2, .* alone .*found gram;"),
        ({"descriptors": {"s2": {"weight": 0.0}}}, r"^descriptors\.s2\.weight: expected one above 0"),
        ({"descriptors": {"s2": {"pooled": [2]}}}, r"^descriptors\.s2\.pooled: expected \[\].*found \[2\]"),
        (
            {"descriptors": {"variation": {"mode": "minimize"}}},
            r"^descriptors\.variation\.mode: expected match",
        ),
        ({"target": {"diagonals": True}}, r"^target\.diagonals: expected false"),
    ],
)
def test_what_swaps_cannot_anneal(settings: dict[str, Any], message: str) -> None:
    given = {"micrograph": {"path": "sem.tif"}, "volume": {"size": 16}, **settings}
    from_mapping(given | {"optimizer": {"name": "lbfgsb"}})
    with pytest.raises(InputError, match=message):
        from_mapping(given | {"optimizer": {"name": "yeong_torquato"}})


def test_swaps_are_between_two_phases() -> None:
    assert check_phases("yeong_torquato", 1) is check_phases("lbfgsb", 3) is None
    assert "micrograph of 3" in str(check_phases("yeong_torquato", 3))
