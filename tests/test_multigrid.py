"""Levels and the way up, alone; on several ranks see test_core_ranks.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from mcrdist import synthetic
from mcrdist.config import LevelsConfig
from mcrdist.multigrid import ORDER, UPSAMPLING_NOISE, Level, levels, perturb, upsample
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers

Shape = tuple[int, int, int]


def images(length: float = 16.0, side: int = 256) -> dict[str, NDArray[np.float64]]:
    structure = synthetic.ThresholdedGaussian(length=length, fraction=0.45)
    image = structure.draw((side, side), np.random.default_rng(0)).astype(float)
    return dict.fromkeys("zyx", image)


def shapes(found: list[Level]) -> list[Shape]:
    assert [level.number for level in found] == list(range(len(found)))
    assert found[-1].factor == 1
    return [level.shape for level in found]


# ------------------------------------------------------------------------------------------------ levels


def test_a_spectral_start_needs_no_levels() -> None:
    assert shapes(levels((64, 64, 64), images(), LevelsConfig(), True)) == [(64, 64, 64)]


def test_levels_of_odd_shapes() -> None:
    found = levels((33, 70, 129), images(40.0), LevelsConfig(), False)
    assert shapes(found) == [(8, 18, 32), (16, 35, 64), (33, 70, 129)]
    assert [level.factor for level in found] == [4, 2, 1]


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (LevelsConfig(count=1), [64]),
        (LevelsConfig(count=2), [32, 64]),
        (LevelsConfig(count=9), [8, 16, 32, 64]),
        (LevelsConfig(coarsest=32), [32, 64]),
        (LevelsConfig(coarsest=30), [32, 64]),
        (LevelsConfig(coarsest=4), [4, 8, 16, 32, 64]),
        (LevelsConfig(count=2, coarsest=40), [64]),
    ],
)
@pytest.mark.parametrize("smooth_start", [True, False])
def test_levels_by_hand(config: LevelsConfig, wanted: list[int], smooth_start: bool) -> None:
    found = levels((64, 64, 64), images(4.0), config, smooth_start)
    assert shapes(found) == [(n, n, n) for n in wanted]


def test_levels_stop_where_the_micrograph_is_no_longer_resolved() -> None:
    coarse = levels((256, 256, 256), images(40.0), LevelsConfig(), False)
    fine = levels((256, 256, 256), images(3.0), LevelsConfig(), False)
    assert len(coarse) > len(fine) >= 1
    assert coarse[0].shape[0] < fine[0].shape[0]


def test_levels_leave_a_micrograph_of_a_few_pixels() -> None:
    found = levels((512, 512, 512), images(40.0, side=32), LevelsConfig(count=16), False)
    assert found[0].factor == 8  # 32 pixels averaged to 4


# ------------------------------------------------------------------------------------------------ the way up


def up(coarse: NDArray[np.float64], shape: Shape) -> NDArray[np.float64]:
    with Comm.start("cpu") as comm:
        workers = Workers(1)
        small = Slab(tuple(coarse.shape), comm, workers, torch.float64)  # type: ignore[arg-type]
        fine = Slab(shape, comm, workers, torch.float64)
        return upsample(torch.from_numpy(coarse), small, fine).numpy()


@pytest.mark.parametrize(
    ("coarse", "fine"),
    [((4, 5, 6), (8, 10, 12)), ((8, 8, 8), (17, 15, 16)), ((3, 7, 5), (7, 13, 9)), ((1, 2, 3), (3, 4, 5))],
)
def test_upsample_is_a_periodic_spline(coarse: Shape, fine: Shape) -> None:
    field = np.random.default_rng(0).random(coarse)
    positions = [np.arange(n) * m / n for m, n in zip(coarse, fine, strict=True)]
    where = np.meshgrid(*positions, indexing="ij")
    wanted = ndimage.map_coordinates(field, where, order=ORDER, mode="grid-wrap", prefilter=False)
    found = up(field, fine)
    assert found.shape == fine
    np.testing.assert_allclose(found, wanted, atol=1e-13)


def test_upsample_keeps_constants_the_range_and_by_2_the_mean() -> None:
    np.testing.assert_allclose(up(np.full((3, 4, 5), 0.3), (6, 9, 10)), 0.3, atol=1e-15)
    field = (np.random.default_rng(0).random((4, 5, 6)) < 0.5).astype(float)
    found = up(field, (8, 10, 12))
    assert found.min() >= 0.0 and found.max() <= 1.0
    assert found.mean() == pytest.approx(field.mean())


def test_upsample_keeps_a_ramp_between_its_ends() -> None:
    ramp = (np.arange(8) + 0.5) / 8
    for axis in range(3):
        shape = [1, 1, 1]
        shape[axis] = 8
        field = np.broadcast_to(ramp.reshape(shape), (8, 8, 8)).copy()
        found = np.moveaxis(up(field, (20, 20, 20)), axis, 0)
        inside = slice(5, 13)
        wanted = (np.arange(20) / 20 + 1 / 16)[inside, None, None]
        np.testing.assert_allclose(found[inside], np.broadcast_to(wanted, (8, 20, 20)), atol=1e-13)


def test_perturb_is_small_fair_and_stays_inside() -> None:
    with Comm.start("cpu") as comm:
        slab = Slab((16, 16, 16), comm, Workers(1), torch.float64)
        field = torch.full(slab.local_shape, 0.5, dtype=torch.float64)
        assert perturb(field, slab, 0, 1) is field
        off = field.numpy() - 0.5
        assert off.std() == pytest.approx(UPSAMPLING_NOISE, rel=0.05)
        assert abs(off.mean()) < 4 * UPSAMPLING_NOISE / 64
        ends = perturb(torch.ones(slab.local_shape, dtype=torch.float64), slab, 0, 1)
        assert float(ends.max()) == 1.0


def test_upsampling_leaves_no_trace_of_the_coarse_cells() -> None:
    """Interfaces of a two-phase coarse field must not prefer the faces between coarse cells."""
    field = (np.random.default_rng(1).random((12, 12, 12)) < 0.5).astype(float)
    found = up(field, (24, 24, 24)) + np.random.default_rng(2).normal(0.0, 0.1, (24, 24, 24))
    steps = np.diff(found > 0.5, axis=0).mean((1, 2))
    assert steps[0::2].mean() == pytest.approx(steps[1::2].mean(), rel=0.05)
