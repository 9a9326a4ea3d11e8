"""Generations on disk: whole or not at all, damage noticed, the newest good one taken."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from faults import Crash, flip, in_child, no_waiting, small_disk
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import Tensor

from mcrdist.checkpoints import DIRECTORY, Checkpoints
from mcrdist.errors import InputError
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.store import disk
from mcrdist.store.generation import Damaged, Generation, Generations

SHAPE = (37, 4, 5)  # three blocks, the last one short


def kept(seed: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Numbers and fields of whole volumes, different for every seed."""
    random = torch.Generator().manual_seed(seed)
    return {"seed": seed, "loss": 0.1 + seed, "infinite": float("inf")}, {
        "field": torch.rand(1, *SHAPE, generator=random),
        "history": torch.rand(3, SHAPE[0], 2, *SHAPE[1:], generator=random).to(torch.float16),
        "mask": torch.rand(1, *SHAPE, generator=random) > 0.5,
        "double": torch.rand(1, *SHAPE, generator=random, dtype=torch.float64),
    }


def save(run: Path, seed: int) -> None:
    with Comm.start("cpu") as comm:
        slab = Slab(SHAPE, comm, Workers(1))
        numbers, fields = kept(seed)
        own = {name: field[:, slab.start : slab.stop] for name, field in fields.items()}
        Checkpoints(run, comm).save(slab, numbers, own)


def load(run: Path) -> int | None:
    """The seed of the newest good generation, all of whose fields are what was saved."""
    with Comm.start("cpu") as comm:
        checkpoints, slab = Checkpoints(run, comm), Slab(SHAPE, comm, Workers(1))
        found = checkpoints.newest()
        if found is None:
            return None
        saved = checkpoints.load(found, slab)
        seed: int = saved.numbers["seed"]
        numbers, fields = kept(seed)
        assert saved.numbers == numbers
        for name, field in fields.items():
            part = field[:, slab.start : slab.stop]
            assert saved.fields[name].dtype == field.dtype
            assert torch.equal(saved.fields[name].reshape(part.shape), part), name
        return seed


def files(run: Path) -> list[Path]:
    return sorted(path for path in (run / DIRECTORY).rglob("*") if path.is_file())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    no_waiting(monkeypatch)
    return tmp_path


def test_what_is_saved_comes_back(run: Path) -> None:
    assert load(run) is None
    for seed in range(4):
        save(run, seed)
        assert load(run) == seed
    assert [path.name for path in Generations(run / DIRECTORY).list()] == ["00000004", "00000003"]
    assert len(files(run)) == 2 * 4  # three blocks and a manifest each; nothing else is left


@pytest.mark.parametrize(("writers", "readers"), [(2, 1), (1, 2), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_any_number_of_ranks_reads_what_any_other_wrote(
    writers: int, readers: int, tmp_path: Path, run_ranks: Callable[..., list[Any]]
) -> None:
    run_ranks(save, writers, tmp_path, 5)
    assert run_ranks(load, readers, tmp_path) == [5] * readers


def test_killed_in_every_write_sync_and_rename(run: Path) -> None:
    """Whatever was on its way: the generation before, or the new one, all of it."""
    save(run, 0)
    kills, step = 0, 1
    while True:
        seed = load(run)
        assert seed is not None

        def work(seed: int = seed, step: int = step) -> None:
            Crash(step)
            save(run, seed + 1)

        status = in_child(work)
        assert load(run) in (seed, seed + 1)
        if status == 0:
            break
        assert status == -9
        kills, step = kills + 1, step + 1
    assert kills >= 15
    save(run, 99)
    assert all(part.isdecimal() for part in os.listdir(run / DIRECTORY))  # leftovers are gone


def test_a_flipped_bit_in_any_file_is_noticed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(run, 1)
    save(run, 2)
    newest = Generations(run / DIRECTORY).list()[0]
    rng = np.random.default_rng(0)
    for path in files(run):
        whole = path.read_bytes()
        for bit in (0, 8 * len(whole) - 1, *rng.integers(8 * len(whole), size=12).tolist()):
            flip(path, bit)
            assert load(run) == (1 if path.parent == newest else 2), (path, bit)
            told = capsys.readouterr().err
            assert (str(path) in told) == (path.parent == newest)
            assert told.count("\n") == (path.parent == newest)
            path.write_bytes(whole)
    assert load(run) == 2


@pytest.mark.parametrize("damage", ["empty", "short", "long", "missing", "directory", "link", "pipe"])
def test_files_that_are_not_what_they_were(damage: str, run: Path) -> None:
    save(run, 1)
    save(run, 2)
    newest = Generations(run / DIRECTORY).list()[0]
    for name in ("manifest.json", "z000000.bin", "z000032.bin"):
        copy = run / "copy"
        shutil.copytree(newest, copy)
        path = newest / name
        whole = path.read_bytes()
        if damage in ("missing", "directory", "link", "pipe"):
            path.unlink()
        if damage == "directory":
            path.mkdir()
        elif damage == "link":
            path.symlink_to(copy / name)
        elif damage == "pipe":
            os.mkfifo(path)  # reading it would wait forever
        elif damage != "missing":
            path.write_bytes({"empty": b"", "short": whole[:-1], "long": whole + b"\0"}[damage])
        if name == "manifest.json" and damage == "pipe":
            with pytest.raises(Damaged):
                Generation.open(newest)
        assert load(run) == 1
        shutil.rmtree(newest)
        copy.rename(newest)
    assert load(run) == 2


def test_nothing_good_is_left(run: Path) -> None:
    save(run, 1)
    save(run, 2)
    for path in Generations(run / DIRECTORY).list():
        flip(path / "z000016.bin", 1000)
    with pytest.raises(InputError, match=r"only damaged ones.*z000016\.bin") as caught:
        load(run)
    assert "\n" not in str(caught.value)


def failing(number: int) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number), "somewhere")

    return fail


@pytest.mark.parametrize("call", ["write", "sync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses(call: str, number: int, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(run, 1)
    with monkeypatch.context() as patch:
        patch.setattr(disk, call, failing(number))
        with pytest.raises(InputError, match=r"^run\.dir") as caught:
            save(run, 2)
    assert "\n" not in str(caught.value)
    assert os.listdir(run / DIRECTORY) == ["00000001"]  # the room that the new one took is free again
    assert load(run) == 1
    save(run, 3)
    assert load(run) == 3


def test_a_full_disk(tmp_path: Path) -> None:
    """A real one, of 64 kB."""
    place, saved = tmp_path / "small", 0
    with small_disk(place, "64k"):
        with pytest.raises(InputError, match="the disk is full"):
            for saved in range(10):
                save(place, saved)
        assert saved > 0
        assert load(place) == saved - 1


# ------------------------------------------------------------------------------------------- what others wrote


def _resealed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and give it the checksum that fits."""
    from mcrdist.store.generation import _checksum

    body = json.loads(path.read_bytes().partition(b"\n")[2])
    change(body)
    text = json.dumps(body).encode()
    path.write_bytes(f"{_checksum(text)}\n".encode() + text)


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "absurd rows": lambda body: body["fields"][0].update(rows=10**15),
    "negative rows": lambda body: body["fields"][0].update(rows=-1),
    "rows of text": lambda body: body["fields"][0].update(rows="3"),
    "absurd planes": lambda body: body.update(planes=10**15),
    "no planes": lambda body: body.update(planes=0),
    "a path": lambda body: body["blocks"].update({"../../../etc/passwd": "0"}),
    "another path": lambda body: body.update(blocks={f"../z{n:06d}.bin": "" for n in (0, 16, 32)}),
    "one block": lambda body: body["blocks"].popitem(),
    "the same field twice": lambda body: body["fields"].append(body["fields"][0]),
    "further keys": lambda body: body["fields"][0].update(more=1),
    "no numbers": lambda body: body.pop("numbers"),
    "another format": lambda body: body.update(format=2),
    "a list": lambda body: body.update(blocks=[]),
    "checksums of other kinds": lambda body: body.update(blocks=dict.fromkeys(body["blocks"], 7)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_manifest_made_up_with_a_checksum_that_fits(name: str, run: Path) -> None:
    save(run, 1)
    save(run, 2)
    _resealed(Generations(run / DIRECTORY).list()[0] / "manifest.json", HOSTILE[name])
    assert load(run) == 1


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("example")
    save(path, 1)
    return path / DIRECTORY / "00000001"


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, cut, double, overwrite: what fuzzers do."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(changed) + 1))
        kind = rng.integers(5)
        if kind == 0 and len(changed) > at:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del changed[at : at + int(rng.integers(1, 40))]
        elif kind == 2:
            changed[at:at] = changed[at : at + int(rng.integers(1, 40))]
        elif kind == 3:
            changed[at:at] = rng.bytes(int(rng.integers(1, 9)))
        else:
            changed[at : at + 2] = rng.choice([b"-1", b"99", b"{}", b"[]", b'""', b"1e", b"\0\0"])
    return bytes(changed)


@pytest.mark.parametrize(
    "count", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.unmeasured])]
)
def test_mutated_manifests(count: int, example: Path, tmp_path: Path) -> None:
    """Half of them with a checksum that fits, so that what is behind it is tried too."""
    from mcrdist.store.generation import _checksum

    head, _, text = (example / "manifest.json").read_bytes().partition(b"\n")
    rng = np.random.default_rng(0)
    path = tmp_path / "00000001"
    shutil.copytree(example, path)
    refused = 0
    for number in range(count):
        changed = mutate(text, rng)
        seal = _checksum(changed).encode() if number % 2 else head
        (path / "manifest.json").write_bytes(seal + b"\n" + changed)
        try:
            found = Generation.open(path)
            for start in found.starts:
                found.check(start)
        except Damaged as damage:
            refused += 1
            assert "\n" not in str(damage)
        else:
            assert number % 2 or changed == text
    assert refused > 0.5 * count


# ------------------------------------------------------------------------------------------- any order of events


class Lives(RuleBasedStateMachine):
    """Save, crash, corrupt, resume, prune, in any order: what loads is always something that was saved, unharmed."""

    @initialize()
    def begin(self) -> None:
        import tempfile

        self.run = Path(tempfile.mkdtemp())
        self.saved, self.next = [0], 1
        save(self.run, 0)
        self.whole = {self._newest(): 0}

    def _newest(self) -> Path:
        return Generations(self.run / DIRECTORY).list()[0]

    def _good(self) -> list[int]:
        """Seeds of the generations that are unharmed, newest first."""
        return [self.whole[path] for path in Generations(self.run / DIRECTORY).list() if path in self.whole]

    @rule()
    def save(self) -> None:
        save(self.run, self.next)
        self.whole[self._newest()] = self.next
        self.next += 1

    @rule(step=st.integers(1, 24))
    def crash(self, step: int) -> None:
        seed, before = self.next, set(Generations(self.run / DIRECTORY).list())

        def work() -> None:
            Crash(step)
            save(self.run, seed)

        in_child(work)
        for path in set(Generations(self.run / DIRECTORY).list()) - before:
            self.whole[path] = seed
        self.next += 1

    @precondition(lambda self: len(self._good()) > 1)
    @rule(which=st.integers(0, 1), file=st.integers(0, 3), bit=st.integers(0, 10**6))
    def corrupt(self, which: int, file: int, bit: int) -> None:
        path = Generations(self.run / DIRECTORY).list()[which]
        flip(sorted(path.iterdir())[file], bit)
        self.whole.pop(path, None)

    @rule()
    def prune(self) -> None:
        Generations(self.run / DIRECTORY).tidy()

    @invariant()
    def resume(self) -> None:
        if not hasattr(self, "run"):
            return
        good = self._good()
        if good:
            assert load(self.run) == good[0]
        else:
            with pytest.raises(InputError, match="only damaged ones"):
                load(self.run)
        assert len(Generations(self.run / DIRECTORY).list()) <= 3

    def teardown(self) -> None:
        if hasattr(self, "run"):
            shutil.rmtree(self.run, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def quick_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        no_waiting(patch)
        yield


@pytest.mark.parametrize(
    "examples", [10, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.unmeasured])]
)
def test_any_order_of_events(examples: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Lives,
        settings=settings(
            max_examples=examples,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_manifest_of_any_bytes(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "manifest.json").write_bytes(data)
        with pytest.raises(Damaged):
            Generation.open(Path(place))
