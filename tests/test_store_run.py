"""The run directory: who may write into it, atomic files, what comes back."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from mcrdist.errors import InputError
from mcrdist.store import MetricsWriter, Run, RunDirectory, VolumeWriter
from mcrdist.store.place import write_atomically
from mcrdist.store.run import environment

CONFIG = {"volume": {"size": 16}, "micrograph": {"path": "sem.tif"}, "seed": 0, "note": "µ"}


def test_round_trip(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "a" / "run", CONFIG, environment(ranks=2))
    writer = VolumeWriter.create(directory.volume, [(16, 16, 16)])
    writer.write_field(0, 0, np.full((16, 16, 16), 0.75, np.float32))
    writer.write_phase(0, np.ones((16, 16, 16), np.uint8))
    writer.finish_phase()
    np.savez(directory.targets, **{"z/s2": np.eye(3)})
    with directory.metrics() as metrics:
        metrics.write({"iteration": 0, "loss": 0.1 + 0.2})
        metrics.write({"iteration": 1, "loss": np.float64("nan")})
    directory.write_summary({"status": "complete", "errors": [np.float32(0.5), float("inf")]})
    run = Run.open(tmp_path / "a" / "run")
    assert run.config == CONFIG
    assert run.environment["ranks"] == 2
    assert run.summary == {"status": "complete", "errors": [0.5, None]}
    assert run.metrics == [{"iteration": 0, "loss": 0.1 + 0.2}, {"iteration": 1, "loss": None}]
    assert run.phase.dtype == np.uint8 and run.phase.all()
    assert run.field.dtype == np.float32 and (run.field == 0.75).all()
    np.testing.assert_array_equal(run.targets["z/s2"], np.eye(3))
    assert run.report is None
    assert not [p for p in run.path.iterdir() if p.suffix == ".tmp"]


def test_an_empty_directory_will_do(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    RunDirectory.create(tmp_path / "run", CONFIG, {})
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_an_existing_run_is_refused_untouched(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run", CONFIG, {})
    before = {p: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(InputError, match=r"run\.dir: expected a new or empty directory"):
        RunDirectory.create(tmp_path / "run", {}, {})
    assert {p: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match=r"^run\.dir: expected a directory"):
            RunDirectory.create(path, CONFIG, {})
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="can be written to"):
        RunDirectory.create(tmp_path / "locked" / "run", CONFIG, {})


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    with pytest.raises(InputError, match="the disk is full") as caught:
        writer.write({"iteration": 0})
    assert "\n" not in str(caught.value)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_atomically(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"."):
            write_atomically(path, b"n" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_a_torn_last_line_is_skipped(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", CONFIG, {})
    (run.path / "metrics.jsonl").write_text('{"iteration":0}\n{"iterat')
    assert Run.open(run.path).metrics == [{"iteration": 0}]
    assert Run.open(run.path).summary == {"status": "interrupted"}
    (run.path / "metrics.jsonl").write_text('{"iterat\n{"iteration":0}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl:1: expected a JSON record"):
        _ = Run.open(run.path).metrics


def test_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file", tmp_path / "absent"):
        with pytest.raises(InputError, match="expected a run directory"):
            Run.open(path)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", CONFIG, {})
    np.savez(run.targets, evil=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="expected NumPy arrays"):
        _ = Run.open(run.path).targets


def test_damage_is_one_line(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", CONFIG, {})
    for name, attribute in (
        ("targets.npz", "targets"),
        ("summary.json", "summary"),
        ("config.yaml", "config"),
    ):
        (run.path / name).write_bytes(b"PK\x03\x04{[: \xff")
        with pytest.raises(InputError, match=name) as caught:
            getattr(Run.open(run.path), attribute)
        assert "\n" not in str(caught.value)
