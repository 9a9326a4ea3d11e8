"""``mcrdist characterize``, from the command line and from Python."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import mcrdist
from mcrdist import synthetic
from mcrdist.__main__ import main
from mcrdist.descriptors.correlation import two_point
from mcrdist.directions import AXES


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def characterized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is left of a structure: to be copied, or left as it was."""
    path = tmp_path_factory.mktemp("characterized") / "look"
    return mcrdist.characterize(micrograph="synthetic:discs", run={"dir": path})


def test_from_the_command_line(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    labels = synthetic.micrograph("elongated", (96, 128))
    Image.fromarray(labels * 255).save("sem.png")
    settings = ["micrograph.path=sem.png", "micrograph.pixel_size=0.5", "run.dir=look", "target.lags=20"]
    assert main(["characterize", *settings]) == 0
    out, err = capfd.readouterr()
    image, where, near = out.splitlines()
    shares = f"phase 0 {(labels == 0).mean():.2%}, phase 1 {(labels == 1).mean():.2%}"
    assert image == f"image   sem.png  (labels 0, 1 for the values 0, 255; {shares}; described: phase 1)"
    assert where == f"targets {directory / 'look'}"
    assert near.startswith("nearest periodic volume, lags up to 16: E(s2) ")
    assert err == ""
    look = directory / "look"
    assert {path.name for path in look.iterdir()} == {
        "config.yaml",
        "environment.json",
        "nearest.json",
        "s2_pymks.npy",
        "targets.npz",
        "targets.png",
    }
    with np.load(look / "targets.npz", allow_pickle=False) as targets:
        for axis in AXES:
            wanted = two_point((labels == 1).astype(float)[None], 20, False)[0]
            np.testing.assert_allclose(targets[f"{axis}/s2"], wanted)
    statistics = np.load(look / "s2_pymks.npy", allow_pickle=False)
    assert statistics.shape == (1, 41, 41, 1)
    np.testing.assert_allclose(statistics[0, :, 20:, 0], wanted)
    found = json.loads((look / "nearest.json").read_text())["1"]
    assert found["lags"] == 16
    # Along y, rows and columns of the same image are asked for.
    assert found["bound"] > 0.01
    assert f"no volume has less than about {found['bound']:.2%}" in near
    assert yaml.safe_load((look / "config.yaml").read_text())["target"]["lags"] == 20
    assert "packages" in json.loads((look / "environment.json").read_text())
    with Image.open(look / "targets.png") as picture:
        assert picture.width > 1000 and picture.height > 400
        assert len(picture.convert("L").getcolors(256) or []) > 50


def test_from_python_with_arrays_of_their_own(directory: Path) -> None:
    one, other = (synthetic.micrograph("discs", (64, 64), seed) for seed in (0, 1))
    path = mcrdist.characterize(micrograph={"image": one, "y": other}, run={"dir": "look"})
    assert path == directory / "look"
    with np.load(path / "targets.npz", allow_pickle=False) as targets:
        np.testing.assert_array_equal(targets["z/micrograph"], one)
        np.testing.assert_array_equal(targets["y/micrograph"], other)
        np.testing.assert_array_equal(targets["x/micrograph"], one)
        lags = int(targets["lags"])
        for axis in AXES:
            statistics = np.load(path / f"s2_pymks_{axis}.npy", allow_pickle=False)
            np.testing.assert_array_equal(statistics[0, :, lags:, 0], targets[f"{axis}/s2"])


def test_a_directory_in_use_and_a_window_too_wide(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (directory / "look").mkdir()
    (directory / "look" / "notes.txt").write_text("mine")
    assert main(["characterize", "micrograph.path=synthetic:discs", "run.dir=look"]) == 2
    assert "look" in capfd.readouterr().err
    assert [path.name for path in (directory / "look").iterdir()] == ["notes.txt"]
    assert main(["characterize", "micrograph.path=synthetic:discs", "run.dir=new", "target.lags=400"]) == 2
    assert "target.lags" in capfd.readouterr().err
    assert not (directory / "new").exists()


def test_a_directory_in_use_is_told_before_the_work(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (directory / "look").mkdir()
    (directory / "look" / "notes.txt").write_text("mine")
    monkeypatch.setattr(
        importlib.import_module("mcrdist.characterize"), "load_targets", None
    )  # is not called
    assert main(["characterize", "micrograph.path=synthetic:discs", "run.dir=look"]) == 2
    assert "expected a new or empty directory" in capfd.readouterr().err


def test_an_empty_directory_will_do(directory: Path) -> None:
    (directory / "look").mkdir()
    assert main(["characterize", "micrograph.path=synthetic:discs", "run.dir=look"]) == 0


def test_a_directory_is_found_where_none_is_given(directory: Path) -> None:
    path = mcrdist.characterize(micrograph="synthetic:discs")
    assert path.parent == directory / "runs"
    assert (path / "targets.png").is_file()


@pytest.mark.parametrize("flaw", [None, "targets.npz", "nearest.json", "s2_pymks.npy", "targets.png"])
def test_what_it_leaves_can_be_verified(
    flaw: str | None, directory: Path, characterized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    look = directory / "look"
    shutil.copytree(characterized, look)
    if flaw is not None:
        content = (look / flaw).read_bytes()
        (look / flaw).write_bytes(content[: len(content) // 2])
    assert main(["verify", "run.dir=look"]) == (0 if flaw is None else 1)
    *told, last = capsys.readouterr().out.splitlines()
    good = "all good" if flaw is None else "1 broken"
    use = "targets only, for reconstruct target.path=look/targets.npz"
    assert last == f"verify  {look}  ({use}; 6 files read; {good})"
    assert [line.split(":")[0] for line in told] == ([] if flaw is None else [str(look / flaw)])


@pytest.mark.parametrize("command", ["export format=vti", "view", "analyze", "report"])
def test_what_it_leaves_is_no_run_with_a_volume(
    command: str, characterized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(characterized.iterdir())
    assert main([*command.split(), f"run.dir={characterized}"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert (
        f"has targets only; make a volume of them: mcrdist reconstruct target.path={characterized}/targets.npz"
        in err
    )
    assert sorted(characterized.iterdir()) == before


OWN = """
class Rows:
    name = "rows"

    def measure(self, slices):
        return slices.mean(2).square().mean(1, keepdim=True)


class Broken(Rows):
    def measure(self, slices):
        return slices.nonsense()
"""


def test_descriptors_of_ones_own(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "rows_of_characterize.py").write_text(OWN)
    common = ["characterize", "micrograph.path=synthetic:discs", "run.dir=look"]
    assert main([*common, "descriptors.extra=[rows_of_characterize:Broken]"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "rows_of_characterize:Broken" in told and "nonsense" in told
    assert not (directory / "look").exists()
    assert main([*common, "descriptors.extra=[rows_of_characterize:Rows]", "descriptors.s3.weight=1"]) == 0
    with np.load(directory / "look" / "targets.npz", allow_pickle=False) as targets:
        for axis in AXES:
            image = targets[f"{axis}/micrograph"] == targets[f"{axis}/phase"]
            np.testing.assert_allclose(targets[f"{axis}/rows"], [np.square(image.mean(1)).mean()])
            assert f"{axis}/s3" in targets
