"""Sweeps: which runs they consist of, that these are the runs of their own, and what the report says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from chromium import needs_chromium, visit
from fake_run import build, build_phases
from interrupted import interrupted_after
from ranks import run_ranks

import mcrdist
from mcrdist.__main__ import main
from mcrdist.analysis import write_sweep_report
from mcrdist.analysis.ensemble import Member, Spread, correlation, largest, settings
from mcrdist.analysis.material import phases
from mcrdist.commands.multirun import jobs
from mcrdist.errors import InputError
from mcrdist.store import Run, sweepfile
from mcrdist.store.sweepfile import Planned
from mcrdist.sweep import directory_names

IMAGE = (np.random.default_rng(0).random((24, 24)) > 0.6).astype(np.uint8)
SMALL: dict[str, Any] = {"volume": {"size": 8}, "optimizer": {"iterations": 2}, "runtime": {"threads": 1}}
BASE = ["micrograph.path=a.png", "volume.size=8"]
#: A sweep.json that names a place which is no part of the sweep.
OUTSIDE = '{"runs": [{"dir": "../a", "values": {}, "settings": {"seed": 0}, "summary": {}}]}'

# ------------------------------------------------------------------------------------------ which runs there are


@pytest.mark.parametrize(
    ("overrides", "values"),
    [
        (["seed=0,1"], [{"seed": "0"}, {"seed": "1"}]),
        (["seed=range(2,4)"], [{"seed": "2"}, {"seed": "3"}]),
        (["seed=3"], [{}]),
        (
            ["seed=0,1", "method=descriptors,gaussian"],
            [{"seed": s, "method": m} for s in "01" for m in ("descriptors", "gaussian")],
        ),
        (["volume.shape=[8,8,8],[8,9,10]", "volume.size=null"], None),
        (["micrograph.path=a b.png,it's.png"], [{"micrograph.path": n} for n in ("a b.png", "it's.png")]),
        (["micrograph.path='a,b.png'"], [{}]),
        (["micrograph.path='a,b.png','c.png'"], [{"micrograph.path": n} for n in ("a,b.png", "c.png")]),
        (["initial=choice(noise,spectral)"], [{"initial": "noise"}, {"initial": "spectral"}]),
        (["run.dir=a,b", "seed=0,1"], [{"seed": "0"}, {"seed": "1"}]),
    ],
)
def test_every_combination_is_a_run(overrides: list[str], values: list[dict[str, str]] | None) -> None:
    _, found = jobs([*BASE, *overrides], {})
    if values is None:
        assert [config.volume.shape for _, config in found] == [(8, 8, 8), (8, 9, 10)]
    else:
        assert [chosen for chosen, _ in found] == values


def test_values_arrive_in_the_configurations() -> None:
    where, found = jobs(
        ["seed=0,1", "micrograph.path=a.png,b.png"], {"volume": {"size": 8}, "run": {"dir": "o"}}
    )
    assert where == "o"
    assert [(config.seed, config.micrograph.source("z").path) for _, config in found] == [
        (seed, path) for seed in (0, 1) for path in ("a.png", "b.png")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=0,1"], "add -m for a run of each"),
        (["seed=0,1", "seed=2,3", "-m"], "seed: expected the values of a sweep once"),
        (["runtime.timeout=1,2", "-m"], "expected one value for all runs"),
        (["runtime.shared_memory=true,false", "-m"], "expected one value for all runs"),
        (["resume=false,true", "-m"], "expected one value for all runs"),
        (["seed=0,1", "resume=true", "-m"], "expected the directory of the sweep to go on with"),
        (["run.dir=choice(a,b)", "-m"], "expected one value for all runs"),
        (["volume.size=16,4", "-m"], "volume.size: expected an integer of at least 8"),
        (["seed=0,", "-m"], "cannot be read"),
        (["sede=0,1", "-m"], "did you mean seed?"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reconstruct", *BASE, *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_other_commands_have_no_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["characterize", "-m"]) == 2
    assert "unknown option" in capsys.readouterr().err


def test_settings_of_every_run_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reconstruct", *BASE, "seed=4,5", "--multirun", "--cfg"]) == 0
    assert [document["seed"] for document in yaml.safe_load_all(capsys.readouterr().out)] == [4, 5]


def test_directories_are_named_for_what_differs() -> None:
    assert directory_names([{"seed": "0"}, {"seed": "1"}]) == ["seed=0", "seed=1"]
    assert directory_names([{"seed": "0", "a.b": "x/y z"}]) == ["seed=0,a.b=x_y_z"]
    assert directory_names([{}]) == ["0"]
    assert directory_names([{"p": "a/b"}, {"p": "a_b"}]) == ["0", "1"]
    assert directory_names([{"p": "a" * 200}, {"p": "b"}]) == ["0", "1"]


# -------------------------------------------------------------------------------------------------- running them


def swept(directory: str) -> list[tuple[str, list[float], np.ndarray]]:
    runs = mcrdist.sweep("seed=0,1", micrograph=IMAGE, run={"dir": directory, "report": False}, **SMALL)
    return [(run.path.name, [record["loss"] for record in run.metrics], run.phase) for run in runs]


def test_a_run_of_a_sweep_is_the_run_alone(tmp_path: Path) -> None:
    (_, first, _), (name, second, phase) = swept(str(tmp_path / "sweep"))
    alone = mcrdist.reconstruct(
        micrograph=IMAGE, run={"dir": tmp_path / "alone", "report": False}, seed=1, **SMALL
    )
    assert name == "seed=1" and first != second
    assert [record["loss"] for record in alone.metrics] == second
    np.testing.assert_array_equal(alone.phase, phase)
    assert not (tmp_path / "sweep" / "report.html").exists()


def test_ranks_go_through_the_runs_together(tmp_path: Path) -> None:
    alone = swept(str(tmp_path / "alone"))
    for found in run_ranks(swept, 2, str(tmp_path / "two")):
        for (name, losses, phase), (name_, losses_, phase_) in zip(alone, found, strict=True):
            assert (name, losses) == (name_, losses_)
            np.testing.assert_array_equal(phase, phase_)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "image.npy", IMAGE)
    settings_ = [f"micrograph.path={tmp_path}/image.npy", "volume.size=8", f"run.dir={tmp_path}/out"]
    quick = ["optimizer.iterations=1", "runtime.threads=1", "seed=range(0,2)", "-m"]
    assert main(["reconstruct", *settings_, *quick]) == 0
    out = capsys.readouterr().out
    assert "seed=0" in out.splitlines()
    assert out.count("labels as they are") == 1  # how it was segmented: once, and not once a run
    assert out.splitlines()[-1] == f"sweep   {tmp_path}/out/report.html  (2 of 2 runs)"
    assert main(["reconstruct", *settings_, *quick]) == 2
    assert "expected a new or empty directory for the sweep" in capsys.readouterr().err
    listed = json.loads((tmp_path / "out/sweep.json").read_text())
    assert [run["dir"] for run in listed["runs"]] == ["seed=0", "seed=1"]
    assert listed["runs"][1]["summary"] == mcrdist.open(tmp_path / "out/seed=1").summary
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert 'href="seed%3D1/report.html"' in page


def test_an_interrupt_ends_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted_after(monkeypatch, 1)
    runs = mcrdist.sweep("seed=0,1,2", micrograph=IMAGE, run={"dir": tmp_path / "out"}, **SMALL)
    assert [run.path.name for run in runs] == ["seed=0"]
    assert "Sweep of 3 runs, ended after 1" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------- the report


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two settings with two members each, the second setting with a name full of mark-up."""
    path = tmp_path_factory.mktemp("sweeps") / "<b>sweep"
    entries = []
    for number in range(4):
        options: dict[str, Any] = {"width": (1.5, 1.5, 1.5), "lags": 5, "levels": 1, "micrograph": 24}
        run = build(path / f"run{number}", (16, 16, 16), **options)
        if number % 2:  # another volume: the first one moved
            import zarr

            array = zarr.open_array(run.path / "volume.zarr/phase/0", mode="r+")
            array[...] = np.roll(run.phase, (5, 3, 7), (0, 1, 2))
        summary = dict(run.summary)
        for errors in summary["errors"]["rounded"].values():
            errors["s2"] *= 1 + number
        (run.path / "summary.json").write_text(json.dumps(summary))
        values = {"seed": str(number % 2), "micrograph.path": ("a.png", "<script>b.png")[number // 2]}
        entries.append({"dir": run.path.name, "values": values, "settings": {"seed": number % 2}})
        entries[-1]["summary"] = summary
    (path / "sweep.json").write_text(json.dumps({"runs": entries}))
    write_sweep_report(path)
    return path


def members(path: Path) -> list[Member]:
    entries = json.loads((path / "sweep.json").read_text())["runs"]
    return [Member(Run.open(path / e["dir"]), e["values"], e["settings"]["seed"]) for e in entries]


def test_members_that_differ_in_their_seed_only_are_one_ensemble(ensemble: Path) -> None:
    found = settings(members(ensemble))
    assert list(found) == ["micrograph.path=a.png", "micrograph.path=<script>b.png"]
    assert [len(group) for group in found.values()] == [2, 2]


def test_spread_is_the_sample_standard_deviation() -> None:
    spread = Spread.of([1.0, None, 2.0, 6.0])
    assert spread is not None
    assert spread.mean == 3.0 and spread.deviation == pytest.approx(np.sqrt(7.0))
    assert Spread.of([None]) is None
    one = Spread.of([2.0])
    assert one is not None and one.mean == 2.0 and np.isnan(one.deviation)


def test_correlation_is_that_of_the_voxels(ensemble: Path) -> None:
    group = members(ensemble)[:2]
    (phase,) = phases(group[0].run.summary, group[0].run.targets)
    expected = np.corrcoef([(member.run.phase == 1).ravel() for member in group])
    found = correlation(group, phase)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert largest(found) == pytest.approx(expected[0, 1])
    assert correlation(group[:1], phase) is None and largest(None) is None


def test_what_the_report_says(ensemble: Path) -> None:
    page = (ensemble / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"data:[a-z+/]+;base64,[\w+/=]+", "", page).replace("\u00a0", " ")
    first = [np.mean([0.0083 * (1 + 0.1 * k) for k in range(3)]) * (1 + n) * 100 for n in range(2)]
    assert f"{np.mean(first):.2f} % ± {np.std(first, ddof=1):.2f} %" in page
    assert page.count("<tr><td>") == (1 + 3 + 1 + 2) + 4
    assert page.count("<figure>") == 1 + 4
    assert "<script>b" not in page and "&lt;script&gt;b.png" in page and "&lt;b&gt;sweep" in page
    assert not re.search(r"<(script|img|link)[^>]+(src|href)=.(https?:)?//", page)


def test_the_report_of_a_sweep_can_be_made_again(
    ensemble: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ensemble.parent)
    (ensemble / "report.html").unlink()
    where = f"run.dir={ensemble.name}"
    assert main(["report", where]) == 0
    assert capsys.readouterr().out == f"report  {ensemble / 'report.html'}\n"
    assert "Sweep of 4 runs" in (ensemble / "report.html").read_text(encoding="utf-8")
    for setting, said in (
        ("output.path=a.html", "output.path: expected nothing (null) with a sweep"),
        ("report.figures=pdf", "report.figures: expected nothing (null) with the sweep"),
    ):
        assert main(["report", where, setting]) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1


def test_sweeps_of_several_phases_have_all_of_them(tmp_path: Path) -> None:
    runs = [build_phases(tmp_path / f"seed={k}") for k in range(2)]
    planned = [
        Planned(run.path.name, {"seed": str(seed)}, {"seed": seed}, run.summary)
        for seed, run in enumerate(runs)
    ]
    sweepfile.write(tmp_path, planned)
    page = write_sweep_report(tmp_path).read_text(encoding="utf-8")
    assert "fraction of phase 2" in page and "Phase 0, planes normal to x" in page


@pytest.mark.parametrize("content", [None, "{", "[]", '{"runs": []}', '{"runs": [3]}', OUTSIDE])
def test_what_is_no_sweep_is_told(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(InputError, match=r"expected the directory of a sweep with sweep\.json"):
        write_sweep_report(tmp_path)


@needs_chromium
@pytest.mark.slow
def test_the_page_is_whole_in_a_browser(ensemble: Path) -> None:
    page = visit(ensemble / "report.html")
    assert not page.console and "Two-point correlation" in page.dom
