"""Diffusivity against closed forms and a direct solution, and whether a volume is representative."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import build, smooth_phase
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

import mcrdist
from mcrdist.__main__ import main
from mcrdist.analysis import write_report
from mcrdist.analysis.volume.parts import Part, centred, cubes, default_edges
from mcrdist.analysis.volume.representative import Answer, answers, headline, scatters
from mcrdist.analysis.volume.transport import Diffusivity, diffusivity
from mcrdist.errors import InputError

pytest.importorskip("taufactor")
pytest.importorskip("distributed")

ONE = {"workers": 1}
CUBES = (1.0, 1.0, 1.0)


def direct(phase: NDArray[np.bool_], axis: int, size: tuple[float, float, float]) -> float:
    """The same finite volumes by a sparse factorisation: c = 0 and 1 half a voxel beyond the first and last planes."""
    order = (axis, *(k for k in range(3) if k != axis))
    inside, h = phase.transpose(order), [size[k] for k in order]
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(inside.sum())
    rows, columns, values = [], [], []
    diagonal = np.zeros(inside.sum())
    for k in range(3):
        low = number[tuple(slice(0, -1) if j == k else slice(None) for j in range(3))].ravel()
        high = number[tuple(slice(1, None) if j == k else slice(None) for j in range(3))].ravel()
        both = (low >= 0) & (high >= 0)
        weight = np.full(both.sum(), 1 / h[k] ** 2)
        for a, b in ((low[both], high[both]), (high[both], low[both])):
            rows.append(a)
            columns.append(b)
            values.append(-weight)
            np.add.at(diagonal, a, weight)
    right = np.zeros(inside.sum())
    for plane, value in ((number[0], 0.0), (number[-1], 1.0)):
        held = plane[plane >= 0]
        np.add.at(diagonal, held, 2 / h[0] ** 2)
        np.add.at(right, held, 2 * value / h[0] ** 2)
    diagonal[diagonal == 0] = 1
    n = np.arange(inside.sum())
    matrix = coo_array(
        (np.concatenate([*values, diagonal]), (np.concatenate([*rows, n]), np.concatenate([*columns, n])))
    )
    # Clusters without a face have no equation of their own; a little loss pins them down.
    concentration = spsolve((matrix + coo_array((np.full(len(n), 1e-12), (n, n)))).tocsc(), right)
    first = number[0][number[0] >= 0]
    return float(2 * concentration[first].sum() * inside.shape[0] / inside[0].size)


def test_a_uniform_block_and_an_empty_one() -> None:
    for axis in range(3):
        assert diffusivity(np.ones((6, 8, 10), bool), axis, CUBES) == Diffusivity(1.0)
        assert diffusivity(np.zeros((6, 8, 10), bool), axis, CUBES) == Diffusivity(0.0)


@pytest.mark.parametrize("size", [CUBES, (3.0, 1.0, 0.5)])
def test_parallel_layers(size: tuple[float, float, float], capfd: pytest.CaptureFixture[str]) -> None:
    """Along them a share of the bare medium as large as their fraction; across them nothing."""
    layers = np.zeros((16, 12, 12), bool)
    layers[::4] = layers[5] = True
    for axis in (1, 2):
        found = diffusivity(layers, axis, size)
        assert found.value == pytest.approx(layers.mean(), rel=1e-4) and found.converged
    assert diffusivity(layers, 0, size).value == 0
    assert capfd.readouterr() == ("", "")  # the solver keeps its words to itself


@pytest.mark.parametrize("size", [CUBES, (2.0, 1.0, 1.0)])
def test_a_structure_against_a_direct_solution(size: tuple[float, float, float]) -> None:
    phase = smooth_phase((20, 16, 18), 2, 0.55, 0)
    for axis in range(3):
        found = diffusivity(phase, axis, size)
        assert found.converged and 0 < found.value < phase.mean()
        assert found.value == pytest.approx(direct(phase, axis, size), rel=0.01)


def test_too_few_iterations_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    phase = smooth_phase((48, 12, 12), 2, 0.6, 1)
    assert not diffusivity(phase, 0, CUBES, iterations=200, convergence=1e-6).converged
    assert capfd.readouterr() == ("", "")


@given(
    st.tuples(*[st.integers(4, 40)] * 3),
    st.integers(4, 40),
    st.integers(4, 12),
    st.integers(4, 300) | st.none(),
)
def test_cubes_lie_inside_side_by_side(
    shape: tuple[int, int, int], edge: int, most: int, largest: int | None
) -> None:
    found = cubes(shape, edge, most)
    there = math.prod(n // edge for n in shape)
    assert len(found) == len(set(found)) == min(there, most)
    covered = np.zeros(shape, int)
    for z, y, x in found:
        covered[z : z + edge, y : y + edge, x : x + edge] += 1
    assert covered.sum() == len(found) * edge**3 and covered.max(initial=0) <= 1
    for own in default_edges(shape, largest):
        assert len(cubes(shape, own, 4)) == 4
    corner, edges = centred(shape, largest)
    assert all(c >= 0 and c + e <= n for c, e, n in zip(corner, edges, shape, strict=True))
    assert edges == tuple(min(n, largest or n) for n in shape)


def part(edge: int, fraction: float, flow: float) -> Part:
    return Part((0, 0, 0), (edge,) * 3, fraction, 0.5, {"z": Diffusivity(flow)})


def test_answers() -> None:
    found = scatters(
        [part(8, f, g) for f, g in ((0.4, 0.0), (0.6, 0.2))]
        + [part(16, f, g) for f, g in ((0.49, 0.05), (0.51, 0.15))]
        + [part(32, f, g) for f, g in ((0.495, 0.09), (0.505, 0.11))]
    )
    by = {(one.quantity, one.edge): one for one in found}
    assert by["volume fraction", 8].scatter == pytest.approx(0.2 * math.sqrt(0.5) / 0.5 * 1)
    assert by["diffusivity z", 16].scatter == pytest.approx(0.5 * math.sqrt(2))
    fraction, surface, flow = answers(found, (64, 64, 64), (64, 64, 64))
    assert (fraction.edge, fraction.measured) == (16, True)
    assert fraction.words.startswith(
        "From an edge of 16 voxels on, the scatter of the volume fraction is below"
    )
    assert surface.edge == 8 and surface.expected == 0
    scatter = 0.1 * math.sqrt(2)
    assert flow.edge == pytest.approx(32 * (scatter / 0.05) ** (2 / 3)) and not flow.measured
    assert flow.expected == pytest.approx(scatter / 2**1.5)
    assert "it would reach" in flow.words and "diffusivity along z" in flow.words
    assert headline([fraction, surface, flow]) == (
        "The volume is representative for volume fraction, specific surface, but not for diffusivity along z "
        "(5\u00a0%): more than 5\u00a0% would lie between it and another one as large."
    )
    assert headline([fraction, surface]).startswith("The volume is representative: ")
    (closed,) = answers(scatters([part(8, 0.5, 0.0)] * 2), (8, 8, 8), (8, 8, 8))[2:]
    assert closed.edge is None and math.isnan(closed.expected) and "lets anything through" in closed.words


def answer(quantity: str, expected: float) -> Answer:
    return Answer(quantity, None, False, expected, "")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            {"volume fraction": 0.01},
            "The volume is representative: another one as large would differ by less than 5 %.",
        ),
        (
            {"volume fraction": 0.1, "diffusivity x": 0.12},
            "The volume is not representative for volume fraction (10 %), diffusivity along x (12 %): more than 5 % "
            "would lie between it and another one as large.",
        ),
        (
            {"volume fraction": 0.1, "diffusivity z": math.nan},
            "The volume is not representative for volume fraction (10 %): more than 5 % would lie between it and "
            "another one as large. Whether it is for diffusivity along z is not known.",
        ),
        (
            {"volume fraction": 0.01, "specific surface": math.nan},
            "The volume is representative for volume fraction: another one as large would differ by less than 5 %. "
            "Whether it is for specific surface is not known.",
        ),
        (
            {"specific surface": math.nan, "diffusivity z": math.nan},
            "Whether the volume is representative is not known for specific surface, diffusivity along z.",
        ),
    ],
)
def test_the_headline_is_made_of_sentences(found: dict[str, float], words: str) -> None:
    assert headline([answer(*one) for one in found.items()]).replace("\u00a0", " ") == words


def test_what_no_cube_has_is_said_of_each_quantity() -> None:
    """All cubes lie beside the phase."""
    parts = [Part((0, 0, 0), (16,) * 3, f, 0.0, {"x": Diffusivity(0.0)}) for f in (0.0, 0.0)]
    assert [one.words for one in answers(scatters(parts), (32, 32, 32), (32, 32, 32))] == [
        "No cube of 16 voxels has any of the phase in it: how the volume fraction scatters is not known.",
        "No cube of 16 voxels has a boundary in it: how the specific surface scatters is not known.",
        "No cube of 16 voxels lets anything through along x: how the diffusivity along x scatters is not known.",
    ]


def test_the_scatter_of_noise_falls_with_the_root_of_the_volume(tmp_path: Path) -> None:
    """Independent voxels: of cubes with n voxels, φ scatters as sqrt((1 - φ)/(φ n))."""
    np.save(tmp_path / "noise.npy", np.random.default_rng(3).integers(0, 2, (64,) * 3, dtype=np.uint8))
    found = mcrdist.analyze(
        volume={"path": tmp_path / "noise.npy"},
        dask=ONE,
        transport={"enabled": False},
        parts={"edges": [4, 8, 16], "samples": 64},
    )
    written = json.loads((found.path / "analysis.json").read_text())["phases"]["1"]["representative"]
    fractions = [one for one in written["scatters"] if one["quantity"] == "volume fraction"]
    assert [one["count"] for one in fractions] == [64] * 3
    for one in fractions:
        assert one["scatter"] == pytest.approx(one["edge"] ** -1.5, rel=0.35)
    assert "diffusivity z" not in written["middle"]["values"] and len(written["cubes"]) == 192
    assert not any("diffusivity" in row.statistic for row in found.rows)


def row(rows: Any, statistic: str, axis: str) -> float:
    (one,) = [r for r in rows if (r.statistic, r.direction) == (statistic, axis)]
    return float(one.value)


def test_rods_conduct_along_themselves(tmp_path: Path) -> None:
    rods = np.zeros((24, 24, 24), np.uint8)
    rods.reshape(24, 6, 4, 6, 4)[:, :, :2, :, :2] = 1
    np.save(tmp_path / "rods.npy", rods)
    found = mcrdist.analyze(volume={"path": tmp_path / "rods.npy"}, dask=ONE)
    assert row(found.rows, "effective diffusivity", "z") == pytest.approx(0.25, rel=1e-3)
    assert row(found.rows, "tortuosity factor", "z") == pytest.approx(1, rel=1e-3)
    for axis in "yx":
        assert row(found.rows, "effective diffusivity", axis) == 0
        assert math.isnan(row(found.rows, "tortuosity factor", axis))
    assert row(found.rows, "representative edge, diffusivity", "z") == 8
    with open(found.path / "analysis.csv", encoding="utf-8") as file:
        table = [line for line in csv.DictReader(file) if line["statistic"] == "tortuosity factor"]
    assert [bool(line["value"]) for line in table] == [True, False, False]
    assert (found.path / "representative-1.svg").read_bytes().startswith(b"<?xml")


def test_a_row_names_the_box_that_it_is_of(tmp_path: Path) -> None:
    """Layers: wide in the volume, and cut in its middle."""
    run = build(tmp_path / "run", (24, 20, 24), width=(2, 2, 2), lags=8, levels=1, micrograph=64)
    write_report(run.path)
    inside = {
        ("local thickness, mean", ""),
        ("local thickness, median", ""),
        *(("effective diffusivity", axis) for axis in "zyx"),
        *(("tortuosity factor", axis) for axis in "zyx"),
    }
    for edge, box, said in (
        (24, None, ""),
        (8, (8, 8, 8), " (middle 8³)"),
        (22, (22, 20, 22), " (middle 22\u00a0×\u00a020\u00a0×\u00a022)"),  # noqa: RUF001
    ):
        where = None if edge == 8 else tmp_path / f"{edge}"
        settings = {"dask": ONE, "parts": {"edges": []}, "output": {"dir": where}}
        found = mcrdist.analyze(run={"dir": run.path}, middle={"edge": edge}, **settings)
        assert {(r.statistic, r.direction) for r in found.rows if r.box == box} >= inside
        assert sum(r.box is not None for r in found.rows) == (0 if box is None else len(inside))
        assert any(line.startswith(f"phase 1  effective diffusivity{said} x ") for line in found.lines())
        with open(found.path / "analysis.csv", encoding="utf-8") as file:
            cells = {line["box"] for line in csv.DictReader(file) if line["statistic"] == "tortuosity factor"}
        assert cells == {"" if box is None else "x".join(map(str, box))}
    page = run.report.read_text(encoding="utf-8")
    assert "<td>local thickness, mean (middle 8³)</td>" in page and "<td>mean chord</td>" in page


def test_the_report_answers(tmp_path: Path) -> None:
    run = build(tmp_path / "run", (24, 24, 24), width=(2, 2, 2), lags=8, levels=1, micrograph=64)
    write_report(run.path)
    found = mcrdist.analyze(run={"dir": run.path}, dask=ONE, parts={"edges": [6, 12]})
    page = run.report.read_text(encoding="utf-8")
    for words in ("effective diffusivity", "tortuosity factor", "Is the volume representative?", "TauFactor"):
        assert words in page
    phase = run.phase == 1
    assert row(found.rows, "effective diffusivity", "y") == pytest.approx(direct(phase, 1, CUBES), rel=0.01)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            "parts.edges=[4,13]",
            "parts.edges: expected edges of which the volume has 4 cubes side by side, found 13",
        ),
        ("parts.edges=[2]", "parts.edges: expected a list of integers of at least 4"),
        ("parts.samples=3", "parts.samples: expected an integer from 4 to 4096, found 3"),
        ("middle.edge=3", "middle.edge: expected an integer of at least 4, found 3"),
        ("transport.iterations=50", "transport.iterations: expected an integer of at least 200"),
        ("transport.convergence=0", "transport.convergence: expected a number above 0"),
        ("transport.enabled=maybe", "transport.enabled: expected true or false, found 'maybe'"),
    ],
)
def test_mistakes(given: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "ct.npy", np.ones((24, 20, 24), np.uint8))
    assert main(["analyze", f"volume.path={tmp_path / 'ct.npy'}", "dask.workers=1", given]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "ct_analysis").exists()


def test_taufactor_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "taufactor", None)
    layers = np.arange(8)[:, None, None] % 2 < np.ones((1, 8, 8))
    with pytest.raises(InputError, match=r"transport.enabled=true: expected taufactor, .* pip install"):
        diffusivity(layers, 1, CUBES)
