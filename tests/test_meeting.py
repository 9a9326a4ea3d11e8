"""Ranks meet those of their own attempt, whatever earlier ones have left in the store."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from mcrdist.parallel.meeting import absent, has_the_word, meet


class Shared:
    """A store of texts in memory, with the waiting of the real one."""

    def __init__(self) -> None:
        self.texts: dict[str, bytes] = {}
        self._changed = threading.Condition()

    def set(self, key: str, value: str) -> None:
        with self._changed:
            self.texts[key] = value.encode()
            self._changed.notify_all()

    def get(self, key: str) -> bytes:
        with self._changed:
            if not self._changed.wait_for(lambda: key in self.texts, 5.0):
                raise RuntimeError(f"wait timeout, key: {key}")
            return self.texts[key]

    def check(self, keys: list[str]) -> bool:
        with self._changed:
            return all(key in self.texts for key in keys)


def attempt(store: Shared, size: int, delays: list[float], missing: int | None = None) -> list[str]:
    """The names that the ranks of an attempt find; one of them may never come."""

    def one(rank: int) -> str:
        time.sleep(delays[rank])
        try:
            return meet(store, rank, size, 0.4 if missing is not None else 5.0)
        except (RuntimeError, TimeoutError):
            return "none"

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, [rank for rank in range(size) if rank != missing]))


@given(st.lists(st.lists(st.floats(0, 0.03), min_size=3, max_size=3), min_size=2, max_size=3))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_each_attempt_has_a_name_of_its_own(attempts: list[list[float]]) -> None:
    store, seen = Shared(), set()
    for delays in attempts:
        names = attempt(store, 3, delays)
        assert len(set(names)) == 1 and names[0] not in seen
        seen.add(names[0])


@pytest.mark.parametrize("missing", [0, 1])
def test_after_an_attempt_that_was_not_complete(missing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Shared()
    monkeypatch.setattr(store, "get", lambda key, get=store.get: _soon(store, key, get))
    found = attempt(store, 3, [0.0] * 3, missing)
    assert found[0] == "none"
    names = attempt(store, 3, [0.05, 0.0, 0.02])
    assert len(set(names)) == 1 and "none" not in names


def _soon(store: Shared, key: str, get: object) -> bytes:
    """`get` that waits half a second."""
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        if key in store.texts:
            return store.texts[key]
        time.sleep(0.005)
    raise RuntimeError(f"wait timeout, key: {key}")


def test_who_is_absent() -> None:
    store = Shared()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda rank: absent(store, "name", rank, 4, 0.3), [0, 2]))
    assert found == [[1, 3], None]


def test_one_rank_of_an_attempt_has_the_word(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: has_the_word(tmp_path, "one"), range(4))) == 1
    assert has_the_word(tmp_path, "another") and not has_the_word(tmp_path, "another")
    assert has_the_word(tmp_path / "gone", "one")  # nobody can be asked
