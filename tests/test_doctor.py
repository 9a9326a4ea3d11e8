"""The doctor: a line for every finding, and an exit status that says whether something is broken."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from matrix import random_weights
from safetensors.torch import save_file

from mcrdist.__main__ import main
from mcrdist.commands import compose
from mcrdist.doctor import Finding

doctor = importlib.import_module("mcrdist.doctor")  # as an attribute of the package it is the function


def test_a_machine_in_order(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "_two_processes", lambda: Finding("two processes", "ok", "gloo"))
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line[6:31].strip() for line in lines[:-2]]
    for name in (
        "python",
        "torch",
        "zarr",
        "processor",
        "devices",
        "memory",
        "disk here",
        "fft",
        "two processes",
    ):
        assert name in names
    assert all(line.split()[0] in ("ok", "warn", "-") for line in lines[:-2])
    assert lines[-1].startswith("ready to use")


def test_all_that_the_package_asks_for_is_looked_for(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=\[]", one)[0] for one in project["dependencies"]}
    assert needed <= set(doctor.PACKAGES) and set(doctor.PACKAGES) - needed == {"numcodecs"}  # zarr brings it
    for extra, (packages, _) in doctor.EXTRAS.items():
        asked = {re.split(r"[<>=\[]", one)[0] for one in project["optional-dependencies"][extra]}
        brought = {"distributed"} if extra == "analysis" else set()  # as an extra of dask
        assert set(packages) == asked | brought


def test_what_a_part_of_the_program_wants(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Absent, it is no fault; and the remedy is a command."""
    monkeypatch.setattr(doctor, "EXTRAS", {"export": (("h5py", "no-such-package"), "export")})
    there, absent = doctor._extras()
    assert there.mark == "ok" and there.detail[0].isdigit()
    assert absent == Finding(
        "no-such-package", "-", "not installed; for export: pip install 'mcrdist[export]'"
    )
    monkeypatch.setenv("MCRDIST_CACHE", str(tmp_path))
    found = doctor._weights()
    assert found.mark == "-" and "for Gram matrices: mcrdist weights" in found.detail
    (tmp_path / "vgg19.safetensors").write_bytes(b"half of it")
    found = doctor._weights()
    assert found.mark == "warn" and "run mcrdist weights" in found.detail
    save_file(random_weights(), tmp_path / "vgg19.safetensors")
    assert doctor._weights() == Finding("weights of VGG-19", "ok", str(tmp_path / "vgg19.safetensors"))


def test_what_is_broken_is_named_and_the_rest_still_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Finding:
        raise OSError("no\nmemory")

    def run(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "Traceback\n  File\nRuntimeError: no route to host\n")

    monkeypatch.setattr(doctor, "_memory", broken)
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    monkeypatch.setattr(subprocess, "run", run)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "fail  no-such-package" in out
    assert "OSError: no memory" in out
    assert "RuntimeError: no route to host" in out
    assert "3 failed" in out


def test_two_processes_that_never_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: Any, **options: Any) -> Any:
        raise subprocess.TimeoutExpired("torchrun", 120)

    monkeypatch.setattr(subprocess, "run", run)
    found = doctor._two_processes()
    assert found.mark == "fail"
    assert "firewall" in found.detail


def test_two_processes() -> None:
    found = doctor._two_processes()
    assert found.mark == "ok", found.detail


def test_conf_is_found_in_a_wheel_and_in_a_source_tree(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "_PACKAGE", tmp_path / "mcrdist")
    assert compose.conf_dir() == tmp_path / "conf"
    (tmp_path / "mcrdist" / "conf").mkdir(parents=True)
    assert compose.conf_dir() == tmp_path / "mcrdist" / "conf"
