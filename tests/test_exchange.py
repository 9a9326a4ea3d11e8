"""Exchanges of a one with a zero, and the checkerboard that they finish."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mcrdist
from mcrdist.optimize.exchange import exchange_descent
from mcrdist.optimize.flips import FlipState, Selection, flip_descent
from mcrdist.synthetic import Checkerboard

WANTED = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (1, 6, 7)).astype(float))


def function(x: Tensor) -> tuple[float, Tensor]:
    """Distance to `WANTED`, and a sum so dear that no flip alone is worth it."""
    loss = float((x - WANTED).square().sum() + 100.0 * (x.sum() - WANTED.sum()) ** 2)
    gain = torch.where(x == WANTED, -1.0, 1.0) - 100.0
    return loss, gain.to(x.dtype)


def exchanged(pairs: int) -> Tensor:
    x = WANTED.clone().view(-1)
    for phase in (0.0, 1.0):
        x[torch.nonzero(WANTED.view(-1) == phase)[:pairs]] = 1.0 - phase
    return x.view(WANTED.shape)


def test_exchanges_find_what_flips_do_not() -> None:
    x = exchanged(5)

    def all_that_gain(gain: Tensor, *_: int) -> Selection:
        places = [np.flatnonzero(plane.numpy() > 0.0) for plane in gain]
        return Selection(places, sum(map(len, places)))

    flipped = flip_descent(function, x, all_that_gain)
    assert (flipped.stop, flipped.flips) == ("no candidates", 0)
    states: list[FlipState] = []
    result = exchange_descent(function, x, 1000, lambda state: states.append(state))
    assert torch.equal(x, WANTED) and result.x is x and result.loss == 0.0
    assert (result.stop, result.iterations, result.flips) == ("no further decrease", 5, 10)
    assert [state.loss for state in states] == [10.0, 8.0, 6.0, 4.0, 2.0, 0.0]


def test_when_exchanges_stop() -> None:
    x = exchanged(5)
    result = exchange_descent(function, x, 3)
    assert (result.stop, result.evaluations) == ("evaluation cap", 3)
    assert function(x)[0] == result.loss
    assert exchange_descent(function, x, 3, lambda state: True).stop == "interrupted"
    uniform = torch.ones(1, 3, 3, dtype=torch.float64)
    assert exchange_descent(lambda x: (1.0, x), uniform, 10).stop == "no further decrease"


def test_voxels_that_stay() -> None:
    x = exchanged(1)
    given = x != WANTED

    def held(now: Tensor) -> tuple[float, Tensor]:
        loss, gain = function(now)
        return loss, gain.masked_fill(given, -math.inf)

    before = x.clone()
    assert exchange_descent(held, x, 1000).flips == 0
    assert torch.equal(x, before)


@pytest.mark.parametrize("initial", ["noise", "spectral"])
def test_the_checkerboard_is_found_exactly(initial: str, tmp_path: Path) -> None:
    image = Checkerboard(square=4).draw((32, 32), np.random.default_rng(0))
    run = reconstruct(image, tmp_path / "run", initial=initial, optimizer={"iterations": 1000})
    errors = run.summary["errors"]["rounded"]["z"]
    assert errors["variation"] == errors["volume_fraction"] == 0.0
    assert errors["s2"] < 1e-6  # the transforms are in single precision
    found = run.phase.reshape(image.shape)
    shifts = [np.roll(image, (i, j), (0, 1)) for i in range(8) for j in range(8)]
    assert min(int((found != shifted).sum()) for shifted in shifts) == 0


def reconstruct(image: Any, directory: Path, **more: Any) -> Any:
    return mcrdist.reconstruct(
        micrograph=image,
        volume={"shape": list(image.shape)},
        target={"periodic": True, "lags": image.shape[0] // 2},
        runtime={"threads": 1, "device": "cpu"},
        run={"dir": str(directory), "report": False},
        **more,
    )
