"""The command line and the Python interface: help, versions, composition, exit status."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import mcrdist
from mcrdist.__main__ import main
from mcrdist.commands import VERBS, reconstruct
from mcrdist.commands.compose import compose, mapping
from mcrdist.commands.terminal import program
from mcrdist.errors import InputError, LostRankError


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mcrdist", *arguments], capture_output=True, text=True, timeout=120, **options
    )


@pytest.fixture
def conducted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replace the conductor by one that notes its configuration."""
    configs: list[Any] = []
    summary = {
        "status": "complete",
        "shape": [8, 9, 10],
        "seconds": 192.4,
        "errors": {
            "rounded": {
                "z": {"s2": 0.008, "volume_fraction": 0.001},
                "y": {"s2": 0.01, "volume_fraction": 0.002},
            },
            "relaxed": {
                "z": {"s2": 0.007, "volume_fraction": 0.001},
                "y": {"s2": 0.01, "volume_fraction": 0.002},
            },
        },
    }
    result = types.SimpleNamespace(path=Path("out"), report=Path("out/report.html"), summary=summary)

    def conduct(config: Any, abrupt: bool = False, say: Any = None) -> Any:
        configs.append(config)
        return result

    module = types.ModuleType("mcrdist.reconstruct")
    module.reconstruct = conduct  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mcrdist.reconstruct", module)
    configs_and_result: list[Any] = configs
    module.result = result  # type: ignore[attr-defined]
    return configs_and_result


def test_help_and_version_do_not_load_what_they_do_not_need() -> None:
    code = (
        "import sys; from mcrdist.__main__ import main; main(['--help']); main(['reconstruct', '--help']);"
        "main(['--version']); print([m for m in ('torch', 'hydra', 'skimage', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert f"mcrdist {mcrdist.__version__}" in done.stdout


def test_bad_settings_do_not_load_torch() -> None:
    code = (
        "import sys; from mcrdist.__main__ import main; status = main(['reconstruct', 'volume.size=-1']);"
        "print(status, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "2 False\n"


def test_as_a_program() -> None:
    done = run("reconstruct", "volume.sise=3")
    assert done.returncode == 2
    assert done.stderr == "mcrdist: error: volume.sise: unknown key; did you mean volume.size?\n"
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_usage_names_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_command(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"mcrdist {verb}" in out
    assert verb not in ("reconstruct", "characterize") or "two-point correlation" in out


def test_cfg_prints_what_would_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reconstruct", "+experiment=quick", "micrograph.z.path=top.tif", "seed=7", "--cfg"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["seed"] == 7
    assert printed["volume"]["size"] == 64
    assert printed["micrograph"]["z"] == {"path": "top.tif"}


@pytest.mark.parametrize(
    "text",
    [
        "a b.png",
        "a=b,c.png",
        "(1).png",
        "001",
        "1_000",
        "[x]",
        "it's.png",
        "C:\\data\\",
        "ü.png",
        "{a: b}",
        "true",
        "a\\'b",
    ],
)
def test_paths_are_taken_as_they_are_typed(text: str) -> None:
    composed = compose("reconstruct", [f"run.dir={text}", f"micrograph.z.path={text}"])
    assert composed["run"]["dir"] == text
    assert composed["micrograph"]["z"]["path"] == text


def test_quotes_null_and_experiments_mean_what_they_mean_to_hydra() -> None:
    assert compose("reconstruct", ["run.dir='a b'"])["run"]["dir"] == "a b"
    assert compose("reconstruct", ["run.dir=null"])["run"]["dir"] is None
    assert compose("reconstruct", ["experiment=quick"])["volume"]["size"] == 64
    assert compose("reconstruct", ["volume.shape=[8,9,10]"])["volume"]["shape"] == [8, 9, 10]


BAD = [
    (["recon"], "did you mean reconstruct?"),
    (["frobnicate"], "see mcrdist --help"),
    (["reconstruct", "--verbose"], "--verbose: unknown option"),
    (["doctor", "a=1"], "doctor takes no settings"),
    (["reconstruct", "volume.size"], "expected key=value"),
    (["reconstruct", "volume.size="], "volume.size=null resets it"),
    (["reconstruct", "volume.size=["], "cannot be read"),
    (["reconstruct", "seed=1,2"], "found several"),
    (["reconstruct", "seed=range(1,3)"], "found several"),
    (["reconstruct", "=3"], "expected key=value"),
    (["reconstruct", "size=3"], "did you mean volume.size?"),
    (["reconstruct", "volume=3"], "volume: expected a mapping"),
    (["reconstruct", "volume.size.x=3"], "volume.size: expected an integer"),
    (["reconstruct", "+nothing=3"], "nothing: unknown key"),
    (["reconstruct", "~micrograph.crop"], "micrograph.crop=null resets"),
    (["reconstruct", "+experiment=slow"], "with one of anisotropic, bhaduri, bostanabad, fig02_annealing"),
    (["reconstruct", "hydra.run.dir=x"], "plays no part"),
    (["reconstruct", "run.dir=${nothing}"], "nothing"),
    (["reconstruct", "--cfg", "seed=abc"], "seed: expected an integer"),
    (["characterize", "volume.size=64"], "volume: unknown key"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_mistakes_are_told_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("mcrdist: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_only_the_first_rank_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["reconstruct", "volume.size=-1"]) == 2
    assert main(["--help"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("reconstruct", "characterize")])
def test_what_is_one_processs_work_is_refused_to_several(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each would do all of it, into the same files."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([verb, "--help"]) == 0
    capsys.readouterr()
    assert main([verb]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert f"{verb}: expected one process, found 2 (WORLD_SIZE)" in err


def test_reconstruct_closes_with_paths_and_errors(
    conducted: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reconstruct", "micrograph.path=a.png", "volume.size=8"]) == 0
    assert conducted[0].volume.shape == (8, 8, 8)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "volume  out/volume.zarr  (8x9x10, 3 min 12 s)"
    assert lines[1] == "report  out/report.html"
    assert lines[3].split() == ["error,", "rounded", "(relaxed)", "z", "y"]
    assert lines[4].split() == ["s2", "0.80%", "(0.70%)", "1.00%", "(1.00%)"]


def test_an_interrupted_run_says_so(
    conducted: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = sys.modules["mcrdist.reconstruct"].result  # type: ignore[attr-defined]
    monkeypatch.setitem(result.summary, "status", "interrupted")
    assert main(["reconstruct", "micrograph.path=a.png", "volume.size=8"]) == 130
    assert "interrupted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), 2, "out/x: expected room to write"),
        (InputError("two\nlines"), 2, "two lines"),
        (LostRankError("rank 1 of 3: its\nstory"), 3, "rank 1 of 3: its story"),
        (LostRankError("rank 2 of 3: its story", spoken_for=True), 3, ""),
    ],
)
def test_what_escapes_the_conductor(
    raised: BaseException,
    status: int,
    said: str,
    conducted: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def conduct(config: Any, **options: Any) -> Any:
        raise raised

    monkeypatch.setattr(sys.modules["mcrdist.reconstruct"], "reconstruct", conduct)
    assert main(["reconstruct", "micrograph.path=a.png", "volume.size=8"]) == status
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == (1 if said else 0)


def test_faults_of_the_program_keep_their_traceback(
    conducted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def conduct(config: Any, **options: Any) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setattr(sys.modules["mcrdist.reconstruct"], "reconstruct", conduct)
    with pytest.raises(RuntimeError, match="ours"):
        main(["reconstruct", "micrograph.path=a.png", "volume.size=8"])


def test_advice_can_be_typed_as_it_stands(
    conducted: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sys.modules["mcrdist.reconstruct"].result.path = Path("with a blank").absolute()  # type: ignore[attr-defined]
    assert main(["reconstruct", "micrograph.path=a.png", "volume.size=8"]) == 0
    steps = capsys.readouterr().out.split("\nnext\n")[1].splitlines()
    verbs = []
    for step in steps:
        command = step.split("  ")[1]
        python, dash, module, verb, *settings = shlex.split(command)
        assert (python, dash, module) == (
            Path(sys.executable).name,
            "-m",
            "mcrdist",
        )  # as the tests are called
        assert main([verb, *settings, "--cfg"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["run"]["dir"] in ("with a blank", ["with a blank"])
        verbs.append(verb)
    assert verbs == ["view", "analyze", "report", "export"]


def test_a_plane_is_sent_to_nobody_who_would_refuse_it(
    conducted: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = sys.modules["mcrdist.reconstruct"].result.summary  # type: ignore[attr-defined]
    monkeypatch.setitem(summary, "shape", [1, 9, 10])
    assert main(["reconstruct", "micrograph.path=a.png", "volume.shape=[9,10]"]) == 0
    steps = capsys.readouterr().out.split("\nnext\n")[1].splitlines()
    assert len(steps) == 3 and not any(" analyze " in step for step in steps)


def test_the_program_is_named_as_it_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "bin" / "mcrdist"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert program() == "mcrdist"
    monkeypatch.setenv("PATH", str(tmp_path))  # a venv that is not activated
    assert program() == str(script)


def test_duration() -> None:
    assert [reconstruct.duration(t) for t in (4.24, 192.4, 7500)] == ["4.2 s", "3 min 12 s", "2 h 5 min"]


# ------------------------------------------------------------------------------------------------ from Python


def test_from_python(conducted: list[Any]) -> None:
    image = np.eye(16, dtype=bool)
    mcrdist.reconstruct("volume.size=32", "micrograph.path=a.png", micrograph=image, seed=5)
    mcrdist.reconstruct(micrograph="a.png", volume={"shape": (8, 9, 10)}, run={"dir": Path("out")})
    first, second = conducted
    assert first.micrograph.source("z").image is image
    assert first.seed == 5
    assert second.volume.shape == (8, 9, 10)
    assert second.run.dir == "out"
    with pytest.raises(InputError, match=r"did you mean volume\.size"):
        mcrdist.reconstruct(micrograph="a.png", volume={"sise": 3})


def test_settings_win_over_overrides() -> None:
    merged = mapping(
        "reconstruct", ["volume.size=32", "micrograph.phase=2"], {"volume": {"size": 16}, "micrograph": "b"}
    )
    assert merged["volume"]["size"] == 16
    assert merged["micrograph"]["path"] == "b"
    assert merged["micrograph"]["phase"] == 2


def test_the_functions_survive_the_import_of_their_modules() -> None:
    code = (
        "import mcrdist, mcrdist.characterize, mcrdist.doctor\n"
        "from mcrdist.characterize import characterize\n"
        "assert type(mcrdist.characterize).__name__ == type(mcrdist.doctor).__name__ == 'function'\n"
        "assert mcrdist.characterize is not characterize\n"
        "assert mcrdist.config.AXES\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def _unread(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose output goes into a pipe that nobody reads, as after ``| head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "mcrdist", *arguments]
        return subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    finally:
        os.close(writer)


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "volume.size=64"]])
def test_a_reader_that_leaves_ends_it_quietly(arguments: list[str]) -> None:
    done = _unread(*arguments)
    assert (done.returncode, done.stderr) == (141, "")


def test_work_goes_on_when_the_reader_leaves(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = _unread("characterize", "micrograph.path=synthetic:gaussian", f"run.dir={out}")
    assert (done.returncode, done.stderr) == (141, "")
    assert (out / "targets.npz").is_file()
