"""Several runs, one after the other, and what their volumes have in common: an ensemble."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mcrdist import begun
from mcrdist.config import ReconstructConfig, to_mapping
from mcrdist.errors import InputError, first_of
from mcrdist.parallel.comm import Comm
from mcrdist.reconstruct import conduct
from mcrdist.record import Interrupt
from mcrdist.store import sweepfile
from mcrdist.store.lock import LOCK, Lock
from mcrdist.store.place import writing
from mcrdist.store.run import REQUEUE, SWEEP, Run, ask_for_another_turn, is_half_written, is_sweep
from mcrdist.store.sweepfile import Planned
from mcrdist.workplace import restarted

Job = tuple[Mapping[str, str], ReconstructConfig]

#: A directory's name keeps these characters of the values; the rest becomes "_".
_PLAIN = re.compile(r"[^\w.+,=-]+")
_LONGEST = 100


def sweep(
    where: str | None,
    jobs: Sequence[Job],
    abrupt: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> list[Run]:
    """Make the volumes of all `jobs`; every rank calls this with the same ones.

    Parameters
    ----------
    where : str or None
        The directory of the sweep, new or empty; None finds a new name below ``runs/``. Where the jobs say ``resume``,
        that of a sweep of the same jobs: what is finished of it is kept, what was cut short goes on.
    jobs : sequence of (values, configuration)
        The values of the swept keys by name, and everything that they are a part of.
    abrupt : bool
        What a second Ctrl-C does, as for `Interrupt`.
    say
        Takes, on the first rank, a line a micrograph that tells how it was segmented.

    Returns
    -------
    list of Run
        In the order of `jobs`. An interrupt ends the sweep with the run that is going on.

    Raises
    ------
    InputError
        Something does not work; what is finished stays, and ``sweep.json`` lists it.
    """
    names = directory_names([values for values, _ in jobs])
    planned = [
        Planned(name, values, to_mapping(config)) for name, (values, config) in zip(names, jobs, strict=True)
    ]
    runtime = jobs[0][1].runtime
    runs: list[Run] = []
    tell = _once(say)
    with (
        Interrupt(abrupt).listening() as interrupt,
        Comm.start(runtime.device, runtime.timeout, shared_memory=runtime.shared_memory) as comm,
        _Place(where, planned, comm, jobs[0][1].resume) as place,
    ):
        for name, (_, config) in zip(names, jobs, strict=True):
            directory = replace(config.run, dir=str(place.path / name))
            runs.append(conduct(replace(config, run=directory), comm, interrupt, tell))
            comm.first(functools.partial(place.note, runs))
            if comm.any(interrupt.requested):
                break
        if jobs[0][1].run.report:
            comm.first(lambda: _report(place.path))
        comm.first(functools.partial(place.leave, runs))
    return runs


def directory_names(values: Sequence[Mapping[str, str]]) -> list[str]:
    """A directory a run, named for what tells it from the others: ``seed=0``, ``seed=0,volume.size=32``.

    Numbers instead, where nothing does, or values are as good as the same or too long for a name.
    """
    names = [_PLAIN.sub("_", ",".join(f"{key}={v}" for key, v in chosen.items())) for chosen in values]
    if all(names) and len(set(names)) == len(names) and max(map(len, names)) <= _LONGEST:
        return names
    return [str(number) for number in range(len(values))]


class _Place:
    """The directory of a sweep, locked while it goes on; the first rank touches files."""

    def __init__(self, where: str | None, planned: Sequence[Planned], comm: Comm, resume: bool) -> None:
        self.planned = list(planned)
        self._lock: Lock | None = None
        again = resume or restarted(comm)
        self.path = comm.first(lambda: self._claim(where, again))

    def _claim(self, where: str | None, again: bool) -> Path:
        path = Path(where or time.strftime("runs/%Y-%m-%d-%H%M%S")).expanduser().absolute()
        with writing(path):
            if again and is_sweep(path):
                self._check(path)
                self._lock = Lock(path)
                (path / REQUEUE).unlink(missing_ok=True)
                return path
            if path.exists() and not (path.is_dir() and _is_empty(path)):
                raise InputError(
                    f"run.dir: expected a new or empty directory for the sweep, found {path} in use; "
                    "choose another name or move it away"
                )
            path.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(path)
        sweepfile.write(path, self.planned)
        return path

    def _check(self, path: Path) -> None:
        """See to it that the sweep there is of the same runs, and remember what came of them."""
        there = sweepfile.read(path)
        if [run.dir for run in there] != [run.dir for run in self.planned]:
            raise InputError(
                f"run.dir: expected the sweep in {path} to have the same runs, found {_list(there)} there and "
                f"{_list(self.planned)} here; give the same values, or choose another run.dir"
            )
        for old, new in zip(there, self.planned, strict=True):
            stored, wanted = (begun.read(run.settings, path / SWEEP) for run in (old, new))
            begun.check(path / old.dir, stored, wanted, "give the same, or choose another run.dir")
        self.planned = there

    def note(self, runs: Sequence[Run]) -> None:
        """Write what has come of the first runs."""
        made = [replace(run, summary=one.summary) for run, one in zip(self.planned, runs, strict=False)]
        sweepfile.write(self.path, [*made, *self.planned[len(runs) :]])

    def leave(self, runs: Sequence[Run]) -> None:
        """Ask for another turn where something is left to do."""
        if len(runs) < len(self.planned) or any(run.summary.get("status") != "complete" for run in runs):
            ask_for_another_turn(self.path)

    def __enter__(self) -> _Place:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()


def _is_empty(path: Path) -> bool:
    """Whether nothing is there but what a sweep leaves that was killed while it got ready."""
    return all(one.name == LOCK or is_half_written(one.name) for one in path.iterdir())


def _list(runs: Sequence[Planned]) -> str:
    return f"{len(runs)} ({first_of([run.dir for run in runs])})"


def _once(say: Callable[[str], None]) -> Callable[[str], None]:
    """What several runs have to say alike is said once."""
    said: set[str] = set()

    def new(text: str) -> None:
        if text not in said:
            said.add(text)
            say(text)

    return new


def _report(path: Path) -> None:
    from mcrdist.analysis import write_sweep_report  # plotting libraries take a second to load

    write_sweep_report(path)
