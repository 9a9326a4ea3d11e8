"""From a micrograph to a volume, end to end: small sizes, few iterations."""

from __future__ import annotations

import itertools
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from ranks import own_environment

import mcrdist
from mcrdist import synthetic
from mcrdist.__main__ import main
from mcrdist.config import from_mapping
from mcrdist.directions import AXES
from mcrdist.store.run import Run

IMAGE = synthetic.ThresholdedGaussian(length=4.0, fraction=0.4).draw((64, 64), np.random.default_rng(1))
#: All stages, none of them for long.
QUICK = {"iterations": 6, "binarize_iterations": 6, "flip_rounds": 20}
FIELDS = {
    "level", "shape", "stage", "iteration", "loss", "errors", "evaluations", "seconds", "memory",
    "projected_gradient", "grey",
}  # fmt: skip


def settings(directory: Path, **more: Any) -> dict[str, Any]:
    return {
        "micrograph": {"image": IMAGE, "pixel_size": 0.5},
        "volume": {"size": 16},
        "optimizer": QUICK,
        "runtime": {"threads": 1, "device": "cpu"},
        "run": {"dir": str(directory), "report": False},
    } | more


def conduct(mapping: dict[str, Any]) -> Run:
    from mcrdist.reconstruct import reconstruct

    return reconstruct(from_mapping(mapping))


# ---------------------------------------------------------------------------------------- the run directory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on two levels, with its report."""
    directory = tmp_path_factory.mktemp("reconstruct") / "run"
    more = {"levels": {"count": 2}, "run": {"dir": str(directory)}, "volume": {"shape": [18, 16, 20]}}
    return mcrdist.reconstruct(**settings(directory, **more))


def test_run_directory(run: Run) -> None:
    assert {path.name for path in run.path.iterdir()} == {
        "config.yaml", "environment.json", "metrics.jsonl", "summary.json", "report.html", "targets.npz",
        "volume.zarr", "checksums.json",
    }  # fmt: skip
    assert run.report is not None
    assert run.report.stat().st_size > 10_000
    assert run.config["volume"]["shape"] == [18, 16, 20]
    assert run.environment["ranks"] == 1
    assert run.environment["threads"] == 1
    assert run.targets["z/s2"].shape == (17, 9)  # the window that slices of 16x20 voxels have room for
    assert int(run.targets["lags"]) > 8


def test_volume(run: Run) -> None:
    assert run.phase.shape == run.field.shape == (18, 16, 20)
    assert run.phase.dtype == np.uint8
    assert set(np.unique(run.phase)) == {0, 1}
    assert run.field.min() >= 0.0
    assert run.field.max() <= 1.0
    assert run.volume.voxel_size == (0.5, 0.5, 0.5)
    assert run.volume.field(1).shape == (9, 8, 10)
    coarse = run.volume.read(run.volume.field(1))
    assert np.isfinite(coarse).all()
    assert 0.0 <= coarse.min() < coarse.max() <= 1.0


def test_metrics(run: Run) -> None:
    records = run.metrics
    assert {tuple(sorted(record)) for record in records} == {tuple(sorted(FIELDS))}
    for earlier, later in itertools.pairwise(records):
        assert later["evaluations"] >= earlier["evaluations"]
        assert later["seconds"] >= earlier["seconds"]
        assert later["memory"] >= earlier["memory"]
        assert later["level"] >= earlier["level"]
        if later["level"] == earlier["level"]:
            assert later["iteration"] >= earlier["iteration"]
    shapes = {record["level"]: record["shape"] for record in records}
    assert shapes == {0: [9, 8, 10], 1: [18, 16, 20]}
    assert records[0]["iteration"] == 0
    assert {record["stage"] for record in records if record["level"] == 0} == {"relax"}
    assert "relax" in {record["stage"] for record in records if record["level"] == 1}
    for record in records:
        assert {"s2", "variation"} <= set(record["errors"])
        assert all(math.isfinite(value) for value in record["errors"].values())
        assert 0.0 <= record["grey"] <= 1.0
        assert record["memory"] > 1e7
        assert math.isfinite(record["loss"])
    # Losses are written with all their digits.
    text = (run.path / "metrics.jsonl").read_text().splitlines()
    assert all(json.dumps(json.loads(line), separators=(",", ":")) == line for line in text)
    assert any(len(repr(record["loss"])) > 15 for record in records)


@pytest.mark.parametrize("level", [0, 1])
def test_the_loss_falls_while_a_level_relaxes(run: Run, level: int) -> None:
    losses = [r["loss"] for r in run.metrics if r["level"] == level and r["stage"] == "relax"]
    assert len(losses) > 3
    assert all(later <= earlier for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < 0.7 * losses[0]


def test_summary(run: Run) -> None:
    summary = run.summary
    assert summary["status"] == "complete"
    assert summary["method"] == "descriptors"
    assert summary["shape"] == [18, 16, 20]
    assert summary["seed"] == 0
    assert summary["ranks"] == summary["threads"] == 1
    assert summary["seconds"] > 0
    assert summary["memory"] > 1e7
    assert [level["level"] for level in summary["levels"]] == [0, 1]
    assert sum(level["evaluations"] for level in summary["levels"]) == run.metrics[-1]["evaluations"]
    for level in summary["levels"]:
        assert level["stop"] in ("relative decrease", "projected gradient", "iteration cap", "line search")
    assert summary["volume_fraction"]["relaxed"] == pytest.approx(
        float(run.field.mean(dtype=float)), rel=1e-6
    )
    assert summary["volume_fraction"]["rounded"] == pytest.approx(float(run.phase.mean()))
    assert summary["volume_fraction"]["target"]["x"] == pytest.approx(float(IMAGE.mean()))
    grey = (run.field > 0.05) & (run.field < 0.95)
    assert summary["grey_fraction"] == pytest.approx(float(grey.mean()))


def test_errors_are_those_of_the_volume_on_disk(run: Run) -> None:
    """Eq. 10 evaluated once more from what was written, by plain means."""
    from mcrdist.descriptors.correlation import two_point
    from mcrdist.descriptors.variation import variation

    for kind, volume in (("relaxed", run.field.astype(float)), ("rounded", run.phase.astype(float))):
        for axis, name in enumerate(AXES):
            slices = np.moveaxis(volume, axis, 0)
            wanted = run.targets[f"{name}/s2"]
            lags = wanted.shape[1] - 1
            off = np.sqrt(((two_point(slices, lags, True) - wanted) ** 2).sum((1, 2)))
            found = run.summary["errors"][kind][name]
            assert found["s2"] == pytest.approx(np.mean(off) / np.linalg.norm(wanted), rel=1e-4)
            target = float(run.targets[f"{name}/variation"])
            off = np.abs(variation(slices, True) - target)
            assert found["variation"] == pytest.approx(np.mean(off) / target, rel=1e-4)
            fraction = float(run.targets[f"{name}/volume_fraction"])
            off = np.abs(slices.mean((1, 2)) - fraction)
            assert found["volume_fraction"] == pytest.approx(np.mean(off) / fraction, rel=1e-3, abs=1e-6)


def test_a_run_is_good(run: Run) -> None:
    """Not how good it can be: that it is no noise."""
    errors = run.summary["errors"]["rounded"]
    assert max(errors[axis]["s2"] for axis in AXES) < 0.35
    assert max(errors[axis]["volume_fraction"] for axis in AXES) < 0.2


# ------------------------------------------------------------------------------------------------ other ways


def test_the_same_seed_the_same_volume_and_another_another(tmp_path: Path) -> None:
    more = {"volume": {"size": 12}, "optimizer": {"iterations": 2}}
    one, two, other = (
        conduct(settings(tmp_path / str(i), **more, seed=seed)) for i, seed in enumerate((7, 7, 8))
    )
    np.testing.assert_array_equal(one.field, two.field)
    np.testing.assert_array_equal(one.phase, two.phase)
    assert [r["loss"] for r in one.metrics] == [r["loss"] for r in two.metrics]
    assert not np.array_equal(one.phase, other.phase)


@pytest.mark.parametrize("initial", ["spectral", "noise"])
def test_method_gaussian_is_the_spectral_start_alone(initial: str, tmp_path: Path) -> None:
    """Also where another start is asked for: it is what to compare with."""
    done = conduct(settings(tmp_path / "run", method="gaussian", initial=initial))
    assert done.summary["status"] == "complete"
    assert done.summary["method"] == "gaussian"
    assert [level["shape"] for level in done.summary["levels"]] == [[16, 16, 16]]
    assert done.metrics == []
    fraction = done.summary["volume_fraction"]
    assert fraction["rounded"] == pytest.approx(fraction["target"]["z"], abs=1 / 16**3)
    np.testing.assert_array_equal(done.phase, done.field > 0.5)


def test_start_from_files(tmp_path: Path) -> None:
    first = conduct(settings(tmp_path / "first", optimizer={"iterations": 2}))
    np.save(tmp_path / "start.npy", first.field)
    done = {}
    for name, path in {
        "npy": tmp_path / "start.npy",
        "run": first.path,
        "volume": first.path / "volume.zarr",
    }.items():
        more = {"initial": "file", "initial_path": str(path), "optimizer": {"iterations": 2}}
        done[name] = conduct(settings(tmp_path / name, **more))
        assert len(done[name].summary["levels"]) == 1
    for name in ("run", "volume"):
        np.testing.assert_array_equal(done[name].field, done["npy"].field)
    starts = [record for record in done["npy"].metrics if record["iteration"] == 0]
    ends = [record for record in first.metrics if record["stage"] == "relax"]
    assert starts[0]["loss"] < ends[0]["loss"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_iterations_round_the_start(dtype: str, tmp_path: Path) -> None:
    start = np.random.default_rng(0).random((16, 16, 16))
    np.save(tmp_path / "start.npy", start)
    more = {
        "initial": "file",
        "initial_path": str(tmp_path / "start.npy"),
        "optimizer": {"iterations": 0},
        "runtime": {"dtype": dtype, "threads": 1},
    }
    done = conduct(settings(tmp_path / "run", **more))
    np.testing.assert_allclose(done.field, start, atol=1e-7)
    np.testing.assert_array_equal(done.phase, start > 0.5)


def test_one_descriptor_alone(tmp_path: Path) -> None:
    more = {"descriptors": {"variation": {"weight": 0.0}}, "optimizer": {"iterations": 2}}
    done = conduct(settings(tmp_path / "run", **more))
    assert "variation" not in done.metrics[0]["errors"]
    assert "variation" in done.summary["errors"]["rounded"]["z"]  # told all the same


def elongated(axis: int) -> dict[str, NDArray[np.uint8]]:
    """Micrographs of a material with long features along one axis, each direction's own."""
    lengths = [12.0 if i == axis else 3.5 for i in range(3)]
    found = {}
    for normal, name in enumerate(AXES):
        plane = tuple(length for i, length in enumerate(lengths) if i != normal)
        structure = synthetic.ThresholdedGaussian(length=plane, fraction=0.4)
        found[name] = structure.draw((128, 128), np.random.default_rng(normal))
    return found


def steps(volume: NDArray[Any]) -> list[float]:
    """Mean absolute difference of neighbours along z, y and x."""
    values = volume.astype(float)
    return [float(np.abs(values - np.roll(values, 1, axis)).mean()) for axis in range(3)]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_elongated_material(axis: int, tmp_path: Path) -> None:
    """From noise, which knows no direction; an exchange of any two axes would show."""
    images = {name: {"image": image} for name, image in elongated(axis).items()}
    more = {"micrograph": images, "initial": "noise", "optimizer": {"iterations": 25}, "levels": {"count": 1}}
    done = conduct(settings(tmp_path / "run", **more))
    for volume in (done.field, done.phase):
        found = steps(volume)
        across = [step for i, step in enumerate(found) if i != axis]
        assert found[axis] < 0.7 * min(across), found
        assert max(across) < 1.35 * min(across), found


def test_three_real_micrographs(micrographs_dir: Path, tmp_path: Path) -> None:
    """Long along the columns of planes normal to z and y, round in planes normal to x: long along x."""
    micrograph = {
        "path": str(micrographs_dir / "pymks_ms_256x256_3.npy"),
        "x": {"path": str(micrographs_dir / "pymks_ms_256x256_1.npy")},
    }
    more = {"micrograph": micrograph, "volume": {"shape": [20, 18, 22]}, "optimizer": {"iterations": 25}}
    done = conduct(settings(tmp_path / "run", **more))
    z, y, x = steps(done.phase)
    assert x < 0.65 * min(z, y), (z, y, x)
    assert max(z, y) < 1.35 * min(z, y), (z, y, x)


def test_how_the_micrographs_were_segmented_is_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong threshold must be seen before hours go by; and later in the summary."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 40, IMAGE.shape)
    np.save("grey.npy", (150 * IMAGE + noise).astype(np.uint8))
    np.save("labels.npy", 1 - IMAGE)
    given = ["micrograph.path=labels.npy", "micrograph.z.path=grey.npy", "micrograph.z.phase=0"]
    more = ["volume.size=16", "method=gaussian", "run.dir=out", "run.report=false"]
    assert main(["reconstruct", *given, *more]) == 0
    out = capsys.readouterr().out.splitlines()
    first, second = mcrdist.open("out").summary["micrographs"]
    assert first["source"] == "grey.npy" and first["axes"] == ["z"] and first["described"] == [0]
    assert first["segmentation"][0].startswith("Otsu threshold ")
    assert first["fractions"] == {"0": float((IMAGE == 0).mean()), "1": float((IMAGE == 1).mean())}
    zero, one = (f"{first['fractions'][k]:.2%}" for k in "01")
    how = first["segmentation"][0]
    assert out[:2] == [
        f"image   grey.npy  (normal to z; {how}; phase 0 {zero}, phase 1 {one}; described: phase 0)",
        f"image   labels.npy  (normal to y, x; labels as they are; phase 0 {one}, phase 1 {zero}; described: phase 1)",
    ]
    assert second["source"] == "labels.npy" and second["axes"] == ["y", "x"]
    assert out[2].startswith("volume  ")


def test_every_phase_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    from mcrdist.reconstruct import reconstruct

    mapping = settings(tmp_path / "run", micrograph=three_phases(), method="gaussian")
    run = reconstruct(from_mapping(mapping), say=told.append)
    (line,) = told
    assert f"phase 2 {(three_phases() == 2).mean():.2%}" in line and line.endswith("; described: all)")
    assert run.summary["micrographs"][0]["described"] == [0, 1, 2]


# -------------------------------------------------------------------------------------------- interruption


def start_long_run(directory: Path, ranks: int) -> subprocess.Popen[str]:
    program = ["-m", "mcrdist"]
    if ranks > 1:
        program = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), *program]
    return subprocess.Popen(
        [
            sys.executable, *program, "reconstruct", "micrograph.path=synthetic:discs", "volume.size=32",
            "optimizer.iterations=100000", "optimizer.relative_decrease=0", "optimizer.projected_gradient=0",
            "runtime.threads=1", f"run.dir={directory}", "run.report=false",
        ],
        env=own_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def interrupt(process: subprocess.Popen[str], directory: Path, number: int) -> tuple[str, str]:
    """Send a signal once iterations are being written; return what was printed."""
    metrics = directory / "metrics.jsonl"
    try:
        until = time.monotonic() + 120
        while not (metrics.is_file() and metrics.stat().st_size > 1000):
            assert time.monotonic() < until, "no iteration in two minutes"
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(number)
        return process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def assert_interrupted_in_order(directory: Path) -> None:
    run = Run.open(directory)
    assert run.summary["status"] == "interrupted"
    assert run.summary["levels"][-1]["stop"] == "interrupted"
    assert set(np.unique(run.phase)) == {0, 1}
    assert np.isfinite(run.field).all()
    np.testing.assert_array_equal(run.phase, run.field > 0.5)
    assert run.summary["errors"]["rounded"]["z"]["s2"] < 0.5
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number: int, tmp_path: Path) -> None:
    process = start_long_run(tmp_path / "run", 1)
    out, err = interrupt(process, tmp_path / "run", number)
    assert process.returncode == 130, err
    assert "interrupted" in out
    assert "Traceback" not in err
    assert_interrupted_in_order(tmp_path / "run")


@pytest.mark.slow
def test_interrupted_under_torchrun(tmp_path: Path) -> None:
    """torchrun passes the signal on to all ranks; they stop at the same iteration and write together."""
    process = start_long_run(tmp_path / "run", 2)
    interrupt(process, tmp_path / "run", signal.SIGTERM)
    assert process.returncode != 0
    assert_interrupted_in_order(tmp_path / "run")


# ------------------------------------------------------------------------------------------------ planes


def test_a_plane_of_its_own(tmp_path: Path) -> None:
    """Two dimensions (Eq. 2): one slice, normal to z."""
    done = conduct(settings(tmp_path / "run", volume={"shape": [24, 30]}, optimizer={"iterations": 60}))
    assert done.phase.shape == (1, 24, 30)
    assert list(done.summary["errors"]["rounded"]) == ["z"]
    assert done.summary["errors"]["rounded"]["z"]["s2"] < 0.1


def test_a_plane_through_levels(tmp_path: Path) -> None:
    more = {"initial": "noise", "levels": {"count": 2}, "volume": {"shape": [32, 36]}}
    done = conduct(settings(tmp_path / "run", **more))
    assert [level["shape"] for level in done.summary["levels"]] == [[1, 16, 18], [1, 32, 36]]


# ------------------------------------------------------------------------------------------------ phases


def three_phases(shape: tuple[int, int] = (64, 64)) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    one, other = (synthetic.ThresholdedGaussian(length=5.0, fraction=f).draw(shape, rng) for f in (0.35, 0.4))
    return np.where(one == 1, 2, other).astype(np.uint8)


@pytest.mark.parametrize(("initial", "threshold"), [("spectral", "exact"), ("noise", 0.5)])
def test_three_phases_have_their_fractions(initial: str, threshold: str | float, tmp_path: Path) -> None:
    image = three_phases()
    more = {"micrograph": image, "volume": {"shape": [20, 18, 22]}, "optimizer": {"iterations": 30}}
    more["output"] = {"threshold": threshold}
    done = conduct(settings(tmp_path / "run", initial=initial, **more))
    assert set(np.unique(done.phase)) == {0, 1, 2}
    for label in range(3):
        wanted, found = float((image == label).mean()), float((done.phase == label).mean())
        assert abs(found - wanted) < (1e-3 if threshold == "exact" else 2e-2), label
        told = done.summary["phases"][str(label)]
        assert told["volume_fraction"]["rounded"] == pytest.approx(found)
        assert told["errors"]["rounded"]["z"]["s2"] < 0.35


@pytest.mark.parametrize("phase", [0, 2])
def test_one_phase_against_the_rest_is_one_in_the_volume(phase: int, tmp_path: Path) -> None:
    """Whatever it is in the micrograph; reports, viewers and other programs see labels 0 and 1."""
    image = three_phases()
    more = {"micrograph": {"image": image, "phase": phase}, "output": {"threshold": "exact"}}
    done = conduct(settings(tmp_path / "run", **more))
    assert done.volume.labels == 2
    shown = done.volume.attributes("phase")["ome"]["omero"]["channels"][0]["window"]
    assert (shown["min"], shown["max"]) == (0.0, 1.0)
    assert set(np.unique(done.phase)) == {0, 1}
    assert float(done.phase.mean()) == pytest.approx(float((image == phase).mean()), abs=1e-3)
    (stack,) = mcrdist.export(run={"dir": done.path}, format="tiff")
    with tifffile.TiffFile(stack) as tiff:
        assert tiff.imagej_metadata is not None and tiff.imagej_metadata["max"] == 1.0
