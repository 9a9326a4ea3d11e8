"""How far a level has come: counted, recorded, and kept for another process to go on from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from mcrdist.checkpoints import Saved
from mcrdist.errors import InputError
from mcrdist.journal import Journal
from mcrdist.objective import Evaluation, Objective
from mcrdist.optimize.minimizer import Memory
from mcrdist.record import Recorder
from mcrdist.solver.grid import Grid

#: Keeps numbers and fields (rows, planes, ...) of a level that is being solved.
Keep = Callable[[dict[str, Any], dict[str, Tensor]], None]
#: The fields of a minimiser's memory, among those that are kept.
_MEMORY = "memory/"


class Progress:
    """Counts what the stages of a level do.

    Parameters
    ----------
    count
        Of all levels.
    keep
        Called with what `saved` must be for another process to go on from here.
    saved : Saved, optional
        Of an earlier run that was cut short in this level; memories are taken out of its fields.

    Attributes
    ----------
    journal : Journal
        What is settled already.
    iterations, evaluations : int
        Of all stages that are over.
    loss : float
        Where the last one ended.
    """

    def __init__(self, grid: Grid, count: int, recorder: Recorder, keep: Keep, saved: Saved | None) -> None:
        self._grid, self._count, self._recorder, self._keep = grid, count, recorder, keep
        self.journal = Journal()
        if saved is not None:
            grid.multipliers.restore(saved.numbers["multipliers"])
            self.journal = Journal(saved.numbers["settled"], _memory(saved, grid))
        self.iterations = self.evaluations = 0
        self.loss = float("nan")
        #: Iteration, as the records count them.
        self._next = 0 if saved is None else int(saved.numbers.get("next", 0))

    @property
    def interrupted(self) -> bool:
        """Whether the run is asked to end."""
        return self._recorder.interrupted

    @contextmanager
    def stage(self, name: str, iterations: int, objective: Objective, field: Tensor) -> Iterator[None]:
        """A stage of at most so many iterations. Says where numbers stopped being finite; what was saved stays."""
        self._recorder.begin(self._grid.level, self._count, name, iterations, objective)
        if not self.journal.recalls:
            self._next = self.iterations
        try:
            yield
        except FloatingPointError as error:
            level = self._grid.level
            shape = "x".join(map(str, level.shape))
            where = objective.broken or objective.blame(field) or f"none ({error})"
            raise InputError(
                f"descriptors: level {level.number} ({shape}), {name}, iteration {self._next}: "
                f"expected finite numbers, found {where}; mend or leave out that descriptor and go on with resume=true"
            ) from error

    def note(
        self,
        iteration: int,
        loss: float,
        evaluation: Evaluation,
        field: Tensor,
        projected_gradient: float | None,
    ) -> bool:
        """Record an iteration of a stage; whether to end."""
        self._next = self.iterations + iteration + 1
        return self._recorder.note(self._next - 1, loss, evaluation, field, projected_gradient)

    def over(self, objective: Objective, iterations: int, loss: float) -> None:
        """A stage came to its end after these iterations."""
        self._recorder.level_done(objective)
        self.iterations += iterations
        self.evaluations += objective.evaluations
        self.loss = loss

    def keep(self, memory: Memory | None, **fields: Tensor) -> None:
        """Let everything be kept that another process needs to go on from here."""
        numbers = {
            "settled": self.journal.settled,
            "under_way": None if memory is None else memory.numbers,
            "multipliers": self._grid.multipliers.plain(),
            "next": self._next,
        }
        own = {} if memory is None else {_MEMORY + name: part for name, part in memory.fields.items()}
        self._keep(numbers, {name: part[None] for name, part in fields.items()} | own)

    def keep_if_due(self, memory: Callable[[], Memory], **fields: Tensor) -> None:
        """The same, now and then."""
        if self._recorder.due:
            self.keep(memory(), **fields)


def _memory(saved: Saved, grid: Grid) -> Memory | None:
    """What the minimiser had in mind that was at work when the level was kept."""
    numbers: Mapping[str, Any] | None = saved.numbers["under_way"]
    if numbers is None:
        return None
    planes, *plane = grid.slab.local_shape
    like = (planes, *plane) if grid.phases.variables == 1 else (planes, grid.phases.variables, *plane)
    own = {name: saved.fields.pop(name) for name in list(saved.fields) if name.startswith(_MEMORY)}
    fields = {name.removeprefix(_MEMORY): part.view(len(part), *like) for name, part in own.items()}
    return Memory(dict(numbers), fields)
