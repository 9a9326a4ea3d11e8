"""Known planes and voxels: read, held exactly, on every level and any number of ranks, and joined without a seam."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interrupted import Stop
from PIL import Image

from mcrdist import gaussian, synthetic
from mcrdist.conditioning.border import REACH, Border
from mcrdist.conditioning.known import UNKNOWN, Known
from mcrdist.conditioning.kriging import conditioned
from mcrdist.conditioning.seam import seams
from mcrdist.config import from_mapping
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.phases import Phases
from mcrdist.store.run import Run

ROOT = Path(__file__).resolve().parent.parent
IMAGE = synthetic.ThresholdedGaussian(length=4.0, fraction=0.4).draw((96, 96), np.random.default_rng(1))
SHAPE = (12, 14, 16)


def conduct(directory: Path, **more: Any) -> Run:
    from mcrdist.reconstruct import reconstruct

    base = {
        "micrograph": {"image": IMAGE},
        "volume": {"shape": list(SHAPE)},
        "optimizer": {"iterations": 4},
        "runtime": {"threads": 1, "device": "cpu"},
        "run": {"dir": str(directory), "report": False},
    }
    return reconstruct(from_mapping(base | more))


def plane_of(axis: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    height, width = (n for i, n in enumerate(shape) if i != axis)
    return IMAGE[:height, :width]


def slab_of(shape: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> Slab:
    return Slab(shape, Comm.start("cpu"), Workers(1), dtype)


# ------------------------------------------------------------------------------------------------ placing


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_plane_is_held_exactly(axis: int, tmp_path: Path) -> None:
    np.save(tmp_path / "plane.npy", plane_of(axis))
    where = {"path": str(tmp_path / "plane.npy"), "axis": "zyx"[axis], "index": 5}
    run = conduct(tmp_path / "run", conditioning=where, output={"threshold": "exact", "denoise": 0.0})
    np.testing.assert_array_equal(np.take(run.phase, 5, axis), plane_of(axis))
    np.testing.assert_array_equal(np.take(run.field, 5, axis), plane_of(axis))
    assert run.summary["conditioning"]["voxels"] == plane_of(axis).size
    assert list(run.summary["conditioning"]["seam"]) == ["zyx"[axis]]
    assert int(run.phase.sum()) == round(float(IMAGE.mean()) * run.phase.size)


def test_a_plane_survives_levels_and_denoising(tmp_path: Path) -> None:
    np.save(tmp_path / "plane.npy", plane_of(0))
    more = {"levels": {"count": 2, "coarsest": 6}, "initial": "noise", "output": {"denoise": 0.5}}
    where = {"path": str(tmp_path / "plane.npy"), "index": 4}
    run = conduct(tmp_path / "run", conditioning=where, **more)
    np.testing.assert_array_equal(run.phase[4], plane_of(0))
    coarse = run.volume.read(run.volume.field(1))
    # Centres on every second pixel: the one before it and its own belong to the coarse one.
    means = np.roll(plane_of(0).astype(float), 1, (0, 1)).reshape(7, 2, 8, 2).mean((1, 3))
    np.testing.assert_allclose(coarse[2], means)


def test_voxels_of_three_phases_are_held_exactly(tmp_path: Path) -> None:
    image = np.digitize(np.random.default_rng(0).random((64, 64)), [0.3, 0.7]).astype(np.uint8)
    rng = np.random.default_rng(1)
    voxels = np.where(rng.random(SHAPE) < 0.1, rng.integers(0, 3, SHAPE), UNKNOWN).astype(np.uint8)
    np.save(tmp_path / "voxels.npy", voxels)
    where = {"path": str(tmp_path / "voxels.npy")}
    run = conduct(tmp_path / "run", micrograph={"image": image}, conditioning=where)
    known = voxels != UNKNOWN
    np.testing.assert_array_equal(run.phase[known], voxels[known])
    assert run.summary["conditioning"]["voxels"] == int(known.sum())
    assert set(run.summary["conditioning"]["seam"]) == {"z", "y", "x"}


SWAPS = {"name": "yeong_torquato", "iterations": 12}


@pytest.mark.parametrize(("axis", "initial"), [(0, "spectral"), (1, "spectral"), (2, "noise")])
def test_annealing_holds_a_plane_exactly(axis: int, initial: str, tmp_path: Path) -> None:
    np.save(tmp_path / "plane.npy", plane_of(axis))
    where = {"path": str(tmp_path / "plane.npy"), "axis": "zyx"[axis], "index": 5}
    run = conduct(tmp_path / "run", conditioning=where, initial=initial, optimizer=SWAPS)
    np.testing.assert_array_equal(np.take(run.phase, 5, axis), plane_of(axis))
    np.testing.assert_array_equal(run.field, run.phase)
    assert run.metrics[-1]["loss"] < 0.5 * run.metrics[0]["loss"]
    # Swaps conserve what the start has, in which the other voxels make up for those that are known.
    assert int(run.phase.sum()) == round(float(IMAGE.mean()) * run.phase.size)
    assert run.summary["conditioning"]["voxels"] == plane_of(axis).size
    assert list(run.summary["conditioning"]["seam"]) == ["zyx"[axis]]


def test_annealing_that_is_cut_short_holds_voxels_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    voxels = np.where(rng.random(SHAPE) < 0.3, rng.integers(0, 2, SHAPE), UNKNOWN).astype(np.uint8)
    np.save(tmp_path / "voxels.npy", voxels)
    more = {"conditioning": {"path": str(tmp_path / "voxels.npy")}, "optimizer": SWAPS}
    known = voxels != UNKNOWN
    with monkeypatch.context() as patch:
        Stop(patch, 5)
        cut = conduct(tmp_path / "run", **more)
    assert cut.summary["status"] == "interrupted"
    before = cut.phase.copy()
    found = conduct(tmp_path / "run", resume=True, **more)
    assert found.summary["status"] == "complete"
    for phase in (before, found.phase):
        np.testing.assert_array_equal(phase[known], voxels[known])
    assert (found.phase != before).any()
    assert int(found.phase.sum()) == round(float(IMAGE.mean()) * found.phase.size)


def test_a_coarse_voxel_is_known_where_all_of_it_is() -> None:
    labels = np.full((8, 8, 8), UNKNOWN, np.uint8)
    labels[1:5, 1:5, 1:5] = np.random.default_rng(0).integers(0, 2, (4, 4, 4))
    given = Known(labels, (8, 8, 8)).at(slab_of((4, 4, 4)), Phases((1,), Workers(1)))
    expected = np.zeros((4, 4, 4), bool)
    expected[1:3, 1:3, 1:3] = True
    np.testing.assert_array_equal(given.mask.numpy(), expected)
    means = labels[1:5, 1:5, 1:5].reshape(2, 2, 2, 2, 2, 2).mean((1, 3, 5))
    np.testing.assert_allclose(given.values[0].numpy(), means.ravel())


def test_a_plane_of_the_micrograph_itself_is_cut_from_it(tmp_path: Path) -> None:
    grey = (IMAGE * 120 + np.random.default_rng(0).integers(0, 60, IMAGE.shape)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "sem.png")
    source = {"path": str(tmp_path / "sem.png"), "crop": [10, 90, 0, 80]}
    where = {"path": source["path"], "axis": "z", "index": 11, "crop": [20, 34, 30, 46]}
    run = conduct(tmp_path / "run", micrograph=source, conditioning=where)
    np.testing.assert_array_equal(run.phase[11], IMAGE[20:34, 30:46])


# ------------------------------------------------------------------------------------------------ the seam


def test_the_seam_of_planes_that_are_counted_by_hand() -> None:
    labels = torch.zeros(6, 4, 5, dtype=torch.uint8)
    labels[:, ::2] = 1
    labels[3] = 1 - labels[3]  # its neighbours differ everywhere
    labels[0, :, 0] = 1 - labels[0, :, 0]  # 4 of 20 pairs, on both sides
    known = torch.zeros(6, 4, 5, dtype=torch.bool)
    known[3] = True
    found = seams(labels, known, slab_of((6, 4, 5)))
    assert list(found) == ["z"]
    assert found["z"]["below"] == found["z"]["above"] == pytest.approx(1.0 / 0.1)
    assert found["z"]["spread"] == pytest.approx(np.std([0.2, 0.2, 0.0, 0.0]) / 0.1)


def test_the_border_and_its_gradient() -> None:
    shape = (9, 8, 10)
    slab = slab_of(shape)
    rng = np.random.default_rng(0)
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[4] = True
    field = torch.from_numpy(rng.random(shape))
    border = Border(mask, [field], slab, lambda channel, axis, lag: 0.1 * lag + axis)
    expected = 0.0
    for lag in range(1, REACH + 1):
        for sign in (-1, 1):
            steps = float((field[4 + sign * lag] - field[4]).square().mean())
            expected += 0.01 * (steps / (0.1 * lag) - 1.0) ** 2
    slope = torch.zeros_like(field)
    found, _ = border.accumulate([field], [slope])
    assert found == pytest.approx(expected)
    direction = torch.from_numpy(rng.standard_normal(shape)) * ~mask
    above, below = (border.accumulate([field + h * direction], None)[0] for h in (1e-6, -1e-6))
    assert float((slope * direction).sum()) == pytest.approx((above - below) / 2e-6, rel=1e-6)


def test_the_border_knows_what_a_flip_does() -> None:
    """To first order in the squared steps."""
    shape = (9, 30, 30)
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[4] = True
    field = torch.from_numpy((np.random.default_rng(0).random(shape) < 0.4).astype(float))
    border = Border(mask, [field], slab_of(shape), lambda channel, axis, lag: 0.3)
    slope, cost = torch.zeros_like(field), torch.zeros_like(field)
    before, factors = border.accumulate([field], [slope])
    border.add_flip_constants(factors, [cost])
    flipped = field.clone()
    flipped[5, 7, 7] = 1.0 - flipped[5, 7, 7]
    predicted = float(slope[5, 7, 7] * (1.0 - 2.0 * field[5, 7, 7]) + cost[5, 7, 7])
    assert predicted == pytest.approx(border.accumulate([flipped], None)[0] - before, rel=0.02)


def test_kriging_finds_a_field_with_the_given_phases() -> None:
    shape = (16, 16, 16)
    slab = slab_of(shape)
    distance = np.minimum(np.arange(16), 16 - np.arange(16))
    square = distance[:, None, None] ** 2 + distance[None, :, None] ** 2 + distance[None, None, :] ** 2
    kernel = np.exp(-square / 8.0)
    one, other = (gaussian.gaussian_field(slab, kernel, seed, 0) for seed in (1, 2))
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[6] = True
    found = conditioned(one, slab, gaussian.Covariance(kernel, shape), 0.2, mask, other > 0.2)
    agree = float(((found[6] > 0.2) == (other[6] > 0.2)).double().mean())
    assert agree > 0.9  # a chance of 0.5 without
    # As smooth across the plane as elsewhere, and far from it what it was.
    steps = (found[1:] - found[:-1]).square().mean((1, 2))
    assert float(steps[5:7].max()) < 2.0 * float(steps.mean())
    assert float((found[14] - one[14]).abs().mean()) < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_no_seam(axis: int, tmp_path: Path) -> None:
    np.save(tmp_path / "plane.npy", IMAGE[:32, :32])
    where = {"path": str(tmp_path / "plane.npy"), "axis": "zyx"[axis], "index": 11}
    more = {"volume": {"size": 32}, "optimizer": {"iterations": 60}}
    run = conduct(tmp_path / "run", conditioning=where, **more)
    np.testing.assert_array_equal(np.take(run.phase, 11, axis), IMAGE[:32, :32])
    seam = run.summary["conditioning"]["seam"]["zyx"[axis]]
    assert abs(seam["below"] - 1.0) < seam["spread"]
    assert abs(seam["above"] - 1.0) < seam["spread"]


# ------------------------------------------------------------------------------------------------ ranks


def every_way(directory: str) -> list[str]:
    path = Path(directory)
    paths = []
    for axis in range(3):
        where = {"path": str(path / f"{axis}.npy"), "axis": "zyx"[axis], "index": 5}
        more: dict[str, Any] = {"conditioning": where, "output": {"threshold": "exact"}}
        more["optimizer"] = {"iterations": 4, "binarize_iterations": 3, "flip_rounds": 8}
        if axis == 1:
            more["descriptors"] = {"variation": {"mode": "constrain"}}
        paths.append(str(conduct(path / f"run{axis}", **more).path))
    return paths


def test_two_ranks_hold_the_same_planes(tmp_path: Path, run_ranks: Callable[..., list[Any]]) -> None:
    for ranks in ("1", "2"):
        (tmp_path / ranks).mkdir()
        for axis in range(3):
            np.save(tmp_path / ranks / f"{axis}.npy", plane_of(axis))
    alone = every_way(str(tmp_path / "1"))
    together = run_ranks(every_way, 2, str(tmp_path / "2"), timeout=200.0)[0]
    for axis, paths in enumerate(zip(alone, together, strict=True)):
        wanted, found = map(Run.open, paths)
        np.testing.assert_array_equal(np.take(found.phase, 5, axis), plane_of(axis))
        np.testing.assert_array_equal(found.phase, wanted.phase)
        np.testing.assert_array_equal(found.field, wanted.field)
        assert [r["loss"] for r in found.metrics] == [r["loss"] for r in wanted.metrics]
        assert found.summary["conditioning"] == wanted.summary["conditioning"]


# ------------------------------------------------------------------------------------------------ bad input

BAD = {
    "no such file": (None, ["conditioning.path=none.png"], "none.png: expected an image, found no such file"),
    "another size": (
        IMAGE[:9, :9],
        [],
        "expected 16x16 pixels, a plane of the volume normal to z, found 9x9",
    ),
    "a crop outside": (IMAGE[:20, :20], ["conditioning.crop=[8,24,0,16]"], "within rows 0 to 20"),
    "beyond the volume": (IMAGE[:16, :16], ["conditioning.index=16"], "an integer of at most 15"),
    "other phases": (IMAGE[:16, :16] + 3, [], "phases found, 3, 4"),
    "a plane of voxels": (
        np.where(np.eye(16), 1, np.full((16, 16, 16), 255)).astype(np.uint8),
        ["conditioning.axis=y"],
        "conditioning.axis: expected z with the voxels of given.npy, which lie where the volume's do, found y",
    ),
    "a place among voxels": (
        np.where(np.eye(16), 1, np.full((16, 16, 16), 255)).astype(np.uint8),
        ["conditioning.index=3"],
        "conditioning.index: expected 0 with the voxels of given.npy",
    ),
    "another volume": (np.zeros((8, 9, 10), np.uint8), [], "expected 16x16x16 voxels"),
    "floats": (np.zeros((16, 16, 16)), [], "expected integers (labels, 255 where unknown), found float64"),
    "unknown as -1": (
        np.where(np.arange(16) == 4, 1, np.full((16, 16, 16), -1)).astype(np.int16),
        [],
        "expected labels from 0 to 254, and 255 where unknown, found -1; save them as uint8",
    ),
    "a label above 255": (np.arange(4096).reshape(16, 16, 16), [], "255 where unknown, found 256"),
    "all known": (np.zeros((16, 16, 16), np.uint8), [], "found labels everywhere, which leave nothing"),
    "all known, as booleans": (np.zeros((16, 16, 16), bool), [], "found labels everywhere"),
    "a single plane": (
        IMAGE[:16, :16],
        ["volume.size=null", "volume.shape=[16,16]"],
        "expected nothing (null) for a single plane, all of which would be known, found 'given.npy'",
    ),
    "nothing known": (np.full((16, 16, 16), 255, np.uint8), [], "expected known voxels"),
}


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
def test_bad_input(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from mcrdist.__main__ import main

    monkeypatch.chdir(tmp_path)
    array, settings, message = BAD[case]
    Image.fromarray(IMAGE * 255).save("good.png")
    given = []
    if array is not None:
        np.save("given.npy", array)
        given = ["conditioning.path=given.npy"]
    base = ["micrograph.path=good.png", "volume.size=16", "run.dir=out", "micrograph.phase=1"]
    assert main(["reconstruct", *base, *given, *settings]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
    assert not Path("out").exists()


def test_at_the_command_line(tmp_path: Path) -> None:
    Image.fromarray(IMAGE * 255).save(tmp_path / "sem.png")
    settings = [
        "micrograph.path=sem.png", "volume.size=12", "optimizer.iterations=2", "run.dir=out", "runtime.threads=1",
        "conditioning.path=sem.png", "conditioning.axis=y", "conditioning.index=3", "conditioning.crop=[0,12,8,20]",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "mcrdist", "reconstruct", *settings],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(Run.open(tmp_path / "out").phase[:, 3], IMAGE[:12, 8:20])
    assert "What was given" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
