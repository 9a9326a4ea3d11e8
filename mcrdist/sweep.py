"""Several runs, one after the other, and what their volumes have in common: an ensemble."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mcrdist.config import ReconstructConfig
from mcrdist.errors import InputError
from mcrdist.parallel.comm import Comm
from mcrdist.reconstruct import conduct
from mcrdist.record import Interrupt
from mcrdist.store.place import write_atomically, writing
from mcrdist.store.run import SWEEP, Run

Job = tuple[Mapping[str, str], ReconstructConfig]

#: A directory's name keeps these characters of the values; the rest becomes "_".
_PLAIN = re.compile(r"[^\w.+,=-]+")
_LONGEST = 100


def sweep(where: str | None, jobs: Sequence[Job], abrupt: bool = False) -> list[Run]:
    """Make the volumes of all `jobs`; every rank calls this with the same ones.

    Parameters
    ----------
    where : str or None
        The directory of the sweep, new or empty; None finds a new name below ``runs/``.
    jobs : sequence of (values, configuration)
        The values of the swept keys by name, and everything that they are a part of.
    abrupt : bool
        What a second Ctrl-C does, as for `Interrupt`.

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
    runtime = jobs[0][1].runtime
    runs: list[Run] = []
    with (
        Interrupt(abrupt).listening() as interrupt,
        Comm.start(runtime.device, runtime.timeout, shared_memory=runtime.shared_memory) as comm,
    ):
        path = comm.first(lambda: _prepare(where))
        for name, (_, config) in zip(names, jobs, strict=True):
            place = dataclasses.replace(config.run, dir=str(path / name))
            runs.append(conduct(dataclasses.replace(config, run=place), comm, interrupt))
            comm.first(functools.partial(_write, path, runs, jobs))
            if comm.any(interrupt.requested):
                break
        if jobs[0][1].run.report:
            comm.first(lambda: _report(path))
    return runs


def directory_names(values: Sequence[Mapping[str, str]]) -> list[str]:
    """A directory a run, named for what tells it from the others: ``seed=0``, ``seed=0,volume.size=32``.

    Numbers instead, where nothing does, or values are as good as the same or too long for a name.
    """
    names = [_PLAIN.sub("_", ",".join(f"{key}={v}" for key, v in chosen.items())) for chosen in values]
    if all(names) and len(set(names)) == len(names) and max(map(len, names)) <= _LONGEST:
        return names
    return [str(number) for number in range(len(values))]


def _prepare(where: str | None) -> Path:
    path = Path(where or time.strftime("runs/%Y-%m-%d-%H%M%S")).expanduser().absolute()
    with writing(path):
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise InputError(
                f"run.dir: expected a new or empty directory for the sweep, found {path} in use; "
                "choose another name or move it away"
            )
        path.mkdir(parents=True, exist_ok=True)
    return path


def _write(path: Path, runs: Sequence[Run], jobs: Sequence[Job]) -> None:
    """Write what is known of each run: where it is, what is special about it, and how it ended."""
    entries = [
        {"dir": run.path.name, "values": dict(values), "seed": config.seed, "summary": run.summary}
        for run, (values, config) in zip(runs, jobs, strict=False)
    ]
    text = json.dumps({"planned": len(jobs), "runs": entries}, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path / SWEEP, text.encode())


def _report(path: Path) -> None:
    from mcrdist.analysis import write_sweep_report  # plotting libraries take a second to load

    write_sweep_report(path)
