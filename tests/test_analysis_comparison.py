"""`mcrdist report`: one run's page again, several side by side, and figures as files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from chromium import needs_chromium, visit
from fake_run import build, build_phases
from test_analysis_verdict import analysis

import mcrdist
from mcrdist.__main__ import main
from mcrdist.analysis import write_comparison
from mcrdist.analysis.comparison import differing, labels
from mcrdist.config import from_mapping, to_mapping
from mcrdist.errors import InputError
from mcrdist.reporting import named
from mcrdist.store import Run

SMALL: dict[str, Any] = {"width": (1.5, 1.5, 1.5), "lags": 6, "levels": 1, "micrograph": 40}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one shape, a third of another, one of which was analysed, and one that was interrupted."""
    path = tmp_path_factory.mktemp("runs")
    build(path / "a", (16, 18, 20), **SMALL)
    build(path / "b", (16, 18, 20), **SMALL | {"source": "other.tif"})
    build(path / "seed=1,volume.size=24", (24, 24, 24), **SMALL)
    build(path / "stopped", (16, 16, 16), status="interrupted", **SMALL)
    build(path / "killed", (16, 16, 16), status="killed", **SMALL)
    analysis(path / "b" / "analysis", through=0.7)
    (path / "b" / "report.html").write_text("a report")
    summary = json.loads((path / "b" / "summary.json").read_text())
    for errors in summary["errors"]["rounded"].values():
        errors["s2"] = 0.0456
    (path / "b" / "summary.json").write_text(json.dumps(summary))
    return path


def text(page: Path) -> str:
    plain = re.sub(r"data:[a-z+/]+;base64,[\w+/=]+", "", page.read_text(encoding="utf-8"))
    return plain.replace("\u00a0", " ")


def test_settings_that_differ() -> None:
    one = {"seed": 0, "volume": {"shape": [8, 8, 8]}, "run": {"dir": "a"}, "method": "gaussian"}
    two = {"seed": 1, "volume": {"shape": [8, 8, 8]}, "run": {"dir": "b"}}
    assert differing({"a": one, "b": two}) == {"seed": ["0", "1"], "method": ["gaussian", "–"]}  # noqa: RUF001
    assert differing({"a": one, "b": one}) == {}
    # The far end of an interpolation that only one of them has: what was set of it, and not what was not.
    own = {"micrograph": {"path": "near.png"}, "volume": {"size": 8}}
    far = {"interpolate": {"t": 0.5, "micrograph": {"path": "far.png", "invert": True}}}
    found = differing({"far": to_mapping(from_mapping(own | far)), "near": to_mapping(from_mapping(own))})
    assert set(found) == {"interpolate.t", "interpolate.micrograph.path", "interpolate.micrograph.invert"}
    assert found["interpolate.micrograph.invert"] == ["true", "–"]  # noqa: RUF001


def test_labels_tell_runs_apart() -> None:
    assert labels([Path("/r/a"), Path("/r/b")]) == ["a", "b"]
    assert labels([Path("/r/a/out"), Path("/r/b/out")]) == ["a/out", "b/out"]
    assert labels([Path("/r/a"), Path("/r/a")]) == ["a (1)", "a (2)"]


def test_commas_of_names_and_between_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed=0,volume.size=64").mkdir()
    assert named("seed=0,volume.size=64") == ["seed=0,volume.size=64"]
    assert named("a,seed=0,volume.size=64,b") == ["a", "seed=0,volume.size=64", "b"]
    assert named("a, b") == ["a", "b"]
    assert named(["a,b", "c"]) == ["a,b", "c"]
    with pytest.raises(InputError, match="a comma between them"):
        named("a,,b")


def test_what_the_page_says(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three = f"run.dir={runs}/a,{runs}/b,{runs}/seed=1,volume.size=24"
    assert main(["report", three, f"output.path={runs}/three.html"]) == 0
    assert capsys.readouterr().out.strip() == f"report  {runs}/three.html"
    page = text(runs / "three.html")
    assert "<h1>a, b, seed=1,volume.size=24</h1>" in page
    assert re.search(r"<code>micrograph.path</code></td><td>sem.tif</td><td>other.tif</td>", page)
    assert re.search(r"<code>volume.shape</code></td><td>\[16, 18, 20\]</td>", page)
    assert "run.dir</code>" not in page
    # The smallest error in bold, the others not.
    assert re.search(
        r'error of S₂</td><td class="main">0.91 %</td><td>4.56 %</td><td class="main">0.91', page
    )
    assert re.search(r"share that percolates along z</td>.*<td>–</td><td>0.700</td><td>–</td>", page)  # noqa: RUF001
    assert "which has looked at b" in page
    assert "<b>a</b>" in page and 'href="b/report.html">b</a>' in page
    assert page.count("The planes match the micrograph") == 3
    assert not re.search(r"(src|href)=.(https?:)?//", page)


def test_slices_are_those_of_the_volumes(runs: Path, tmp_path: Path) -> None:
    from test_analysis_phases import pixels

    from mcrdist.analysis.pictures import COLOURS

    opened = [Run.open(runs / name) for name in ("a", "seed=1,volume.size=24")]
    page = write_comparison(opened, tmp_path / "page.html").read_text(encoding="utf-8")
    found = [json.loads(part) for part in re.findall(r'<script type="application/json">(.*?)</script>', page)]
    assert len(found) == 6  # two runs along three axes
    dark = [int(COLOURS[1][k : k + 2], 16) for k in (1, 3, 5)]
    for number, (axis, run) in enumerate((axis, run) for axis in "zyx" for run in opened):
        first, last = found[number][0], found[number][-1]
        count = run.phase.shape["zyx".index(axis)]
        assert (first["what"], last["what"]) == (f"{axis} = 0", f"{axis} = {count - 1}")
        plane = np.take(run.phase, count - 1, "zyx".index(axis))
        assert ((pixels(last["image"]) == dark).all(-1) == (plane == 1)).all()


def test_phases_and_planes_side_by_side(tmp_path: Path) -> None:
    opened = [build_phases(tmp_path / "three"), build_phases(tmp_path / "plane", (1, 24, 24), ("z",))]
    page = text(write_comparison(opened, tmp_path / "page.html"))
    assert "Phase 2, planes normal to z" in page and "Planes normal to x" not in page
    assert "volume fraction of phase 1" in page


def test_one_run_again(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "a", tmp_path / "a")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*") if path.is_file()}
    page = mcrdist.report(run={"dir": tmp_path / "a"}, report={"figures": "svg"})
    assert page == tmp_path / "a" / "report.html" and "How good is it?" in text(page)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert after.items() >= before.items()  # nothing else was touched
    assert {path.name for path in after.keys() - before.keys()} >= {
        "report.html",
        "convergence.svg",
        "block.svg",
    }


def test_from_python(runs: Path, tmp_path: Path) -> None:
    page = mcrdist.report(run={"dir": [runs / "a", runs / "b"]}, output={"path": tmp_path / "ab.html"})
    assert page == tmp_path / "ab.html" and "2 runs side by side" in text(page)
    with pytest.raises(InputError, match=r"output.path: expected a new file, found .*ab.html"):
        mcrdist.report(f"run.dir={runs}/a,{runs}/b", output={"path": tmp_path / "ab.html"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run.dir: expected a run directory, or several"),
        (["run.dir=nowhere"], "nowhere: expected a run directory, found nothing"),
        (["run.dir=a,nowhere"], "nowhere: expected a run directory, found nothing"),
        (["run.dir=[a,a/volume.zarr]"], "volume.zarr: expected a run directory, found no config.yaml"),
        (["run.dir=a,stopped"], "stopped: expected a finished run, found one that was interrupted"),
        (["run.dir=a,killed"], "killed: expected a finished run, found one that was interrupted"),
        (["run.dir=a,b", "output.path=a/config.yaml"], "output.path: expected a new file"),
        (["run.dir=a", "output.path=new.html"], "output.path: expected nothing (null) with one run"),
        (["run.dir=a", "report.figures=png"], "report.figures: expected svg or pdf, found 'png'"),
        (["run.dir=a,b", "figures=pdf"], "did you mean report.figures?"),
    ],
)
def test_mistakes(
    runs: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(runs)
    before = sorted(runs.rglob("*"))
    assert main(["report", *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert sorted(runs.rglob("*")) == before


def test_a_run_at_work_is_left_alone(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "killed", tmp_path / "run")
    code = f"""
import sys
from pathlib import Path
from mcrdist.store.lock import Lock
lock = Lock(Path({str(tmp_path / "run")!r}))
print("held", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert main(["report", f"run.dir={tmp_path}/run"]) == 2
        holder.communicate("")
    assert "expected no other job at work" in capsys.readouterr().err
    # One that was killed may be looked at: its page says how far it came.
    assert main(["report", f"run.dir={tmp_path}/run"]) == 0


@needs_chromium
def test_alive_in_a_browser(runs: Path, tmp_path: Path) -> None:
    page = write_comparison([Run.open(runs / name) for name in ("a", "b")], tmp_path / "page.html")
    seen = visit(page)
    assert seen.marks.get("data-ready") == "yes" and not seen.console


def test_settings_file_is_plain(root: Path) -> None:
    written = yaml.safe_load((root / "conf" / "report.yaml").read_text(encoding="utf-8"))
    assert written == {"run": {"dir": None}, "report": {"figures": None}, "output": {"path": None}}
