"""What the pictures and tables of a run distinguish: its phases, and the directions of its planes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis.pictures import COLOURS, DARK

AXES = ("z", "y", "x")


@dataclass(frozen=True)
class Phase:
    """A phase that the volume was held to.

    Attributes
    ----------
    label : int
        In the volume.
    source : int
        In the micrographs. The two differ for one phase against the rest, which is 1 in every volume.
    name : str
        For people.
    colour : str
        In slices, and on the faces of the box.
    """

    label: int
    source: int
    name: str
    colour: str


def phases(summary: Mapping[str, Any], targets: Mapping[str, NDArray[Any]]) -> tuple[Phase, ...]:
    """The described phase alone, or all phases of a run that was held to several."""
    labels = [int(label) for label in summary.get("phases") or {}]
    if labels:
        return tuple(Phase(k, k, f"phase {k}", COLOURS[k % len(COLOURS)]) for k in labels)
    return (Phase(1, int(targets.get("z/phase", np.int64(1))), "described phase", DARK),)


def plane_axes(shape: Sequence[int]) -> tuple[str, ...]:
    """Normals of the planes that a volume has; a single plane has no others across it."""
    return AXES[:1] if shape[0] == 1 else AXES


def images(targets: Mapping[str, NDArray[Any]], place: str) -> list[NDArray[Any]]:
    """The micrographs of a direction, or of one end of an interpolation (``from/z``); none without any."""
    names = [f"{place}/micrograph"]
    while f"{place}/image{len(names) + 1}/micrograph" in targets:
        names.append(f"{place}/image{len(names) + 1}/micrograph")
    return [targets[name] for name in names if name in targets]
