"""The report of runs with several phases, directions beyond the three axes, or a single plane."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from chromium import needs_chromium, visit
from fake_run import build, build_phases, two_point
from PIL import Image

from mcrdist.analysis import write_report
from mcrdist.analysis.material import phases, plane_axes
from mcrdist.analysis.pictures import COLOURS, coarsened, label_png
from mcrdist.analysis.slices import correlations
from mcrdist.analysis.view3d import drawn, figure, surfaces
from mcrdist.commands.reconstruct import closing
from mcrdist.store import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = build_phases(tmp_path_factory.mktemp("runs") / "three")
    write_report(run.path)
    return run


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = build_phases(tmp_path_factory.mktemp("runs") / "plane", (1, 24, 24), ("z",))
    write_report(run.path)
    return run


def text(run: Run) -> str:
    assert run.report is not None
    page = run.report.read_text(encoding="utf-8")
    page = re.sub(r"<script>/\*\*.*?</script>|data:[a-z+/]+;base64,[\w+/=]+", "", page, flags=re.S)
    return page.replace("\u00a0", " ")


def pixels(uri: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def test_every_phase_direction_and_descriptor_is_listed(run: Run) -> None:
    page = text(run)
    for words in ("<h3>Phase 0</h3>", "<h3>Phase 2</h3>", "<h3>Mean over phases</h3>", "<td>y+z</td>"):
        assert words in page
    for words in ("S₂ at 1/4 resolution", "lineal path", "own name", "cross-correlation"):
        assert words in page
    # What looks at all phases at once belongs to none of them.
    assert page.count(">cross-correlation</th>") == 1
    assert page.count("1.23 %") > 0
    for label in range(3):
        assert f"{np.mean(run.phase == label):.4f}" in page


def test_each_label_has_a_colour_of_its_own(run: Run) -> None:
    plane = run.phase[3]
    shown = pixels(label_png(plane))
    for label in range(3):
        expected = [int(COLOURS[label][k : k + 2], 16) for k in (1, 3, 5)]
        assert (shown[plane == label] == expected).all()


def test_coarse_labels_are_the_most_frequent_ones() -> None:
    labels = np.array([[0, 2, 1, 1], [2, 2, 0, 0], [0, 0, 3, 1], [0, 1, 2, 3]])
    np.testing.assert_array_equal(coarsened(labels, 2), [[2, 1], [0, 3]])
    np.testing.assert_array_equal(coarsened(labels, 1), labels)


def test_correlations_of_every_phase(run: Run) -> None:
    found = correlations(run.volume, run.targets, of=phases(run.summary, run.targets))
    assert [(c.phase.label, c.axis) for c in found] == [(k, axis) for k in range(3) for axis in "zyx"]
    for c in found:
        planes = np.moveaxis(run.phase == c.phase.label, "zyx".index(c.axis), 0).astype(float)
        np.testing.assert_allclose(c.mean, two_point(planes, 6, True).mean(0), atol=1e-12)
        image = (run.targets["z/micrograph"] == c.phase.label).astype(float)
        np.testing.assert_allclose(c.wanted, two_point(image[None], 6, False)[0], atol=1e-12)


def test_all_phases_but_the_most_frequent_are_drawn(run: Run) -> None:
    material = phases(run.summary, run.targets)
    shown = drawn(run.volume, material)
    shares = [np.mean(run.phase == phase.label) for phase in material]
    assert {phase.label for phase in shown} == {0, 1, 2} - {int(np.argmax(shares))}
    mesh = figure(run.volume, shown)
    assert mesh is not None
    assert {phase.colour for phase in shown} <= {trace.get("color") for trace in mesh["data"]}
    apart = surfaces(run.volume, [phase.label for phase in shown])
    assert len({surface.block for surface in apart if surface is not None}) == 1


def test_one_phase_against_the_rest_is_1_in_the_volume(tmp_path: Path) -> None:
    run = build(tmp_path / "run", (16, 16, 16), width=(1, 1, 1), lags=5, levels=1, micrograph=24)
    targets = dict(run.targets) | {"z/phase": np.array(2)}
    (phase,) = phases(run.summary, targets)
    assert (phase.label, phase.source) == (1, 2)


def test_a_single_plane(plane: Run) -> None:
    assert plane_axes(plane.volume.shape) == ("z",)
    page = text(plane)
    assert "2-D reconstruction" in page and "24²" in page
    assert "Planes normal to y" not in page and 'id="cut"' not in page and 'id="slider-x"' not in page
    assert figure(plane.volume, phases(plane.summary, plane.targets)) is None


def test_last_words_of_several_phases_and_directions(run: Run) -> None:
    lines = closing(run).splitlines()
    table = lines.index(next(line for line in lines if line.startswith("error, rounded")))
    assert lines[table].split()[3:] == ["z", "y", "x", "diagonals"]
    assert lines[table + 1].split() == ["s2", *["3.00%", "(3.00%)"] * 4]
    own = next(line for line in lines if line.startswith("own name"))
    assert own.split()[2:] == ["-"] * 4
    last = lines[-1].split()
    assert last[:2] == ["phase", "2"] and last[-1] == f"{np.mean(run.phase == 2):.4f}"


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("name", ["run", "plane"])
def test_alive_in_a_browser(name: str, request: pytest.FixtureRequest) -> None:
    found: Run = request.getfixturevalue(name)
    assert found.report is not None
    page = visit(found.report)
    assert page.marks.get("data-ready") == "yes"
    assert "data-errors" not in page.marks and not page.console
    assert page.marks.get("data-surface") == ("drawn" if name == "run" else None)


def test_a_plane_is_not_sent_to_the_analysis_of_volumes(run: Run, plane: Run) -> None:
    assert "mcrdist analyze" in text(run)
    assert "mcrdist analyze" not in text(plane)
