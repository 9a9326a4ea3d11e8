"""The ways of asking from the command line: every key as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wanted import blobs

import mcrdist
from mcrdist.__main__ import main

QUICK = [
    "volume.size=12", "target.lags=4", "optimizer.iterations=3", "optimizer.binarize_iterations=3",
    "optimizer.flip_rounds=8", "runtime.threads=1", "seed=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Micrographs, and what `characterize` makes of the first two."""
    directory = tmp_path_factory.mktemp("asked")
    for seed, name in enumerate("abc"):
        np.save(directory / f"{name}.npy", blobs((48, 40 + 4 * seed), 3.0, seed))
    done = run(directory, "characterize", "micrograph.path=[a.npy,b.npy]", "target.lags=4", "run.dir=look")
    assert done.returncode == 0, done.stderr
    return directory


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mcrdist", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=directory, check=False)


def summary(directory: Path, name: str, *arguments: str) -> tuple[dict[str, Any], str]:
    """What a run came to, and what it printed."""
    done = run(directory, "reconstruct", *arguments, *QUICK, f"run.dir={name}", "run.report=false")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" or "it/s" in done.stderr
    return json.loads((directory / name / "summary.json").read_text()), done.stdout


def test_several_micrographs_and_their_targets_elsewhere(directory: Path) -> None:
    here, printed = summary(directory, "here", "micrograph.path=[a.npy,b.npy]")
    assert set(here["spread"]) == set("zyx")
    assert all(0.0 < value < 0.5 for value in here["spread"]["z"].values())
    heading, s2 = printed.split("\n\n")[1].splitlines()[:2]
    assert "[of the micrographs]" in heading
    assert f"[{here['spread']['z']['s2']:.2%}]" in s2
    (directory / "elsewhere").mkdir()
    (directory / "elsewhere" / "t.npz").write_bytes((directory / "look" / "targets.npz").read_bytes())
    there, _ = summary(directory / "elsewhere", "there", "target.path=t.npz")
    for key in ("errors", "spread", "volume_fraction"):
        assert here[key] == there[key], key
    ours, theirs = (mcrdist.open(path) for path in (directory / "here", directory / "elsewhere" / "there"))
    np.testing.assert_array_equal(ours.phase, theirs.phase)


def test_two_point_statistics_alone(directory: Path) -> None:
    found, _ = summary(directory, "statistics", "target.path=look/s2_pymks.npy")
    wanted = np.mean([np.load(directory / f"{name}.npy").mean() for name in "ab"])
    assert found["volume_fraction"]["target"]["z"] == pytest.approx(wanted)
    assert len(found["levels"]) == 1
    assert found["volume_fraction"]["rounded"] == pytest.approx(wanted, rel=0.1)


def test_between_two_micrographs(directory: Path) -> None:
    far = ["interpolate.micrograph.path=c.npy", "interpolate.t=0.25"]
    found, _ = summary(directory, "between", "micrograph.path=a.npy", *far)
    near, other = (np.load(directory / f"{name}.npy").mean() for name in "ac")
    assert found["volume_fraction"]["target"]["y"] == pytest.approx(0.75 * near + 0.25 * other)


def test_between_files_and_along_an_axis(directory: Path) -> None:
    files = ["target.path=look/targets.npz", "interpolate.path=look/s2_pymks.npy"]
    summary(directory, "graded", *files, "interpolate.along=y", "interpolate.t=[0,1,0]")
    targets = mcrdist.open(directory / "graded").targets
    assert targets["y/slices/s2"].shape == (12, 9, 5)
    assert "z/slices/s2" not in targets


def test_the_report_of_a_graded_material(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)
    ends = ["micrograph.path=[a.npy,b.npy]", "interpolate.micrograph.path=c.npy", "interpolate.along=z"]
    assert main(["reconstruct", *ends, *QUICK, "run.dir=told"]) == 0
    page = (directory / "told" / "report.html").read_text(encoding="utf-8")
    assert "In brackets: the same distance of the micrographs" in page
    assert "from a.npy to c.npy, t = 0, 1" in page


MISTAKES = {
    "image for targets": (["target.path=a.npy"], "for an image use micrograph.path"),
    "both": (
        ["micrograph.path=a.npy", "target.path=look/targets.npz"],
        "micrograph.path: expected its default",
    ),
    "nothing there": (
        ["target.path=none.npz"],
        "target.path: expected a file of targets, found no such file",
    ),
    "one of several": (
        ["micrograph.path=[a.npy,none.npy]"],
        "none.npy: expected an image, found no such file",
    ),
    "empty list": (["micrograph.path=[,]"], "micrograph.path: expected the path of an image, or a list"),
    "levels": (["target.path=look/s2_pymks.npy", "levels.count=2"], "levels.count: expected 1 or null"),
    "coarsest": (["target.path=look/s2_pymks.npy", "levels.coarsest=6"], "levels.coarsest: expected null"),
    "t": (["micrograph.path=a.npy", "interpolate.t=0.5"], "interpolate.t: expected null without"),
    "a plane": (
        [
            "micrograph.path=a.npy",
            "interpolate.micrograph.path=b.npy",
            "interpolate.along=y",
            "volume.size=null",
            "volume.shape=[12,12]",
        ],
        "interpolate.along: expected null for a single plane",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_in_one_line_and_leave_nothing(
    name: str, directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, said = MISTAKES[name]
    monkeypatch.chdir(directory)
    assert main(["reconstruct", *QUICK, *arguments, "run.dir=mistake"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("mcrdist: error: ") and err.count("\n") == 1
    assert said in err
    assert not (directory / "mistake").exists()


def test_from_python(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = (np.load(directory / f"{name}.npy") for name in "ab")
    run = mcrdist.reconstruct(*QUICK, micrograph=[one, two], run={"dir": "out", "report": False})
    assert run.summary["spread"]["z"]["s2"] > 0.0
    assert run.config["micrograph"]["path"] == ["<array 48x40 uint8>", "<array 48x44 uint8>"]
