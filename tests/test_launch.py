"""The launch scripts: what they would run, and whether a shell linter has anything to say."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parent.parent / "launch"
SCRIPTS = ("torchrun_local.sh", "slurm.sbatch", "sweep.sh", "dask.sbatch")


def run(
    script: str, *arguments: str, timeout: float = 200, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "RANKS"))}
    return subprocess.run(
        ["bash", str(LAUNCH / script), *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", [*SCRIPTS, "../.ci/run"])
def test_shellcheck(script: str) -> None:
    assert SHELLCHECK is not None
    found = subprocess.run([SHELLCHECK, str(LAUNCH / script)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_local_dry_run_quotes_what_it_was_given() -> None:
    shown = run("torchrun_local.sh", "--dry-run", "3", "reconstruct", "micrograph.path=my sem.tif")
    assert shown.returncode == 0, shown.stderr
    assert shlex.split(shown.stdout) == [
        *("torchrun", "--standalone", "--nproc-per-node", "3", "-m", "mcrdist"),
        *("reconstruct", "micrograph.path=my sem.tif"),
    ]


def program(directory: Path, name: str, text: str) -> None:
    """Put an executable script where the launch scripts find it first."""
    path = directory / name
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """The environment of a batch job on two nodes of one task each; srun starts both tasks here."""
    here = tmp_path / "bin"
    here.mkdir()
    program(
        here, "scontrol",
        f"#!/bin/sh\nif [ $1 = show ]; then printf '127.0.0.1\\n127.0.0.2\\n'; else echo $* >> {tmp_path}/asked; fi\n",
    )  # fmt: skip
    program(
        here,
        "srun",
        """#!/usr/bin/env bash
# Options are pairs, but for those with "="; signals go on to all tasks, as with the real one.
while [[ $1 == --* ]]; do
    [[ $1 == --ntasks ]] && export SLURM_NTASKS=$2
    if [[ $1 == *=* ]]; then shift; else shift 2; fi
done
for task in $(seq 0 $((SLURM_NTASKS - 1))); do
    SLURM_PROCID=$task SLURM_LOCALID=0 "$@" &
    tasks="$tasks $!"
done
trap 'kill -USR1 $tasks' USR1
status=0
for task in $tasks; do
    while kill -0 $task 2>/dev/null; do wait $task || status=$?; done
done
exit $status
""",
    )
    return {
        "PATH": f"{here}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_NNODES": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NTASKS": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_NODELIST": "node[07-08]",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(LAUNCH.parent),
    }


def test_slurm_dry_run_follows_the_allocation(cluster: dict[str, str]) -> None:
    cluster |= {"SLURM_NNODES": "3", "SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "8"}
    arguments = ("reconstruct", "volume.size=1024", "run.dir=my out")
    shown = run("slurm.sbatch", "--dry-run", *arguments, **cluster)
    assert shown.returncode == 0, shown.stderr
    words = shlex.split(shown.stdout)
    assert words[:8] == [
        "srun",
        "--ntasks",
        "12",
        "--ntasks-per-node",
        "4",
        "--cpus-per-task",
        "8",
        "--kill-on-bad-exit=1",
    ]
    assert words[-4:] == ["mcrdist", *arguments]
    again = run("slurm.sbatch", "--dry-run", *arguments, **cluster, SLURM_RESTART_COUNT="1")
    assert shlex.split(again.stdout)[-1] == "resume=true"


def test_slurm_runs_the_ranks(cluster: dict[str, str], tmp_path: Path) -> None:
    """Two tasks of a made-up srun find each other and make a volume."""
    out = tmp_path / "out"
    settings = [
        "micrograph.path=synthetic:gaussian",
        "volume.size=12",
        "optimizer.iterations=2",
        "optimizer.binarize_iterations=2",
        "optimizer.flip_rounds=4",
        "run.report=false",
    ]
    done = run("slurm.sbatch", "reconstruct", *settings, f"run.dir={out}", **cluster)
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["ranks"] == 2 and summary["status"] == "complete"
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("leaves", [True, False])
def test_slurm_hands_the_warning_on_and_requeues_by_the_marker(
    cluster: dict[str, str], tmp_path: Path, leaves: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    program(
        tmp_path / "bin",
        "python",
        f"""#!/usr/bin/env bash
trap 'sleep 0.3; echo "$RANK of $WORLD_SIZE" >> {out}/told; {f"touch {out}/REQUEUE" if leaves else ":"}; exit 130' USR1
echo $RANK >> {out}/ready
while true; do sleep 0.05; done
""",
    )
    job = subprocess.Popen(
        ["bash", str(LAUNCH / "slurm.sbatch"), "reconstruct", f"run.dir={out}"],
        env={**os.environ, **cluster},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 120
        while not (out / "ready").exists() or len((out / "ready").read_text().split()) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        job.send_signal(signal.SIGUSR1)
        text, _ = job.communicate(timeout=120)
    finally:
        job.kill()
    assert sorted((out / "told").read_text().split("\n")) == ["", "0 of 2", "1 of 2"]
    asked = tmp_path / "asked"
    if leaves:
        assert job.returncode == 0 and "back into the queue" in text
        assert asked.read_text().split() == ["requeue", cluster["SLURM_JOB_ID"]]
    else:
        assert job.returncode == 130 and not asked.exists()


def test_slurm_asks_for_the_warning_that_it_handles() -> None:
    text = (LAUNCH / "slurm.sbatch").read_text()
    assert "#SBATCH --signal=B:USR1@120\n" in text and "#SBATCH --requeue\n" in text


def test_sweep_submits_a_job_a_value() -> None:
    shown = run(
        "sweep.sh",
        *("--dry-run", "--nodes=2", "seed=0,1", "reconstruct", "micrograph.path=my sem.tif", "run.dir=out"),
    )
    assert shown.returncode == 0, shown.stderr
    lines = [shlex.split(line) for line in shown.stdout.splitlines()]
    assert lines == [
        [
            *(
                "sbatch",
                "--nodes=2",
                str(LAUNCH / "slurm.sbatch"),
                "reconstruct",
                "micrograph.path=my sem.tif",
            ),
            *(f"seed={seed}", f"run.dir=out/seed={seed}"),
        ]
        for seed in (0, 1)
    ]


def test_sweep_leaves_lists_whole() -> None:
    shown = run(
        "sweep.sh",
        *("--dry-run", "micrograph.crop=[0,64,0,64],[64,128,0,64],null", "reconstruct", "run.dir=out"),
    )
    assert shown.returncode == 0, shown.stderr
    crops = [shlex.split(line)[-2] for line in shown.stdout.splitlines()]
    assert crops == [f"micrograph.crop={crop}" for crop in ("[0,64,0,64]", "[64,128,0,64]", "null")]


def test_sweep_hands_options_of_two_words_on() -> None:
    shown = run("sweep.sh", *("-N", "2", "--dry-run", "-t", "8:00", "seed=0", "reconstruct", "run.dir=out"))
    assert shown.returncode == 0, shown.stderr
    assert shlex.split(shown.stdout)[:6] == ["sbatch", "-N", "2", "-t", "8:00", str(LAUNCH / "slurm.sbatch")]


def test_sweep_on_one_machine() -> None:
    shown = run("sweep.sh", "--dry-run", "--local", "2", "seed=3,4", "reconstruct", "run.dir=out")
    assert shown.returncode == 0, shown.stderr
    lines = [shlex.split(line) for line in shown.stdout.splitlines()]
    assert [line[:4] for line in lines] == [["torchrun", "--standalone", "--nproc-per-node", "2"]] * 2
    assert [line[-2:] for line in lines] == [
        ["seed=3", "run.dir=out/seed=3"],
        ["seed=4", "run.dir=out/seed=4"],
    ]


def test_dask_dry_run(cluster: dict[str, str]) -> None:
    shown = run("dask.sbatch", "--dry-run", "python", "look.py", **{**cluster, "SLURM_JOB_ID": "123456"})
    assert shown.returncode == 0, shown.stderr
    scheduler, workers, analysis = (shlex.split(line) for line in shown.stdout.splitlines())
    assert scheduler[:6] == ["dask", "scheduler", "--host", "127.0.0.1", "--port", "23456"]
    assert workers[:5] == ["srun", "--ntasks", "2", "--cpus-per-task", "1"]
    assert "tcp://127.0.0.1:23456" in workers
    assert analysis == ["env", "DASK_SCHEDULER_ADDRESS=tcp://127.0.0.1:23456", "python", "look.py"]


@pytest.mark.slow
def test_dask_runs_a_program_on_its_workers(cluster: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    if not shutil.which("dask", path=cluster["PATH"]):
        pytest.skip("no dask command")
    look = tmp_path / "look.py"
    look.write_text(
        "from distributed import Client\n"
        "with Client() as client:\n"
        "    client.wait_for_workers(2, timeout=120)\n"
        "    print(len(client.scheduler_info()['workers']), client.submit(sum, [1, 2]).result())\n"
    )
    done = run("dask.sbatch", sys.executable, str(look), **cluster, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "2 3" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_can_be_called_as_it_is(script: str) -> None:
    """As README says, with no shell named: what it would do is seen before it is submitted."""
    arguments = {
        "torchrun_local.sh": ["2", "reconstruct"],
        "slurm.sbatch": ["reconstruct", "run.dir=out"],
        "sweep.sh": ["seed=0,1", "reconstruct", "run.dir=out"],
        "dask.sbatch": ["python", "mine.py"],
    }
    command = [str(LAUNCH / script), "--dry-run", *arguments[script]]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0 and shown.stdout, shown.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_bash_reads_it(script: str) -> None:
    assert subprocess.run(["bash", "-n", str(LAUNCH / script)], check=False).returncode == 0


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("torchrun_local.sh", []),
        ("torchrun_local.sh", ["reconstruct", "volume.size=64"]),
        ("torchrun_local.sh", ["0", "reconstruct"]),
        ("slurm.sbatch", []),
        ("slurm.sbatch", ["--dry-run"]),
        ("slurm.sbatch", ["reconstruct", "run.dir=out"]),
        ("slurm.sbatch", ["--dry-run", "reconstruct"]),
        ("sweep.sh", []),
        ("sweep.sh", ["seed", "reconstruct", "run.dir=out"]),
        ("sweep.sh", ["seed=1,2", "reconstruct"]),
        ("sweep.sh", ["--local", "two", "seed=1,2", "reconstruct", "run.dir=out"]),
        ("dask.sbatch", []),
        ("dask.sbatch", ["python", "look.py"]),
    ],
)
def test_a_wrong_call_says_how_it_is_done(script: str, arguments: list[str]) -> None:
    shown = run(script, *arguments)
    assert shown.returncode == 2
    assert len(shown.stderr.strip().splitlines()) == 1
