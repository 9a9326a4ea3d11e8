"""Signals: a run that is asked to end saves itself and says so; asked twice, it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults import no_waiting
from interrupted import conduct
from ranks import own_environment
from test_reconstruct import interrupt, start_long_run

from mcrdist import record
from mcrdist.store.run import REQUEUE, Run
from mcrdist.store.verify import verify


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "ranks"), [(signal.SIGUSR1, 1), (signal.SIGTERM, 2)], ids=["SIGUSR1", "SIGTERM, 2 ranks"]
)
def test_a_signal_saves_and_asks_for_another_turn(number: int, ranks: int, tmp_path: Path) -> None:
    place = tmp_path / "run"
    process = start_long_run(place, ranks)
    _, told = interrupt(process, place, number)
    assert process.returncode == (130 if ranks == 1 else 1), told
    assert (place / REQUEUE).read_text() == f"mcrdist reconstruct run.dir={place} resume=true\n"
    last = Run.open(place).metrics[-1]
    (newest,) = sorted((place / "checkpoint").iterdir())[-1:]
    numbers = json.loads((newest / "manifest.json").read_text().partition("\n")[2])["numbers"]
    assert numbers["inside"]["under_way"]["iteration"] == last["iteration"]
    assert numbers["standing"]["metrics"][0] == (place / "metrics.jsonl").stat().st_size


SLOW = """
from pathlib import Path

import time


class Slow:
    \"\"\"Takes a minute for its evaluation, once it is told to.\"\"\"

    name = "slow"

    def measure(self, slices):
        if Path("slow").exists():
            Path("evaluating").touch()
            time.sleep(60)
        return slices.mean((1, 2))[:, None]
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_a_second_ctrl_c_leaves_at_once(threads: int, tmp_path: Path) -> None:
    """In the middle of an evaluation, for the end of which the first one waits."""
    (tmp_path / "lazy.py").write_text(SLOW)
    command = [
        sys.executable, "-m", "mcrdist", "reconstruct", "micrograph.path=synthetic:discs", "volume.size=16",
        "descriptors.extra=[lazy:Slow]", "optimizer.iterations=100000", "optimizer.relative_decrease=0",
        "optimizer.projected_gradient=0", f"runtime.threads={threads}", "run.dir=run", "run.report=false",
        "checkpoint.every=0.2s",
    ]  # fmt: skip
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=own_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for needed, then in (
            ("run/checkpoint/0*", lambda: (tmp_path / "slow").touch()),
            ("evaluating", None),
        ):
            until = time.monotonic() + 120
            while not list(tmp_path.glob(needed)):
                assert time.monotonic() < until and process.poll() is None
                time.sleep(0.02)
            if then is not None:
                then()
        process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        assert process.poll() is None  # the evaluation is still under way
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
        assert time.monotonic() - asked < 20.0  # of the minute that the evaluation takes
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == -signal.SIGINT  # which a shell reports as 130
    assert "Traceback" not in told
    assert verify(tmp_path / "run").problems == []
    assert not (tmp_path / "run" / REQUEUE).exists()  # nothing was saved for it


def test_in_python_a_second_ctrl_c_is_an_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_waiting(monkeypatch)
    note = record.Recorder.note

    def noting(recorder: record.Recorder, *details: object) -> bool:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        return note(recorder, *details)

    monkeypatch.setattr(record.Recorder, "note", noting)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        conduct(tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before
    assert not (tmp_path / "run" / "lock").exists()
