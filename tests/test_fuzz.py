"""Runs that others may have changed: an answer or one line, never a traceback, a hang or all the memory."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import no_waiting
from interrupted import CASES, conduct
from memory import resident
from test_checkpoints import mutate

from mcrdist.config import from_mapping
from mcrdist.errors import InputError
from mcrdist.imagefile import read as read_image
from mcrdist.store.run import Run
from mcrdist.store.verify import verify

#: What reading damaged small files may add to the memory of the process.
MOST_MEMORY = 2**29


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        no_waiting(patch)
        return conduct(tmp_path_factory.mktemp("fuzz") / "run", **CASES["lbfgsb"]).path


FILES = [
    "config.yaml", "environment.json", "summary.json", "metrics.jsonl", "targets.npz", "checksums.json",
    "volume.zarr/zarr.json", "volume.zarr/field/zarr.json", "volume.zarr/field/0/zarr.json",
    "volume.zarr/phase/0/zarr.json", "volume.zarr/phase/0/c/0/0/0", "volume.zarr/field/0/c/0/0/0",
]  # fmt: skip


@pytest.mark.parametrize("count", [5, pytest.param(150, marks=[pytest.mark.slow, pytest.mark.unmeasured])])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore")
def test_mutated_runs(name: str, count: int, finished: Path, tmp_path: Path) -> None:
    """`verify` finds every change, and whoever reads the file all the same gets a value or one line."""
    place = tmp_path / "run"
    shutil.copytree(finished, place)
    whole, random = (place / name).read_bytes(), np.random.default_rng(0)
    wanted = Run.open(finished)
    before = resident("VmHWM")
    for _ in range(count):
        changed = mutate(whole, random)
        (place / name).write_bytes(changed)
        problems = verify(place).problems
        assert all("\n" not in told for told in problems)
        run = Run.open(place)
        if "/c/" in name and not problems:  # trailing bytes of a chunk that nobody reads
            assert np.array_equal(run.phase, wanted.phase) and np.array_equal(run.field, wanted.field)
        else:
            assert bool(problems) == (changed != whole)
        for read in (
            lambda run=run: from_mapping(run.config), lambda run=run: run.environment, lambda run=run: run.summary,
            lambda run=run: run.metrics, lambda run=run: run.targets,
        ):  # fmt: skip
            try:
                read()
            except InputError as error:
                assert len(str(error)) < 2000
    assert resident("VmHWM") - before < MOST_MEMORY


def test_yaml_that_would_run_code(finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    (place / "config.yaml").write_text(f"!!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    with pytest.raises(InputError, match="expected YAML"):
        _ = Run.open(place).config
    assert not (tmp_path / "made").exists()


def test_arrays_that_would_run_code(finished: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.mkdir, (tmp_path / "made",))

    place = tmp_path / "run"
    shutil.copytree(finished, place)
    np.savez(place / "targets.npz", bomb=np.array([Bomb()], dtype=object))
    with pytest.raises(InputError, match="expected NumPy arrays"):
        _ = Run.open(place).targets
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object))
    (tmp_path / "image.npy").write_bytes(buffer.getvalue())
    with pytest.raises(InputError):
        read_image(tmp_path / "image.npy")
    assert not (tmp_path / "made").exists()


def test_a_run_directory_behind_a_link(finished: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(finished)
    assert verify(link).problems == []


def test_a_list_of_files_elsewhere_is_refused(finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(finished, place)
    text = (place / "checksums.json").read_text().replace('"config.yaml"', '"../run/config.yaml"')
    (place / "checksums.json").write_text(text)
    (problem,) = verify(place).problems
    assert "a file outside the run" in problem
