"""Targets between two others: the same everywhere in the volume (Fig. 9), or running along an axis (footnote 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.descriptors.base import Descriptor, Floats
from mcrdist.descriptors.correlation import cropped
from mcrdist.descriptors.joint import JointDescriptor
from mcrdist.directions import AXES, Direction
from mcrdist.errors import InputError
from mcrdist.gaussian import Wish
from mcrdist.targets.base import Shape, Target, Targets


@dataclass(frozen=True)
class Interpolation(Targets):
    """Every descriptor on the straight line between two targets, D = (1 − t) D₀ + t D₁.

    Attributes
    ----------
    ends : (Targets, Targets)
        At t = 0 and t = 1, with the same phases and window of lags.
    way : tuple of float
        A single t; or, with `along`, those that follow one another at equal distances from the first plane to the
        last, linear in between.
    along : "z", "y", "x" or None
        The axis of a graded material. Its planes normal to the axis have a target each; every other plane shows the
        whole way, so it gets the mean.
    """

    ends: tuple[Targets, Targets]
    way: tuple[float, ...]
    along: str | None
    lags: int
    periodic: bool

    @classmethod
    def between(
        cls, ends: tuple[Targets, Targets], way: tuple[float, ...], along: str | None, lags: int
    ) -> Interpolation:
        """Check that the ends show the same phases, measured in the same way.

        Raises
        ------
        InputError
            They do not.
        """
        start, end = (one.phases for one in ends)
        if len(start) != len(end) or (len(start) > 1 and start != end):
            listed = " and ".join(",".join(map(str, labels)) for labels in (start, end))
            raise InputError(
                f"interpolate: expected the same phases at both ends, found {listed}; segment both micrographs alike"
            )
        # Statistics without an image were measured elsewhere, and fit both.
        around = {one.periodic for one in ends if one.images()}
        if len(around) > 1:
            which, other = ("first", "second") if ends[0].periodic else ("second", "first")
            raise InputError(
                f"interpolate: expected statistics with wrap-around at both ends or at none, found them at the {which} "
                f"and not at the {other}; set target.periodic=true"
            )
        return cls(ends, way, along, lags, around == {True})

    @property
    def phases(self) -> tuple[int, ...]:
        return self.ends[0].phases

    @property
    def shown(self) -> int:
        return self.ends[0].shown

    @property
    def one_for_all(self) -> bool:
        return all(one.one_for_all for one in self.ends)

    def profile(self, slices: int) -> Floats:
        """t of each of so many planes along the axis."""
        if len(self.way) == 1:
            return np.full(slices, self.way[0])
        return np.interp(np.linspace(0.0, 1.0, slices), np.linspace(0.0, 1.0, len(self.way)), self.way)

    def images(self) -> dict[str, Floats]:
        """Those of both ends; none if one of them has none, since both are needed on every level."""
        start, end = (one.images() for one in self.ends)
        if not start or not end:
            return {}
        return {f"from {name}": image for name, image in start.items()} | {
            f"to {name}": image for name, image in end.items()
        }

    def wish(self, axis: str, variable: int, factor: int, lags: int) -> Wish:
        """See `Targets.wish`; at the mean t of a graded material."""
        t = float(np.mean(self.profile(4096)))
        start, end = (one.wish(axis, variable, factor, lags) for one in self.ends)
        window = min(one.s2.shape[1] - 1 for one in (start, end))
        s2 = (1.0 - t) * cropped(start.s2, window) + t * cropped(end.s2, window)
        return Wish(s2, (1.0 - t) * start.fraction + t * end.fraction)

    def images_at(self, direction: Direction, factor: int) -> list[Floats]:
        """See `Targets.images_at`; of the end whose image is smaller, for which all descriptors must fit."""
        return min((one.images_at(direction, factor) for one in self.ends), key=lambda one: min(one[0].shape))

    def lags_at(self, direction: Direction, factor: int, shape: Shape) -> int:
        return min(one.lags_at(direction, factor, shape) for one in self.ends)

    def at(
        self,
        direction: Direction,
        factor: int,
        shape: Shape,
        descriptors: Sequence[Descriptor],
        joint: Sequence[JointDescriptor],
    ) -> tuple[Target, ...]:
        if self.along is None:
            t = np.array(self.way)
        else:
            axis = AXES.index(self.along)
            t = self.profile(shape[axis])
            if direction.by is not None or direction.axis != axis:
                t = t.mean(keepdims=True)
        start, end = (one.at(direction, factor, shape, descriptors, joint) for one in self.ends)
        return tuple(_between(a, b, t) for a, b in zip(start, end, strict=True))

    def rooms(self) -> list[tuple[int, str]]:
        return [room for one in self.ends for room in one.rooms()]

    def sizes(self) -> list[tuple[float, str, str]]:
        return [size for one in self.ends for size in one.sizes()]

    def facts(self) -> list[dict[str, Any]]:
        return [found for one in self.ends for found in one.facts()]

    def origin(self) -> dict[str, NDArray[Any]]:
        """The sources of the ends below ``from/`` and ``to/``, and the way between them."""
        arrays: dict[str, NDArray[Any]] = {"t": np.array(self.way), "along": np.array(self.along or "")}
        for name, end in zip(("from", "to"), self.ends, strict=True):
            arrays |= {f"{name}/{key}": value for key, value in (end.head() | end.origin()).items()}
        for axis in AXES:
            names = [str(arrays.get(f"{name}/{axis}/source", "")) for name in ("from", "to")]
            way = ", ".join(f"{t:g}" for t in self.way)
            arrays[f"{axis}/source"] = np.array(f"from {names[0]} to {names[1]}, t = {way}")
        return arrays


def _between(start: Target, end: Target, t: Floats) -> Target:
    """The straight line between two targets at every t (T,)."""
    values, spread = {}, {}
    for name, first in start.values.items():
        last = end.values[name]
        way = t.reshape(-1, *(1,) * (first.ndim - 1))
        values[name] = (1.0 - way) * first + way * last
        if name in start.spread or name in end.spread:
            # Deviations from the ends' means scale with them; what is relative is the mean in between.
            near, far = (
                float(np.linalg.norm(one.values[name])) * one.spread.get(name, 0.0) for one in (start, end)
            )
            share = float(t.mean())
            size = float(np.mean([np.linalg.norm(one) for one in values[name]])) or 1.0
            spread[name] = ((1.0 - share) * near + share * far) / size
    return Target(values, spread)
