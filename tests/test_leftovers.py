"""A run that was killed while it got ready begins again; what is not left of such a one stays as it is."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import Crash, in_child
from interrupted import CASES, conduct, everything

from mcrdist.__main__ import main
from mcrdist.errors import InputError
from mcrdist.parallel.meeting import has_the_word
from mcrdist.reconstruct import _Conductor
from mcrdist.store import checksums, leftovers
from mcrdist.store.checksums import CHECKSUMS
from mcrdist.store.run import is_half_written
from mcrdist.store.verify import verify

pytestmark = pytest.mark.usefixtures("quick_disk")

RESTARTED = "TORCHELASTIC_RESTART_COUNT"


class Killed(BaseException):
    """Stands for the end of a process: nobody cleans up but the operating system, which lets go of the lock."""


def killed(*_: Any, **__: Any) -> None:
    raise Killed


def get_ready(place: Path, **more: Any) -> None:
    """A run up to its first iteration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Conductor, "_solve", killed)
        with pytest.raises(Killed):
            conduct(place, **CASES["levels"], **more)


def almost_ready(place: Path) -> Path:
    """All that a run makes before its checksums."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checksums, "seal", killed)
        get_ready(place)
    assert not (place / CHECKSUMS).exists() and (place / "volume.zarr").is_dir()
    return place


def contents(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in everything(place)}


def refused(place: Path, found: str) -> None:
    """Whoever asks, nothing in the directory changes."""
    before = contents(place)
    for more in ({"resume": True}, {}):
        with pytest.MonkeyPatch.context() as patch:
            if not more:
                patch.setenv(RESTARTED, "1")
            with pytest.raises(InputError) as caught:
                conduct(place, **CASES["levels"], **more)
        told = str(caught.value)
        assert told.startswith(f"run.dir: expected a run to go on with in {place}, found no {CHECKSUMS} but ")
        assert found in told and "\n" not in told
        assert contents(place) == before
        assert not (place / "lock").exists()


@pytest.mark.slow
def test_killed_at_every_step_of_getting_ready(tmp_path: Path) -> None:
    place, kills = tmp_path / "run", 0
    while True:
        step = kills + 1

        def crashing(step: int = step) -> None:
            Crash(step, libraries=True)
            get_ready(place)

        status = in_child(crashing)
        assert status in (0, -9)
        if status == 0:
            break
        kills += 1
        get_ready(place, resume=True)
        assert verify(place).problems == [] and checksums.count(place) > 5
        assert not [*place.rglob(".*"), *place.rglob("*.partial")], "leftovers"
        shutil.rmtree(place)
    assert kills > 40
    print(f"survived {kills} kills of {kills}")


@pytest.mark.slow
def test_killed_while_it_clears_up_after_a_kill(tmp_path: Path) -> None:
    kills = 0
    while True:
        place = almost_ready(tmp_path / f"run{kills}")

        def clearing(place: Path = place, at: int = kills + 1) -> None:
            dies_at(at)
            leftovers.clear(place)

        if in_child(clearing) == 0:
            break
        kills += 1
        get_ready(place, resume=True)
        assert verify(place).problems == []
    assert kills > 10


def dies_at(at: int) -> None:
    """Kill this process right after it has removed so many files and directories."""
    left = at

    def dying(remove: Callable[..., None]) -> Callable[..., None]:
        def counted(*arguments: Any, **more: Any) -> None:
            nonlocal left
            remove(*arguments, **more)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        return counted

    os.unlink, os.rmdir = dying(os.unlink), dying(os.rmdir)


@pytest.mark.parametrize(
    "stray",
    ["thesis.txt", "data/measured.csv", ".notes.tmp", "checkpoint/00000001/model.pt", "metrics.jsonl",
     "volume.zarr/notes.txt", "volume.zarr/field/0/c/0/0/0", "environment.json/deeper", "analysis/analysis.json"],
)  # fmt: skip
def test_what_no_run_makes_that_gets_ready_is_left_alone(stray: str, tmp_path: Path) -> None:
    place = almost_ready(tmp_path / "run")
    if stray.startswith("environment.json/"):
        (place / "environment.json").unlink()
    (place / stray).parent.mkdir(parents=True, exist_ok=True)
    (place / stray).write_text("precious")
    whole = stray.startswith(("volume.zarr", "."))
    refused(place, stray if whole else stray.partition("/")[0])


@pytest.mark.parametrize("name", ["volume.zarr", "volume.zarr/field", "targets.npz"])
def test_links_are_not_followed(name: str, tmp_path: Path) -> None:
    place = almost_ready(tmp_path / "run")
    (place / name).rename(tmp_path / "elsewhere")
    (place / name).symlink_to(tmp_path / "elsewhere")
    refused(place, name)
    assert (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("gone", "found"),
    [
        ([], "metrics.jsonl"),
        (["metrics.jsonl"], "volume.zarr/field/0/c"),
        (["metrics.jsonl", "volume.zarr"], "a summary.json that does not say interrupted"),
    ],
)
def test_a_finished_run_without_its_checksums_is_kept(
    gone: list[str], found: str, whole: Path, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    shutil.copytree(whole, place)
    for name in (CHECKSUMS, *gone):
        shutil.rmtree(place / name) if (place / name).is_dir() else (place / name).unlink()
    refused(place, found)


def test_torchruns_restart_leaves_a_folder_of_somebody_else_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "project"
    (place / "data").mkdir(parents=True)
    for name in ("config.yaml", "thesis.txt", "data/raw.bin", "lock"):
        (place / name).write_text("learning_rate: 3")
    for attempt in "01":
        monkeypatch.setenv(RESTARTED, attempt)
        assert (
            main(["reconstruct", "micrograph.path=synthetic:discs", "volume.size=12", f"run.dir={place}"])
            == 2
        )
        told = capsys.readouterr().err
        assert told.startswith("mcrdist: error: run.dir: ") and told.count("\n") == 1 and str(place) in told
    found = {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}
    assert found == dict.fromkeys(("config.yaml", "thesis.txt", "data/raw.bin", "lock"), "learning_rate: 3")


def test_half_written_files_are_known_by_name(tmp_path: Path) -> None:
    assert has_the_word(tmp_path, uuid.uuid4().hex)
    (word,) = tmp_path.iterdir()
    assert is_half_written(word.name) and is_half_written(".config.yaml.123.tmp")
    for name in (
        ".notes.tmp",
        "config.yaml",
        ".config.yaml.tmp",
        ".thesis.txt.123.tmp",
        ".config.yaml.x.tmp",
    ):
        assert not is_half_written(name)
    get_ready(tmp_path)
    assert not word.exists()


def test_a_directory_with_somebody_elses_temporary_file_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / ".notes.tmp").write_text("precious")
    with pytest.raises(InputError, match="expected a new or empty directory"):
        conduct(tmp_path)
    assert (tmp_path / ".notes.tmp").read_text() == "precious"
