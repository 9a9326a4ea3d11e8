"""What a run does not go on with: other settings, another micrograph, beside another job."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from interrupted import CASES, Stop, conduct, everything
from test_reconstruct import IMAGE

import mcrdist
from mcrdist.__main__ import main
from mcrdist.commands.resume import together
from mcrdist.config import from_mapping, to_mapping
from mcrdist.errors import InputError
from mcrdist.store.lock import Lock
from mcrdist.store.run import Run

pytestmark = pytest.mark.usefixtures("quick_disk")


def command_line(directory: Path) -> list[str]:
    return [
        "reconstruct", "micrograph.path=synthetic:discs", "volume.size=12", "optimizer.iterations=3",
        "run.report=false", "runtime.threads=1", f"run.dir={directory}",
    ]  # fmt: skip


def test_resume_alone_suffices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "out"
    with monkeypatch.context() as patch:
        Stop(patch, 3)
        assert main(command_line(place)) == 130
    for changed, key in (
        ("seed=3", "seed"),
        ("volume.size=13", "volume.shape"),
        ("optimizer.history=5", "optimizer.history"),
    ):
        capsys.readouterr()
        assert main(["reconstruct", f"run.dir={place}", "resume=true", changed]) == 2
        told = capsys.readouterr().err
        assert (
            told.startswith(f"mcrdist: error: {key}: expected the settings of the run")
            and told.count("\n") == 1
        )
    free = ["checkpoint.every=1h", "runtime.shared_memory=false", "runtime.timeout=30"]
    assert main([*command_line(place), "resume=true", *free]) == 0
    assert Run.open(place).summary["status"] == "complete"
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in everything(place)}
    assert main(["reconstruct", f"run.dir={place}", "resume=true"]) == 0
    assert "is complete: nothing is left to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in everything(place)} == before
    assert main(["reconstruct", f"run.dir={tmp_path / 'none'}", "resume=true"]) == 2
    assert "expected a run to go on with" in capsys.readouterr().err
    assert main(["reconstruct", "resume=true"]) == 2
    assert main([*command_line(place), "seed=1,2", "resume=true", "-m"]) == 2


def test_a_setting_that_the_run_did_not_know_is_as_usual() -> None:
    stored = to_mapping(from_mapping({"micrograph": {"path": "a.png"}, "volume": {"size": 12}}))
    del stored["descriptors"]["s3"]["every"]
    assert from_mapping(together(Path("run"), stored, {})).descriptors.s3.every == 1
    with pytest.raises(InputError, match=r"^descriptors\.s3\.every: .*1 there and 2 here"):
        together(Path("run"), stored, {"descriptors": {"s3": {"every": 2}}})


def test_another_micrograph_is_refused(cut: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(cut, place)
    other = np.roll(IMAGE, 7, axis=0) ^ (np.random.default_rng(0).random(IMAGE.shape) < 0.02)
    with pytest.raises(InputError, match="micrograph: expected the one that the run"):
        conduct(place, resume=True, **CASES["levels"], micrograph={"image": other.astype(np.uint8)})
    with pytest.raises(InputError, match="give it again there"):
        mcrdist.reconstruct(f"run.dir={place}", "resume=true")


def test_a_run_is_one_jobs_alone(cut: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(cut, place)
    ready = tmp_path / "ready"

    def hold() -> None:
        Lock(place)
        ready.touch()
        time.sleep(60)

    child = os.fork()
    if child == 0:
        hold()
        os._exit(0)
    try:
        while not ready.exists():
            time.sleep(0.01)
        for more in ({"resume": True}, {}):
            with pytest.raises(InputError, match=f"expected no other job at work.*process {child} on "):
                conduct(place, **CASES["levels"], **more)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert (place / "lock").is_file()  # left by the kill, and held by nobody
    assert conduct(place, resume=True, **CASES["levels"]).summary["status"] == "complete"
    assert not (place / "lock").exists()
