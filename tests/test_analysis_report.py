"""The report: whole and self-contained for every kind of run, alive in a browser."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from chromium import needs_chromium, screenshot, visit
from fake_run import build
from matplotlib.colors import to_rgb
from PIL import Image

from mcrdist.analysis import targets_figure, write_report
from mcrdist.analysis.drawing import SECOND
from mcrdist.analysis.slices import correlations
from mcrdist.errors import InputError
from mcrdist.store import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = build(tmp_path_factory.mktemp("runs") / "cube")
    write_report(run.path)
    return run


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Not a cube, three micrographs, no pixel size, a name full of mark-up."""
    run = build(
        tmp_path_factory.mktemp("runs") / "<i>odd & 'quoted' <img src=x onerror=alert(2)>",
        (24, 40, 33),
        width=(1.5, 2, 3),
        lags=9,
        levels=2,
        separate=True,
        pixel_size=None,
        source="<img src=x onerror=alert(1)>\"'</script><script>alert(1)</script>.tif",
    )
    write_report(run.path)
    return run


def text(run: Run) -> str:
    assert run.report is not None
    return run.report.read_text(encoding="utf-8")


def own_markup(page: str) -> str:
    """The page without plotly's code and without embedded data."""
    return re.sub(r"<script>/\*\*.*?</script>|data:[a-z+/]+;base64,[\w+/=]+", "", page, flags=re.S)


def test_nothing_comes_from_a_network(run: Run) -> None:
    page = own_markup(text(run))
    assert len(page) < len(text(run)) - 4_000_000
    assert not re.search(r"<(script|img|link|iframe)[^>]+(src|href)=.(https?:)?//", page)
    assert "@import" not in page and "fetch(" not in page


def test_what_is_said(run: Run) -> None:
    page = text(run)
    for words in (
        "The planes match the micrograph closely; reservations below.",
        "64³",
        "16.0 × 16.0 × 16.0 µm",  # noqa: RUF001
        "1\u00a0min 23\u00a0s",
        "0.91\u00a0%",
        "relative decrease",
        "Planes normal to x",
        "lags up to 20 voxels",
    ):
        assert words in page
    assert run.report is not None and run.report.stat().st_size < 9e6


def test_markup_in_names_is_text(odd: Run) -> None:
    page = own_markup(text(odd))
    assert "<script>alert" not in page and "<i>odd" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.tif" in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page and "&lt;img src=x onerror=alert(2)&gt;" in page
    assert "&lt;i&gt;odd &amp; &#39;quoted&#39;" in page
    assert "Micrograph for planes normal to y" in page


@pytest.mark.parametrize(
    ("options", "said", "unsaid"),
    [
        ({"method": "gaussian"}, "A thresholded Gaussian field", "Shaded bands"),
        ({"status": "interrupted"}, "The run was interrupted", "match the micrograph closely"),
        ({"status": "killed"}, "The last record is of iteration 11 at 16³", 'id="view"'),
    ],
)
def test_other_runs(tmp_path: Path, options: dict[str, str], said: str, unsaid: str) -> None:
    run = build(tmp_path / "run", (16, 16, 16), width=(1, 1, 1), lags=5, levels=1, micrograph=24, **options)
    page = own_markup(write_report(run.path).read_text(encoding="utf-8"))
    assert said in page and unsaid not in page


def test_one_phase_only_and_bare_directories(tmp_path: Path) -> None:
    run = build(tmp_path / "run", (16, 16, 16), width=(1, 1, 1), lags=5, levels=1, micrograph=24)
    import zarr

    zarr.open_array(run.path / "volume.zarr/phase/0", mode="r+")[...] = 1
    for name in ("summary.json", "metrics.jsonl", "environment.json", "targets.npz"):
        (run.path / name).unlink()
    page = own_markup(write_report(run.path).read_text(encoding="utf-8"))
    assert "the volume holds one phase only" in page and "The run was interrupted" in page


def test_damage_is_one_line(tmp_path: Path) -> None:
    run = build(tmp_path / "run", (16, 16, 16), width=(1, 1, 1), lags=5, levels=1, micrograph=24)
    chunk = run.path / "volume.zarr/phase/0/c/0/0/0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(bytes(data))
    with pytest.raises(InputError, match="a chunk is damaged"):
        write_report(run.path)
    assert run.report is None
    with pytest.raises(InputError, match="expected a run directory"):
        write_report(tmp_path)


def test_correlations_are_those_of_the_planes(odd: Run) -> None:
    from fake_run import two_point, variation

    found = {c.axis: c for c in correlations(odd.volume, odd.targets)}
    for k, axis in enumerate("zyx"):
        planes = np.moveaxis(odd.phase, k, 0).astype(float)
        s2 = two_point(planes, 9, True)
        np.testing.assert_allclose(found[axis].mean, s2.mean(0), atol=1e-12)
        np.testing.assert_allclose(found[axis].high, np.percentile(s2, 95, axis=0), atol=1e-12)
        np.testing.assert_allclose(found[axis].variation[0], variation(planes, True).mean())
        wanted = odd.targets[f"{axis}/s2"]
        errors = [np.linalg.norm(s - wanted) / np.linalg.norm(wanted) for s in s2]
        np.testing.assert_allclose(found[axis].error, np.mean(errors))
        assert found[axis].planes == found[axis].of == odd.phase.shape[k]


def test_targets_figure(run: Run, odd: Run, tmp_path: Path) -> None:
    path = targets_figure(odd.path / "targets.npz", tmp_path / "targets.png")
    with Image.open(path) as image:
        assert image.width > 1500 and image.height > 1000
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    # One micrograph for all directions that ask for the same S₂ would be one row; here they ask for three.
    with Image.open(targets_figure(run.path / "targets.npz", tmp_path / "labels.png")) as image:
        assert 1000 < image.width < 1600 and image.height > 1000
    same = {name.replace("y/", "z/").replace("x/", "z/"): value for name, value in run.targets.items()}
    same |= {f"{axis}/{name[2:]}": value for name, value in same.items() if name[1] == "/" for axis in "yx"}
    np.savez(tmp_path / "same.npz", **same)
    with Image.open(targets_figure(tmp_path / "same.npz", tmp_path / "same.png")) as image:
        assert 1000 < image.width < 1600 and 400 < image.height < 600
    # The described phase is tinted: a white pixel of it as much as a colour of 40 % makes it.
    tint = np.rint(255 * (0.6 + 0.4 * np.array(to_rgb(SECOND))))
    assert (abs(colours - tint).max(1) <= 2).sum() > 1000
    with pytest.raises(InputError, match=r"expected NumPy arrays"):
        targets_figure(path, tmp_path / "again.png")


def test_the_image_before_it_was_segmented(run: Run, odd: Run) -> None:
    assert 'class="before"' not in text(run)
    pictures = re.findall(r'<img src="data:image/png;base64,([\w+/=]+)"[^>]* hidden>', text(odd))
    for axis, (rows, columns), picture in zip("zyx", [(40, 33), (24, 33), (24, 40)], pictures, strict=True):
        grey = odd.targets[f"{axis}/grey"]
        top, left = (96 - rows) // 2, (96 - columns) // 2
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            np.testing.assert_array_equal(image, grey[top : top + rows, left : left + columns])


@pytest.mark.slow
@needs_chromium
def test_it_shows_when_it_is_asked_for(odd: Run, tmp_path: Path) -> None:
    page = tmp_path / "asked.html"
    ask = "<script>document.querySelectorAll('.before')[1].click()</script></body>"
    page.write_text(text(odd).replace("</body>", ask), encoding="utf-8")
    figures = re.findall(r"<figcaption><b>Micrograph for.*?</figure>", visit(page).dom, re.S)
    hidden = [[" hidden" in img for img in re.findall(r"<img[^>]*>", figure)] for figure in figures]
    assert hidden == [[False, True], [True, False], [False, True]]


@needs_chromium
@pytest.mark.parametrize("name", ["run", "odd"])
def test_alive_in_a_browser(name: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(name)
    assert run.report is not None
    page = visit(run.report)
    assert page.marks.get("data-ready") == "yes"
    assert "data-errors" not in page.marks
    assert not page.console
    assert page.marks["data-block"] == "12"
    assert page.marks["data-surface"] == "drawn"
    assert page.sources and all(source.startswith("data:") for source in page.sources)  # no picture called x


@pytest.mark.slow
@needs_chromium
def test_the_slider_moves_the_slices(run: Run) -> None:
    assert run.report is not None
    pages = {z: visit(run.report, f"#z={z},y=5") for z in (10, 50)}
    pictures = set()
    for z, page in pages.items():
        assert page.marks["data-slice-z"] == str(z) and page.marks["data-slice-y"] == "5"
        assert page.attributes("image-z")["alt"] == f"Plane z = {z}"
        pictures.add(page.attributes("image-z")["src"])
    assert len(pictures) == 2


@pytest.mark.slow
@needs_chromium
def test_the_surface_shows(run: Run, tmp_path: Path) -> None:
    assert run.report is not None
    screenshot(run.report, tmp_path / "page.png", 1280, 1700)
    with Image.open(tmp_path / "page.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    amber = (pixels[..., 0] > pixels[..., 2] + 60) & (pixels[..., 0] > 120)
    assert amber[900:].sum() > 5000
