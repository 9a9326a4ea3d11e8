"""What `mcrdist plan` works out and prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import mcrdist
from mcrdist.config import plan_from_mapping
from mcrdist.sizing import footprint, roofline
from mcrdist.sizing.footprint import Work
from mcrdist.sizing.roofline import MACHINES


def test_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mcrdist", "plan", "volume.size=2048", "ranks=64", "device=h100"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing was measured on GPUs" in done.stdout and "NVIDIA H100" in done.stdout
    for name in ("field", "gradient", "history", "transposes", "batches of slices", "checkpoints"):
        assert name in done.stdout
    # 4 V (P - 1) / P values of four bytes
    assert f"{16 * 2048**3 * 63 / 64 / 1e9:.4g} GB" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_lines_add_up() -> None:
    text = str(mcrdist.plan("volume.size=512", "ranks=2"))
    block = text[text.index("memory a rank") : text.index("together")]
    units = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    sizes = [float(n) * units[unit] for n, unit in re.findall(r"  +([\d.]+) (B|kB|MB|GB)\b", block)]
    assert sum(sizes) == pytest.approx(mcrdist.plan("volume.size=512", ranks=2).memory, rel=1e-3)


def test_hardware_can_be_given() -> None:
    given = mcrdist.plan(volume={"size": 256}, hardware={"memory": "2GiB", "flops": 1e12})
    assert given.machine.memory == 2 * 2**30 and given.machine.flops == 1e12
    assert given.machine.bandwidth == MACHINES["cpu"].bandwidth
    assert "given: memory, flops" in str(given)
    assert given.fits == (given.memory <= 2 * 2**30)
    cores = mcrdist.plan(volume={"size": 256}, threads=4)
    assert cores.machine.flops == 4 * MACHINES["cpu"].flops


def test_fewest_ranks_is_the_first_that_fits() -> None:
    plan = mcrdist.plan("volume.size=1024", "hardware.memory=16GB")
    assert not plan.fits and plan.ranks_needed is not None
    assert mcrdist.plan("volume.size=1024", "hardware.memory=16GB", f"ranks={plan.ranks_needed}").fits
    assert not mcrdist.plan("volume.size=1024", "hardware.memory=16GB", f"ranks={plan.ranks_needed - 1}").fits
    assert "no number of ranks does" in str(mcrdist.plan("volume.size=64", "hardware.memory=100MB"))


def test_flops_of_a_small_case_by_hand() -> None:
    work = Work((8, 8, 8), lags=2)
    assert roofline.fft_flops(work) == 24 * 2 * 2.5 * 64 * 6  # slices, transforms, 2.5 N log2 N
    # half-spectrum of 5 columns to 6 cosines and sines and back; 6 x 6 from the rows; 2 times 3 x 3 spread by them
    assert roofline.window_flops(work) == 24 * (2 * 2 * 8 * 5 * 6 + 2 * 6 * 8 * 6 + 2 * 2 * 8 * 3 * 3)


def test_a_plane_sends_nothing() -> None:
    plan = mcrdist.plan("volume.shape=[256,256]")
    assert plan.sent == 0 and plan.times.network == 0.0
    assert not any(one.name == "transposes" for one in footprint.relax(plan.work))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["volume.size=64", "ranks=65"], "ranks: expected at most 64, one a plane"),
        (["ranks=2"], "volume.size: expected an integer"),
        (["volume.size=64", "device=h200"], "device: expected cpu, a100 or h100, found 'h200'"),
        (["volume.size=64", "phases=2"], "phases: expected 1, or an integer from 3"),
        (
            ["volume.size=64", "hardware.memory=80Gigs"],
            "an amount of memory, in bytes or as in 6GiB, found '80Gigs'",
        ),
        (["volume.size=64", "rank=2"], "rank: unknown key; did you mean ranks?"),
    ],
)
def test_mistakes_are_told(overrides: list[str], message: str) -> None:
    with pytest.raises(mcrdist.InputError, match=re.escape(message)):
        mcrdist.plan(*overrides)


def test_the_file_has_the_defaults(root: Path) -> None:
    given = yaml.safe_load((root / "conf" / "plan.yaml").read_text())
    given["volume"]["size"] = 64
    assert plan_from_mapping(given) == plan_from_mapping({"volume": {"size": 64}})
