"""A sweep that goes on: what is finished stays, what was cut short goes on, and other sweeps are refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interrupted import interrupted_after
from ranks import run_ranks

import mcrdist
from mcrdist.__main__ import main
from mcrdist.errors import InputError
from mcrdist.store import Run, sweepfile
from mcrdist.store.lock import Lock

IMAGE = (np.random.default_rng(0).random((24, 24)) > 0.6).astype(np.uint8)
SMALL: dict[str, Any] = {"volume": {"size": 8}, "optimizer": {"iterations": 2}, "runtime": {"threads": 1}}


def swept(out: Path, *overrides: str, **more: Any) -> list[Run]:
    return mcrdist.sweep(
        *overrides, micrograph=IMAGE, run={"dir": str(out), "report": False}, **(SMALL | more)
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of three runs that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert len(swept(out, "seed=0,1,2")) == 3
    return out


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, ended after its first run."""
    out = tmp_path_factory.mktemp("begun") / "out"
    with pytest.MonkeyPatch.context() as patch:
        interrupted_after(patch, 1)
        assert len(swept(out, "seed=0,1,2")) == 1
    return out


@pytest.fixture
def cut(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun, tmp_path / "cut"))


def phases(out: Path) -> list[np.ndarray]:
    return [Run.open(out / run.dir).phase for run in sweepfile.read(out)]


def test_all_runs_are_known_before_they_are_made(cut: Path, whole: Path) -> None:
    planned = sweepfile.read(cut)
    assert [run.dir for run in planned] == ["seed=0", "seed=1", "seed=2"]
    assert [run.settings["seed"] for run in planned] == [0, 1, 2]
    assert [run.summary is None for run in planned] == [False, True, True]
    assert (cut / "REQUEUE").read_text().endswith("resume=true\n")
    assert not (whole / "REQUEUE").exists() and not (whole / "lock").exists()
    assert all(run.summary is not None for run in sweepfile.read(whole))


@pytest.mark.parametrize("values", [["seed=0,1,2"], ["seed=range(0,3)"], []], ids=["given", "range", "none"])
def test_what_is_left_is_made(cut: Path, whole: Path, values: list[str]) -> None:
    first = os.stat(cut / "seed=0/summary.json").st_mtime_ns
    runs = swept(cut, *values, resume=True)
    assert [run.path.name for run in runs] == ["seed=0", "seed=1", "seed=2"]
    assert os.stat(cut / "seed=0/summary.json").st_mtime_ns == first
    for one, other in zip(phases(cut), phases(whole), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not (cut / "REQUEUE").exists()


def goes_on(out: str) -> list[str]:
    return [run.path.name for run in swept(Path(out), resume=True)]


def test_other_ranks_go_on_with_it(cut: Path, whole: Path) -> None:
    assert run_ranks(goes_on, 2, str(cut)) == [["seed=0", "seed=1", "seed=2"]] * 2
    for one, other in zip(phases(cut), phases(whole), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_was_made_is_remembered_when_it_ends_early_again(
    cut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept(cut, resume=True)
    (cut / "seed=2/summary.json").unlink()  # that would be read by a run that comes to it
    interrupted_after(monkeypatch, 1)
    assert len(swept(cut, resume=True)) == 1
    assert all(run.summary is not None for run in sweepfile.read(cut))
    assert (cut / "REQUEUE").exists()


@pytest.mark.parametrize(
    ("values", "more", "message"),
    [
        (["seed=0,1"], {}, r"expected the values of the sweep .* seed=0 seed=1 seed=2 \(3\), found seed=0"),
        (["seed=0,1,2"], {"optimizer": {"iterations": 3}}, "optimizer.iterations=2 there and 3 here"),
        ([], {"volume": {"size": 10}}, r"volume.shape=\[8, 8, 8\] there and \[10, 10, 10\] here"),
    ],
)
def test_other_settings_are_refused(cut: Path, values: list[str], more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        swept(cut, *values, resume=True, **more)
    assert (cut / "REQUEUE").exists() and not (cut / "seed=1").exists()


def test_threads_may_be_others(cut: Path) -> None:
    assert len(swept(cut, resume=True, runtime={"threads": 2, "timeout": 77})) == 3


def test_the_array_must_be_given_again(cut: Path) -> None:
    with pytest.raises(InputError, match="expected the array"):
        mcrdist.sweep(run={"dir": cut}, resume=True)


def test_one_job_at_a_time(cut: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mcrdist.store.lock import Lock; Lock(Path(sys.argv[1]))"
    )
    held = [sys.executable, "-c", f"{code}; print(); input()", str(cut)]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        holder.stdout.readline()
        with pytest.raises(InputError, match="expected no other job at work"):
            swept(cut, resume=True)
        holder.stdin.close()
    Lock(cut).release()


def test_killed_while_it_got_ready(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "lock").touch()
    (out / ".sweep.json.77.tmp").touch()
    assert len(swept(out, "seed=0,1")) == 2


def test_files_of_somebody_else_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(InputError, match="expected a new or empty directory for the sweep"):
            swept(out, "seed=0,1", resume=resume)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_one_that_is_not_there_is_begun(tmp_path: Path) -> None:
    assert len(swept(tmp_path / "out", "seed=0,1", resume=True)) == 2


def test_a_sweep_is_no_run(cut: Path) -> None:
    with pytest.raises(InputError, match=r"found the sweep .*mcrdist\.sweep"):
        mcrdist.reconstruct(run={"dir": cut}, resume=True)
    with pytest.raises(InputError, match=r"found a sweep; name one of its runs: seed=0$"):
        mcrdist.open(cut)


def test_a_sweep_without_a_run_has_no_report(cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = json.loads((cut / "sweep.json").read_text())
    written["runs"][0]["summary"] = None
    (cut / "sweep.json").write_text(json.dumps(written))
    assert main(["report", f"run.dir={cut}"]) == 2
    assert "expected a sweep with a run that was made, found none of 3" in capsys.readouterr().err


def test_at_the_command_line(tmp_path: Path) -> None:
    """Ctrl-C in the first run; then as the last words say."""
    np.save(tmp_path / "image.npy", IMAGE)
    mcrdist_ = [sys.executable, "-m", "mcrdist", "reconstruct"]
    settings = [
        "micrograph.path=image.npy",
        "volume.size=16",
        "runtime.threads=1",
        "optimizer.iterations=3000",
    ]
    more = ["levels.count=1", "run.report=false", "seed=0,1", "-m", "run.dir=out"]
    process = subprocess.Popen(
        [*mcrdist_, *settings, *more], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "out/seed=0/metrics.jsonl"
    until = time.monotonic() + 120
    while not metrics.is_file() or not metrics.stat().st_size:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.splitlines()[-1].endswith("reconstruct run.dir=out resume=true")
    assert "(1 of 2 runs)" in said
    assert (tmp_path / "out/REQUEUE").exists() and (tmp_path / "out/seed=0/REQUEUE").exists()
    refused = subprocess.run(
        [*mcrdist_, "run.dir=out", "resume=true", "optimizer.iterations=5"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "optimizer.iterations=3000 there and 5 here" in refused.stderr
