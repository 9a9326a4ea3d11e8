"""Eq. 10 of every descriptor by `mcrdist analyze`: what the run's own summary says, and plane by plane."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matrix import random_weights
from safetensors.torch import save_file

import mcrdist
from mcrdist.analysis.material import phases
from mcrdist.analysis.volume import held
from mcrdist.config import DescriptorConfig, VolumeSourceConfig
from mcrdist.descriptors.three_point import ThreePointCorrelation
from mcrdist.directions import DIAGONAL, ORTHOGONAL
from mcrdist.store import Run

pytest.importorskip("distributed")

OWN = """
class Rows:
    name = "rows"

    def measure(self, slices):
        return slices.mean(2).square().mean(1, keepdim=True)
"""
QUICK: dict[str, Any] = {"optimizer": {"iterations": 2}, "runtime": {"threads": 1}}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("held")
    (path / "own_rows.py").write_text(OWN)
    save_file(random_weights(), path / "vgg.safetensors")
    return path


@pytest.fixture(scope="module")
def run(directory: Path) -> Run:
    """Held to everything that there is for two phases, in a volume that is no cube."""
    before = os.getcwd()
    os.chdir(directory)  # where a module of one's own lies
    try:
        return mcrdist.reconstruct(
            micrograph="synthetic:gaussian",
            volume={"shape": [16, 24, 32]},
            target={"lags": 6},
            descriptors={
                "s2": {"pooled": [2]},
                "variation": {"pooled": [2]},
                "s3": {"weight": 1, "lags": 2, "pooled": [2]},
                "lineal_path": {"weight": 1},
                "patches": {"weight": 1, "sizes": [3]},
                "gram": {
                    "weight": 1,
                    "layers": ["relu1_2"],
                    "weights": str(directory / "vgg.safetensors"),
                    "every": 4,
                },
                "extra": ["own_rows:Rows*0.5"],
            },
            run={"dir": directory / "run", "report": False},
            **QUICK,
        )
    finally:
        os.chdir(before)


def analysed(run: Run, where: Path, **more: Any) -> tuple[Any, list[str]]:
    from mcrdist.analyze import analyze
    from mcrdist.config import analyze_from_mapping

    said: list[str] = []
    settings = {"run": {"dir": run.path}, "dask": {"workers": 1}, "output": {"dir": where}, **more}
    return analyze(analyze_from_mapping(settings), said.append), said


def test_all_errors_are_those_of_the_summary(
    run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(directory)
    found, said = analysed(run, tmp_path / "all")
    assert not any(line.startswith("warning") for line in said)
    prescribed = {(row.statistic, row.direction): row.value for row in found.rows if row.prescribed}
    wanted = run.summary["errors"]["rounded"]
    assert {"s3@2", "lineal_path", "patches", "gram", "rows", "s2@2", "variation@2"} <= set(wanted["z"])
    for axis, named in wanted.items():
        for name, value in named.items():
            assert prescribed[f"E({name})", axis] == pytest.approx(value, rel=2e-4, abs=1e-7), (name, axis)
    # No two rows of one name, although the lineal path is measured in space too.
    names = [(row.statistic, row.direction) for row in found.rows]
    assert len(set(names)) == len(names) and ("E(lineal path in space)", "y") in names
    # One error a plane, in the order of the planes.
    curves = json.loads((found.path / "analysis.json").read_text())["phases"]["1"]["errors"]
    for axis, count in zip("zyx", run.phase.shape, strict=True):
        assert {len(values) for values in curves[axis].values()} == {count}
    descriptor = ThreePointCorrelation(2, False)
    target = run.targets["y/s3"]
    for number in (0, 23):
        got = descriptor.describe(run.phase[:, number].astype(float), True)
        expected = np.linalg.norm(got - target) / np.linalg.norm(target)
        assert curves["y"]["s3"][number] == pytest.approx(expected, rel=1e-4)


def test_what_is_missing_is_told_and_left_out(
    run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no such module
    monkeypatch.setitem(sys.modules, "own_rows", None)
    held._held.cache_clear()
    found, said = analysed(run, tmp_path / "some", volume={"phase": 1})
    (warning,) = [line for line in said if line.startswith("warning")]
    assert "left out: descriptors.extra: own_rows:Rows" in warning and "\n" not in warning
    names = {row.statistic for row in found.rows if row.prescribed}
    assert "E(rows)" not in names and {"E(s3)", "E(gram)"} <= names


def test_phases_together_and_alone(tmp_path: Path) -> None:
    labels = np.digitize(np.random.default_rng(0).random((10, 10)), (0.4, 0.7)).repeat(4, 0).repeat(4, 1)
    run = mcrdist.reconstruct(
        micrograph=labels.astype(np.uint8),
        volume={"size": 16},
        target={"lags": 4},
        descriptors={"cross_correlation": {"weight": 1}, "lineal_path": {"weight": 1}},
        run={"dir": tmp_path / "run", "report": False},
        **QUICK,
    )
    found, _ = analysed(run, tmp_path / "all")
    rows = {(r.phase, r.statistic, r.direction): r.value for r in found.rows if r.prescribed}
    for label, part in run.summary["phases"].items():
        for axis, named in part["errors"]["rounded"].items():
            for name, value in named.items():
                got = rows[int(label), f"E({name})", axis]
                assert got == pytest.approx(value, rel=2e-4, abs=1e-7), (label, name, axis)
    assert (0, "E(cross_correlation)", "x") in rows and (1, "E(cross_correlation)", "x") not in rows


def test_diagonal_planes_too(tmp_path: Path) -> None:
    run = mcrdist.reconstruct(
        micrograph="synthetic:gaussian",
        volume={"size": 16},
        target={"lags": 4, "diagonals": True},
        descriptors={
            "s2": {"pooled": [2]},
            "s3": {"weight": 1, "lags": 2},
            "lineal_path": {"weight": 1},
            "patches": {"weight": 1, "sizes": [3]},
        },
        run={"dir": tmp_path / "run", "report": False},
        **QUICK,
    )
    found, _ = analysed(run, tmp_path / "all")
    rows = {(r.statistic, r.direction): r.value for r in found.rows if r.prescribed}
    wanted = run.summary["errors"]["rounded"]
    assert {"y+z", "x-y"} <= set(wanted)
    for direction, named in wanted.items():
        for name, value in named.items():
            assert rows[f"E({name})", direction] == pytest.approx(value, rel=2e-4, abs=1e-7)


def test_nothing_more_was_asked(tmp_path: Path) -> None:
    run = mcrdist.reconstruct(
        micrograph="synthetic:discs",
        volume={"size": 16},
        run={"dir": tmp_path / "run", "report": False},
        **QUICK,
    )
    assert held.available(run, (16, 16, 16)) == (None, [])


def test_batches_make_no_difference(run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)
    volume = VolumeSourceConfig(run=str(run.path))
    config, _ = held.available(run, run.phase.shape)
    assert config is not None
    results = []
    for batch in (5, 32):
        monkeypatch.setattr(held, "_BATCH", batch)
        todo = held.tasks(volume, config, run, run.phase.shape)
        results.append(held.gather(todo, lambda function, tasks: map(function, tasks)))
    for axis, named in results[0][1].items():
        for name, errors in named.items():
            np.testing.assert_allclose(errors, results[1][1][axis][name], rtol=1e-5, atol=1e-8)


def test_the_smallest_micrograph_decides() -> None:
    small, large = (np.arange(n * n).reshape(n, n) % 2 for n in (8, 12))
    of = phases({}, {"z/phase": np.int64(1)})
    targets = {"z/micrograph": large, "z/image2/micrograph": small}
    z, diagonal, x = ORTHOGONAL[0], DIAGONAL[0], ORTHOGONAL[2]
    assert held.micrographs(targets, z, of)[0].shape == (8, 8)
    ends = {"from/z/micrograph": large, "to/z/micrograph": small}
    assert held.micrographs(ends, z, of)[0].shape == (8, 8)
    assert held.micrographs({"y/micrograph": large}, diagonal, of)[0].shape == (8, 12)  # rows √2 apart
    assert held.micrographs({}, z, of) == []
    # Each direction's micrograph has its own label for the phase.
    of = phases({}, {"z/phase": np.int64(2)})
    labels = np.arange(64).reshape(8, 8) % 3
    (found,) = held.micrographs({"z/phase": np.int64(2), "x/micrograph": labels, "x/phase": 0}, x, of)
    assert (found == (labels == 0)).all()
    assert held.graded({"z/slices/s2": small}, "z") and not held.graded({}, "z")
    assert DescriptorConfig().extra == ()
