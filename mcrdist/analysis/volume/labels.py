"""Which labels a volume has: a phase that is not there is told before anything is measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mcrdist.analysis.volume.opened import opened
from mcrdist.config import VolumeSourceConfig
from mcrdist.errors import InputError
from mcrdist.micrograph import MAX_LABELS
from mcrdist.store.source import Source, open_source

#: Nanoseconds that a voxel takes to be read and compared with a few labels.
_WORK = 5.0
#: The largest label that can be asked for.
_LARGEST = 255


@dataclass(frozen=True)
class LabelTask:
    """Planes start, ..., stop - 1 of a volume, in which labels are looked for."""

    volume: VolumeSourceConfig
    labels: tuple[int, ...]
    start: int
    stop: int
    work: float


@dataclass(frozen=True)
class Question:
    """Whether a volume, or one of the boxes that are cut out of it, has the labels that are to be measured.

    Attributes
    ----------
    source : Source
        The volume.
    key : str
        Its section of the settings.
    labels : sequence of int
    chosen : bool
        Whether somebody named the label: else a volume of many different values is taken for grey levels.
    tasks : sequence of LabelTask
        Of the volume, or of the boxes.
    """

    source: Source
    key: str
    labels: Sequence[int]
    chosen: bool
    tasks: Sequence[LabelTask]

    def ask(self, mapper: Callable[[Callable[[LabelTask], Any], Sequence[LabelTask]], Iterable[Any]]) -> None:
        """Carry out the tasks.

        Raises
        ------
        InputError
            A label is missing, the volume is of grey levels, or it cannot be read.
        """
        found: set[int] = set()
        for result in mapper(look_at_labels, self.tasks):
            if isinstance(result, InputError):
                raise result
            found.update(result)
            if len(found) > MAX_LABELS and not self.chosen and not self.source.ours:
                raise InputError(
                    f"{self.source.path}: expected labels, found more than {MAX_LABELS} different values, "
                    f"{_listed(found)}; segment the volume first, or say which of them is the phase: "
                    f"{self.key}.phase=1"
                )
        for label in self.labels:
            if label not in found:
                known = [value for value in sorted(found) if 0 <= value <= _LARGEST]
                remedy = f"e.g. {self.key}.phase={known[-1]}" if known else "number the phases from 0"
                raise InputError(
                    f"{self.key}.phase: expected {label} among the labels of {self.source.path}, found "
                    f"{_listed(found)}; {remedy}"
                )


def question(
    source: Source, key: str, labels: Sequence[int], chosen: bool, volumes: Sequence[VolumeSourceConfig]
) -> Question:
    """Plan the tasks that look at `volumes`: the volume itself, or boxes of it."""
    wanted = tuple(labels)
    tasks = []
    for volume in volumes:
        part = open_source(volume)
        nz, ny, nx = part.shape
        for start, stop in itertools.pairwise([*range(0, nz, part.planes()), nz]):
            tasks.append(LabelTask(volume, wanted, start, stop, _WORK * (stop - start) * ny * nx))
    return Question(source, key, wanted, chosen, tasks)


def look_at_labels(task: LabelTask) -> list[int] | InputError:
    """Carry out a task, on a worker; an error is told by who asked, in one line."""
    try:
        return different(opened(task.volume).read(task.start, task.stop), task.labels)
    except InputError as error:
        return error


def different(block: NDArray[Any], first: Sequence[int] = ()) -> list[int]:
    """The different values of a block, those `first` before others; of many, one more than labels may be."""
    found: list[int] = []
    rest, values = block.ravel(), iter(first)
    while rest.size and ((named := next(values, None)) is not None or len(found) <= MAX_LABELS):
        value = int(rest[0]) if named is None else named
        left = rest[rest != value]
        if left.size < rest.size:
            found.append(value)
        rest = left
    return found


def _listed(found: Iterable[int]) -> str:
    """All of them, or, where they are more than labels may be, the first few."""
    known = sorted(found)
    return ", ".join(map(str, known[:MAX_LABELS])) + (", …" if len(known) > MAX_LABELS else "")
