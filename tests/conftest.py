"""Fixtures that every test can ask for, and the ``--slow`` switch."""

from __future__ import annotations

import os
import sys
import threading

# Before anything imports NumPy or torch: one thread a process, since the tests run in several processes and
# the bit-for-bit comparisons between numbers of ranks are promised for one thread a rank.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from ranks import COVERAGE
from ranks import run_ranks as _run_ranks

ROOT = Path(__file__).resolve().parent.parent

# No test is a question of time: other work on the machine makes any of them slow.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow; run with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    if item.get_closest_marker("unmeasured") is None:
        return (yield)
    found = sys.gettrace(), threading.gettrace()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(COVERAGE, raising=False)  # nor that of the processes that it starts
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        try:
            return (yield)
        finally:
            sys.settrace(found[0])
            threading.settrace(found[1])  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def micrographs_dir() -> Path:
    """Real micrographs, not part of the repository: $MCRDIST_DATA, or shared/data/micrographs beside it."""
    given = os.environ.get("MCRDIST_DATA")
    places = [Path(given)] if given else [ROOT.parent / "shared" / "data" / "micrographs"]
    for place in places:
        if place.is_dir():
            return place
    pytest.skip(f"no micrographs at {places[0]}; set MCRDIST_DATA to a directory that has them")


@pytest.fixture(scope="session")
def run_ranks() -> Callable[..., list[Any]]:
    """``run_ranks(fn, world_size, *args, timeout=90)``: what `fn` returned, by rank; see tests/ranks.py."""
    return _run_ranks


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the disk; see tests/faults.py."""
    from faults import no_waiting

    no_waiting(monkeypatch)


@pytest.fixture(scope="session")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two levels that was cut short on the second: to be copied, or left as it was."""
    from interrupted import cut_short

    return cut_short(tmp_path_factory.mktemp("cut") / "run")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, whole: to be copied, or left as it was."""
    from interrupted import complete

    return complete(tmp_path_factory.mktemp("whole") / "run")
