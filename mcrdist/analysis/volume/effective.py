"""What the boxes cut out of a volume say: effective properties of the middle, and whether it is representative."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mcrdist.analysis.volume.parts import Index, Part
from mcrdist.analysis.volume.representative import (
    LIMIT,
    Answer,
    Scatter,
    answers,
    headline,
    quantities,
    scatters,
)
from mcrdist.analysis.volume.table import Row


@dataclass(frozen=True)
class Effective:
    """Of one phase.

    Attributes
    ----------
    middle : Part or None
        The box in the middle; None where nothing was wanted of it.
    cubes : sequence of Part
    scatters, answers
        See `representative`; empty without cubes.
    """

    middle: Part | None
    cubes: Sequence[Part]
    scatters: Sequence[Scatter]
    answers: Sequence[Answer]

    @property
    def unfinished(self) -> int:
        """Solutions that have not converged."""
        parts = [*self.cubes, *([] if self.middle is None else [self.middle])]
        return sum(not flow.converged for part in parts for flow in part.diffusivity.values())


def effective(middle: Sequence[Part], cubes: Sequence[Part], shape: Index) -> Effective:
    """Put together the results of `parts.middle_tasks` and of `parts.cube_tasks`."""
    whole = None
    if middle:
        flows = {axis: flow for part in middle for axis, flow in part.diffusivity.items()}
        wide = middle[-1].thickness  # the last task's
        whole = replace(middle[0], diffusivity=flows, thickness=wide)
    spread = scatters(cubes)
    return Effective(whole, cubes, spread, answers(spread, shape, shape if whole is None else whole.edges))


def rows(phase: int, found: Effective, unit: str, shape: Index) -> list[Row]:
    """Local thickness, diffusivity, tortuosity factor τ = φ D_0/D_eff, and how large a cube must be.

    What is of the middle of the volume (nz, ny, nx) says so, unless the middle is all of it.
    """
    out = []
    if found.middle is not None:
        box = None if found.middle.edges == shape else found.middle.edges
        if found.middle.thickness is not None:
            wide = found.middle.thickness
            out.append(Row(phase, "local thickness, mean", "", wide.mean, None, unit, box=box))
            out.append(Row(phase, "local thickness, median", "", wide.median, None, unit, box=box))
        flows, fraction = found.middle.diffusivity, found.middle.fraction
        out += [
            Row(phase, "effective diffusivity", axis, flow.value, box=box) for axis, flow in flows.items()
        ]
        for axis, flow in flows.items():
            tortuosity = fraction / flow.value if flow.value > 0 else math.nan
            out.append(Row(phase, "tortuosity factor", axis, tortuosity, box=box))
    for one in found.answers:
        name, _, axis = one.quantity.rpartition(" ")
        name, axis = (name, axis) if len(axis) == 1 else (one.quantity, "")
        edge = math.nan if one.edge is None else float(one.edge)
        out.append(Row(phase, f"representative edge, {name}", axis, edge, None, "voxel"))
    return out


def content(found: Effective) -> Mapping[str, Any]:
    """For ``analysis.json``."""
    middle = found.middle
    return {
        "middle": None if middle is None else _plain(middle),
        "thickness": None if middle is None or middle.thickness is None else middle.thickness.counts,
        "cubes": [_plain(part) for part in found.cubes],
        "limit": LIMIT,
        "scatters": [asdict(one) for one in found.scatters],
        "answers": [asdict(one) for one in found.answers],
        "headline": headline(found.answers) if found.answers else None,
        "unfinished": found.unfinished,
    }


def _plain(part: Part) -> dict[str, Any]:
    return {"corner": list(part.corner), "edges": list(part.edges), "values": quantities(part)}
