"""Disks that fill up, or may not be written to, under a whole run: one line, and the run goes on when there is room."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import in_child, remount, small_disk
from interrupted import CASES, conduct, cut_short, has_result, same

from mcrdist.__main__ import main
from mcrdist.errors import InputError
from mcrdist.store.run import Run
from mcrdist.store.verify import verify

pytestmark = pytest.mark.usefixtures("quick_disk")


def command(place: Path, *more: str) -> list[str]:
    return [
        "reconstruct", "micrograph.path=synthetic:discs", "volume.size=16", "optimizer.iterations=6",
        "optimizer.binarize_iterations=4", "optimizer.flip_rounds=20", "runtime.threads=1", "run.report=false",
        "checkpoint.every=0.01s", f"run.dir={place}", *more,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_disk_that_fills_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whenever it does: exit status 2, one line, and with more room the run ends with the bits of a whole one."""
    assert main(command(tmp_path / "whole")) == 0
    wanted = Run.open(tmp_path / "whole")
    capsys.readouterr()
    with small_disk(tmp_path / "small", "16k"):
        place = tmp_path / "small" / "run"
        failed = 0
        for kilobytes in (*range(16, 400, 24), *range(400, 4000, 200)):
            remount(place.parent, f"size={kilobytes}k")
            status = main(command(place, "resume=true"))
            told = capsys.readouterr()
            if status == 0:
                break
            failed += 1
            assert status == 2 and told.err.count("\n") == 1, told.err
            assert "full" in told.err
            assert not has_result(place)
        assert failed > 3
        same(Run.open(place), wanted)
        assert verify(place).problems == []


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A run that was cut short, on a disk that may not be written to."""
    with small_disk(tmp_path / "disk", "20m"):
        cut_short(tmp_path / "disk" / "run")
        remount(tmp_path / "disk", "ro")
        yield tmp_path / "disk"


def test_a_disk_that_may_not_be_written_to(read_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(read_only / "new")) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("mcrdist: error: run.dir"), told
    assert "Read-only file system" in told
    with pytest.raises(InputError, match=r"^run\.dir: .*Read-only file system"):
        conduct(read_only / "run", resume=True, **CASES["levels"])
    assert verify(read_only / "run").problems == []
    remount(read_only, "rw")
    assert conduct(read_only / "run", resume=True, **CASES["levels"]).summary["status"] == "complete"


def test_a_directory_that_may_not_be_written_to() -> None:
    """By a user who is not the superuser, whom no permissions stop."""

    def refused() -> None:
        with pytest.raises(InputError, match=r"^run\.dir: .*Permission denied"):
            conduct(place, resume=True, **CASES["levels"])

    def nobody() -> None:
        os.setgid(65534)
        os.setuid(65534)
        refused()

    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        place = cut_short(Path(open_to_all) / "run")
        for path in (place, *place.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            if os.getuid():
                refused()
            else:
                assert in_child(nobody) == 0
        finally:
            for path in (place, *place.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
        assert verify(place).problems == []
