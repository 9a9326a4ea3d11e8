"""Is the volume representative? The scatter of statistics over cubes cut out of it, and the answer in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mcrdist.analysis.material import AXES
from mcrdist.analysis.volume.parts import Index, Part
from mcrdist.analysis.words import number

#: Scatter up to which a volume counts as representative.
LIMIT = 0.05
#: Beyond this many edges of the largest cubes an extrapolation is a guess, and no edge is named.
_FAR = 8


@dataclass(frozen=True)
class Scatter:
    """A statistic over all cubes of one edge.

    Attributes
    ----------
    quantity : str
        "volume fraction", "specific surface", "diffusivity z" and so on.
    edge : int
        In voxels.
    count : int
        Cubes.
    mean : float
    scatter : float
        Standard deviation of one cube over the mean; NaN where that is 0.
    """

    quantity: str
    edge: int
    count: int
    mean: float
    scatter: float


@dataclass(frozen=True)
class Answer:
    """Whether the volume is representative for one statistic.

    Attributes
    ----------
    quantity : str
    edge : float or None
        Of the cubes, in voxels, from which on the scatter stays below `LIMIT`; None where it is not known.
    measured : bool
        Else it is extrapolated: of independent pieces, scatter² falls as 1/volume.
    expected : float
        Scatter of a volume as large as the whole one, by the same law; NaN where no cube has any of it.
    words : str
    """

    quantity: str
    edge: float | None
    measured: bool
    expected: float
    words: str


def quantities(part: Part) -> dict[str, float]:
    """The statistics of a part by name."""
    found = {"volume fraction": part.fraction, "specific surface": part.surface}
    return found | {f"diffusivity {axis}": flow.value for axis, flow in part.diffusivity.items()}


def scatters(parts: Sequence[Part]) -> list[Scatter]:
    """By quantity, then by edge; `parts` are the cubes of all edges."""
    edges = sorted({part.edges[0] for part in parts})
    named = [(part.edges[0], quantities(part)) for part in parts]
    found = []
    for quantity in dict.fromkeys(name for _, values in named for name in values):
        for edge in edges:
            values = np.array([own[quantity] for at, own in named if at == edge])
            mean = float(values.mean())
            relative = float(values.std(ddof=1)) / mean if mean > 0 and len(values) > 1 else math.nan
            found.append(Scatter(quantity, edge, len(values), mean, relative))
    return found


def answers(found: Sequence[Scatter], whole: Index, solved: Index) -> list[Answer]:
    """One for each quantity.

    Parameters
    ----------
    found : sequence of Scatter
    whole, solved : (nz, ny, nx)
        Voxels of the volume, and of the box in which the diffusivity was found.
    """
    out = []
    for quantity in dict.fromkeys(one.quantity for one in found):
        own = [one for one in found if one.quantity == quantity]
        box = solved if quantity.startswith("diffusivity") else whole
        out.append(_answer(quantity, own, float(np.prod(box)) ** (1 / 3)))
    return out


def _answer(quantity: str, own: Sequence[Scatter], size: float) -> Answer:
    last = own[-1]
    name = said(quantity)
    if math.isnan(last.scatter):
        words = f"No cube of {last.edge} voxels {_nothing(quantity)}: how the {name} scatters is not known."
        return Answer(quantity, None, False, math.nan, words)
    expected = last.scatter * (last.edge / size) ** 1.5
    if last.scatter <= LIMIT:
        below = list(own)
        while len(below) > 1 and below[-2].scatter <= LIMIT:
            below.pop()
        edge = below[-1].edge
        words = f"From an edge of {edge} voxels on, the scatter of the {name} is below {_percent(LIMIT)}."
        return Answer(quantity, edge, True, expected, words)
    needed = last.edge * (last.scatter / LIMIT) ** (2 / 3)
    words = f"The scatter of the {name} is {_percent(last.scatter)} at an edge of {last.edge} voxels"
    if needed > _FAR * last.edge:
        return Answer(quantity, None, False, expected, f"{words}, far above {_percent(LIMIT)}.")
    words += f"; falling as 1/√volume it would reach {_percent(LIMIT)} at about {number(needed, 2)} voxels."
    return Answer(quantity, needed, False, expected, words)


def _nothing(quantity: str) -> str:
    """Of a statistic that is 0 in all cubes: what none of them does."""
    if quantity.startswith("diffusivity"):
        return f"lets anything through along {quantity.rpartition(' ')[2]}"
    return "has a boundary in it" if quantity == "specific surface" else "has any of the phase in it"


def headline(found: Sequence[Answer]) -> str:
    """The answers together, in a sentence; in one more what is not known."""
    good = [said(one.quantity) for one in found if one.expected <= LIMIT]
    bad = [f"{said(one.quantity)} ({_percent(one.expected)})" for one in found if one.expected > LIMIT]
    unknown = [said(one.quantity) for one in found if math.isnan(one.expected)]
    limit = _percent(LIMIT)
    apart = f"more than {limit} would lie between it and another one as large."
    if good and bad:
        words = f"The volume is representative for {', '.join(good)}, but not for {', '.join(bad)}: {apart}"
    elif bad:
        words = f"The volume is not representative for {', '.join(bad)}: {apart}"
    elif good and unknown:
        words = (
            f"The volume is representative for {', '.join(good)}: another one as large would differ by less than "
            f"{limit}."
        )
    elif good:
        words = f"The volume is representative: another one as large would differ by less than {limit}."
    else:
        return f"Whether the volume is representative is not known for {', '.join(unknown)}."
    return f"{words} Whether it is for {', '.join(unknown)} is not known." if unknown else words


def said(quantity: str) -> str:
    """For people: "diffusivity along z"."""
    name, _, axis = quantity.rpartition(" ")
    return f"{name} along {axis}" if axis in AXES else quantity


def _percent(value: float) -> str:
    """A scatter, which is not known to more than two digits."""
    return f"{100 * value:.0f}\u00a0%" if value >= 0.095 else f"{100 * value:.2g}\u00a0%"
