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
        In the micrographs of planes normal to z. The two differ for one phase against the rest, which is 1 in every
        volume, and whose label in others may be yet another: `shown` knows it.
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


def _places(targets: Mapping[str, NDArray[Any]], place: str) -> list[str]:
    """Where the micrographs of a direction are kept: ``z``, ``z/image2`` and so on, as many as there are."""
    found = [place]
    while f"{place}/image{len(found) + 1}/micrograph" in targets:
        found.append(f"{place}/image{len(found) + 1}")
    return [one for one in found if f"{one}/micrograph" in targets]


def images(targets: Mapping[str, NDArray[Any]], place: str) -> list[NDArray[Any]]:
    """The micrographs of a direction, or of one end of an interpolation (``from/z``); none without any."""
    return [targets[f"{one}/micrograph"] for one in _places(targets, place)]


def as_it_came(targets: Mapping[str, NDArray[Any]], axis: str) -> NDArray[np.uint8] | None:
    """The image of a direction before it was segmented, (rows, columns) of grey levels; None where nobody kept it.

    It is kept once, with the first of the directions that share a micrograph.
    """
    for other in (axis, *AXES):
        if f"{other}/grey" in targets and np.array_equal(
            targets[f"{other}/micrograph"], targets[f"{axis}/micrograph"]
        ):
            grey: NDArray[np.uint8] = targets[f"{other}/grey"]
            return grey
    return None


def shown(targets: Mapping[str, NDArray[Any]], place: str, label: int) -> list[NDArray[np.bool_]]:
    """Where the phase is that has a label in the volume, on each of the `images`.

    Of several phases each has that label in the micrographs too. One phase against the rest is 1 in every volume, but
    has a label of its own in every micrograph; 0 is what each of them has besides.
    """
    if len(targets.get("phases", ())) > 1:
        return [image == label for image in images(targets, place)]
    described = [
        targets[f"{one}/micrograph"] == int(targets.get(f"{one}/phase", np.int64(1)))
        for one in _places(targets, place)
    ]
    return [mask if label == 1 else ~mask for mask in described] if label in (0, 1) else []
