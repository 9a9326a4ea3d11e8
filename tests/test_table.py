"""README's tables are made from the benchmarks' JSON lines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

QUALITY = {
    "benchmark": "quality",
    "micrograph": "steel",
    "size": 96,
    "E_S2": 0.01234,
    "E_V": 0.002,
    "E_vf": 0.00004,
    "E_lineal": 0.051,
    "grid_imprint": 1.0049,
    "grey_fraction": 0.0,
    "seconds": 61.6,
    "memory_GB": 0.9,
}
TEXT = "before\n<!-- table: quality -->\n| old |\n<!-- /table -->\nafter\n<!-- table: plan -->\n<!-- /table -->\nend\n"
PLAN = {
    "benchmark": "plan",
    "size": 512,
    "machine": "32 GB of a CPU's",
    "ranks": 2,
    "memory": 12_046_041_088,
    "sent": 0,
    "fft_flop": 3.6238e10,
    "volume": 999_600_000,
    "checkpoint": 4.9478e12,
}


def table(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "benchmarks" / "table.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    readme, results = tmp_path / "README.md", tmp_path / "results.jsonl"
    readme.write_text(TEXT)
    lines = [{**QUALITY, "E_S2": 0.5}, {**QUALITY, "micrograph": "rock", "E_V": None}, QUALITY, PLAN]
    results.write_text("\n\n".join(json.dumps(line) for line in lines))
    return readme, results


def test_tables_are_filled_and_nothing_else(root: Path, files: tuple[Path, Path]) -> None:
    readme, results = files
    given = ("--readme", str(readme), "--results", str(results))
    assert table(root, "--check", *given).returncode == 1
    assert readme.read_text() == TEXT
    assert table(root, *given).returncode == 0
    lines = readme.read_text().splitlines()
    assert lines[:3] == [
        "before",
        "<!-- table: quality -->",
        "| micrograph | volume | E(S₂) | E(V) | E(φ) | lineal path | grid imprint "
        "| grey before rounding | time | memory |",
    ]
    assert lines[3] == "|---" * 10 + "|"
    # The last line of a thing counts, in the place of its first.
    assert lines[4] == "| steel | 96³ | 1.23% | 0.20% | 0.004% | 5.1% | 1.005 | 0.00% | 62 s | 0.90 GB |"
    assert lines[5].startswith("| rock | 96³ | 1.23% | - |")
    assert lines[6:8] == ["<!-- /table -->", "after"]
    assert lines[11] == "| 512³ | 32 GB of a CPU's | 2 | 12 GB | 0 B | 0.0362 TFLOP | 1 GB | 4.95 TB |"
    assert lines[-2:] == ["<!-- /table -->", "end"]
    assert table(root, "--check", *given).returncode == 0


def test_one_table(root: Path, files: tuple[Path, Path]) -> None:
    shown = table(root, "--print", "plan", "--results", str(files[1]))
    assert shown.returncode == 0 and len(shown.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ('{"benchmark": "quality"', ':1: expected a JSON object with "benchmark"'),
        ('{"micrograph": 3}', ':1: expected a JSON object with "benchmark"'),
        (json.dumps(QUALITY), "plan: expected results, found none"),
    ],
)
def test_bad_results_change_nothing(root: Path, files: tuple[Path, Path], results: str, message: str) -> None:
    readme, path = files
    path.write_text(results)
    done = table(root, "--readme", str(readme), "--results", str(path))
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert readme.read_text() == TEXT


@pytest.mark.parametrize("page", ["README.md", "docs/truth.md"])
def test_pages_have_the_tables_of_the_results(root: Path, page: str) -> None:
    done = table(root, "--check", "--readme", str(root / page))
    assert done.returncode == 0, f"run python benchmarks/table.py --readme {page}"


def test_the_planned_table_is_what_plan_says(root: Path) -> None:
    command = [sys.executable, str(root / "benchmarks" / "plan.py"), "--sizes", "512"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    results = (root / "benchmarks" / "results.jsonl").read_text().splitlines()
    assert all(line in results for line in done.stdout.splitlines()), (
        "python benchmarks/plan.py and table.py again"
    )
