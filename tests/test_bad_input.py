"""Bad input, all of it: one clear line, exit status 2, nothing written, the same on every rank.

Most cases run in this process, through the function that the command line is; some as processes of their
own, and under torchrun, where no rank may be left hanging.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from ranks import own_environment

from mcrdist.__main__ import main

BLOBS = (np.add.outer(np.arange(32) // 5, np.arange(40) // 7) % 3 == 0).astype(np.uint8) * 255
SETTINGS = ["volume.size=16", "run.dir=out", "seed=0", "optimizer.iterations=1"]
GOOD = ["micrograph.path=good.png", *SETTINGS]


def _save(name: str, array: NDArray[Any]) -> None:
    if name.endswith(".npy"):
        np.save(name, array)
    else:
        Image.fromarray(array).save(name)


def _damaged(name: str) -> None:
    """A TIFF with tags of kinds that there are not, each of which its reader has a line for."""
    tifffile.imwrite(name, np.zeros((32, 32), np.uint8))
    whole = bytearray(Path(name).read_bytes())
    whole[24], whole[60:64] = 200, bytes(4)
    Path(name).write_bytes(whole)


def _truncated(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(name)
    Path(name).write_bytes(Path(name).read_bytes()[:2000])


def _used(name: str) -> None:
    Path(name).mkdir()
    (Path(name) / "summary.json").write_text("{}")


def _locked(name: str) -> None:
    Path(name).write_text("a file where a directory is wanted")


# What is prepared in an empty directory, the overrides (beside SETTINGS), and a piece of what is said.
Case = tuple[Callable[[], object], list[str], str]

FILES: dict[str, Case] = {
    "missing file": (lambda: None, ["micrograph.path=bad.png"], "no such file"),
    "directory": (lambda: Path("bad.png").mkdir(), ["micrograph.path=bad.png"], "found a directory"),
    "empty file": (lambda: Path("bad.png").touch(), ["micrograph.path=bad.png"], "found an empty file"),
    "pipe": (lambda: os.mkfifo("bad.png"), ["micrograph.path=bad.png"], "found: a pipe or a device"),
    "damaged TIFF": (lambda: _damaged("bad.tif"), ["micrograph.path=bad.tif"], "damaged"),
    "truncated image": (lambda: _truncated("bad.png"), ["micrograph.path=bad.png"], "truncated"),
    "not an image": (lambda: Path("bad.png").write_text("no"), ["micrograph.path=bad.png"], "something else"),
    "colour photograph": (
        lambda: _save("bad.png", np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)),
        ["micrograph.path=bad.png"],
        "colour photograph",
    ),
    "one grey level": (
        lambda: _save("bad.png", np.full((32, 32), 7, np.uint8)),
        ["micrograph.path=bad.png"],
        "found only 7 everywhere",
    ),
    "all one phase": (
        lambda: _save("bad.npy", np.random.default_rng(0).random((32, 32))),
        ["micrograph.path=bad.npy", "micrograph.threshold=2"],
        "all one phase",
    ),
    "phase absent": (lambda: None, ["micrograph.path=good.png", "micrograph.phase=2"], "phases found, 0, 1"),
    "not a number": (
        lambda: _save("bad.npy", np.where(np.eye(32) > 0, np.nan, 1.0)),
        ["micrograph.path=bad.npy"],
        "NaN at row 0, column 0",
    ),
    "too small": (lambda: _save("bad.png", BLOBS[:7]), ["micrograph.path=bad.png"], "8 pixels a side"),
    "crop outside": (
        lambda: None,
        ["micrograph.path=good.png", "micrograph.crop=[0,64,0,64]"],
        "inside 32 rows",
    ),
    "one direction's file": (
        lambda: None,
        ["micrograph.path=good.png", "micrograph.x.path=bad.png"],
        "no such file",
    ),
}

KEYS: dict[str, Case] = {
    "size 0": (
        lambda: None,
        ["micrograph.path=good.png", "volume.size=0"],
        "volume.size: expected an integer",
    ),
    "size -1": (
        lambda: None,
        ["micrograph.path=good.png", "volume.size=-1"],
        "found -1; e.g. volume.size=128",
    ),
    "size 7": (lambda: None, ["micrograph.path=good.png", "volume.size=7"], "of at least 8, found 7"),
    "size and shape": (lambda: None, ["micrograph.path=good.png", "volume.shape=[8,8,8]"], "found both"),
    "unknown key": (lambda: None, ["micrograph.path=good.png", "volume.sise=8"], "did you mean volume.size?"),
    "type error": (lambda: None, ["micrograph.path=good.png", "seed=first"], "seed: expected an integer"),
    "no micrograph": (lambda: None, [], "micrograph.path: expected an image"),
}

RUNS: dict[str, Case] = {
    "window wider than the micrograph": (
        lambda: _save("bad.png", BLOBS[:12, :12]),
        ["micrograph.path=bad.png", "volume.size=64", "target.lags=24"],
        "take target.lags=5 at most",
    ),
    "existing run directory": (lambda: _used("out"), ["micrograph.path=good.png"], "new or empty"),
    "a file for a run directory": (lambda: _locked("out"), ["micrograph.path=good.png"], "found the file"),
    "no initial field": (
        lambda: None,
        ["micrograph.path=good.png", "initial=file", "initial_path=none.npy"],
        "none.npy: expected a field (npy) or a run directory, found no such file",
    ),
    "initial field of another shape": (
        lambda: np.save("start.npy", np.zeros((9, 9, 9), np.float32)),
        ["micrograph.path=good.png", "initial=file", "initial_path=start.npy"],
        "start.npy: expected 16x16x16 voxels as the volume has, found 9x9x9",
    ),
    "initial field outside 0 and 1": (
        lambda: np.save("start.npy", np.full((16, 16, 16), 255, np.uint8)),
        ["micrograph.path=good.png", "initial=file", "initial_path=start.npy"],
        "values from 0 to 1",
    ),
    "initial field with gaps": (
        lambda: np.save("start.npy", np.full((16, 16, 16), np.nan)),
        ["micrograph.path=good.png", "initial=file", "initial_path=start.npy"],
        "values from 0 to 1",
    ),
    "initial field of objects": (
        lambda: np.save("start.npy", np.array([{}, None], dtype=object), allow_pickle=True),
        ["micrograph.path=good.png", "initial=file", "initial_path=start.npy"],
        "expected an npy file with numbers",
    ),
    "initial field that is no volume": (
        lambda: Path("start").mkdir(),
        ["micrograph.path=good.png", "initial=file", "initial_path=start"],
        "start",
    ),
    "initial field of a pipe": (
        lambda: os.mkfifo("start.npy"),
        ["micrograph.path=good.png", "initial=file", "initial_path=start.npy"],
        "a pipe or a device",
    ),
    "targets of a pipe": (
        lambda: os.mkfifo("targets.npz"),
        ["target.path=targets.npz"],
        "target.path: expected a file of targets, found: a pipe or a device",
    ),
    "known voxels of a pipe": (
        lambda: os.mkfifo("known.npy"),
        ["micrograph.path=good.png", "conditioning.path=known.npy"],
        "found: a pipe or a device",
    ),
    "two pixel sizes": (
        lambda: None,
        ["micrograph.path=good.png", "micrograph.pixel_size=1", "micrograph.x.pixel_size=2"],
        "one pixel size in all directions",
    ),
}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in, with one micrograph that is good."""
    monkeypatch.chdir(tmp_path)
    _save("good.png", BLOBS)
    return tmp_path


def contents(directory: Path) -> dict[str, bytes | None]:
    """Return everything below `directory`, to see that it has not changed."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }


def assert_one_line(stderr: str, said: str) -> None:
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("mcrdist: error: ")
    assert said in lines[0]


def _cases() -> Iterator[Any]:
    for name, case in (KEYS | FILES | RUNS).items():
        yield pytest.param(case, id=name)


@pytest.mark.parametrize("case", list(_cases()))
def test_bad_input(case: Case, directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prepare, overrides, said = case
    prepare()
    before = contents(directory)
    assert main(["reconstruct", *SETTINGS, *overrides]) == 2
    out, err = capfd.readouterr()
    assert_one_line(err, said)
    assert out == ""
    assert contents(directory) == before


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in FILES.items()])
def test_bad_micrographs_to_characterize(
    case: Case, directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare, overrides, said = case
    prepare()
    before = contents(directory)
    assert main(["characterize", "run.dir=out", *overrides]) == 2
    assert_one_line(capfd.readouterr().err, said)
    assert contents(directory) == before


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(KEYS["unknown key"], id="unknown key"),
        pytest.param(FILES["missing file"], id="missing file"),
        pytest.param(RUNS["existing run directory"], id="existing run directory"),
    ],
)
def test_as_a_process(case: Case, directory: Path) -> None:
    prepare, overrides, said = case
    prepare()
    before = contents(directory)
    done = _python("-m", "mcrdist", "reconstruct", *SETTINGS, *overrides)
    assert done.returncode == 2
    assert_one_line(done.stderr, said)
    assert contents(directory) == before


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(KEYS["size -1"], id="size -1"),
        pytest.param(FILES["missing file"], id="missing file"),
        pytest.param(RUNS["existing run directory"], id="existing run directory"),
    ],
)
def test_under_torchrun(case: Case, directory: Path) -> None:
    prepare, overrides, said = case
    prepare()
    before = contents(directory)
    start = time.monotonic()
    done = _torchrun(2, "reconstruct", *SETTINGS, *overrides)
    assert time.monotonic() - start < 110, "a rank was left hanging"
    assert_said_once_by_ranks_that_left_with_2(done, said)
    assert contents(directory) == before


@pytest.mark.slow
def test_more_ranks_than_planes(directory: Path) -> None:
    before = contents(directory)
    done = _torchrun(3, "reconstruct", "micrograph.path=good.png", "volume.shape=[8,8]", "run.dir=out")
    assert_said_once_by_ranks_that_left_with_2(done, "at most 1 processes")
    assert contents(directory) == before


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_full_disk(ranks: int, directory: Path) -> None:
    """A run directory on a file system too small for the volume."""
    small = directory / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a small file system")
    try:
        settings = [
            "micrograph.path=good.png",
            "volume.size=64",
            "optimizer.iterations=1",
            f"run.dir={small}/out",
        ]
        if ranks == 1:
            done = _python("-m", "mcrdist", "reconstruct", *settings)
            assert done.returncode == 2, done.stderr
            assert_one_line(done.stderr, "the disk is full")
        else:
            done = _torchrun(ranks, "reconstruct", *settings)
            assert_said_once_by_ranks_that_left_with_2(done, "the disk is full")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def assert_said_once_by_ranks_that_left_with_2(done: subprocess.CompletedProcess[str], said: str) -> None:
    # torchrun adds a report of its own, and leaves with 1 whatever its processes left with.
    told = [line for line in done.stderr.splitlines() if "mcrdist: error: " in line]
    assert len(told) == 1, done.stderr
    assert said in told[0]
    assert "exitcode  : 2" in done.stderr
    assert "exitcode  : -" not in done.stderr, done.stderr
    assert done.returncode != 0


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=own_environment(),
        check=False,
    )


def _torchrun(ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return _python(*launcher, "-m", "mcrdist", *arguments)
