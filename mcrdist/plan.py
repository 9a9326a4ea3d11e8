"""What a run would need: memory a rank, bytes over the network, arithmetic, time by a roofline, disk."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from mcrdist.config import PlanConfig
from mcrdist.sizing import footprint, roofline
from mcrdist.sizing.footprint import Work
from mcrdist.sizing.roofline import MACHINES, Machine, Times

WIDTH = 34


@dataclass(frozen=True)
class Plan:
    """The needs of a run; ``str(plan)`` is a table for people.

    Attributes
    ----------
    work : Work
        What was asked for.
    machine : Machine
        What a rank has.
    stage : str
        When a rank holds most.
    memory : int
        Bytes it holds then: on a GPU, those of the device.
    host_memory : int
        Bytes it holds in the host's memory, where that is another.
    sent : int
        Bytes that all ranks send to one another in an evaluation.
    fft_flops, window_flops : float
        Operations of an evaluation on a rank.
    times : Times
        Of an iteration, by a roofline.
    iterations : int
    ranks_needed : int or None
        The smallest number of such ranks that fits; None if no number does.
    """

    work: Work
    machine: Machine
    stage: str
    memory: int
    host_memory: int
    sent: int
    fft_flops: float
    window_flops: float
    times: Times
    iterations: int
    ranks_needed: int | None

    @property
    def fits(self) -> bool:
        """Whether a rank has the memory."""
        return self.memory <= self.machine.memory

    def __str__(self) -> str:
        return "\n".join([*self._memory(), "", *self._evaluation(), "", *self._disk()])

    def _memory(self) -> list[str]:
        work = self.work
        found = footprint.buffers(work, self.stage)
        if work.cuda:
            found = [one for one in found if not one.host]
        where = "device memory" if work.cuda else "memory"
        sides = "x".join(map(str, work.shape))
        lines = [
            f"{sides} voxels, {work.ranks} rank{'s' * (work.ranks > 1)} of {work.threads} "
            f"thread{'s' * (work.threads > 1)}",
            "",
            f"{where} a rank, while it holds most ({self.stage}):",
        ]
        lines += [_line(one.name, one.bytes, f"  {one.code}") for one in found if one.bytes]
        lines.append(_line("together", self.memory))
        if work.cuda:
            lines.append(_line("host memory a rank", self.host_memory))
        if self.ranks_needed is None:
            need = "no number of ranks does"
        else:
            need = f"{self.ranks_needed} rank{'s' * (self.ranks_needed > 1)} or more do"
        verdict = "fits" if self.fits else "does not fit"
        lines.append(f"  {verdict} into {amount(self.machine.memory)} a rank; {need}")
        return lines

    def _evaluation(self) -> list[str]:
        machine, times = self.machine, self.times
        whole = self.iterations * times.least, self.iterations * times.most
        measured = "" if self.work.cuda else ", of the machine below"
        return [
            "an iteration of one evaluation:",
            f"  {'sent over the network, all ranks':<{WIDTH}}{amount(self.sent):>12}",
            f"  {'Fourier transforms, a rank':<{WIDTH}}{self.fft_flops / 1e9:>7.4g} GFLOP",
            f"  {'lag window, a rank':<{WIDTH}}{self.window_flops / 1e9:>7.4g} GFLOP",
            f"by a roofline (an estimate{measured}; nothing was measured on GPUs):",
            f"  {'arithmetic':<{WIDTH}}{_time(times.arithmetic):>12}  hardware.flops={machine.flops:.4g} FLOP/s",
            f"  {'memory':<{WIDTH}}{_time(times.memory):>12}  hardware.bandwidth={machine.bandwidth:.4g} B/s",
            f"  {'optimiser, memory':<{WIDTH}}{_time(times.optimizer):>12}",
            f"  {'network':<{WIDTH}}{_time(times.network):>12}  hardware.network={machine.network:.4g} B/s",
            f"  {'together':<{WIDTH}}{_time(times.least):>12}  to {_time(times.most)} if nothing overlaps",
            f"  {f'{self.iterations} iterations':<{WIDTH}}{_time(whole[0]):>12}  to {_time(whole[1])}",
            f"  ({machine.source})",
        ]

    def _disk(self) -> list[str]:
        found = footprint.disk(self.work)
        return [
            "disk, uncompressed:",
            _line("labels with their pyramid", found.phase),
            _line("field", found.field),
            _line("checkpoints, two kept", 2 * found.checkpoint),
        ]


def plan(config: PlanConfig) -> Plan:
    """Work out what `config` would need."""
    cuda = config.device != "cpu"
    itemsize = 4 if config.runtime.dtype == "float32" else 8
    work = Work(
        shape=config.volume.shape,
        ranks=config.ranks,
        threads=config.threads,
        lags=config.lags,
        phases=config.phases,
        optimizer=config.optimizer.name,
        history=config.optimizer.history,
        itemsize=itemsize,
        history_itemsize=footprint.history_itemsize(
            itemsize, config.optimizer.history_dtype, math.prod(config.volume.shape)
        ),
        diagonals=config.target.diagonals,
        cuda=cuda,
    )
    machine = _machine(config, 1 if cuda else config.threads)
    stage, memory = footprint.peak(work)
    host = max(
        footprint.total(footprint.buffers(work, one), True if cuda else None) for one in footprint.STAGES
    )
    return Plan(
        work=work,
        machine=machine,
        stage=stage,
        memory=memory,
        host_memory=host,
        sent=footprint.sent(work),
        fft_flops=roofline.fft_flops(work),
        window_flops=roofline.window_flops(work),
        times=roofline.times(work, machine),
        iterations=config.iterations,
        ranks_needed=footprint.fewest_ranks(work, int(machine.memory)),
    )


def _machine(config: PlanConfig, cores: int) -> Machine:
    """The device's figures, a core's times the number of cores, with those that were given in their place."""
    found = MACHINES[config.device]
    scaled = {name: getattr(found, name) * cores for name in ("memory", "flops", "bandwidth", "network")}
    given = {name: value for name, value in dataclasses.asdict(config.hardware).items() if value is not None}
    source = found.source if len(given) < len(scaled) else "as given"
    if given and len(given) < len(scaled):
        source += f"; given: {', '.join(given)}"
    return Machine(**(scaled | given), source=source)


def amount(size: float) -> str:
    """Bytes for people, in decimal units as networks and devices are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000.0:
            return f"{size:.4g} {unit}"
        size /= 1000.0
    return f"{size:.4g} TB"


def _line(name: str, size: float, remark: str = "") -> str:
    return f"  {name:<{WIDTH}}{amount(size):>12}{remark}"


def _time(seconds: float) -> str:
    for limit, scale, unit in (
        (1e-3, 1e6, "µs"),
        (1.0, 1e3, "ms"),
        (120.0, 1.0, "s"),
        (7200.0, 1 / 60, "min"),
    ):
        if seconds < limit:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds / 3600.0:.3g} h"
