"""Keeping to a memory budget: which history in which precision, and how many slices at a time, a run can have in it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from math import prod

import numpy as np
import psutil

from mcrdist.config import ReconstructConfig
from mcrdist.config.schema import show
from mcrdist.errors import InputError
from mcrdist.look import LANES
from mcrdist.parallel import shared
from mcrdist.parallel.comm import Comm
from mcrdist.sizing.footprint import Work, history_itemsize, peak

#: What the count of buffers may be short of, relative to all but the libraries.
MARGIN = 1.1
#: And what a first run takes to compile, beyond the mean that is counted.
SLACK = 40 * 2**20
#: Pairs are given up down to this many, then slices that are worked on at a time, then the other pairs.
ENOUGH = 4
GIB = 2**30


def kept(
    config: ReconstructConfig, phases: int, threads: int, comm: Comm, *, settled: bool
) -> tuple[ReconstructConfig, int | None]:
    """Return `config` with a history that keeps to ``memory.budget``, and the blocks of slices at a time. Collective.

    The first rank says in one line what was chosen. Of a run that goes on the history is `settled`: another one would
    end with other bits.

    Raises
    ------
    InputError
        No history is short enough, or the settings have needs that are not counted; on all ranks.
    """
    budget = config.memory.budget
    assert budget is not None
    comm.agree(_not_counted(config))
    resident = int(comm.gather_rows(np.array([[psutil.Process().memory_info().rss]], dtype=np.float64)).max())
    work = work_of(config, phases, threads, comm, resident)
    processes = 1 if work.cuda else comm.local_size
    chosen = _together(_chosen(work, budget, processes, settled, comm), comm)
    if comm.rank == 0:
        print(told(work, chosen, budget, processes), file=sys.stderr, flush=True)
    dtype = "bfloat16" if chosen.history_itemsize < work.itemsize else config.optimizer.history_dtype
    optimizer = replace(config.optimizer, history=chosen.history, history_dtype=dtype)
    return replace(config, optimizer=optimizer), chosen.lanes


def _chosen(work: Work, budget: int, processes: int, settled: bool, comm: Comm) -> Work:
    """As `choose`; all ranks raise if one has to."""
    error = None
    try:
        work = choose(work, budget, processes, settled=settled)
    except InputError as problem:
        error = problem
    comm.agree(error)
    return work


def _together(chosen: Work, comm: Comm) -> Work:
    """What every rank has room for: machines may differ in processes and threads, and then in what they choose."""
    own = [chosen.history, chosen.history_itemsize, chosen.together]
    history, itemsize, lanes = comm.gather_rows(np.array([own], dtype=np.float64)).min(0).astype(int).tolist()
    return replace(chosen, history=history, history_itemsize=itemsize, lanes=lanes)


def work_of(config: ReconstructConfig, phases: int, threads: int, comm: Comm, resident: int) -> Work:
    """What a run holds, as `footprint` sees it. Collective."""
    itemsize = 4 if config.runtime.dtype == "float32" else 8
    return Work(
        shape=config.volume.shape,
        ranks=comm.size,
        threads=threads,
        lanes=threads,
        phases=phases,
        optimizer=config.optimizer.name,
        history=config.optimizer.history,
        itemsize=itemsize,
        history_itemsize=history_itemsize(
            itemsize, config.optimizer.history_dtype, prod(config.volume.shape)
        ),
        halving=config.optimizer.history_dtype is None,
        start=config.initial.kind,
        diagonals=config.target.diagonals,
        exact=config.output.threshold in ("auto", "exact"),
        report=config.run.report,
        cuda=comm.device.type == "cuda",
        shared=shared.possible(comm),
        libraries=resident,
    )


def need(work: Work, processes: int) -> int:
    """Bytes that the processes of a machine may come to hold together."""
    held = peak(work)[1]
    if work.cuda:
        return processes * math.ceil(MARGIN * held)
    return processes * (work.libraries + SLACK + math.ceil(MARGIN * (held - work.libraries)))


def choose(work: Work, budget: int, processes: int, *, settled: bool = False) -> Work:
    """Return `work` with the longest history and the most slices at a time that the budget has room for.

    Parameters
    ----------
    work : Work
        As it would be without a budget.
    budget : int
        Bytes, for `processes` ranks.
    settled : bool
        The history stays as it is.

    Raises
    ------
    InputError
        None fits; the message has the smallest budget that would do.
    """
    smallest = None
    candidates = _fewer_slices(work) if settled else _candidates(work)
    for candidate in candidates:
        size = need(candidate, processes)
        if size <= budget:
            return candidate
        smallest = size if smallest is None else min(smallest, size)
    assert smallest is not None
    enough = math.ceil(smallest / GIB * 100) / 100
    who = "1 process" if processes == 1 else f"{processes} processes"
    on = f" with the history of {work.history} pairs that the run began with" if settled else ""
    raise InputError(
        f"memory.budget: expected at least {enough:.2f}GiB for {'x'.join(map(str, work.shape))} voxels in {who}{on}, "
        f"found {budget / GIB:.2f}GiB; give memory.budget={enough:.2f}GiB, a smaller volume, or more machines"
    )


def _candidates(work: Work) -> Iterator[Work]:
    """Ways to do it, the fastest first."""
    yield work
    if work.optimizer == "lbfgsb" and work.halving and work.history_itemsize == 4:
        work = replace(work, history_itemsize=2)
    shortest = ENOUGH if work.optimizer == "lbfgsb" else work.history
    enough = min(shortest, work.history)
    for history in range(work.history, enough - 1, -1):
        yield replace(work, history=history)
    yield from islice(_fewer_slices(replace(work, history=enough)), 1, None)
    if work.optimizer == "lbfgsb":
        for history in range(enough - 1, 0, -1):
            yield replace(work, history=history, lanes=1)


def _fewer_slices(work: Work) -> Iterator[Work]:
    """With the history as it is, all slices at a time first."""
    yield work
    for lanes in range(work.together - 1, 0, -1):
        yield replace(work, lanes=lanes)


def told(work: Work, chosen: Work, budget: int, processes: int) -> str:
    """One line for people: what was chosen, and what it comes to."""
    stage, _ = peak(chosen)
    size = need(chosen, processes)
    pairs = f"optimizer.history={chosen.history} (of {work.history}"
    pairs += ", in bfloat16)" if chosen.history_itemsize < chosen.itemsize else ")"
    slices = f"{chosen.together * LANES} slices at a time (of {work.together * LANES})"
    return f"memory.budget: at most {size / GIB:.2f} of {budget / GIB:.2f} GiB ({stage}) with {pairs} and {slices}"


def _not_counted(config: ReconstructConfig) -> InputError | None:
    """What is wrong with a setting whose needs `footprint` does not know, if anything."""
    weights = config.descriptors.weights
    costly = [name for name in ("s3", "lineal_path", "patches", "gram") if weights[name]]
    given: list[tuple[str, object, str]] = [
        (f"descriptors.{name}.weight", weights[name], f"descriptors.{name}.weight=0") for name in costly
    ]
    if config.descriptors.extra:
        given.append(("descriptors.extra", config.descriptors.extra, "descriptors.extra=[]"))
    if config.conditioning.path is not None:
        given.append(("conditioning.path", config.conditioning.path, "conditioning.path=null"))
    if config.interpolate.along is not None:
        given.append(("interpolate.along", config.interpolate.along, "interpolate.along=null"))
    if config.output.denoise:
        given.append(("output.denoise", config.output.denoise, "output.denoise=0"))
    if config.optimizer.name not in ("lbfgsb", "adam"):
        given.append(("optimizer.name", config.optimizer.name, "optimizer.name=lbfgsb"))
    if not given:
        return None
    key, value, remedy = given[0]
    return InputError(
        f"memory.budget: expected null with {key}={value}, whose memory is not counted, found "
        f"{show(config.memory.budget)}; use memory.budget=null or {remedy}"
    )
