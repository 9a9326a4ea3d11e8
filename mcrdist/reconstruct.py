"""The conductor: micrographs become targets, targets a volume, level by level, coarse to fine."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mcrdist import gaussian
from mcrdist.config import ReconstructConfig, to_mapping
from mcrdist.directions import AXES, directions
from mcrdist.errors import InputError
from mcrdist.initial import read_field
from mcrdist.known import Given, Known, read_known
from mcrdist.level import Grid, LevelSolver, Outcome
from mcrdist.multigrid import Level, levels, perturb, upsample
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.random import noise
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers, configure
from mcrdist.phases import Phases
from mcrdist.record import Interrupt, Recorder
from mcrdist.selection import select
from mcrdist.store.run import MetricsWriter, Run, RunDirectory, environment, write_atomically
from mcrdist.store.volume import VolumeWriter
from mcrdist.summary import describe
from mcrdist.targets import Targets, load_targets

_Result = TypeVar("_Result")


def reconstruct(config: ReconstructConfig) -> Run:
    """Make the volume that `config` describes; every rank calls this with the same configuration.

    Returns
    -------
    Run
        The run directory, with a complete volume also when the run was interrupted.

    Raises
    ------
    InputError
        Something the user gave does not work; the same on every rank.
    """
    # Listening from here on: what torchrun or a user sends while the ranks get ready is not lost either.
    with (
        Interrupt().listening() as interrupt,
        Comm.start(config.runtime.device, config.runtime.timeout) as comm,
    ):
        workers = configure(config.runtime.threads, comm.local_size)
        try:
            return _Conductor(config, comm, workers, interrupt).run()
        finally:
            workers.close()


class _Conductor:
    def __init__(self, config: ReconstructConfig, comm: Comm, workers: Workers, interrupt: Interrupt) -> None:
        self.config, self.comm, self.workers, self.interrupt = config, comm, workers, interrupt
        self.dtype = getattr(torch, config.runtime.dtype)
        shape = config.volume.shape
        if comm.size > shape[0]:
            comm.agree(
                InputError(
                    f"torchrun: expected at most {shape[0]} processes, one a plane of "
                    f"volume.shape={list(shape)}, found {comm.size}; start fewer"
                )
            )

    def run(self) -> Run:
        targets = self.comm.first(lambda: load_targets(self.config.micrograph, self.config.target))
        self.phases = Phases(targets.phases, self.workers)
        self.directions = directions(self.config.volume.shape, self.config.target.diagonals)
        grids = levels(
            self.config.volume.shape,
            targets.images(),
            self.config.levels,
            self.config.initial.kind == "spectral",
        )
        if self.config.initial.kind == "file" or self.config.method == "gaussian":
            grids = [Level(0, grids[-1].shape, 1)]
        given = self._given(
            grids[0]
        )  # before anything is written: a start that does not fit leaves no traces
        self.known = self.each(lambda: self._known(targets))
        path = self.comm.first(lambda: self._prepare(targets, grids))
        with self._metrics(path) as writer:
            recorder = Recorder(self.comm, writer, self.interrupt)
            self._solve(path, targets, grids, given, recorder)
        if self.config.run.report:
            self.comm.first(lambda: self._report(path))
        return Run.open(path)

    def each(self, work: Callable[[], _Result]) -> _Result:
        """Let every rank do its own work; all of them raise if one fails."""
        result: Any = None
        error: BaseException | None = None
        try:
            result = work()
        except Exception as problem:
            error = problem
        self.comm.agree(error)
        return result  # type: ignore[no-any-return]

    def _given(self, level: Level) -> Tensor | None:
        """The start that the user gives, if any."""
        initial = self.config.initial
        if initial.kind != "file":
            return None
        assert initial.path is not None
        slab = Slab(level.shape, self.comm, self.workers, self.dtype)
        return self.phases.from_channels(read_field(initial.path, slab, self.comm, len(self.phases.labels)))

    def _known(self, targets: Targets) -> Known | None:
        """What the user knows of the volume, if anything."""
        wanted = self.config.conditioning
        phases = np.unique(targets.micrographs[wanted.axis].labels).tolist()
        return read_known(
            wanted, self.config.micrograph.source(wanted.axis), phases, self.config.volume.shape
        )

    def _prepare(self, targets: Targets, grids: list[Level]) -> Path:
        """Make the run directory, with everything in it that is known before the work starts."""
        config = self.config
        where = config.run.dir or time.strftime("runs/%Y-%m-%d-%H%M%S")
        described = environment(
            torch_device=str(self.comm.device), ranks=self.comm.size, threads=self.workers.count
        )
        run = RunDirectory.create(where, to_mapping(config), described)
        write_atomically(run.targets, targets.npz())
        size, unit = targets.pixel_size or (None, None)
        VolumeWriter.create(
            run.volume,
            [grid.shape for grid in reversed(grids)],
            None if size is None else (size, size, size),
            unit,
            labels=max(self.phases.labels) + 1,
            channels=len(self.phases.labels),
        )
        run.write_summary({"status": "interrupted", "shape": list(config.volume.shape), "seed": config.seed})
        return run.path

    def _metrics(self, path: Path) -> AbstractContextManager[MetricsWriter | None]:
        """The metrics file on the first rank, nothing elsewhere."""
        writer = self.each(lambda: RunDirectory(path).metrics() if self.comm.rank == 0 else None)
        return nullcontext() if writer is None else writer

    def _solve(
        self, path: Path, targets: Targets, grids: list[Level], field: Tensor | None, recorder: Recorder
    ) -> None:
        config = self.config
        store = self.each(lambda: VolumeWriter.open(RunDirectory(path).volume))
        slab: Slab | None = None
        done: list[dict[str, Any]] = []
        outcome: Outcome | None = None
        for level in grids:
            fine = Slab(level.shape, self.comm, self.workers, self.dtype)
            given = None if self.known is None else self.known.at(fine, self.phases)
            if field is None:
                field = self._start(level, fine, targets, given)
            elif slab is not None:
                field = self._finer(field, slab, fine, None if recorder.interrupted else level.number)
            slab = fine
            grid = self._grid(level, slab, targets, given)
            grid.impose(field)
            before = recorder.seconds
            if not recorder.interrupted and config.method == "descriptors":
                solver = LevelSolver(grid, len(grids), config, recorder, self.comm, self.workers)
                outcome = solver.solve(field, finest=level.factor == 1)
            else:
                outcome = Outcome(field, self.phases.rounded(field), float("nan"), 0, 0, "not optimized")
            done.append(
                {
                    "level": level.number,
                    "shape": list(level.shape),
                    "iterations": outcome.iterations,
                    "evaluations": outcome.evaluations,
                    "seconds": recorder.seconds - before,
                    "loss": outcome.loss,
                    "stop": outcome.stop,
                }
            )
            self._write_field(store, len(grids) - 1 - level.number, slab, outcome.relaxed)
            field = outcome.relaxed
        assert slab is not None and outcome is not None
        self._write_phase(store, slab, outcome.rounded)
        self._summarize(path, grid, outcome, done, recorder)

    def _grid(self, level: Level, slab: Slab, targets: Targets, given: Given | None) -> Grid:
        """The level with the descriptors of its slices, measured on the micrographs."""
        selections, found = {}, {}
        for direction in self.directions:
            lags = targets.lags_at(direction, level.factor, level.shape)
            shape = direction.slice_shape(level.shape)
            selection = select(self.config.descriptors, lags, shape, len(targets.phases))
            selections[direction.name] = selection
            found[direction.name] = targets.at(
                direction, level.factor, level.shape, selection.descriptors, selection.joints
            )
        return Grid(
            level,
            slab,
            self.phases,
            self.directions,
            found,
            selections,
            self.comm,
            self.workers,
            given=given,
            seed=self.config.seed,
        )

    def _start(self, level: Level, slab: Slab, targets: Targets, given: Given | None) -> Tensor:
        """The field that the first level starts from."""
        config = self.config
        if config.initial.kind == "noise" and config.method == "descriptors":
            return self.phases.stack(
                [self._noise(level, slab, targets, k) for k in range(self.phases.variables)]
            )
        variables = [
            self._variable(level, slab, targets, given, variable) for variable in range(self.phases.variables)
        ]
        return self.phases.stack(variables)

    def _noise(self, level: Level, slab: Slab, targets: Targets, variable: int) -> Tensor:
        """A variable about its mean share in what the phases before it leave over."""
        images = [targets.micrographs[name].labels for name in AXES]
        phases = targets.phases
        left = (
            1.0 if variable == 0 else float(np.mean([np.isin(i, phases[variable:]).mean() for i in images]))
        )
        share = float(np.mean([(image == phases[variable]).mean() for image in images])) / left
        return (
            noise(slab, self.config.seed, level.number, stream=variable)
            .mul_(0.1)
            .add_(share)
            .clamp_(0.0, 1.0)
        )

    def _variable(
        self, level: Level, slab: Slab, targets: Targets, given: Given | None, variable: int
    ) -> Tensor:
        """The spectral start of one variable."""
        axes = [direction.axis for direction in self.directions if direction.by is None]
        lags = {AXES[axis]: gaussian.box_lags(level.shape, axis) for axis in axes}
        grey = level.factor > 1 and self.phases.variables == 1
        wishes = {name: targets.wish(name, variable, level.factor, n) for name, n in lags.items()}
        kernel = self.comm.first(lambda: gaussian.fit_kernel(wishes, level.shape, grey))
        known = None
        if given is not None:
            inside = torch.zeros_like(given.mask)
            inside[given.mask] = given.values[variable] > 0.5
            known = given.mask, inside
        field = gaussian.start(
            slab,
            self.comm,
            wishes,
            kernel,
            self.config.seed,
            level.number,
            grey=grey,
            stream=variable,
            known=known,
        )
        return field.to(self.dtype)

    def _finer(self, field: Tensor, coarse: Slab, fine: Slab, level: int | None) -> Tensor:
        """The field on the next grid, with the upsampling noise of that level if there is one to come."""
        variables = []
        for stream, variable in enumerate(self.phases.split(field)):
            upsampled = upsample(variable, coarse, fine, self.comm)
            if level is not None:
                upsampled = perturb(upsampled, fine, self.config.seed, level, stream)
            variables.append(upsampled)
        return self.phases.stack(variables)

    def _write_field(self, store: VolumeWriter, level: int, slab: Slab, field: Tensor) -> None:
        for channel, values in enumerate(self.phases.channels(field)):

            def write(z: int, block: Any, channel: int = channel) -> None:
                store.write_field(level, z, block.astype(np.float32, copy=False), channel)

            self._write(slab, values, store.depth, write)

    def _write_phase(self, store: VolumeWriter, slab: Slab, field: Tensor) -> None:
        self._write(slab, self.phases.label(field), store.depth, store.write_phase)
        self.comm.first(store.finish_phase)

    def _write(self, slab: Slab, field: Tensor, depth: int, write: Callable[[int, Any], None]) -> None:
        """Write whole z-blocks, each by one rank. An error waits until all blocks have gone round."""

        def every() -> None:
            problem: Exception | None = None
            for z, block in slab.blocks(field, depth):
                if problem is None:
                    try:
                        write(z, block)
                    except Exception as error:
                        problem = error
            if problem is not None:
                raise problem

        self.each(every)

    def _summarize(
        self, path: Path, grid: Grid, outcome: Outcome, done: list[dict[str, Any]], recorder: Recorder
    ) -> None:
        """Write summary.json."""
        summary = {
            "status": "interrupted" if recorder.interrupted else "complete",
            "method": self.config.method,
            "shape": list(grid.slab.shape),
            "seed": self.config.seed,
            "ranks": self.comm.size,
            "threads": self.workers.count,
            "seconds": recorder.seconds,
            "memory": recorder.peak_memory,
            "levels": done,
        } | describe(grid, outcome, self.comm)
        self.comm.first(lambda: RunDirectory(path).write_summary(summary))

    def _report(self, path: Path) -> None:
        from mcrdist.analysis import write_report  # plotting libraries take a second to load

        write_report(path)
