"""Figures as files: all of them, in vectors with their letters, told apart without colours; and the printed page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from fake_run import build, build_phases
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mcrdist.analysis import drawing, write_report
from mcrdist.analysis.drawing import CURVES, FORMATS, MARKS, SIGNED, Picture, pen, pictures, save
from mcrdist.store import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "run"
    run = build(path, (24, 28, 32), width=(2, 2, 2), lags=8, levels=2, micrograph=64, separate=True)
    for ending in FORMATS:
        write_report(run.path, ending)
    return run


def test_every_figure_of_the_page_is_a_file(run: Run) -> None:
    assert run.report is not None
    page = run.report.read_text(encoding="utf-8")
    shown = len(set(re.findall(r"data:image/svg\+xml;base64,[\w+/=]+", page)))
    saved = {path.stem for path in (run.path / "figures").glob("*.svg")}
    assert saved == {path.stem for path in (run.path / "figures").glob("*.pdf")}
    assert saved == {
        "slices",
        "block",
        "convergence",
        *(f"{kind}-phase-1-normal-to-{axis}" for kind in ("s2", "s2-map") for axis in "zyx"),
    }
    assert len(saved) == shown + 1  # the page has sliders in place of `slices`


def test_pdf_brings_its_letters(run: Run) -> None:
    for path in (run.path / "figures").glob("*.pdf"):
        content = path.read_bytes()
        assert content.startswith(b"%PDF-")
        # TrueType, embedded: no Type 3, which journals refuse, and no font that a reader would have to have.
        assert b"/FontFile2" in content and b"/Type3" not in content, path.name


def test_svg_is_vectors_and_needs_no_font(run: Run) -> None:
    for path in (run.path / "figures").glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        names = [element.tag.rpartition("}")[2] for element in root.iter()]
        assert "text" not in names and names.count("path") > 5, path.name
        # Only voxels are pixels.
        if path.stem == "convergence" or path.stem.startswith("s2-phase"):
            assert "image" not in names


def test_the_same_figure_makes_the_same_file(run: Run) -> None:
    figures = sorted((run.path / "figures").glob("*.svg"))
    before = [path.read_bytes() for path in figures]
    write_report(run.path, "svg")
    assert [path.read_bytes() for path in figures] == before


@pytest.mark.parametrize("ending", FORMATS)
def test_neither_time_nor_chance_are_in_a_file(ending: str) -> None:
    def drawn() -> bytes:
        with drawing.style():
            figure = Figure(figsize=(1, 1))
            figure.add_subplot().plot([0, 1], label="S₂", **pen(0))
            figure.legend()
        return Picture(figure, "one").content(ending)

    assert drawn() == drawn()


def test_figures_of_several_phases_do_not_overwrite_one_another(tmp_path: Path) -> None:
    run = build_phases(tmp_path / "three")
    write_report(run.path, "svg")
    assert len(list((run.path / "figures").glob("s2-phase-*"))) == 9


def test_names_come_from_the_place_where_there_are_none(tmp_path: Path) -> None:
    one, two = Picture(Figure(figsize=(1, 1)), "named"), Picture(Figure(figsize=(1, 1)), "")
    content = {"a": [{"b c": two}, one], "text": "abc", "number": 3}
    assert [name for name, _ in pictures(content)] == ["a-1-b c", "named"]
    assert [path.name for path in save(content, tmp_path / "new", "svg")] == ["a-1-b_c.svg", "named.svg"]


def simulated(colour: str, kind: str) -> np.ndarray:
    """sRGB as people with a colour vision deficiency see it (Machado, Oliveira and Fernandes 2009, severity 1)."""
    matrix = {
        "protan": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deutan": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
    }[kind]
    values = np.array(to_rgb(colour))
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return np.clip(np.array(matrix) @ linear, 0, 1)


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_colours_differ_for_everyone(kind: str) -> None:
    seen = [simulated(colour, kind) for colour in CURVES]
    for number, one in enumerate(seen):
        for other in seen[:number]:
            assert np.linalg.norm(one - other) > 0.15


def test_marks_tell_curves_apart_in_grey() -> None:
    pens = [pen(number, 60) for number in range(len(CURVES))]
    assert len({one["marker"] for one in pens}) == len(CURVES)
    assert len({(pen(k)["color"], pen(k)["marker"]) for k in range(30)}) >= len(CURVES) * len(MARKS) / 3
    for one in pens:
        start, step = one["markevery"]
        assert 0 <= start < step <= 60


def test_signs_show_in_grey() -> None:
    colours = SIGNED(np.linspace(0, 1, 64))[:, :3]
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    lightness = np.cbrt(linear @ [0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()
    assert lightness[0] < 0.3 and lightness[-1] > 0.9


def test_fonts_are_found_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with drawing.style():
        figure = Figure(figsize=(1, 1))
        figure.text(0, 0, "S₂ ‖D‖ µm 10⁻³")
    Picture(figure, "letters").content("pdf")
    assert "not found" not in caplog.text and "missing" not in caplog.text
