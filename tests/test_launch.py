"""The launch scripts: what they would run, and whether a shell linter has anything to say."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parent.parent / "launch"
SCRIPTS = ("torchrun_local.sh", "slurm.sbatch")


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "RANKS"))}
    return subprocess.run(
        ["bash", str(LAUNCH / script), *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", [*SCRIPTS, "../.ci/run"])
def test_shellcheck(script: str) -> None:
    found = subprocess.run(["shellcheck", str(LAUNCH / script)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_local_dry_run_quotes_what_it_was_given() -> None:
    shown = run("torchrun_local.sh", "--dry-run", "3", "reconstruct", "micrograph.path=my sem.tif")
    assert shown.returncode == 0, shown.stderr
    assert shlex.split(shown.stdout) == [
        *("torchrun", "--standalone", "--nproc-per-node", "3", "-m", "mcrdist"),
        *("reconstruct", "micrograph.path=my sem.tif"),
    ]


def test_slurm_dry_run_follows_the_allocation(tmp_path: Path) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\nprintf 'node07\\nnode08\\nnode09\\n'\n")
    scontrol.chmod(0o755)
    shown = run(
        "slurm.sbatch",
        *("--dry-run", "reconstruct", "volume.size=1024"),
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        SLURM_JOB_ID="123456",
        SLURM_NNODES="3",
        SLURM_JOB_NODELIST="node[07-09]",
        SLURM_CPUS_PER_TASK="8",
        SLURM_GPUS_ON_NODE="4",
    )
    assert shown.returncode == 0, shown.stderr
    words = shlex.split(shown.stdout)
    torchrun = words[words.index("torchrun") :]
    options = dict(zip(torchrun[1:-4:2], torchrun[2:-4:2], strict=True))
    assert options == {
        "--nnodes": "3",
        "--nproc-per-node": "4",
        "--rdzv-backend": "c10d",
        "--rdzv-endpoint": "node07:23456",
        "--rdzv-id": "123456",
    }
    assert torchrun[-4:] == ["-m", "mcrdist", "reconstruct", "volume.size=1024"]
    assert words[:7] == ["srun", "--ntasks", "3", "--ntasks-per-node", "1", "--cpus-per-task", "8"]


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("torchrun_local.sh", []),
        ("torchrun_local.sh", ["reconstruct", "volume.size=64"]),
        ("torchrun_local.sh", ["0", "reconstruct"]),
        ("slurm.sbatch", []),
        ("slurm.sbatch", ["--dry-run"]),
        ("slurm.sbatch", ["reconstruct"]),
    ],
)
def test_a_wrong_call_says_how_it_is_done(script: str, arguments: list[str]) -> None:
    shown = run(script, *arguments)
    assert shown.returncode == 2
    assert len(shown.stderr.strip().splitlines()) == 1
