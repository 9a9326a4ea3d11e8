"""The analysis of runs and of other volumes: what is written, against what is known, and on other workers."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tracemalloc
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import zarr
from fake_run import build, build_phases, smooth_phase
from hypothesis import given
from hypothesis import strategies as st

import mcrdist
from mcrdist.__main__ import main
from mcrdist.analysis import write_report
from mcrdist.analysis.slices import correlations
from mcrdist.analysis.volume.labels import different
from mcrdist.analysis.volume.opened import opened
from mcrdist.analysis.volume.survey import block_tasks, look, look_at_block, tasks
from mcrdist.analyze import analyze
from mcrdist.config import VolumeSourceConfig, analyze_from_mapping
from mcrdist.errors import InputError
from mcrdist.store import Run
from mcrdist.store.source import open_source

distributed = pytest.importorskip("distributed")

ONE = {"workers": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "run"
    run = build(path, (24, 28, 32), width=(2, 2, 2), lags=8, levels=1, micrograph=64)
    write_report(run.path)
    return run


@pytest.fixture(scope="module")
def found(run: Run) -> Any:
    return mcrdist.analyze(run={"dir": run.path}, dask=ONE)


def value(rows: Any, statistic: str, direction: str = "", phase: int = 1) -> float:
    (row,) = [r for r in rows if (r.statistic, r.direction, r.phase) == (statistic, direction, phase)]
    return float(row.value)


def test_prescribed_errors_are_those_of_the_report(run: Run, found: Any) -> None:
    for item in correlations(run.volume, run.targets, most=1000):
        assert value(found.rows, "E(s2)", item.axis) == pytest.approx(item.error, rel=1e-5)
    planes = run.phase.mean((1, 2))
    wanted = float(run.targets["z/volume_fraction"])
    assert value(found.rows, "E(volume_fraction)", "z") == pytest.approx(
        np.abs(planes - wanted).mean() / wanted
    )
    written = json.loads((found.path / "analysis.json").read_text())
    assert len(written["phases"]["1"]["errors"]["y"]["variation"]) == 28


def test_values_of_the_whole_volume(run: Run, found: Any) -> None:
    phase = run.phase == 1
    assert value(found.rows, "volume fraction") == pytest.approx(phase.mean())
    for number, axis in enumerate("zyx"):
        crossed = (phase != np.roll(phase, 1, number)).mean() / 0.25
        assert value(found.rows, "boundaries crossed", axis) == pytest.approx(crossed)
    written = json.loads((found.path / "analysis.json").read_text())
    s2 = np.array(written["phases"]["1"]["s2"])
    assert s2.shape == (9, 17, 17)
    assert s2[2, 8 - 1, 8 + 3] == pytest.approx(
        (phase & np.roll(phase, (-2, 1, -3), (0, 1, 2))).mean(), abs=1e-5
    )
    assert written["unit"] == "micrometer" and written["periodic"]


def test_the_micrograph_stands_beside(run: Run, found: Any) -> None:
    rows = {(row.statistic, row.direction): row.micrograph for row in found.rows}
    image = run.targets["z/micrograph"] == 1
    assert rows["volume fraction", ""] == pytest.approx(image.mean())
    # Along z: the rows of the planes normal to y and to x, one micrograph here.
    assert rows["boundaries crossed", "z"] == pytest.approx((image[1:] != image[:-1]).mean() / 0.25)
    assert rows["share of the largest cluster", ""] is None


def test_files_and_report(run: Run, found: Any) -> None:
    assert found.path == run.path / "analysis" and found.report == run.report
    with open(found.path / "analysis.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(found.rows)
    assert [float(line["value"]) for line in table if line["value"]] == [
        row.value for row in found.rows if np.isfinite(row.value)
    ]
    page = found.report.read_text(encoding="utf-8")
    for words in ("What was measured in the volume", "Euler number (26-connected)", "95th percentile"):
        assert words in page
    with pytest.raises(InputError, match=r"output.dir: expected a new or empty directory, found .*analysis"):
        mcrdist.analyze(run={"dir": run.path}, dask=ONE)
    (found.path / "analysis.json").write_text("{")
    with pytest.raises(InputError, match=r"expected the results of mcrdist analyze"):
        write_report(run.path)


def test_several_phases(tmp_path: Path) -> None:
    run = build_phases(tmp_path / "three")
    found = mcrdist.analyze(run={"dir": run.path}, dask=ONE)
    fractions = [value(found.rows, "volume fraction", phase=k) for k in range(3)]
    assert sum(fractions) == pytest.approx(1)
    assert fractions[2] == pytest.approx((run.phase == 2).mean())
    assert found.report is None  # there was none before
    assert "Phase 2" in write_report(run.path).read_text(encoding="utf-8")


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_no_micrograph_shows_has_no_distance_from_it(tmp_path: Path) -> None:
    """All of each image is the described phase; the volume has some of the rest."""
    run = build(tmp_path / "run", (16, 16, 16), width=(2, 2, 2), lags=4, levels=1, micrograph=24)
    targets = dict(run.targets) | {f"{axis}/micrograph": np.ones((24, 24), np.uint8) for axis in "zyx"}
    np.savez(run.path / "targets.npz", **targets)
    found = mcrdist.analyze(
        run={"dir": run.path},
        volume={"phase": 0},
        dask=ONE,
        transport={"enabled": False},
        parts={"edges": []},
        middle={"thickness": False},
        output={"dir": tmp_path / "rest"},
    )
    rows = {(row.statistic, row.direction): row for row in found.rows}
    assert rows["volume fraction", ""].micrograph == 0
    assert not any(statistic.startswith("E(") for statistic, _ in rows)


def test_a_volume_that_is_not_periodic(tmp_path: Path) -> None:
    labels = smooth_phase((20, 22, 24), 2, 0.4, 0).astype(np.uint8)
    np.save(tmp_path / "ct.npy", labels)
    found = mcrdist.analyze(volume={"path": tmp_path / "ct.npy", "voxel_size": 2}, dask=ONE, lags=4)
    assert found.path == tmp_path / "ct_analysis" and found.report is None
    crossed = (labels[1:] != labels[:-1]).mean() / 2
    assert value(found.rows, "boundaries crossed", "z") == pytest.approx(crossed)
    assert value(found.rows, "volume fraction") == labels.mean()
    # Nothing was prescribed, and what ends does not repeat.
    assert not any(row.prescribed or row.statistic.startswith("largest correlation") for row in found.rows)


@pytest.mark.slow
def test_other_workers_find_the_same(
    run: Run, found: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:1")  # what is asked for comes first
        there = mcrdist.analyze(
            run={"dir": run.path},
            dask={"scheduler": cluster.scheduler_address},
            output={"dir": tmp_path / "there"},
        )
    assert [row.value for row in there.rows] == [row.value for row in found.rows]


def test_a_task_takes_no_more_memory_for_a_taller_volume(tmp_path: Path) -> None:
    peaks = []
    for height in (128, 512):
        labels = np.random.default_rng(0).integers(0, 2, (height, 24, 24), dtype=np.uint8)
        np.save(tmp_path / f"{height}.npy", labels)
        config = VolumeSourceConfig(path=str(tmp_path / f"{height}.npy"))
        source = open_source(config)
        todo = [t for t in tasks(config, source, 1, 8, {}) if t.axis in ("block", "z")]
        blocks = block_tasks(config, source, 1, 4.0)
        look(todo[0])  # compiled, and opened
        look_at_block(blocks[0])
        tracemalloc.start()
        for task in todo:
            look(task)
        for block in blocks:
            look_at_block(block)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.slow
def test_a_worker_takes_no_more_memory_for_a_taller_volume(tmp_path: Path) -> None:
    """Peak memory of a worker that is a process of its own, as the operating system counts it."""
    tile = smooth_phase((32, 192, 192), 3, 0.4, 0).astype(np.uint8)
    peaks, heights = [], (96, 768)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        for height in heights:
            np.save(tmp_path / f"{height}.npy", np.tile(tile, (height // len(tile), 1, 1)))
            mcrdist.analyze(
                volume={"path": tmp_path / f"{height}.npy"},
                dask={"scheduler": cluster.scheduler_address},
                lags=16,
                middle={"edge": 48},
                parts={"edges": [16]},
            )
            peaks += client.run(_peak).values()
    added = (heights[1] - heights[0]) * tile[0].nbytes
    assert added > 20e6
    assert peaks[1] - peaks[0] < added / 2  # a byte a voxel would already be more


def _peak() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_the_dashboards_link_is_told_and_leads_there(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    pages: list[str] = []
    hosts: set[str] = set()

    def visit(line: str) -> None:
        found = re.fullmatch(r"dask     (http://127\.0\.0\.1:\d+/status)", line)
        if found:  # while the workers are there
            with urllib.request.urlopen(found[1], timeout=20) as answer:
                pages.append(answer.read().decode())
            listening = [
                c for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN
            ]
            hosts.update(connection.laddr.ip for connection in listening)

    analyze(
        analyze_from_mapping({"run": {"dir": run.path}, "dask": ONE, "output": {"dir": tmp_path / "new"}}),
        visit,
    )
    assert len(pages) == 1 and "Dask" in pages[0]
    assert hosts == {"127.0.0.1"}  # nobody but this machine reaches any of it


def test_no_link_without_a_dashboard(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bokeh" else find(name, *a)
    )
    said: list[str] = []
    settings = {"run": {"dir": run.path}, "dask": ONE, "output": {"dir": tmp_path / "new"}}
    analyze(analyze_from_mapping(settings), said.append)
    assert not any("http" in line for line in said)


def test_volume_and_micrograph_have_one_window_of_lags(tmp_path: Path) -> None:
    """Whatever the run's was; and no longer one than the smaller of the two has room for."""
    run = build(tmp_path / "run", (24, 28, 32), width=(2, 2, 2), lags=4, levels=1, micrograph=16)
    quick = {
        "dask": ONE,
        "transport": {"enabled": False},
        "parts": {"edges": []},
        "middle": {"thickness": False},
    }
    found = {}
    for lags in (8, 12):
        said: list[str] = []
        settings = {"run": {"dir": run.path}, "output": {"dir": tmp_path / f"{lags}"}, "lags": lags} | quick
        result = analyze(analyze_from_mapping(settings), said.append)
        found[lags] = [row for row in result.rows if row.statistic == "integral range of S2"]
        warned = [line for line in said if line.startswith("warning")]
        assert warned == (
            [
                "warning  integral ranges are summed over lags up to 8, half of the smallest micrograph, as there"
            ]
            if lags == 12
            else []
        )
        content = json.loads((result.path / "analysis.json").read_text())
        assert (content["lags"], content["window"]) == (lags, 8)
        assert np.shape(content["phases"]["1"]["s2"]) == (lags + 1, 2 * lags + 1, 2 * lags + 1)
    assert [row.value for row in found[8]] == pytest.approx([row.value for row in found[12]], rel=1e-4)
    assert [row.micrograph for row in found[8]] == [row.micrograph for row in found[12]]
    # Along x: the columns of the images normal to z and to y, which are one here.
    mask = run.targets["z/micrograph"] == 1
    pairs = [(mask[:, : 16 - lag], mask[:, lag:]) for lag in range(9)]
    covariance = np.array([(a & b).mean() - a.mean() * b.mean() for a, b in pairs])
    wanted = 0.25 * (covariance.sum() - (covariance[0] + covariance[-1]) / 2) / covariance[0]
    assert found[8][2].micrograph == pytest.approx(wanted)


def test_mistakes(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "field.npy", np.zeros((8, 8, 8), np.float32))
    with pytest.raises(InputError, match=r"field.npy: expected labels, found float32"):
        mcrdist.analyze(volume={"path": tmp_path / "field.npy"}, dask=ONE)
    with pytest.raises(
        InputError, match=r"volume.phase: expected 7 among the labels of .*, found 0, 1; e.g. vol"
    ):
        mcrdist.analyze(run={"dir": run.path}, volume={"phase": 7}, dask=ONE, output={"dir": tmp_path / "a"})
    assert not (tmp_path / "a").exists()
    with pytest.raises(InputError, match=r"lags: expected an integer of at most 12, half .* found 13"):
        mcrdist.analyze(run={"dir": run.path}, lags=13, dask=ONE, output={"dir": tmp_path / "a"})
    with pytest.raises(InputError, match=r"volume.image: expected phase"):
        mcrdist.analyze(run={"dir": run.path}, volume={"image": "field"})
    with pytest.raises(InputError, match=r"dask.scheduler: expected a scheduler's address, found nobody"):
        mcrdist.analyze(
            run={"dir": run.path}, dask={"scheduler": "no address"}, output={"dir": tmp_path / "b"}
        )


def refused(capsys: pytest.CaptureFixture[str], *given: str) -> str:
    """What the command says, in one line, and before anything is measured."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys.modules["mcrdist.analyze"], "measure", lambda *given: pytest.fail("measured"))
        assert main(["analyze", "dask.workers=1", "output.dir=new", *given]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert not Path("new").exists()
    return line


def test_labels_are_looked_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = smooth_phase((12, 14, 16), 2, 0.4, 0).astype(np.uint8)
    tifffile.imwrite("bytes.tif", labels * 255)
    assert refused(capsys, "volume.path=bytes.tif").endswith(
        "volume.phase: expected 1 among the labels of bytes.tif, found 0, 255; e.g. volume.phase=255"
    )
    np.save("ct.npy", labels)
    assert refused(capsys, "volume.path=ct.npy", "truth.path=bytes.tif").endswith(
        "truth.phase: expected 1 among the labels of bytes.tif, found 0, 255; e.g. truth.phase=255"
    )
    np.save("far.npy", labels * np.int32(1000) - 1000)
    assert refused(capsys, "volume.path=far.npy").endswith("found -1000, 0; e.g. volume.phase=0")


def test_grey_levels_are_no_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    grey = np.arange(8**3, dtype=np.uint16).reshape(8, 8, 8) // 16
    np.save("grey.npy", grey)
    said = (
        "grey.npy: expected labels, found more than 8 different values, 0, 1, 2, 3, 4, 5, 6, 7, …; segment the volume "
        "first, or say which of them is the phase: "
    )
    assert refused(capsys, "volume.path=grey.npy").endswith(f"{said}volume.phase=1")
    np.save("ct.npy", grey % 2)
    assert refused(capsys, "volume.path=ct.npy", "truth.path=grey.npy").endswith(f"{said}truth.phase=1")
    assert refused(capsys, "volume.path=grey.npy", "volume.phase=77").endswith(
        "expected 77 among the labels of grey.npy, found 0, 1, 2, 3, 4, 5, 6, 7, …; e.g. volume.phase=8"
    )
    quick = {"transport": {"enabled": False}, "parts": {"edges": []}, "middle": {"thickness": False}}
    found = mcrdist.analyze(volume={"path": "grey.npy", "phase": 31}, dask=ONE, **quick)
    assert value(found.rows, "volume fraction", phase=31) == 1 / 32


def test_an_interrupted_volume_is_told(tmp_path: Path) -> None:
    run = build(tmp_path / "run", (16, 16, 16), width=(1, 1, 1), lags=4, levels=1, micrograph=24)
    volume = zarr.open_array(run.path / "volume.zarr" / "phase" / "0", mode="r+")
    volume[12:] = 255
    with pytest.raises(InputError, match=r"expected a whole volume, found planes 0 to 15 not written"):
        mcrdist.analyze(run={"dir": run.path}, dask=ONE)


def test_a_volume_that_was_written_anew_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = VolumeSourceConfig(path="ct.npy")
    for size in (6, 4):  # in the same place, and then in another one
        (tmp_path / f"{size}").mkdir()
        monkeypatch.chdir(tmp_path / f"{size}")
        for edge in (size, size + 1):
            np.save("ct.npy", np.zeros((edge,) * 3, np.uint8))
            assert opened(config).shape == (edge,) * 3
    first = opened(config)
    assert opened(config) is first
    Path("ct.npy").unlink()
    with pytest.raises(
        InputError, match=r"volume.path: expected a volume, found nothing at .*ct.npy any more"
    ):
        opened(config)


@given(st.lists(st.integers(-9, 9), max_size=60), st.lists(st.integers(-9, 9), unique=True, max_size=3))
def test_different_values(values: list[int], first: list[int]) -> None:
    found = different(np.array(values, np.int16), first)
    there = [value for value in first if value in values]
    assert found[: len(there)] == there and len(set(found)) == len(found) and set(found) <= set(values)
    assert len(found) == min(len(set(values)), max(9, len(there)))


@pytest.mark.slow
def test_command_on_a_real_run(tmp_path: Path) -> None:
    """Eq. 10 by the analysis is what the run's own summary says."""
    run = mcrdist.reconstruct(
        micrograph="synthetic:gaussian",
        volume={"size": 24},
        run={"dir": tmp_path / "run"},
        optimizer={"iterations": 5},
        runtime={"threads": 1},
    )
    command = [sys.executable, "-m", "mcrdist", "analyze", f"run.dir={run.path}", "dask.workers=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.splitlines()[-2] == f"report   {run.path / 'report.html'}"
    assert done.stdout.splitlines()[-1].endswith(f"{run.path.name} report.figures=pdf")
    rows = json.loads((run.path / "analysis" / "analysis.json").read_text())["rows"]
    for axis in "zyx":
        for name in ("s2", "volume_fraction"):
            (got,) = [r["value"] for r in rows if (r["statistic"], r["direction"]) == (f"E({name})", axis)]
            assert got == pytest.approx(run.summary["errors"]["rounded"][axis][name], rel=1e-4)
    again = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert again.returncode == 2 and "expected a new or empty directory" in again.stderr
    shutil.rmtree(run.path / "analysis")
