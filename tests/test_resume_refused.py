"""What a run does not go on with: other settings, another micrograph, beside another job."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from faults import flip
from interrupted import CASES, Stop, conduct, everything
from test_reconstruct import IMAGE

import mcrdist
from mcrdist.__main__ import main
from mcrdist.begun import as_begun, check
from mcrdist.commands.resume import together
from mcrdist.config import ReconstructConfig, from_mapping, to_mapping
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


def test_torchruns_restart_goes_on_with_its_own_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It knows the directory by name, and somebody may have left another run there."""
    place = tmp_path / "out"
    with monkeypatch.context() as patch:
        Stop(patch, 3)
        assert main(command_line(place)) == 130
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    others = ["seed=5", "volume.size=13", "method=gaussian", "micrograph.path=synthetic:gaussian"]

    def is_refused() -> None:
        before = {path: path.read_bytes() for path in everything(place)}
        capsys.readouterr()
        assert main([*command_line(place), *others]) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"mcrdist: error: method: expected the settings of the run in {place}, found ")
        assert told.endswith("; give the same, or choose another run.dir\n") and told.count("\n") == 1
        for changed in ("seed=0 there and 5 here", "volume.shape=[12, 12, 12] there and [13, 13, 13] here"):
            assert changed in told
        assert {path: path.read_bytes() for path in everything(place)} == before
        assert not (place / "lock").exists()

    is_refused()
    free = ["runtime.timeout=30", "checkpoint.every=1h"]
    assert main([*command_line(place), *free]) == 0
    assert Run.open(place).summary["status"] == "complete"
    is_refused()
    assert main(command_line(place)) == 0  # it had finished before it was lost
    flip(place / "config.yaml", 8 * 40 + 1)
    capsys.readouterr()
    assert main(command_line(place)) == 2
    assert f"{place / 'config.yaml'}: expected its checksum" in capsys.readouterr().err


def test_what_a_budget_chose_is_not_what_was_given() -> None:
    def configuration(history: int, dtype: str | None, budget: str | None) -> ReconstructConfig:
        optimizer = {"history": history, "history_dtype": dtype}
        return from_mapping(
            {
                "micrograph": {"path": "a.png"},
                "volume": {"size": 12},
                "optimizer": optimizer,
                "memory": {"budget": budget},
            }
        )

    given, begun = configuration(8, None, "2GiB"), configuration(3, "bfloat16", "1GiB")
    check(Path("run"), begun, as_begun(given, begun), "")
    for other, run in (
        (given, configuration(3, "bfloat16", None)),
        (configuration(8, None, None), begun),
        (configuration(2, None, "2GiB"), begun),
        (configuration(8, "float32", "2GiB"), begun),
    ):
        with pytest.raises(InputError, match=r"^optimizer\.history"):
            check(Path("run"), run, as_begun(other, run), "")


def test_a_setting_that_the_run_did_not_know_is_as_usual() -> None:
    stored = to_mapping(from_mapping({"micrograph": {"path": "a.png"}, "volume": {"size": 12}}))
    del stored["descriptors"]["s3"]["every"]
    assert from_mapping(together(Path("run"), stored, {}, Path("run/config.yaml"))).descriptors.s3.every == 1
    with pytest.raises(InputError, match=r"^descriptors\.s3\.every: .*1 there and 2 here"):
        together(Path("run"), stored, {"descriptors": {"s3": {"every": 2}}}, Path("run/config.yaml"))


def test_another_micrograph_is_refused(cut: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(cut, place)
    other = np.roll(IMAGE, 7, axis=0) ^ (np.random.default_rng(0).random(IMAGE.shape) < 0.02)
    with pytest.raises(InputError, match="micrograph: expected the one that the run"):
        conduct(place, resume=True, **CASES["levels"], micrograph={"image": other.astype(np.uint8)})
    with pytest.raises(InputError, match="give it again there"):
        mcrdist.reconstruct(f"run.dir={place}", "resume=true")


def test_other_greys_of_the_same_phases_are_the_same_micrograph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "run"
    strong = (20 + 90 * IMAGE).astype(np.uint8)
    weak, how = strong // 2 + 40, {"segmentation": "threshold", "threshold": 60}
    with monkeypatch.context() as patch:
        Stop(patch, 3)
        conduct(place, micrograph={"image": strong, **how})
    assert Run.open(place).targets["z/grey"].min() == 20
    run = conduct(place, resume=True, micrograph={"image": weak, **how})
    assert run.summary["status"] == "complete"


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


def test_a_directory_in_use_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="expected a new or empty directory"):
        mcrdist.reconstruct(micrograph="absent.png", volume={"size": 8}, run={"dir": tmp_path})
