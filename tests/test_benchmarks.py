"""The benchmarks run, and print what README quotes: one JSON line each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.unmeasured


def run(root: Path, *command: str) -> dict[str, Any]:
    (facts,) = run_all(root, *command)
    return facts


def run_all(root: Path, *command: str) -> list[dict[str, Any]]:
    result = subprocess.run(
        [sys.executable, *command], cwd=root, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.strip().splitlines()]


def test_evaluation(root: Path) -> None:
    facts = run(root, "benchmarks/evaluation.py", "--size", "24", "--lags", "6", "--repeats", "1")
    assert facts["lags"] == 6 and facts["ratio"] > 1.0


@pytest.mark.slow
def test_runs_are_the_same_on_all_ranks(root: Path) -> None:
    brief = ("optimizer.iterations=5", "optimizer.binarize_iterations=4", "optimizer.flip_rounds=20")
    facts = run(root, "benchmarks/ranks.py", "--shape", "17", "16", "20", "--", *brief)
    assert facts["same_losses"] and facts["same_field"] and facts["same_phase"]
    assert facts["ranks"] == [1, 2, 2, 3, 3] and facts["iterations"] > 5
    assert facts["shared_memory"] == [False, True, False, True, False]


@pytest.mark.slow
def test_speed_of_ranks(root: Path) -> None:
    *lines, last = run_all(
        root, "benchmarks/ranks.py", "--speed", "--size", "32", "--rounds", "2", "--iterations", "2"
    )
    ways = ["alone", "side by side", "shared memory", "sockets"]
    assert [line["way"] for line in lines] == 2 * ways
    assert all(line["bytes_sent"] == line["bytes_expected"] for line in lines)
    assert len({line["loss"] for line in lines}) == 1
    assert last["ranks"] == 2 and last["alone"] == 1.0 and all(last[way] > 0.0 for way in ways)


@pytest.mark.parametrize("name", ["convergence", "quality", "patches", "realizable"])
def test_a_micrograph_that_is_not_there_is_told_in_one_line(root: Path, tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "stripes.npy", np.indices((16, 16))[0] % 2)
    command = [f"benchmarks/{name}.py", "--data", str(tmp_path), "--only", "stripes", "strypes"]
    if name != "realizable":
        command += ["--judge", str(root / "benchmarks" / f"{name}.py")]  # a file, which is not called
    done = subprocess.run(
        [sys.executable, *command], cwd=root, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        f"--only strypes: expected the name of a micrograph in {tmp_path}, which has stripes\n"
    )


def test_what_no_volume_can_reach(root: Path, tmp_path: Path) -> None:
    """A checkerboard's planes are those of one in space; stripes run along an axis that two other planes share."""
    cells = np.indices((16, 16)) // 4
    np.save(tmp_path / "checkerboard.npy", cells.sum(0) % 2)
    np.save(tmp_path / "stripes.npy", cells[0] % 2)
    command = (
        "benchmarks/realizable.py",
        "--size",
        "16",
        "--lags",
        "4",
        "--periodic",
        "--data",
        str(tmp_path),
    )
    board, stripes = run_all(root, *command, "--only", "checkerboard", "stripes")
    assert board["nearest"] < 1e-4
    assert 0.05 < stripes["bound"] <= stripes["nearest"] < 1
    z, y, x = stripes["directions"].values()
    assert abs(stripes["bound"] - np.hypot(np.hypot(z, y), x) / 3) < 1e-4


@pytest.mark.slow
def test_quality(root: Path, micrographs_dir: Path) -> None:
    if not (micrographs_dir.parent.parent / "judge" / "judge.py").is_file():
        pytest.skip("no judge")
    facts = run(root, "benchmarks/quality.py", "--only", "ceramics_resized", "--size", "32")
    assert facts["E_S2"] < 0.08 and facts["E_vf"] < 0.05 and facts["grey_fraction"] < 0.02


@pytest.mark.slow
def test_patches(root: Path, micrographs_dir: Path) -> None:
    if not (micrographs_dir.parent.parent / "judge" / "judge.py").is_file():
        pytest.skip("no judge")
    small = ("--only", "ceramics_resized", "--size", "16", "--settings", "corners")
    facts = run(root, "benchmarks/patches.py", *small, "--", "optimizer.iterations=3")
    assert facts["setting"] == "corners" and facts["E_lineal"] > 0.0 and facts["processor_seconds"] > 0.0


def test_analysis(root: Path) -> None:
    pytest.importorskip("distributed")
    facts = run(root, "benchmarks/analysis.py", "--sizes", "32")
    assert facts["size"] == 32 and facts["seconds"] > 0 and facts["memory"] > 0


@pytest.mark.slow
def test_truth(root: Path, micrographs_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("taufactor")
    volumes = micrographs_dir.parent / "volumes"
    if not (volumes / "ketton.zip").is_file():
        pytest.skip("no volumes")
    small = ("--only", "ketton", "--coarsen", "8", "--size", "16", "--keep", str(tmp_path))
    *lines, total, solid, pores = run_all(
        root, "benchmarks/truth.py", *small, "--", "optimizer.iterations=20"
    )
    assert total["benchmark"] == "truth" and total["boxes"] == [8, 1, 1]
    named = {(line["phase"], line["statistic"], line["direction"]): line for line in lines}
    assert len(named) == len(lines) > 50
    counts = [line["nearer"] for line in lines]
    assert (total["nearer"], total["of"]) == (counts.count("ours"), len(counts) - counts.count("-"))
    for line in lines:
        if line["nearer"] != "-" and None not in (line["ours"], line["gaussian"], line["truth"]):
            apart = [abs(line[who] - line["truth"]) for who in ("ours", "gaussian")]
            assert (apart[0] < apart[1]) == (line["nearer"] == "ours")
    flow = [named["solid", "effective diffusivity", axis] for axis in "zyx"]
    assert [line["ours"] / line["truth"] - 1 for line in flow] == pytest.approx(solid["ours"][:3], abs=1e-3)
    assert named["solid", "E(S2 in space)", ""]["truth"] == 0
    assert pores["phase"] == "pores" and len(pores["ours"]) == 4
    # The micrographs are the true volume's planes.
    z, y, x = (np.load(tmp_path / "ketton" / f"plane_{axis}.npy") for axis in "zyx")
    assert np.array_equal(z[16], y[16]) and np.array_equal(z[:, 16], x[16]) and z.shape == (32, 32)
