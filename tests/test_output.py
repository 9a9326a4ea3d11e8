"""From the relaxed field to phases: thresholds, exact volume fractions, denoising."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objectives import of_labels

from mcrdist import synthetic
from mcrdist.config import from_mapping
from mcrdist.descriptors.variation import variation
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.phases import Phases
from mcrdist.solver.denoise import denoised
from mcrdist.solver.rounding import contradict, goals, largest, settle, thresholds
from mcrdist.store.run import Run

ROOT = Path(__file__).resolve().parent.parent
SHAPE = (7, 6, 5)
VOXELS = 210
IMAGE = synthetic.ThresholdedGaussian(length=4.0, fraction=0.4).draw((64, 64), np.random.default_rng(1))


@pytest.fixture
def comm() -> Comm:
    return Comm.start("cpu")


def phases_of(count: int) -> Phases:
    return Phases((1,) if count == 1 else tuple(range(count)), Workers(1))


# ------------------------------------------------------------------------------------------------ thresholds


@pytest.mark.parametrize("fraction", [0.05, 0.4, 0.99])
def test_the_exact_threshold_gives_the_exact_fraction(fraction: float, comm: Comm) -> None:
    field = torch.from_numpy(np.random.default_rng(0).random(SHAPE).astype(np.float32))
    goal = goals([fraction], VOXELS)
    (found,) = thresholds(field, phases_of(1), "exact", goal, comm)
    assert int((field > found).sum()) == goal[0]


def test_voxels_of_one_value_stay_together(comm: Comm) -> None:
    field = torch.zeros(SHAPE)
    field[:3] = 1.0  # 90 of 210
    (found,) = thresholds(field, phases_of(1), "exact", [60], comm)
    assert 0.0 <= found < 1.0
    assert int((field > found).sum()) == 90


def test_a_given_threshold_is_that_of_all_variables(comm: Comm) -> None:
    assert thresholds(torch.zeros(7, 2, 6, 5), phases_of(3), 0.3, [1, 2], comm) == [0.3, 0.3]


def test_three_phases_have_their_fractions(comm: Comm) -> None:
    field = torch.from_numpy(np.random.default_rng(1).random((7, 2, 6, 5)))
    phases = phases_of(3)
    goal = goals([0.2, 0.5, 0.3], VOXELS)
    rounded = phases.rounded(field, thresholds(field, phases, "exact", goal, comm))
    counts = np.bincount(phases.label(rounded).numpy().ravel(), minlength=3)
    assert counts.tolist() == [42, 105, 63]


# ------------------------------------------------------------------------------------------------ settling


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, VOXELS), ties=st.booleans())
def test_the_largest_are_exactly_as_many(seed: int, count: int, ties: bool) -> None:
    gain = np.random.default_rng(seed).standard_normal(SHAPE)
    gain = gain.round() if ties else gain
    gain[0, 0] = -np.inf
    chosen = largest(torch.from_numpy(gain), count, Comm.start("cpu")).numpy()
    best = np.sort(gain[np.isfinite(gain)])[::-1][:count]
    assert int(chosen.sum()) == len(best)
    np.testing.assert_array_equal(np.sort(gain[chosen])[::-1].astype(np.float32), best.astype(np.float32))


def largest_of_slab(gain: np.ndarray, count: int) -> list[int]:
    with Comm.start("cpu") as comm:
        slab = Slab(gain.shape, comm, Workers(1))
        chosen = largest(torch.from_numpy(gain[slab.start : slab.stop]), count, comm)
        return (torch.nonzero(chosen.flatten()).flatten() + slab.start * 30).tolist()


def test_any_number_of_ranks_takes_the_same(run_ranks: Any, comm: Comm) -> None:
    gain = np.random.default_rng(4).standard_normal(SHAPE).round()
    expected = torch.nonzero(largest(torch.from_numpy(gain), 61, comm).flatten()).flatten().tolist()
    assert [at for own in run_ranks(largest_of_slab, 3, gain, 61) for at in own] == expected


@pytest.mark.parametrize("count", [1, 3])
def test_settling_gives_every_phase_its_voxels_and_moves_nothing_fixed(count: int, comm: Comm) -> None:
    phases = phases_of(count)
    rng = np.random.default_rng(5)
    labels = torch.from_numpy(rng.integers(0, max(2, count), SHAPE).astype(np.uint8))
    field = of_labels(phases, labels, torch.float32)
    before, fixed = field.clone(), torch.from_numpy(rng.random(SHAPE) < 0.2)
    goal = goals([0.3] if count == 1 else [0.3, 0.45, 0.25], VOXELS)
    for variable, wanted in enumerate(goal):
        gains = torch.from_numpy(rng.standard_normal(field.shape))
        left = [
            settle(field, gains.clone(), phases, variable, wanted, fixed, comm, most=7) for _ in range(30)
        ]
        assert left[-1] == 0 and all(a - b in (7, a) for a, b in itertools.pairwise(left))
    found = [int((phases.label(field) == label).sum()) for label in phases.labels]
    assert found == ([63] if count == 1 else [63, 94, 53])
    assert torch.equal(phases.label(field)[fixed], phases.label(before)[fixed])


# ------------------------------------------------------------------------------------------------ denoising


def noisy(shape: tuple[int, int, int]) -> torch.Tensor:
    structure = synthetic.ThresholdedGaussian(length=5.0, fraction=0.4).draw(shape, np.random.default_rng(2))
    spoilt = np.random.default_rng(3).random(shape) < 0.05
    return torch.from_numpy(np.where(spoilt, 1 - structure, structure).astype(np.float32))


def denoise_alone(field: torch.Tensor, weight: float = 0.5) -> torch.Tensor:
    slab = Slab(tuple(field.shape), Comm.start("cpu"), Workers(1))
    return denoised(field, weight, slab, phases_of(1))


def test_denoising_lowers_the_variation_and_knows_no_border() -> None:
    field = noisy((40, 18, 20))
    smooth = denoise_alone(field)
    rounded = (smooth > 0.5).numpy().astype(float)
    assert variation(rounded, True).mean() < 0.8 * variation(field.numpy().astype(float), True).mean()
    assert (rounded != field.numpy()).mean() < 0.15
    moved = denoise_alone(torch.roll(field, (9, 5, 7), (0, 1, 2)))
    assert float((torch.roll(smooth, (9, 5, 7), (0, 1, 2)) - moved).abs().max()) < 0.02
    assert float((denoise_alone(field, 1e-4) - field).abs().max()) < 1e-2


def denoise_slab(values: np.ndarray) -> np.ndarray:
    with Comm.start("cpu") as comm:
        slab = Slab(values.shape, comm, Workers(1))
        return denoised(torch.from_numpy(values[slab.start : slab.stop]), 0.5, slab, phases_of(1)).numpy()


def test_any_number_of_ranks_denoises_alike(run_ranks: Any) -> None:
    field = noisy((37, 9, 10))
    parts = run_ranks(denoise_slab, 2, field.numpy())
    np.testing.assert_array_equal(np.concatenate(parts), denoise_alone(field).numpy())


def test_channels_of_three_phases_stay_shares() -> None:
    phases = phases_of(3)
    labels = np.digitize(noisy((12, 10, 9)).numpy() + np.indices((12, 10, 9))[2] / 9.0, [0.5, 1.2])
    field = of_labels(phases, torch.from_numpy(labels.astype(np.uint8)), torch.float64)
    slab = Slab((12, 10, 9), Comm.start("cpu"), Workers(1), torch.float64)
    smooth = denoised(field, 0.1, slab, phases)
    assert float(smooth.min()) >= 0.0 and float(smooth.max()) <= 1.0
    assert float((phases.label(phases.rounded(smooth)) == torch.from_numpy(labels)).double().mean()) > 0.85


# ------------------------------------------------------------------------------------------------ runs


def conduct(directory: Path, **more: Any) -> Run:
    from mcrdist.reconstruct import reconstruct

    base = {
        "micrograph": {"image": IMAGE},
        "volume": {"size": 12},
        "optimizer": {"iterations": 5},
        "runtime": {"threads": 1, "device": "cpu"},
        "run": {"dir": str(directory), "report": False},
    }
    return reconstruct(from_mapping(base | more))


def test_a_run_with_the_exact_fraction(tmp_path: Path) -> None:
    run = conduct(tmp_path / "run", output={"threshold": "exact"})
    wanted = round(float(IMAGE.mean()) * 12**3)
    assert int(run.phase.sum()) == wanted
    assert run.summary["volume_fraction"]["rounded"] == pytest.approx(wanted / 12**3)


def test_a_run_with_three_phases_and_exact_fractions(tmp_path: Path) -> None:
    image = np.digitize(np.random.default_rng(0).random((64, 64)), [0.3, 0.7])
    run = conduct(tmp_path / "run", micrograph={"image": image}, output={"threshold": "exact"})
    for label in range(3):
        assert abs(int((run.phase == label).sum()) - (image == label).mean() * 12**3) <= 1.0


def test_a_run_with_another_threshold_or_denoised(tmp_path: Path) -> None:
    start = np.random.default_rng(0).random((12, 12, 12)).astype(np.float32)
    np.save(tmp_path / "start.npy", start)
    more = {"initial": "file", "initial_path": str(tmp_path / "start.npy"), "optimizer": {"iterations": 0}}
    run = conduct(tmp_path / "low", output={"threshold": 0.2}, **more)
    np.testing.assert_array_equal(run.phase, start > 0.2)
    assert run.summary["thresholds"] == [0.2]
    run = conduct(tmp_path / "smooth", output={"denoise": 0.3}, **more)
    np.testing.assert_array_equal(run.field, start)
    np.testing.assert_array_equal(run.phase, (denoise_alone(torch.from_numpy(start), 0.3) > 0.5).numpy())


def test_the_lengths_of_the_stages_can_be_set(tmp_path: Path) -> None:
    def stages(name: str, **optimizer: int) -> Counter[str]:
        run = conduct(tmp_path / name, optimizer={"iterations": 4} | optimizer)
        np.testing.assert_array_equal(np.unique(run.phase), [0, 1])
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return Counter(line["stage"] for line in lines)

    # every stage, and every price of greyness, notes its start too
    assert stages("short", binarize_iterations=0, flip_rounds=0) == {"relax": 5, "flip": 1}
    found = stages("longer", binarize_iterations=2, flip_rounds=3)
    assert found["relax"] == 5 and 0 < found["binarize"] <= 6 * 3 and found["flip"] == 4


@pytest.mark.parametrize("setting", ["output.threshold=1.5", "output.threshold=half", "output.denoise=-1"])
def test_bad_settings_at_the_command_line(setting: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mcrdist", "reconstruct", "micrograph.path=a.png", "volume.size=16", setting],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"{setting.split('=')[0]}: expected" in done.stderr
    assert not list(tmp_path.iterdir())


def test_directions_that_contradict_one_another_meet_in_the_middle(tmp_path: Path) -> None:
    """By default the volume gets the mean of their fractions; one micrograph contradicts nobody."""
    rng = np.random.default_rng(1)
    images = {
        axis: synthetic.ThresholdedGaussian(length=5.0, fraction=fraction).draw((32, 32), rng)
        for axis, fraction in (("z", 0.3), ("y", 0.45), ("x", 0.4))
    }
    micrograph = {axis: {"image": image} for axis, image in images.items()}
    wanted = np.mean([image.mean() for image in images.values()])
    run = conduct(tmp_path / "three", micrograph=micrograph)
    assert abs(run.phase.mean() - wanted) <= 0.5 / run.phase.size + 1e-9
    nearer = conduct(tmp_path / "half", micrograph=micrograph, output={"threshold": 0.5})
    assert abs(nearer.phase.mean() - wanted) > 2 / run.phase.size
    assert not contradict([0.4, 0.4001, 0.4]) and contradict([0.4, 0.41, 0.4]) and not contradict([0.0, 0.0])
