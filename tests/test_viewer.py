"""The viewer: what it serves, to whom, in a browser, and how it ends."""

from __future__ import annotations

import functools
import http.client
import io
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import zarr
from chromium import needs_chromium, screenshot, visit
from fake_run import build, build_phases, smooth_field, smooth_phase
from PIL import Image

from mcrdist.analysis.pictures import COLOURS
from mcrdist.config import ViewConfig, VolumeSourceConfig, view_from_mapping
from mcrdist.errors import InputError
from mcrdist.store import Run
from mcrdist.viewer import Viewer
from mcrdist.viewer.scene import Scene


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "<script>odd"
    return build(path, (20, 24, 28), width=(2, 2, 2), lags=5, levels=2, micrograph=32)


@contextmanager
def serving(**volume: object) -> Iterator[Viewer]:
    with Viewer(ViewConfig(VolumeSourceConfig(**volume))) as viewer:  # type: ignore[arg-type]
        thread = threading.Thread(target=viewer.serve)
        thread.start()
        try:
            yield viewer
        finally:
            viewer.close()
            thread.join(10)
            assert not thread.is_alive()


def get(viewer: Viewer, path: str, host: str | None = None) -> tuple[int, bytes]:
    where = urlsplit(viewer.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def labels_of(png: bytes) -> np.ndarray:
    """Labels by their colours."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    found = np.full(pixels.shape[:2], 255)
    for label, colour in enumerate(COLOURS):
        found[(pixels == [int(colour[k : k + 2], 16) for k in (1, 3, 5)]).all(-1)] = label
    return found


def test_slices_and_the_store(run: Run) -> None:
    with serving(run=str(run.path)) as viewer:
        assert viewer.zarr == run.path / "volume.zarr" / "phase"
        for axis, number in zip("zyx", range(3), strict=True):
            status, png = get(viewer, f"/slice/{axis}/7.png")
            assert status == 200
            assert np.array_equal(labels_of(png), np.take(run.phase, 7, number))
        status, body = get(viewer, "/volume.zarr/phase/zarr.json")
        assert status == 200 and json.loads(body)["node_type"] == "group"
        figure = json.loads(get(viewer, "/surfaces.json")[1])
        assert figure["block"] == [20, 24, 28]
        page = get(viewer, "/")[1].decode()
        assert "<script>odd" not in page and "\\u003cscript>odd" in page


def test_only_this_machine_and_only_the_volume(run: Run) -> None:
    with serving(run=str(run.path)) as viewer:
        port = urlsplit(viewer.url).port
        assert viewer.url == f"http://127.0.0.1:{port}/"
        assert viewer._server.server_address[0] == "127.0.0.1"
        assert get(viewer, "/", f"localhost:{port}")[0] == 200
        assert get(viewer, "/", f"evil.example:{port}")[0] == 403
        for path in (
            "/volume.zarr/../config.yaml",
            "/volume.zarr/%2e%2e/config.yaml",
            "/volume.zarr//etc/passwd",
        ):
            assert get(viewer, path)[0] == 404
        for path in ("/nothing", "/slice/w/3.png", "/slice/z/-1.png", "/volume.zarr/phase"):
            assert get(viewer, path)[0] == 404
        assert get(viewer, "/slice/z/999999.png")[0] == 200  # the last one


def test_a_damaged_chunk_is_told(tmp_path: Path) -> None:
    run = build(tmp_path / "run", (16, 16, 16), width=(1, 1, 1), lags=5, levels=1, micrograph=24)
    with serving(run=str(run.path)) as viewer:
        chunk = run.path / "volume.zarr/phase/0/c/0/0/0"
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 1
        chunk.write_bytes(bytes(data))
        status, body = get(viewer, "/slice/z/3.png")
        assert status == 500 and b"damaged" in body


def test_large_volumes_are_shown_coarser(tmp_path: Path) -> None:
    labels = np.zeros((2, 2100, 40), np.uint8)
    labels[:, 1000:] = 1
    np.save(tmp_path / "a.npy", labels)
    with serving(path=str(tmp_path / "a.npy")) as viewer:
        assert viewer.zarr is None and get(viewer, "/volume.zarr/a.npy")[0] == 404
        shown = labels_of(get(viewer, "/slice/z/1.png")[1])
        assert shown.shape == (700, 14) and abs(shown.mean() - 1100 / 2100) < 0.01


def test_in_volumes_of_others_255_is_a_label(run: Run, tmp_path: Path) -> None:
    field = smooth_field((16, 18, 20), (2, 2, 2), 0.4, 0)
    for name, values in (("two", (0, 255)), ("three", (0, 128, 255)), ("signed", (-8, 0))):
        index = np.digitize(field, (0.3, 0.7)[: len(values) - 1])
        np.save(tmp_path / f"{name}.npy", np.array(values, np.int16)[index])
        scene = Scene(VolumeSourceConfig(path=str(tmp_path / f"{name}.npy")))
        phases = scene.facts()["phases"]
        assert [phase["label"] for phase in phases] == list(values)
        assert [phase["colour"] for phase in phases] == list(COLOURS[: len(values)])
        assert np.array_equal(labels_of(scene.slice("y", 4)), index[:, 4])  # all of different colours
        assert json.loads(scene.surfaces)["block"] == [16, 18, 20]
    # In our own it is what was never written.
    mine = Scene(VolumeSourceConfig(run=str(run.path)))
    assert [phase["label"] for phase in mine.facts()["phases"]] == [0, 1]
    broken = build(tmp_path / "broken", (20, 16, 16), width=(1, 1, 1), lags=4, levels=1, micrograph=24)
    zarr.open_array(broken.path / "volume.zarr" / "phase" / "0", mode="r+")[16:] = 255
    theirs = Scene(VolumeSourceConfig(run=str(broken.path)))
    assert [phase["label"] for phase in theirs.facts()["phases"]] == [0, 1]
    assert (labels_of(theirs.slice("z", 18)) == 255).all()


def test_a_constant_corner_does_not_make_labels_of_grey_levels(tmp_path: Path) -> None:
    grey = np.zeros((130, 130, 132), np.uint8)
    grey[:, :, 128:] = np.random.default_rng(0).integers(0, 121, (130, 130, 4))
    np.save(tmp_path / "ct.npy", grey)
    scene = Scene(VolumeSourceConfig(path=str(tmp_path / "ct.npy")))
    assert not scene.labelled and scene.facts()["phases"] == []
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(scene.slice("z", 3)))), grey[3])


def test_fields_and_grey_volumes(run: Run, tmp_path: Path) -> None:
    with serving(run=str(run.path), image="field") as viewer:
        grey = np.asarray(Image.open(io.BytesIO(get(viewer, "/slice/y/5.png")[1])))
        assert np.abs(grey / 255 - run.field[:, 5]).max() < 0.003
        assert get(viewer, "/surfaces.json")[1] == b"null"
    values = np.random.default_rng(0).integers(0, 2**16, (9, 10, 11), dtype=np.uint16)
    zarr.save_array(tmp_path / "ct.zarr", values)
    with serving(path=str(tmp_path / "ct.zarr")) as viewer:
        grey = np.asarray(Image.open(io.BytesIO(get(viewer, "/slice/x/3.png")[1])))
        plane = values[:, :, 3].astype(float)
        assert np.abs(grey - 255 * (plane - plane.min()) / np.ptp(plane)).max() <= 0.51


def test_mistakes(run: Run) -> None:
    with serving(run=str(run.path)) as viewer:
        port = urlsplit(viewer.url).port
        with pytest.raises(InputError, match=f"port: expected one that is free, found {port}"):
            Viewer(view_from_mapping({"run": {"dir": run.path}, "port": port}))
    with pytest.raises(InputError, match=r"run.dir: expected a run directory, found nothing"):
        view_from_mapping({})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_tidily(run: Run, number: int) -> None:
    command = [sys.executable, "-m", "mcrdist", "view", f"run.dir={run.path}"]
    # what a shell starts in the background ignores SIGINT, and so would what these tests start then
    listening = functools.partial(signal.signal, number, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, preexec_fn=listening, **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert re.fullmatch(r"view   http://127\.0\.0\.1:\d+/  \(Ctrl-C ends it\)\n", line)
        assert process.stdout.readline() == (
            f"napari: napari --plugin napari-ome-zarr {run.path / 'volume.zarr' / 'phase'}\n"
        )
        process.send_signal(number)
        assert process.wait(120) == 0
        assert process.stdout.read() == "view   ended\n" and process.stderr.read() == ""


@pytest.mark.slow
@needs_chromium
def test_alive_in_a_browser(run: Run, tmp_path: Path) -> None:
    with serving(run=str(run.path)) as viewer:
        page = visit(viewer.url, "#z=3,x=20")
        assert page.marks.get("data-ready") == "yes" and "data-errors" not in page.marks
        assert not page.console
        assert page.marks["data-surface"] == "drawn"
        assert page.marks["data-slice-z"] == "3" and page.marks["data-slice-x"] == "20"
        assert page.attributes("image-y")["src"] == "slice/y/11.png"
    with serving(run=str(build_phases(tmp_path / "three").path)) as viewer:
        screenshot(viewer.url, tmp_path / "page.png", 1280, 1300)
        pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
        for colour in COLOURS[:3]:
            assert (pixels == [int(colour[k : k + 2], 16) for k in (1, 3, 5)]).all(-1).sum() > 5000
    volume = smooth_phase((20, 20, 20), 2, 0.4, 0).astype(np.uint8) * 7
    np.save(tmp_path / "foreign.npy", volume)
    with serving(path=str(tmp_path / "foreign.npy")) as viewer:
        page = visit(viewer.url)
        assert page.marks.get("data-ready") == "yes" and "data-errors" not in page.marks
        assert page.marks["data-surface"] == "drawn"
