"""Files of a run that are not what was written: noticed, named, never used."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from faults import flip
from interrupted import CASES, conduct, everything, same

from mcrdist.__main__ import main
from mcrdist.errors import InputError
from mcrdist.store import checksums
from mcrdist.store.run import REQUEUE, Run
from mcrdist.store.verify import verify

pytestmark = pytest.mark.usefixtures("quick_disk")


def contents(run: Path) -> list[bytes]:
    """Every voxel of every level of a run's volume."""
    arrays = [path.parent for path in sorted((run / "volume.zarr").rglob("zarr.json"))]
    opened = [zarr.open(str(path), mode="r") for path in arrays]
    return [np.asarray(one[...]).tobytes() for one in opened if isinstance(one, zarr.Array)]


@pytest.mark.parametrize("flips", [1, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.unmeasured])])
def test_verify_notices_every_flipped_bit(flips: int, whole: Path, cut: Path) -> None:
    random = np.random.default_rng(0)
    assert verify(whole).problems == [] and verify(cut).problems == []
    caught = made = 0
    for run in (whole, cut):
        written = contents(run)
        for path in everything(run):
            if run == cut and path.name in ("metrics.jsonl", "summary.json", REQUEUE):
                continue  # still being written
            if (
                run == cut
                and "volume.zarr" in path.parts
                and checksums.CHECKSUMS not in path.name
                and (
                    path.relative_to(run).as_posix()
                    in ("volume.zarr/zarr.json", "volume.zarr/phase/zarr.json")
                    or "phase" in path.parts
                )
            ):
                continue
            original = path.read_bytes()
            for bit in random.integers(8 * len(original), size=flips).tolist():
                flip(path, bit)
                problems = verify(run).problems
                made += 1
                caught += bool(problems)
                # A compressed chunk has bits that say nothing: what is read is what was written.
                assert problems or contents(run) == written, (path, bit)
                assert all("\n" not in problem for problem in problems)
                path.write_bytes(original)
    print(f"caught {caught} flips of {made}")


def test_resuming_notices_what_was_damaged(cut: Path, whole: Path, tmp_path: Path) -> None:
    wanted = Run.open(whole)
    for name in (
        "config.yaml",
        "environment.json",
        "targets.npz",
        "checksums.json",
        "volume.zarr/field/0/zarr.json",
    ):
        place = tmp_path / "run"
        shutil.copytree(cut, place)
        flip(place / name, 8 * 40 + 1)
        with pytest.raises(InputError) as caught:
            conduct(place, resume=True, **CASES["levels"])
        assert str(place / name) in str(caught.value) and "\n" not in str(caught.value)
        shutil.rmtree(place)
    for generation, name in ((0, "manifest.json"), (0, "z000000.bin"), (1, "z000000.bin")):
        shutil.copytree(cut, tmp_path / "run")
        newest = sorted((tmp_path / "run" / "checkpoint").iterdir(), reverse=True)
        flip(newest[generation] / name, 8 * 1000 + 1)
        same(conduct(tmp_path / "run", resume=True, **CASES["levels"]), wanted)
        shutil.rmtree(tmp_path / "run")


def test_a_log_that_was_damaged_is_set_aside(
    cut: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "run"
    shutil.copytree(cut, place)
    flip(place / "metrics.jsonl", 800)
    found = conduct(place, resume=True, **CASES["levels"])
    assert "metrics.jsonl: not what the checkpoint knows" in capsys.readouterr().err
    assert found.summary["status"] == "complete"
    assert (place / "metrics.jsonl.damaged").is_file()


def test_a_missing_chunk_is_named(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "run"
    shutil.copytree(whole, place)
    (place / "volume.zarr/field/0/c/0/0/0").unlink()
    (place / "report.html").write_text("added later")  # no business of ours
    assert main(["verify", f"run.dir={place}"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 and "volume.zarr/field/0/c/0/0/0: expected a chunk" in told[0]
    assert main(["verify", f"run.dir={whole}"]) == 0
    assert "all good" in capsys.readouterr().out
    assert main(["verify", f"run.dir={tmp_path}"]) == 2
    assert main(["verify"]) == 2


def noticed(run: Path) -> list[str]:
    """What `verify` says is wrong, or why it cannot begin."""
    try:
        return verify(run).problems
    except InputError as error:
        return [str(error)]


@pytest.mark.slow
@pytest.mark.unmeasured
def test_verify_notices_every_truncation(whole: Path, tmp_path: Path) -> None:
    """Of every file of a finished run: nothing left, half of it, all but the last byte that says anything; no file."""
    place = tmp_path / "run"
    shutil.copytree(whole, place)
    for path in everything(place):
        original = path.read_bytes()
        for length in {0, len(original) // 2, len(original.rstrip(b"\n")) - 1}:
            path.write_bytes(original[:length])
            problems = noticed(place)
            assert problems and all("\n" not in problem for problem in problems), (path, length)
        path.unlink()
        assert noticed(place), path
        path.write_bytes(original)
    assert verify(place).problems == []


def test_leftovers_of_a_kill_are_removed(cut: Path, whole: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(cut, place)
    for name in ("checkpoint/.99999999.partial", "checkpoint/.00000001.old"):
        (place / name).mkdir()
        (place / name / "z000000.bin").write_bytes(b"half")
    for name in (".config.yaml.123.tmp", ".checksums.json.5.tmp", "checkpoint/.stray"):
        (place / name).write_bytes(b"half")
    assert verify(place).problems == []
    same(conduct(place, resume=True, **CASES["levels"]), Run.open(whole))
    assert not list(place.rglob(".*"))
    assert verify(place).problems == []
