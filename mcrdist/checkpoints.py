"""Checkpoints of fields that all ranks hold together: each rank writes, checks and reads its share.

A generation counts when every rank's part of it is on the disk and the first rank has given it its name. A damaged one
is told of, and the one before it is taken.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mcrdist.errors import InputError
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.store.generation import DEPTH, BlockWriter, Damaged, Generation, Generations, Layout
from mcrdist.store.place import writing

#: In the run directory.
DIRECTORY = "checkpoint"
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.bool)
}


@dataclass(frozen=True)
class Saved:
    """What was kept: plain numbers, and the planes of this rank of fields (rows, planes, ...)."""

    numbers: dict[str, Any]
    fields: dict[str, Tensor]


class Checkpoints:
    """Of one run.

    Parameters
    ----------
    run : Path
        The run directory.
    comm : Comm
        The ranks, all of which call the same methods at the same times.
    """

    def __init__(self, run: Path, comm: Comm) -> None:
        self._generations, self._comm = Generations(run / DIRECTORY), comm

    def save(self, slab: Slab, numbers: Mapping[str, Any], fields: Mapping[str, Tensor]) -> None:
        """Write a generation.

        Parameters
        ----------
        slab
            Who has which planes.
        numbers
            Plain data that JSON can write.
        fields
            Tensors (rows, planes, ...) of any dtype that `Saved` may have.

        Raises
        ------
        InputError
            The disk is full or the place cannot be written to; the generations before stay.
        """
        path = self._generations.path
        partial = self._comm.first(lambda: self._writing(self._generations.begin))
        views = {name: _bytes(field) for name, field in fields.items()}
        layouts = [
            Layout(name, str(field.dtype).removeprefix("torch."), len(views[name]), _plane(views[name]))
            for name, field in fields.items()
        ]
        try:
            blocks = self._write(partial, slab, views)
            told = self._comm.gather(blocks)
            everything = {name: digest for part in told for name, digest in part.items()}
            self._comm.first(
                lambda: self._writing(
                    lambda: self._generations.commit(partial, slab.shape[0], layouts, everything, numbers)
                )
            )
        except (InputError, OSError):
            if self._comm.rank == 0:  # room for others, e.g. for the word about it
                shutil.rmtree(path / partial.name, ignore_errors=True)
            raise

    def newest(self) -> Generation | None:
        """The newest generation that is what was written; damaged ones are told of.

        Raises
        ------
        InputError
            There are some, and all of them are damaged.
        """
        damages = []
        paths = self._comm.first(self._generations.list)
        for path in paths:
            found: Generation | None = None
            problem = None
            try:
                found = Generation.open(path)
                for start in found.starts[self._comm.rank :: self._comm.size]:
                    found.check(start)
            except Damaged as damage:
                problem = str(damage)
            problems = [told for told in self._comm.gather(problem) if told is not None]
            if not problems:
                return found
            damages.append(problems[0])
            if self._comm.rank == 0:
                print(f"mcrdist: warning: {problems[0]}; taking the one before", file=sys.stderr, flush=True)
        if damages:
            raise InputError(
                f"run.dir: expected a checkpoint to go on from in {self._generations.path}, found only damaged ones "
                f"({'; '.join(damages)}); remove that directory to start the run from its beginning"
            )
        return None

    def load(self, generation: Generation, slab: Slab) -> Saved:
        """This rank's planes of all fields of a generation that was found to be good."""
        fields = {}
        for name, layout in generation.fields.items():
            dtype = _DTYPES[layout.dtype]
            found = torch.from_numpy(generation.read(name, slab.start, slab.stop))
            fields[name] = found.view(dtype).to(self._comm.device)
        return Saved(generation.numbers, fields)

    def _writing(self, work: Any) -> Any:
        with writing(self._generations.path):
            return work()

    def _write(self, partial: Path, slab: Slab, views: Mapping[str, Tensor]) -> dict[str, str]:
        """Write this rank's blocks; an error waits until all blocks have gone round."""
        problem: Exception | None = None
        found: dict[str, str] = {}
        with BlockWriter(partial) as writer:
            for view in views.values():
                for row in view:
                    for start, block in slab.blocks(row, DEPTH):
                        if problem is None:
                            try:
                                self._writing(lambda start=start, block=block: writer.append(start, block))
                            except Exception as error:
                                problem = error
            if problem is None:
                try:
                    found = self._writing(writer.finish)
                except Exception as error:
                    problem = error
        self._comm.agree(problem)
        return found


def _bytes(field: Tensor) -> Tensor:
    """View (rows, planes, ..., nx) as bytes (rows, planes, height, width)."""
    rows, planes, width = field.shape[0], field.shape[1], field.shape[-1] * field.element_size()
    return field.contiguous().view(torch.uint8).reshape(rows, planes, math.prod(field.shape[2:-1]), width)


def _plane(view: Tensor) -> tuple[int, int]:
    return view.shape[2], view.shape[3]
