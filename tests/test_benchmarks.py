"""The benchmarks run, and print what README quotes: one JSON line each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def run(root: Path, *command: str) -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, *command], cwd=root, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.strip().splitlines()
    facts: dict[str, Any] = json.loads(line)
    return facts


def test_evaluation(root: Path) -> None:
    facts = run(root, "benchmarks/evaluation.py", "--size", "24", "--lags", "6", "--repeats", "1")
    assert facts["lags"] == 6 and facts["ratio"] > 1.0


@pytest.mark.slow
def test_runs_are_the_same_on_all_ranks(root: Path) -> None:
    facts = run(root, "benchmarks/ranks.py", "--shape", "17", "16", "20", "--", "optimizer.iterations=5")
    assert facts["same_losses"] and facts["same_field"] and facts["same_phase"]
    assert facts["ranks"] == [1, 2, 3] and facts["iterations"] > 5


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
