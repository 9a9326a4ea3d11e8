"""Targets from two-point statistics alone, where nobody has the image any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.descriptors import spacing
from mcrdist.descriptors.base import Descriptor, Floats
from mcrdist.descriptors.correlation import TwoPointCorrelation, cropped
from mcrdist.descriptors.joint import JointDescriptor
from mcrdist.descriptors.settling import settled
from mcrdist.descriptors.variation import Variation
from mcrdist.descriptors.volume_fraction import VolumeFraction
from mcrdist.directions import AXES, Direction
from mcrdist.errors import InputError
from mcrdist.gaussian import Wish
from mcrdist.targets.base import Shape, Target, Targets
from mcrdist.targets.estimate import SMALLEST_WINDOW


@dataclass(frozen=True)
class StatisticsTargets(Targets):
    """S2 of one phase of two in the three directions, and what follows from it.

    With S2 of a two-phase image I: the volume fraction is S2(0), and each pair of neighbours differs or not, so

        V = ⟨(I(x) − I(x + e₁))²⟩ + ⟨(I(x) − I(x + e₂))²⟩ = 4 S2(0) − 2 S2(e₁) − 2 S2(e₂).

    Attributes
    ----------
    s2 : mapping of "z", "y", "x" to float64 array (n, 2L+1, L+1)
        Of n samples.
    sources : mapping of "z", "y", "x" to str
        Their files.
    """

    s2: Mapping[str, Floats]
    sources: Mapping[str, str]
    lags: int
    periodic: bool = False

    @classmethod
    def settle(cls, s2: Mapping[str, Floats], sources: Mapping[str, str], cutoff: bool) -> StatisticsTargets:
        """With all lags where somebody chose them (`cutoff`), else with the window on which S2 settles."""
        means = [s2[axis].mean(0) for axis in AXES]
        there = min(mean.shape[1] - 1 for mean in means)
        if cutoff:
            return cls(s2, sources, there)
        # As for an image, a quarter of which is looked at: half of its lags.
        wanted = max(settled(cropped(mean, (there + 1) // 2), _fraction(mean)) for mean in means)
        return cls(s2, sources, min(max(wanted, SMALLEST_WINDOW), there))

    @property
    def phases(self) -> tuple[int, ...]:
        return (1,)

    @property
    def one_for_all(self) -> bool:
        return all(np.array_equal(s2, self.s2["z"]) for s2 in self.s2.values())

    def images(self) -> dict[str, Floats]:
        return {}

    def wish(self, axis: str, variable: int, factor: int, lags: int) -> Wish:
        del variable
        assert factor == 1, "there is no image to average"
        mean = cropped(self.s2[axis], lags).mean(0)
        return Wish(mean, _fraction(mean))

    def images_at(self, direction: Direction, factor: int) -> list[Floats]:
        """See `Targets.images_at`; evenly grey, as large as the lags, since nobody knows more."""
        assert factor == 1, "there is no image to average"
        s2 = self.s2[AXES[direction.axis]].mean(0)
        return [np.full((2 * s2.shape[1], 2 * s2.shape[1]), _fraction(s2))]

    def lags_at(self, direction: Direction, factor: int, shape: Shape) -> int:
        assert factor == 1, "there is no image to average"
        there = self.s2[AXES[direction.axis]].shape[-1] - 1
        return min(self.lags, min(direction.slice_shape(shape)) // 2, spacing.reach(there, direction.spacing))

    def at(
        self,
        direction: Direction,
        factor: int,
        shape: Shape,
        descriptors: Sequence[Descriptor],
        joint: Sequence[JointDescriptor],
    ) -> tuple[Target, ...]:
        """See `Targets.at`; an InputError names a descriptor that needs an image."""
        del shape, joint  # there is one phase
        assert factor == 1, "there is no image to average"
        axis = AXES[direction.axis]
        measured = {}
        for descriptor in descriptors:
            if type(descriptor) not in _FROM_S2:
                raise InputError(
                    f"target.path: expected an image for the descriptor {descriptor.name}, found two-point "
                    f"statistics alone ({self.sources[axis]}), which tell s2, variation and volume_fraction; "
                    f"set its weight to 0, or give micrograph.path"
                )
            follow = _FROM_S2[type(descriptor)]
            lags = descriptor.lags if isinstance(descriptor, TwoPointCorrelation) else 1
            samples = [spacing.stretched(one, lags, direction.spacing) for one in self.s2[axis]]
            measured[descriptor.name] = [follow(one) for one in samples]
        return (Target.mean(measured),)

    def rooms(self) -> list[tuple[int, str]]:
        return [
            (
                self.s2[axis].shape[-1] - 1,
                f"{self.sources[axis]}: expected statistics on more lags, found those up to "
                f"{self.s2[axis].shape[-1] - 1}",
            )
            for axis in AXES
        ]

    def sizes(self) -> list[tuple[float, str, str]]:
        return []

    def origin(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {}
        for axis in AXES:
            arrays[f"{axis}/samples/s2"] = self.s2[axis]
            arrays[f"{axis}/source"] = np.array(self.sources[axis])
        return arrays


def _fraction(s2: Floats) -> float:
    return float(s2[s2.shape[0] // 2, 0])


def _variation(s2: Floats) -> Floats:
    middle = s2.shape[0] // 2
    return np.asarray(4.0 * s2[middle, 0] - 2.0 * s2[middle, 1] - 2.0 * s2[middle + 1, 0])


#: How the value of a descriptor follows from S2.
_FROM_S2: Mapping[type[Descriptor], Callable[[Floats], Floats]] = {
    TwoPointCorrelation: lambda s2: s2,
    Variation: _variation,
    VolumeFraction: lambda s2: np.asarray(_fraction(s2)),
}
