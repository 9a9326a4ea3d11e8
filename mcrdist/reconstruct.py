"""The conductor: micrographs become targets, targets a volume, level by level, coarse to fine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mcrdist.begun import as_begun
from mcrdist.checkpoints import Saved
from mcrdist.conditioning.known import Given, Known, read_known
from mcrdist.config import ReconstructConfig, to_mapping
from mcrdist.directions import AXES, directions
from mcrdist.errors import InputError
from mcrdist.initial import read_field
from mcrdist.multigrid import Level, levels, perturb, upsample
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers, configure
from mcrdist.phases import Phases
from mcrdist.record import Interrupt, Recorder
from mcrdist.sizing.budget import kept
from mcrdist.solver.descent import check_phases, check_ranks
from mcrdist.solver.grid import Grid
from mcrdist.solver.level import LevelSolver, Outcome
from mcrdist.start import Start
from mcrdist.store.generation import Generation
from mcrdist.store.place import write_atomically
from mcrdist.store.run import MetricsWriter, Run, RunDirectory, environment
from mcrdist.store.volume import VolumeWriter
from mcrdist.summary import describe
from mcrdist.targets import Targets, load_targets
from mcrdist.targets.base import npz
from mcrdist.targets.measure import Measured, measure
from mcrdist.trial import try_out
from mcrdist.workplace import Workplace

_Result = TypeVar("_Result")


def reconstruct(
    config: ReconstructConfig, abrupt: bool = False, say: Callable[[str], None] = lambda text: None
) -> Run:
    """Make the volume that `config` describes; every rank calls this with the same configuration.

    Parameters
    ----------
    config
    abrupt
        What a second Ctrl-C does, as for `Interrupt`.
    say
        Takes, on the first rank, a line a micrograph that tells how it was segmented.

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
        Interrupt(abrupt).listening() as interrupt,
        Comm.start(
            config.runtime.device, config.runtime.timeout, shared_memory=config.runtime.shared_memory
        ) as comm,
    ):
        return conduct(config, comm, interrupt, say)


def conduct(
    config: ReconstructConfig,
    comm: Comm,
    interrupt: Interrupt,
    say: Callable[[str], None] = lambda text: None,
) -> Run:
    """As `reconstruct`, among ranks that have met already, until `interrupt` asks to stop."""
    workers = configure(config.runtime.threads, comm.local_size)
    try:
        with Workplace(config, comm) as place:
            if not place.finished:
                _Conductor(config, comm, workers, interrupt, place, say).run()
        return Run.open(place.path)
    finally:
        workers.close()


def _no_image(key: str, expected: str, found: object) -> InputError:
    """What is wrong with a setting of coarse levels where there are none."""
    return InputError(
        f"{key}: expected {expected}, found {found}; coarse levels average the image, and two-point statistics have "
        "none: give micrograph.path"
    )


class _Conductor:
    def __init__(
        self,
        config: ReconstructConfig,
        comm: Comm,
        workers: Workers,
        interrupt: Interrupt,
        place: Workplace,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.comm, self.workers, self.interrupt = config, comm, workers, interrupt
        self.place, self.say = place, say
        self.dtype = getattr(torch, config.runtime.dtype)
        self._measured: dict[Level, Measured] = {}
        self._lanes: int | None = None
        shape = config.volume.shape
        comm.agree(check_ranks(config.optimizer.name, comm.size))
        if comm.size > shape[0]:
            comm.agree(
                InputError(
                    f"torchrun: expected at most {shape[0]} processes, one a plane of "
                    f"volume.shape={list(shape)}, found {comm.size}; start fewer"
                )
            )

    def run(self) -> None:
        config = self.config
        targets = self.comm.first(lambda: load_targets(config.micrograph, config.target, config.interpolate))
        self.comm.agree(check_phases(config.optimizer.name, len(targets.phases)))
        self.phases = Phases(targets.phases, self.workers)
        self.directions = directions(config.volume.shape, config.target.diagonals)
        grids = self._levels(targets)
        # Before anything is written: what does not fit leaves no traces.
        given = self._given(grids[0])
        shapes = [d.slice_shape(level.shape) for level in grids for d in self.directions]
        seen = [*shapes, *(image.shape for image in targets.images().values())]
        self.each(lambda: try_out(config.descriptors, seen, self.dtype))
        self.each(lambda: self._measure(grids[-1], targets))
        self.known = self.each(lambda: self._known(targets))
        if config.memory.budget is not None:
            self.config, self._lanes = kept(
                config if self.place.begun is None else as_begun(config, self.place.begun),
                len(targets.phases),
                self.workers.count,
                self.comm,
                settled=self.place.resuming,
            )
        arrays = targets.arrays(self._measure(grids[-1], targets).targets)
        found = self.place.prepare(lambda path: self._fill(path, targets, arrays, grids), arrays)
        if self.comm.rank == 0:  # not before: what is refused is told in one line
            for line in targets.told():
                self.say(line)
        standing = None if found is None else found.numbers["standing"]
        self.comm.first(lambda: self.place.cut_metrics(standing and standing["metrics"]))
        with self._metrics() as writer:
            every = config.checkpoint.seconds
            recorder = Recorder(self.comm, writer, self.interrupt, every, standing)
            self._solve(targets, grids, given, recorder, found)
        if config.run.report:
            self.comm.first(self._report)
        if not recorder.interrupted:
            self.place.finish()

    def _levels(self, targets: Targets) -> list[Level]:
        """The grids to solve on: the finest alone where nothing coarser can be started or described."""
        config, images = self.config, targets.images()
        if not images and (config.levels.count or 1) > 1:
            self.comm.agree(_no_image("levels.count", "1 or null", config.levels.count))
        if not images and config.levels.coarsest is not None:
            self.comm.agree(_no_image("levels.coarsest", "null", config.levels.coarsest))
        # The pixels of an averaged micrograph have no phase that could be exchanged.
        alone = config.method == "gaussian" or config.optimizer.name == "yeong_torquato"
        if not images or config.initial.kind == "file" or alone:
            return [Level(0, config.volume.shape, 1)]
        return levels(config.volume.shape, images, config.levels, config.initial.kind == "spectral")

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
        source = self.config.micrograph.source(wanted.axis)
        return read_known(wanted, source, targets.phases, self.config.volume.shape)

    def _fill(self, path: Path, targets: Targets, arrays: Mapping[str, Any], grids: list[Level]) -> None:
        """Write everything that is known before the work starts into the run directory."""
        config = self.config
        described = environment(
            torch_device=str(self.comm.device), ranks=self.comm.size, threads=self.workers.count
        )
        run = RunDirectory.create(path, to_mapping(config), described)
        write_atomically(run.targets, npz(arrays))
        size, unit = targets.pixel_size or (None, None)
        VolumeWriter.create(
            run.volume,
            [grid.shape for grid in reversed(grids)],
            None if size is None else (size, size, size),
            unit,
            labels=self.phases.highest + 1,
            channels=len(self.phases.labels),
        )
        run.write_summary({"status": "interrupted", "shape": list(config.volume.shape), "seed": config.seed})

    def _metrics(self) -> AbstractContextManager[MetricsWriter | None]:
        """The metrics file on the first rank, nothing elsewhere."""
        run = RunDirectory(self.place.path)
        writer = self.each(lambda: run.metrics() if self.comm.rank == 0 else None)
        return nullcontext() if writer is None else writer

    def _solve(
        self,
        targets: Targets,
        grids: list[Level],
        field: Tensor | None,
        recorder: Recorder,
        found: Generation | None,
    ) -> None:
        """Solve level by level, from the beginning or from what was found of an earlier run."""
        config = self.config
        store = self.each(lambda: VolumeWriter.open(RunDirectory(self.place.path).volume))
        slab: Slab | None = None
        saved: Saved | None = None
        done: list[dict[str, Any]] = []
        outcome: Outcome | None = None
        if found is not None:
            done = found.numbers["done"]
            level = grids[len(done) if found.numbers["inside"] else len(done) - 1]
            slab = Slab(level.shape, self.comm, self.workers, self.dtype)
            saved = self.place.checkpoints.load(found, slab)
            field = self._stacked(saved.fields.pop("field")[0], slab)
        for level in grids[len(done) :]:
            fine = Slab(level.shape, self.comm, self.workers, self.dtype)
            given = None if self.known is None else self.known.at(fine, self.phases)
            inside = saved.numbers["inside"] if saved is not None else None
            if field is None:
                field = self._start(level, fine, targets, given)
            elif slab is not None and inside is None:
                field = self._finer(field, slab, fine, None if recorder.interrupted else level.number)
            slab = fine
            grid = self._grid(level, slab, targets, given)
            grid.impose(field)
            before = recorder.seconds if inside is None else inside["began"]
            keep = functools.partial(self._keep, recorder, slab, done, before)
            if not recorder.interrupted and config.method == "descriptors":
                earlier = None if inside is None or saved is None else Saved(inside, saved.fields)
                solver = LevelSolver(
                    grid, len(grids), config, recorder, self.comm, self.workers, keep, earlier
                )
                field = slab.seen(field)
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
            field, saved = outcome.relaxed, None
            if level.factor > 1 and not recorder.interrupted:
                self.comm.first(store.sync)  # it is not written again by a run that goes on from here
                keep(None, {"field": field[None]})
        assert slab is not None and outcome is not None
        self._write_phase(store, slab, outcome.rounded)
        self._summarize(grid, outcome, done, recorder, targets)
        if recorder.interrupted:
            self.place.ask_for_another_turn()
        else:
            self.comm.first(lambda: store.mark(complete=True))

    def _stacked(self, field: Tensor, slab: Slab) -> Tensor:
        """A field that was kept, in the shape of `Phases.stack`."""
        rest = slab.shape[1:] if self.phases.variables == 1 else (self.phases.variables, *slab.shape[1:])
        return field.view(slab.planes, *rest)

    def _keep(
        self,
        recorder: Recorder,
        slab: Slab,
        done: list[dict[str, Any]],
        began: float,
        inside: dict[str, Any] | None,
        fields: dict[str, Tensor],
    ) -> None:
        """Save the run: after the levels that are `done`, or `inside` the next one, at work since `began`."""
        numbers = {
            "done": done,
            "inside": None if inside is None else inside | {"began": began},
            "standing": recorder.standing(sum(level["evaluations"] for level in done)),
        }
        self.place.checkpoints.save(slab, numbers, fields)
        if recorder.interrupted:
            self.place.ask_for_another_turn()
        recorder.saved()

    def _measure(self, level: Level, targets: Targets) -> Measured:
        """The targets of a level, measured once."""
        if level not in self._measured:
            self._measured[level] = measure(
                targets, self.config.descriptors, self.directions, level.shape, level.factor
            )
        return self._measured[level]

    def _grid(self, level: Level, slab: Slab, targets: Targets, given: Given | None) -> Grid:
        """The level with the descriptors of its slices, measured on the micrographs."""
        measured = self._measure(level, targets)
        return Grid(
            level,
            slab,
            self.phases,
            self.directions,
            measured.targets,
            measured.selections,
            self.comm,
            self.workers,
            given=given,
            seed=self.config.seed,
            lanes=self._lanes,
        )

    def _start(self, level: Level, slab: Slab, targets: Targets, given: Given | None) -> Tensor:
        """The field that the first level starts from."""
        axes = [AXES[direction.axis] for direction in self.directions if direction.by is None]
        start = Start(level, slab, self.phases, axes, self.comm, self.config.seed, given)
        if self.config.initial.kind == "noise" and self.config.method == "descriptors":
            return start.noise(targets)
        return start.spectral(targets)

    def _finer(self, field: Tensor, coarse: Slab, fine: Slab, level: int | None) -> Tensor:
        """The field on the next grid, with the upsampling noise of that level if there is one to come."""
        variables = []
        for stream, variable in enumerate(self.phases.split(field)):
            upsampled = upsample(variable, coarse, fine)
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
        self,
        grid: Grid,
        outcome: Outcome,
        done: list[dict[str, Any]],
        recorder: Recorder,
        targets: Targets,
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
            "micrographs": targets.facts(),
            "levels": done,
        } | describe(grid, outcome, self.comm, hurried=recorder.interrupted)
        self.comm.first(lambda: RunDirectory(self.place.path).write_summary(summary))

    def _report(self) -> None:
        from mcrdist.analysis import write_report  # plotting libraries take a second to load

        write_report(self.place.path)
