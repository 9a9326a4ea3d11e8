"""Runs that were cut short go on as if they had not been, or say in one line why they cannot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from faults import flip, in_child, no_waiting
from test_reconstruct import IMAGE, interrupt, start_long_run, three_phases

import mcrdist
from mcrdist import record
from mcrdist.__main__ import main
from mcrdist.config import from_mapping
from mcrdist.errors import InputError
from mcrdist.reconstruct import reconstruct
from mcrdist.store import checksums
from mcrdist.store.lock import Lock
from mcrdist.store.run import REQUEUE, Run
from mcrdist.store.verify import verify
from mcrdist.store.volume import Volume

#: After every iteration.
OFTEN = {"every": "0.000001s"}
KEYS = ("level", "stage", "iteration", "loss", "errors", "evaluations", "projected_gradient", "grey")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    no_waiting(monkeypatch)


def settings(directory: Path, **more: Any) -> dict[str, Any]:
    return {
        "micrograph": {"image": IMAGE},
        "volume": {"size": 12},
        "optimizer": {"iterations": 8},
        "runtime": {"threads": 1, "device": "cpu"},
        "run": {"dir": str(directory), "report": False},
        "checkpoint": {"every": None},
    } | more


def conduct(directory: Path, **more: Any) -> Run:
    return reconstruct(from_mapping(settings(directory, **more)))


class Stop:
    """Asks a run to end at its n-th record, as a signal would, and counts the records."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int | None = None) -> None:
        self.seen = 0
        self.stages: list[str] = []
        note = record.Recorder.note

        def noting(recorder: record.Recorder, *details: Any) -> bool:
            self.seen += 1
            self.stages.append(recorder.stage)
            if self.seen == at:
                recorder._interrupt.requested = True
            return note(recorder, *details)

        monkeypatch.setattr(record.Recorder, "note", noting)


def same(found: Run, wanted: Run) -> None:
    """Bit for bit: every iteration's record, fields and labels."""
    got, expected = ([{key: line[key] for key in KEYS} for line in run.metrics] for run in (found, wanted))
    assert got == expected
    np.testing.assert_array_equal(found.phase, wanted.phase)
    for level in range(len(wanted.summary["levels"])):
        one, other = (run.volume.read(run.volume.field(level)) for run in (found, wanted))
        np.testing.assert_array_equal(one, other)
    assert found.summary["errors"] == wanted.summary["errors"]
    told = [[{k: v for k, v in level.items() if k != "seconds"} for level in run.summary["levels"]]
            for run in (found, wanted)]  # fmt: skip
    assert told[0] == told[1]


# ------------------------------------------------------------------------------------------------ bit for bit

CASES: dict[str, dict[str, Any]] = {
    "lbfgsb": {},
    "levels": {"levels": {"count": 2}, "initial": "noise", "volume": {"size": 16}},
    "adam": {"optimizer": {"name": "adam", "iterations": 8}},
    "rotating": {
        "descriptors": {"patches": {"weight": 1.0, "redraw": True}},
        "optimizer": {"iterations": 8, "rotate": 3},
    },
    "rotating adam": {
        "descriptors": {"patches": {"weight": 1.0, "redraw": True}},
        "optimizer": {"name": "adam", "iterations": 8, "rotate": 3},
    },
    "constrained": {"descriptors": {"variation": {"mode": "constrain"}}, "optimizer": {"iterations": 4}},
    "phases": {
        "micrograph": three_phases(),
        "output": {"threshold": "exact"},
        "optimizer": {"iterations": 5},
    },
    "plane": {"volume": {"shape": [20, 18]}},
}


def moments(stages: list[str], places: Sequence[float]) -> list[int]:
    """Records at these places of every stage, 0 the first and 1 the last, counted from one."""
    found = []
    for stage in dict.fromkeys(stages):
        at = [number for number, name in enumerate(stages, 1) if name == stage]
        found += [at[round(place * (len(at) - 1))] for place in places]
    return sorted(set(found))


@pytest.mark.parametrize(
    ("case", "places"),
    [
        ("lbfgsb", [0.5]),
        ("adam", [0.5]),
        *(pytest.param(name, [0.0, 1.0], marks=pytest.mark.slow) for name in ("lbfgsb", "adam")),
        *(pytest.param(name, [0.6], marks=pytest.mark.slow) for name in list(CASES)[1:] if name != "adam"),
    ],
)
def test_cut_short_in_every_stage(
    case: str, places: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = CASES[case]
    with monkeypatch.context() as patch:
        stages = Stop(patch).stages
        wanted = conduct(tmp_path / "whole", **more)
    assert {"relax", "flip"} <= set(stages)
    for at in moments(stages, places):
        with monkeypatch.context() as patch:
            stop = Stop(patch, at)
            cut = conduct(tmp_path / "cut", **more)
            assert stop.seen == at
        assert cut.summary["status"] == "interrupted"
        assert not cut.volume.complete
        assert (cut.path / REQUEUE).is_file()
        found = conduct(tmp_path / "cut", resume=True, **more)
        same(found, wanted)
        assert found.volume.complete and not (found.path / REQUEUE).exists()
        assert verify(found.path).problems == []
        shutil.rmtree(found.path)


def test_cut_short_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        total = Stop(patch).stages
        wanted = conduct(tmp_path / "whole")
    runs = 0
    while True:
        with monkeypatch.context() as patch:
            Stop(patch, 50)
            found = conduct(tmp_path / "cut", resume=True)  # the first time there is none: it starts
        runs += 1
        if found.summary["status"] == "complete":
            break
    assert runs > len(total) // 50
    same(found, wanted)


def test_without_history_it_comes_to_the_same_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The curvature is learnt anew, so the way is another one; the run is as good."""
    more: dict[str, Any] = {"checkpoint": {"every": None, "history": False}}
    wanted = conduct(tmp_path / "whole", **more)
    with monkeypatch.context() as patch:
        Stop(patch, 6)
        cut = conduct(tmp_path / "cut", **more)
    fields = json.loads(
        (cut.path / "checkpoint" / "00000001" / "manifest.json").read_text().partition("\n")[2]
    )
    assert [field["name"] for field in fields["fields"]] == ["field"]
    before = cut.metrics
    found = conduct(tmp_path / "cut", resume=True, **more)
    assert found.metrics[: len(before)] == before
    relax = [
        max(line["iteration"] for line in run.metrics if line["stage"] == "relax") for run in (found, wanted)
    ]
    assert relax[0] == relax[1]
    for axis, errors in wanted.summary["errors"]["rounded"].items():
        assert abs(found.summary["errors"]["rounded"][axis]["s2"] - errors["s2"]) < 0.1


@pytest.mark.parametrize("name", ["scipy", "yeong_torquato"])
def test_optimisers_that_cannot_be_looked_into_go_on_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"optimizer": {"name": name, "iterations": 12}}
    with monkeypatch.context() as patch:
        Stop(patch, 5)
        cut = conduct(tmp_path / "cut", **more)
    before = cut.metrics
    found = conduct(tmp_path / "cut", resume=True, **more)
    assert found.metrics[: len(before)] == before
    assert found.summary["status"] == "complete"
    first = [line["iteration"] for line in found.metrics if line["stage"] in ("relax", "anneal")]
    assert first == list(range(len(first)))
    assert found.metrics[-1]["loss"] < before[-1]["loss"]


def cut_at(directory: str, at: int | None) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        no_waiting(patch)
        Stop(patch, at)
        run = conduct(Path(directory), resume=True)
        return [run.summary["status"], run.summary["ranks"]]


@pytest.mark.slow
def test_on_any_number_of_ranks(tmp_path: Path, run_ranks: Callable[..., list[Any]]) -> None:
    """3, 2, 1 and 4 ranks in turn: bit for bit the run of one."""
    wanted = conduct(tmp_path / "whole")
    place = str(tmp_path / "cut")
    assert run_ranks(cut_at, 3, place, 6) == [["interrupted", 3]] * 3
    assert run_ranks(cut_at, 2, place, 20) == [["interrupted", 2]] * 2
    assert cut_at(place, 20) == ["interrupted", 1]
    assert run_ranks(cut_at, 4, place, None) == [["complete", 4]] * 4
    same(Run.open(place), wanted)


# ------------------------------------------------------------------------------------------------ kills


@pytest.mark.parametrize("kills", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_random_times(kills: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """After every SIGKILL the volume is absent, incomplete or right, and in the end it is that of a whole run."""
    started = time.monotonic()
    wanted = conduct(tmp_path / "whole", checkpoint=OFTEN)
    length = time.monotonic() - started
    random = np.random.default_rng(0)
    place, survived, finished = tmp_path / "cut", 0, 0
    while survived < kills or finished == 0:
        wait = float(random.uniform(0.02, 0.4 * length)) if survived < kills else None
        status = in_child(lambda: conduct(place, resume=True, checkpoint=OFTEN), wait)
        assert status in (0, -9)
        if status == 0:
            same(Run.open(place), wanted)
            assert verify(place).problems == []
            finished += 1
            shutil.rmtree(place)
            continue
        survived += 1
        if (place / "volume.zarr" / "zarr.json").exists() and Volume.open(place / "volume.zarr").complete:
            np.testing.assert_array_equal(Run.open(place).phase, wanted.phase)
    print(f"survived {survived} kills of {kills}, {finished} runs finished")


@pytest.mark.slow
@pytest.mark.xfail(strict=False, reason="gloo at times fails to connect the ranks that torchrun starts again")
def test_a_rank_is_killed_under_torchrun(tmp_path: Path) -> None:
    """torchrun starts the ranks again, and they go on, without being told to."""
    place = tmp_path / "run"
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"PYTHONPATH": str(Path(__file__).resolve().parent.parent), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts=1",
        "-m", "mcrdist", "reconstruct", "micrograph.path=synthetic:discs", "volume.size=16", f"run.dir={place}",
        "optimizer.iterations=40", "run.report=false", "runtime.threads=1", "checkpoint.every=0.5s",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 120
        while not list(place.glob("checkpoint/0*")):
            assert time.monotonic() < until and process.poll() is None, process.communicate()
            time.sleep(0.02)
        import psutil

        ranks = [p for p in psutil.Process(process.pid).children() if "reconstruct" in p.cmdline()]
        os.kill(max(rank.pid for rank in ranks), signal.SIGKILL)
        _, told = process.communicate(timeout=180)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == 0, told
    run = Run.open(place)
    assert run.summary["status"] == "complete"
    iterations = [line["iteration"] for line in run.metrics]
    assert iterations == sorted(iterations)  # nothing twice, nothing left out
    assert verify(place).problems == []


# ------------------------------------------------------------------------------------------------ damage


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two levels that was cut short on the second."""
    place = tmp_path_factory.mktemp("cut") / "run"
    with pytest.MonkeyPatch.context() as patch:
        no_waiting(patch)
        Stop(patch, 40)
        conduct(place, **CASES["levels"], checkpoint=OFTEN)
    return place


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole") / "run"
    conduct(place, **CASES["levels"])
    return place


def everything(run: Path) -> list[Path]:
    return sorted(path for path in run.rglob("*") if path.is_file() and path.name != "lock")


def contents(run: Path) -> list[bytes]:
    """Every voxel of every level of a run's volume."""
    arrays = [path.parent for path in sorted((run / "volume.zarr").rglob("zarr.json"))]
    opened = [zarr.open(str(path), mode="r") for path in arrays]
    return [np.asarray(one[...]).tobytes() for one in opened if isinstance(one, zarr.Array)]


@pytest.mark.parametrize("flips", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_verify_notices_every_flipped_bit(flips: int, whole: Path, cut: Path) -> None:
    random = np.random.default_rng(0)
    assert verify(whole).problems == [] and verify(cut).problems == []
    caught = made = 0
    for run in (whole, cut):
        written = contents(run)
        for path in everything(run):
            if run == cut and path.name in ("metrics.jsonl", "summary.json", REQUEUE):
                continue  # still being written
            if (
                run == cut
                and "volume.zarr" in path.parts
                and checksums.CHECKSUMS not in path.name
                and (
                    path.relative_to(run).as_posix()
                    in ("volume.zarr/zarr.json", "volume.zarr/phase/zarr.json")
                    or "phase" in path.parts
                )
            ):
                continue
            original = path.read_bytes()
            for bit in random.integers(8 * len(original), size=flips).tolist():
                flip(path, bit)
                problems = verify(run).problems
                made += 1
                caught += bool(problems)
                # A compressed chunk has bits that say nothing: what is read is what was written.
                assert problems or contents(run) == written, (path, bit)
                assert all("\n" not in problem for problem in problems)
                path.write_bytes(original)
    print(f"caught {caught} flips of {made}")


def test_resuming_notices_what_was_damaged(cut: Path, whole: Path, tmp_path: Path) -> None:
    wanted = Run.open(whole)
    for name in (
        "config.yaml",
        "environment.json",
        "targets.npz",
        "checksums.json",
        "volume.zarr/field/0/zarr.json",
    ):
        place = tmp_path / "run"
        shutil.copytree(cut, place)
        flip(place / name, 8 * 40 + 1)
        with pytest.raises(InputError) as caught:
            conduct(place, resume=True, **CASES["levels"])
        assert str(place / name) in str(caught.value) and "\n" not in str(caught.value)
        shutil.rmtree(place)
    for generation, name in ((0, "manifest.json"), (0, "z000000.bin"), (1, "z000000.bin")):
        shutil.copytree(cut, tmp_path / "run")
        newest = sorted((tmp_path / "run" / "checkpoint").iterdir(), reverse=True)
        flip(newest[generation] / name, 8 * 1000 + 1)
        same(conduct(tmp_path / "run", resume=True, **CASES["levels"]), wanted)
        shutil.rmtree(tmp_path / "run")


def test_a_log_that_was_damaged_is_set_aside(
    cut: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "run"
    shutil.copytree(cut, place)
    flip(place / "metrics.jsonl", 800)
    found = conduct(place, resume=True, **CASES["levels"])
    assert "metrics.jsonl: not what the checkpoint knows" in capsys.readouterr().err
    assert found.summary["status"] == "complete"
    assert (place / "metrics.jsonl.damaged").is_file()


def test_a_missing_chunk_is_named(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "run"
    shutil.copytree(whole, place)
    (place / "volume.zarr/field/0/c/0/0/0").unlink()
    (place / "report.html").write_text("added later")  # no business of ours
    assert main(["verify", f"run.dir={place}"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 and "volume.zarr/field/0/c/0/0/0: expected a chunk" in told[0]
    assert main(["verify", f"run.dir={whole}"]) == 0
    assert "all good" in capsys.readouterr().out
    assert main(["verify", f"run.dir={tmp_path}"]) == 2
    assert main(["verify"]) == 2


# ------------------------------------------------------------------------------------------------ refusals


def command_line(directory: Path) -> list[str]:
    return [
        "reconstruct", "micrograph.path=synthetic:discs", "volume.size=12", "optimizer.iterations=3",
        "run.report=false", "runtime.threads=1", f"run.dir={directory}",
    ]  # fmt: skip


def test_resume_alone_suffices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "out"
    with monkeypatch.context() as patch:
        Stop(patch, 3)
        assert main(command_line(place)) == 130
    for changed, key in (
        ("seed=3", "seed"),
        ("volume.size=13", "volume.shape"),
        ("optimizer.history=4", "optimizer.history"),
    ):
        capsys.readouterr()
        assert main(["reconstruct", f"run.dir={place}", "resume=true", changed]) == 2
        told = capsys.readouterr().err
        assert (
            told.startswith(f"mcrdist: error: {key}: expected the settings of the run")
            and told.count("\n") == 1
        )
    assert main([*command_line(place), "resume=true", "checkpoint.every=1h"]) == 0
    assert Run.open(place).summary["status"] == "complete"
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in everything(place)}
    assert main(["reconstruct", f"run.dir={place}", "resume=true"]) == 0
    assert "is complete: nothing is left to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in everything(place)} == before
    assert main(["reconstruct", f"run.dir={tmp_path / 'none'}", "resume=true"]) == 2
    assert "expected a run to go on with" in capsys.readouterr().err
    assert main(["reconstruct", "resume=true"]) == 2
    assert main([*command_line(place), "seed=1,2", "resume=true", "-m"]) == 2


def test_another_micrograph_is_refused(cut: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(cut, place)
    other = np.roll(IMAGE, 7, axis=0) ^ (np.random.default_rng(0).random(IMAGE.shape) < 0.02)
    with pytest.raises(InputError, match="micrograph: expected the one that the run"):
        conduct(place, resume=True, **CASES["levels"], micrograph={"image": other.astype(np.uint8)})
    with pytest.raises(InputError, match="give it again there"):
        mcrdist.reconstruct(f"run.dir={place}", "resume=true")


def test_a_run_is_one_jobs_alone(cut: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(cut, place)
    ready = tmp_path / "ready"

    def hold() -> None:
        Lock(place)
        ready.touch()
        time.sleep(60)

    child = os.fork()
    if child == 0:
        hold()
        os._exit(0)
    try:
        while not ready.exists():
            time.sleep(0.01)
        for more in ({"resume": True}, {}):
            with pytest.raises(InputError, match=f"expected no other job at work.*process {child} on "):
                conduct(place, **CASES["levels"], **more)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert (place / "lock").is_file()  # left by the kill, and held by nobody
    assert conduct(place, resume=True, **CASES["levels"]).summary["status"] == "complete"
    assert not (place / "lock").exists()


# ------------------------------------------------------------------------------------------------ signals


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


# ------------------------------------------------------------------------------------------------ not a number


@pytest.mark.parametrize("after", [0, 5])
def test_nan_is_named(after: int, tmp_path: Path) -> None:
    from mcrdist.descriptors.correlation import TwoPointTerm

    def recorded() -> int:
        path = tmp_path / "run" / "metrics.jsonl"
        return len(path.read_text().splitlines()) if path.is_file() else -1

    def spoil(errors: Any, slices: Any, at: Any) -> None:
        if 7 in at and slices.shape[1:] == (10, 12) and recorded() > after:
            errors[list(at).index(7)] = float("nan")

    evaluate, accumulate = TwoPointTerm.evaluate, TwoPointTerm.accumulate

    def evaluating(term: Any, slices: Any, share: float, at: Any) -> Any:
        errors, gradient = evaluate(term, slices, share, at)
        spoil(errors, slices, at)
        return errors, gradient

    def accumulating(term: Any, slices: Any, gradient: Any, share: float, at: Any) -> Any:
        errors = accumulate(term, slices, gradient, share, at)
        spoil(errors, slices, at)
        return errors

    patch = pytest.MonkeyPatch()
    patch.setattr(TwoPointTerm, "evaluate", evaluating)
    patch.setattr(TwoPointTerm, "accumulate", accumulating)
    more = {
        "volume": {"shape": [10, 11, 12]},
        "checkpoint": OFTEN,
    }  # planes normal to y alone have this shape
    try:
        with pytest.raises(InputError) as caught:
            conduct(tmp_path / "run", **more)
    finally:
        patch.undo()
    told = str(caught.value)
    assert told.startswith("descriptors: level 0 (10x11x12), relax, iteration ") and "\n" not in told
    assert "found nan from s2 of slice 7 normal to y" in told
    run = Run.open(tmp_path / "run")
    assert run.summary["status"] == "interrupted" and not run.volume.complete
    found = conduct(tmp_path / "run", resume=True, **more)
    same(found, conduct(tmp_path / "whole", **more))
