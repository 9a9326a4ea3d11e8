"""A true volume beside the measured one: both in the same boxes, in the same way."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from fake_run import build, smooth_phase
from hypothesis import given
from hypothesis import strategies as st

import mcrdist
from mcrdist.__main__ import main
from mcrdist.analysis import write_report
from mcrdist.analysis.measured import beside
from mcrdist.analysis.volume.truth import apart, side_by_side
from mcrdist.errors import InputError

pytest.importorskip("distributed")

QUICK: dict[str, Any] = {
    "dask": {"workers": 1},
    "transport": {"enabled": False},
    "parts": {"edges": []},
    "lags": 4,
}


def labels(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray[Any, Any]:
    return smooth_phase(shape, 2, 0.4, seed).astype(np.uint8)


def by_key(rows: Any) -> dict[tuple[str, str], Any]:
    return {(row.statistic, row.direction): row for row in rows}


@given(st.tuples(*[st.integers(4, 40)] * 3), st.tuples(*[st.integers(1, 40)] * 3), st.integers(1, 10))
def test_boxes_lie_inside_side_by_side(
    shape: tuple[int, int, int], edges: tuple[int, int, int], most: int
) -> None:
    z, y, x = (min(n, edge) for n, edge in zip(shape, edges, strict=True))
    found = side_by_side(shape, (z, y, x), most)
    covered = np.zeros(shape, int)
    for a, b, c in found:
        covered[a : a + z, b : b + y, c : c + x] += 1
    assert len(found) == min(most, (shape[0] // z) * (shape[1] // y) * (shape[2] // x))
    assert covered.sum() == len(found) * z * y * x and covered.max() == 1


def test_a_volume_is_as_it_is_itself(tmp_path: Path) -> None:
    np.save(tmp_path / "ct.npy", labels((16, 18, 20)))
    found = mcrdist.analyze(
        volume={"path": tmp_path / "ct.npy"}, truth={"path": tmp_path / "ct.npy"}, **QUICK
    )
    compared = [row for row in found.rows if row.truth is not None]
    assert len(compared) > 25
    for row in compared:
        assert row.alike == row.truth == row.value and row.scatter is None
    assert {row.statistic for row in found.rows if row.statistic.startswith("apart")} == {
        f"apart from the truth: {name}"
        for name in ("S2 in space", "lineal path", "chord lengths", "distances to the boundary")
    }


def test_pieces_of_the_truth_are_volumes_by_themselves(tmp_path: Path) -> None:
    """Means and standard deviations over eight boxes are those of eight analyses."""
    true, made = labels((24, 32, 40), 1), labels((12, 16, 20), 2)
    np.save(tmp_path / "made.npy", made)
    tifffile.imwrite(tmp_path / "true.tif", true * 3)
    found = mcrdist.analyze(
        volume={"path": tmp_path / "made.npy"},
        truth={"path": tmp_path / "true.tif", "phase": 3},
        **{**QUICK, "transport": {"enabled": True}},
    )
    own = []
    for k in np.ndindex(2, 2, 2):
        z, y, x = (n * edge for n, edge in zip(k, made.shape, strict=True))
        np.save(tmp_path / "box.npy", true[z : z + 12, y : y + 16, x : x + 20])
        out = {"dir": tmp_path / f"box{k}"}
        settings = {**QUICK, "transport": {"enabled": True}}
        own.append(
            by_key(mcrdist.analyze(volume={"path": tmp_path / "box.npy"}, output=out, **settings).rows)
        )
    counted = 0
    for key, row in by_key(found.rows).items():
        if key not in own[0] or row.truth is None:
            continue
        values = np.array([box[key].value for box in own])
        values = values[np.isfinite(values)]
        assert row.truth == pytest.approx(values.mean(), rel=1e-9, abs=1e-12), key
        assert row.scatter == pytest.approx(values.std(ddof=1), rel=1e-9, abs=1e-12), key
        assert row.alike == row.value  # it has no border to lose
        counted += 1
    assert counted >= 30 and ("effective diffusivity", "y") in by_key(found.rows)


def test_a_run_is_measured_as_the_truth_is(tmp_path: Path) -> None:
    run = build(tmp_path / "run", (24, 28, 32), width=(2, 2, 2), lags=8, levels=1, micrograph=64)
    write_report(run.path)
    np.save(tmp_path / "true.npy", labels((20, 60, 70), 4))
    found = mcrdist.analyze(
        run={"dir": run.path}, truth={"path": tmp_path / "true.npy"}, middle={"edge": 10}, **QUICK
    )
    np.save(tmp_path / "cut.npy", run.phase[2:22])
    alone = by_key(mcrdist.analyze(volume={"path": tmp_path / "cut.npy", "voxel_size": 0.25}, **QUICK).rows)
    rows = by_key(found.rows)
    for key in (("mean chord", "y"), ("share that percolates", "x"), ("specific surface", "")):
        assert rows[key].alike == pytest.approx(alone[key].value)
        assert rows[key].truth is not None
    # What the run was asked for, and what only a periodic volume has, is not compared.
    assert rows["E(s2)", "z"].truth is None and rows["largest correlation at long range", "z"].truth is None
    content = json.loads((found.path / "analysis.json").read_text())
    assert content["truth"]["edges"] == [20, 28, 32] and content["truth"]["lags"] == 4
    assert rows["local thickness, mean", ""].box == (10, 10, 10)
    assert (content["truth"]["boxes"], content["truth"]["boxes_of_the_volume"]) == (4, 1)
    with open(found.path / "analysis.csv", encoding="utf-8") as file:
        (line,) = [
            li for li in csv.DictReader(file) if (li["statistic"], li["direction"]) == ("mean chord", "y")
        ]
    assert float(line["truth"]) == rows["mean chord", "y"].truth and float(line["scatter"]) > 0
    page = run.report.read_text(encoding="utf-8")
    known = beside(content["rows"])
    for words in (
        "Beside the true volume",
        f"{known['near']} of {known['known']} statistics are within two standard deviations",
        "agree with the true volume",
        "S₂ in space, relative distance",
        "are those of the 10³ voxels in the middle of each",
    ):
        assert words in page
    assert any("truth" in line and "measured alike" in line for line in found.lines())


def test_what_counts_as_near() -> None:
    def row(**values: Any) -> dict[str, Any]:
        return {"statistic": "a", "direction": "", "unit": "", "value": 1.0} | values

    for values, far in (
        ({"alike": 1.0, "truth": 1.3, "scatter": 0.2}, False),
        ({"alike": 1.0, "truth": 1.3, "scatter": 0.1}, True),
        ({"alike": 1.0, "truth": 1.05, "scatter": None}, False),
        ({"alike": 1.0, "truth": 1.2, "scatter": None}, True),
        ({"alike": 0.0, "truth": 0.0, "scatter": 0.0}, False),
    ):
        found = beside([row(**values)])
        assert (found["near"], found["known"]) == (int(not far), 1)
        assert found["groups"][0]["far"] is far
    unknown = beside([row(alike=None, truth=1.0, scatter=0.1), row(statistic="b")])
    assert (unknown["near"], unknown["known"], len(unknown["groups"])) == (0, 0, 1)
    assert apart(np.array([1.0, 1.0]), np.array([1.0])) == 1.0


def test_units_are_converted(tmp_path: Path) -> None:
    np.save(tmp_path / "made.npy", labels((12, 12, 12)))
    np.save(tmp_path / "true.npy", labels((12, 12, 12)))
    found = mcrdist.analyze(
        volume={"path": tmp_path / "made.npy", "voxel_size": 0.5, "unit": "um"},
        truth={"path": tmp_path / "true.npy", "voxel_size": 500, "unit": "nm"},
        **QUICK,
    )
    row = by_key(found.rows)["specific surface", ""]
    assert row.truth == pytest.approx(row.value) and row.unit == "1/µm"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["truth.path=nothing.tif"], "truth.path: expected a volume, found nothing at nothing.tif"),
        (["truth.phase=2"], "truth.path: expected a volume, found nothing (null)"),
        (
            ["truth.path=ct.npy", "truth.phase=7"],
            "truth.phase: expected 7 among the labels of ct.npy, found 0, 1; e.g. truth.phase=1",
        ),
        (["truth.path=field.npy"], "truth.path: expected labels, found float32"),
        (["truth.path=ct.npy", "truth.level=1"], "truth.level: expected 0 for a volume without a pyramid"),
        (
            ["volume.voxel_size=1", "truth.path=ct.npy", "truth.voxel_size=2"],
            "truth.voxel_size: expected voxels as wide as the volume's, 1 x 1 x 1 micrometer (z, y, x), found 2 x 2",
        ),
    ],
)
def test_mistakes(
    given: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("ct.npy", labels((12, 12, 12)))
    np.save("field.npy", np.zeros((12, 12, 12), np.float32))
    quick = ["dask.workers=1", "transport.enabled=false", "parts.edges=[]", "lags=4"]
    assert main(["analyze", "volume.path=ct.npy", *quick, *given]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.strip().splitlines()) == 1
    assert not Path("ct_analysis").exists()


def test_one_phase_of_the_truth_for_one_of_the_volume(tmp_path: Path) -> None:
    from fake_run import build_phases

    run = build_phases(tmp_path / "three")
    np.save(tmp_path / "true.npy", np.asarray(run.phase))
    with pytest.raises(InputError, match=r"truth.phase: expected null where 3 phases are measured, found 2"):
        mcrdist.analyze(run={"dir": run.path}, truth={"path": tmp_path / "true.npy", "phase": 2}, **QUICK)
    found = mcrdist.analyze(run={"dir": run.path}, truth={"path": tmp_path / "true.npy"}, **QUICK)
    for row in found.rows:
        if row.truth is not None:
            assert row.alike == pytest.approx(row.truth)
    assert {row.phase for row in found.rows if row.truth is not None} == {0, 1, 2}
