"""The paper's experiments: presets and list make sense, runs are made once, the page tells what they left."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mcrdist.commands.compose import compose, experiments
from mcrdist.config import from_mapping

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "benchmarks" / "paper.yaml"
#: As large as is seen through in seconds.
TINY = """\
attribution: Mine.
gallery:
- {run: small-easy, caption: "easy, 16³"}
- {run: small-long, caption: "not there"}
figures:
- id: fig02
  title: "Fig. 2"
  text: A board.
  measure: [curve]
  runs:
  - {name: board, label: "gradient", minutes: 0.1, settings: "+experiment=fig02_gradient volume.shape=[16,16]
      target.lags=8 optimizer.iterations=20"}
  - {name: swaps, label: "swaps", minutes: 0.1, settings: "+experiment=fig02_annealing volume.shape=[16,16]
      target.lags=8 optimizer.iterations=4"}
- id: fig11
  title: "Fig. 11"
  text: Materials.
  show: 2
  common: "volume.size=16 target.lags=6 optimizer.iterations=8 runtime.threads=1"
  runs:
  - name: small-{material}
    label: "{material}"
    each: {material: [there, gone]}
    minutes: 0.1
    measure: [gram]
    paper: {there: {s2: 1.0e-6}, gone: {s2: 0.5}}
    settings: "micrograph.path={data}/{material}.npy"
  - name: small-easy
    label: "easy"
    minutes: 0.1
    paper: {s2: 0.9}
    parts: {across: {directions: [x], s2: 0.2}}
    settings: "micrograph.path={data}/there.npy seed=1"
  - {name: small-long, label: "long", minutes: 90, settings: "micrograph.path={data}/there.npy seed=2"}
- id: ensemble
  title: "Ensemble"
  text: Two.
  runs:
  - {name: small-easy}
  - {name: small-there}
- id: table1
  title: "Table 1"
  text: Times.
  runs:
  - {name: small-easy, paper: {minutes: [20, 25], iterations: [1000, 1000]}}
"""


def python(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False, env=os.environ | environment
    )


def listed(*arguments: object) -> list[tuple[float, list[str]]]:
    """Minutes and overrides of each run of the list."""
    done = python(ROOT / "benchmarks" / "paper.py", "--list", *arguments)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" min  mcrdist reconstruct ") for line in done.stdout.splitlines()]
    return [(float(minutes), shlex.split(command)) for minutes, command in lines]


@pytest.mark.parametrize("name", experiments())
def test_every_preset_composes(name: str) -> None:
    composed = compose("reconstruct", [f"+experiment={name}"])
    if composed["micrograph"]["path"] is None:
        composed["micrograph"]["path"] = "synthetic:gaussian"
    if composed["volume"]["size"] is None and composed["volume"]["shape"] is None:
        composed["volume"]["size"] = 32
    from_mapping(composed)


def test_every_preset_of_the_paper_is_listed() -> None:
    used = {
        value for _, settings in listed() for value in re.findall(r"\+experiment=(\w+)", " ".join(settings))
    }
    others = {"anisotropic", "gram", "large", "quick"}
    assert used == set(experiments()) - others


def test_every_command_is_accepted() -> None:
    runs = listed()
    assert [minutes for minutes, _ in runs] == sorted(minutes for minutes, _ in runs)
    places = [from_mapping(compose("reconstruct", settings)).run.dir for _, settings in runs]
    assert len(set(places)) == len(places) > 50
    assert all(place is not None and place.startswith("paper/") for place in places)


def test_the_papers_figures_are_all_there() -> None:
    content = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    said = " ".join(figure["title"] for figure in content["figures"])
    for what in ("Fig. 2", "Fig. 6 and 7", "Fig. 8", "Fig. 9", "Fig. 10", "Fig. 11 and Table 2", "Table 1"):
        assert what in said


def test_a_name_that_nothing_has() -> None:
    done = python(ROOT / "benchmarks" / "paper.py", "--only", "fig66")
    assert done.returncode == 2 and "--only fig66: expected one of " in done.stderr and not done.stdout
    assert len(listed("--only", "fig09", "fig10")) == 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The runs of the tiny list, and what was told of them."""
    place = tmp_path_factory.mktemp("paper")
    (place / "tiny.yaml").write_text(TINY)
    rng = np.random.default_rng(0)
    waves = np.sin(np.arange(32) / 32 * 4 * np.pi + rng.uniform(0, 7))
    np.save(place / "there.npy", (waves[:, None] * waves > 0.2).astype(np.uint8))
    return place, run(place)


def options(place: Path) -> Sequence[object]:
    return ("--out", place / "out", "--experiments", place / "tiny.yaml")


def page_of(place: Path, experiments: Path, out: Path) -> str:
    """The page that comes of the records in `place` and of new ones in `out`."""
    (place / "README.md").write_text("before\n<!-- gallery -->\nold\n<!-- /gallery -->\nafter\n")
    page = place / "docs" / "results.md"
    page.parent.mkdir(exist_ok=True)
    done = python(
        *(ROOT / "benchmarks" / "results_page.py", "--out", out, "--experiments", experiments),
        *("--records", place / "kept.jsonl", "--page", page, "--readme", place / "README.md"),
    )
    assert done.returncode == 0, done.stderr
    return page.read_text(encoding="utf-8")


def run(place: Path) -> list[dict[str, Any]]:
    (place / "cache").mkdir(exist_ok=True)  # without the network: Gram matrices are not measured
    done = python(
        ROOT / "benchmarks" / "paper.py",
        *options(place),
        *("--data", place, "--judge", place / "none.py"),
        MCRDIST_CACHE=str(place / "cache"),
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_runs_are_made_once(made: tuple[Path, list[dict[str, Any]]]) -> None:
    place, told = made
    status = {facts["run"]: facts["status"] for facts in told}
    assert status == {
        "board": "complete",
        "swaps": "complete",
        "small-there": "complete",
        "small-easy": "complete",
        "small-gone": "absent",
        "small-long": "left out",
    }
    (absent,) = [facts for facts in told if facts["status"] == "absent"]
    assert "gone.npy" in absent["message"]
    before = {path: path.stat().st_mtime_ns for path in (place / "out").rglob("summary.json")}
    again = run(place)
    assert again == told and len(before) == 4
    assert before == {path: path.stat().st_mtime_ns for path in (place / "out").rglob("summary.json")}


@pytest.mark.slow
def test_the_page_tells_what_the_runs_left(made: tuple[Path, list[dict[str, Any]]]) -> None:
    place, _ = made
    text = page_of(place, place / "tiny.yaml", place / "out")
    page, readme = place / "docs" / "results.md", place / "README.md"
    assert readme.read_text().splitlines() == [
        *("before", "<!-- gallery -->", "| easy, 16³ |", "|---|"),
        *("| ![easy, 16³](docs/results/small-easy.png) |", "", "Mine.", "<!-- /gallery -->", "after"),
    ]
    for name in re.findall(r"\]\((results/[^)]+)\)", text):
        assert (page.parent / name).stat().st_size > 500
    assert {path.name for path in page.with_suffix("").iterdir()} == {
        *("fig02.svg", "errors.svg", "small-there.png", "small-easy.png")
    }
    summary = json.loads((place / "out" / "small-easy" / "summary.json").read_text())
    mean = float(np.mean([errors["s2"] for errors in summary["errors"]["rounded"].values()]))
    (row, *_) = [line for line in text.splitlines() if line.startswith("| easy |")]
    assert f"{100 * mean:.1f}\u00a0%" in row or f"{100 * mean:.2f}\u00a0%" in row
    # What is worse than the paper is said to be, and what is not there, too.
    (said,) = [line for line in text.splitlines() if line.startswith("E(S₂) of the relaxed field")]
    assert "at or below it for easy (" in said and "**worse** for there (" in said
    assert "| easy: across | x |" in text
    assert "**Not run:** gone; long." in text
    for line in (place / "kept.jsonl").read_text(encoding="utf-8").splitlines():
        assert json.loads(line)["command"] in text
    assert "1.2 s to 1.5 s" in text
    assert "E(G)" not in "".join(line for line in text.splitlines() if line.startswith("| run"))


@pytest.mark.slow
def test_a_run_with_other_settings_is_left_alone(made: tuple[Path, list[dict[str, Any]]]) -> None:
    place, _ = made
    (place / "other.yaml").write_text(TINY.replace("there.npy seed=1", "there.npy seed=7"))
    kept = (place / "out" / "small-easy.json").read_text()
    given = ("--out", place / "out", "--experiments", place / "other.yaml", "--data", place)
    done = python(ROOT / "benchmarks" / "paper.py", *given, "--only", "small-easy")
    assert done.returncode == 1
    facts = json.loads(done.stdout)
    assert facts["status"] == "failed" and "seed=1 there and 7 here" in facts["message"]
    (place / "out" / "small-easy.json").write_text(kept)


@pytest.mark.slow
def test_what_was_told_of_runs_outlives_them(made: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    place, _ = made
    first = page_of(tmp_path, place / "tiny.yaml", place / "out")
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "docs" / "results").iterdir()}
    kept = (tmp_path / "kept.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["run"] for line in kept.splitlines()] == [
        *("board", "swaps", "small-there", "small-easy")  # in the order of the list
    ]
    assert page_of(tmp_path, place / "tiny.yaml", tmp_path / "nothing") == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "docs" / "results").iterdir()} == pictures
    assert (tmp_path / "kept.jsonl").read_text(encoding="utf-8") == kept


@pytest.mark.slow
def test_a_new_run_takes_the_place_of_an_old_one(
    made: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    place, _ = made
    first = page_of(tmp_path, place / "tiny.yaml", place / "out")
    (tmp_path / "out").mkdir()
    new = json.loads((place / "out" / "small-there.json").read_text())
    new["errors"]["last"]["s2"] = 0.4321
    (tmp_path / "out" / "small-there.json").write_text(json.dumps(new))
    (tmp_path / "out" / "small-there.png").write_bytes(b"new")
    second = page_of(tmp_path, place / "tiny.yaml", tmp_path / "out")
    assert "43.2\u00a0%" in second and "43.2\u00a0%" not in first
    rows = [[line for line in text.splitlines() if line.startswith("| easy ")] for text in (first, second)]
    assert rows[0] == rows[1]
    assert (tmp_path / "docs" / "results" / "small-there.png").read_bytes() == b"new"


@pytest.mark.slow
def test_a_run_whose_preset_has_changed_since_is_not_told_of(
    made: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    place, _ = made
    page_of(tmp_path, place / "tiny.yaml", place / "out")
    kept = (tmp_path / "kept.jsonl").read_text(encoding="utf-8")
    presets = {one["run"]: one["preset"] for one in map(json.loads, kept.splitlines())}
    assert len(set(presets.values())) == 3 and not presets["small-easy"]  # two presets, and none
    (tmp_path / "kept.jsonl").write_text(kept.replace(presets["swaps"], "0" * 12), encoding="utf-8")
    assert "**Not run:** swaps." in page_of(tmp_path, place / "tiny.yaml", tmp_path / "nothing")


@pytest.mark.slow
def test_a_run_that_the_list_has_changed_since_is_not_told_of(
    made: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    place, _ = made
    changed = tmp_path / "tiny.yaml"
    changed.write_text(TINY.replace("there.npy seed=1", "there.npy seed=7"))
    text = page_of(tmp_path, changed, place / "out")
    assert "**Not run:** gone; easy; long." in text
    assert "small-easy" not in (tmp_path / "kept.jsonl").read_text(encoding="utf-8")
    assert not (tmp_path / "docs" / "results" / "small-easy.png").exists()
