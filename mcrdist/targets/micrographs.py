"""Targets from images: the mean over the micrographs of a direction of what each descriptor says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.descriptors import spacing
from mcrdist.descriptors.base import Descriptor, Floats
from mcrdist.descriptors.correlation import two_point
from mcrdist.descriptors.joint import JointDescriptor
from mcrdist.descriptors.pooled import averaged
from mcrdist.directions import AXES, Direction
from mcrdist.errors import InputError
from mcrdist.gaussian import Wish
from mcrdist.micrograph import Micrograph
from mcrdist.targets.base import Shape, Target, Targets
from mcrdist.targets.estimate import SMALLEST_WINDOW, room, settled_lag


@dataclass(frozen=True)
class MicrographTargets(Targets):
    """The micrographs of the three directions, and how to describe them.

    Attributes
    ----------
    micrographs : mapping of "z", "y", "x" to a tuple of Micrograph
        Images of one direction may differ in size; their descriptors are averaged with equal weights.

    Raises
    ------
    InputError
        They show different phases.
    """

    micrographs: Mapping[str, tuple[Micrograph, ...]]
    periodic: bool
    lags: int

    def __post_init__(self) -> None:
        _check_phases(self.micrographs)

    @classmethod
    def settle(cls, micrographs: Mapping[str, tuple[Micrograph, ...]], periodic: bool) -> MicrographTargets:
        """With the window on which S2 of all of them settles, as far as they have room for it."""
        distinct = _distinct(micrographs)
        wanted = max(settled_lag(one.indicator, periodic) for one in distinct)
        least = min(room(one.labels.shape, periodic) for one in distinct)
        return cls(micrographs, periodic, min(max(wanted, SMALLEST_WINDOW), least))

    @property
    def phases(self) -> tuple[int, ...]:
        first = self.micrographs["z"][0]
        return tuple(np.unique(first.labels).tolist()) if first.every_phase else (first.phase,)

    @property
    def shown(self) -> int:
        return self.phases.index(self.micrographs["z"][0].phase)

    @property
    def one_for_all(self) -> bool:
        first = self.micrographs["z"]
        return all(
            len(several) == len(first) and all(map(_same, several, first))
            for several in self.micrographs.values()
        )

    def images(self) -> dict[str, Floats]:
        return {
            f"{axis}{number}": one.indicator
            for axis, several in self.micrographs.items()
            for number, one in enumerate(several)
        }

    def wish(self, axis: str, variable: int, factor: int, lags: int) -> Wish:
        """See `Targets.wish`.

        A further phase's share is taken as if it were independent of what is left over: its S2 is the phase's over
        that of what is left over, on the pixels themselves (averages of shares would not be shares of averages).
        """
        several = self.micrographs[axis]
        if len(self.phases) == 1:
            images = [averaged(one.indicator, factor) for one in several]
            lags = min(lags, *(room(image.shape, self.periodic) for image in images))
            s2 = np.mean([two_point(image[None], lags, self.periodic)[0] for image in images], axis=0)
            return Wish(s2, float(np.mean([image.mean() for image in images])))
        labels = [one.labels[::factor, ::factor] for one in several]
        lags = min(lags, *(room(one.shape, self.periodic) for one in labels))
        pairs = [
            np.stack([one == self.phases[variable], np.isin(one, self.phases[variable:])]).astype(np.float64)
            for one in labels
        ]
        phase, left = np.mean([two_point(pair, lags, self.periodic) for pair in pairs], axis=0)
        share = np.divide(phase, left, out=np.zeros_like(phase), where=left > 0.0)
        mean, rest = np.mean([pair.mean((1, 2)) for pair in pairs], axis=0)
        return Wish(share, float(mean / rest))

    def images_at(self, direction: Direction, factor: int) -> list[Floats]:
        """See `Targets.images_at`; of the smallest micrograph of the direction, for which all descriptors must fit."""
        several = [
            [
                spacing.resampled(image, direction.spacing, self.periodic)
                for image in self._channels(one, factor)
            ]
            for one in self.micrographs[AXES[direction.axis]]
        ]
        return min(several, key=lambda images: min(images[0].shape))

    def lags_at(self, direction: Direction, factor: int, shape: Shape) -> int:
        shapes = [[n // factor for n in one.labels.shape] for one in self.micrographs[AXES[direction.axis]]]
        there = spacing.reach(min(room(tuple(one), self.periodic) for one in shapes), direction.spacing)
        return max(1, min(self.lags, min(direction.slice_shape(shape)) // 2, there))

    def at(
        self,
        direction: Direction,
        factor: int,
        shape: Shape,
        descriptors: Sequence[Descriptor],
        joint: Sequence[JointDescriptor],
    ) -> tuple[Target, ...]:
        del shape
        several = [self._channels(one, factor) for one in self.micrographs[AXES[direction.axis]]]
        how = self.periodic, direction.spacing
        together = {j.name: [spacing.describe_together(j, each, *how) for each in several] for j in joint}
        found = []
        for phase in range(len(self.phases)):
            measured = {
                d.name: [spacing.describe(d, channels[phase], *how) for channels in several]
                for d in descriptors
            }
            found.append(Target.mean(measured | (together if phase == 0 else {})))
        return tuple(found)

    def _channels(self, micrograph: Micrograph, factor: int) -> list[Floats]:
        """The indicators of the phases, averaged."""
        if len(self.phases) == 1:
            return [averaged(micrograph.indicator, factor)]
        return [averaged((micrograph.labels == phase).astype(np.float64), factor) for phase in self.phases]

    def rooms(self) -> list[tuple[int, str]]:
        return [
            (
                room(one.labels.shape, self.periodic),
                f"{one.source}: expected a micrograph larger than the lag window, found "
                f"{one.labels.shape[0]}x{one.labels.shape[1]} pixels",
            )
            for one in _distinct(self.micrographs)
        ]

    def sizes(self) -> list[tuple[float, str, str]]:
        return [
            (one.pixel_size, one.unit, one.source)
            for one in _distinct(self.micrographs)
            if one.pixel_size is not None and one.unit is not None
        ]

    def facts(self) -> list[dict[str, Any]]:
        return [
            one.facts | {"axes": [axis for axis in AXES if any(one is m for m in self.micrographs[axis])]}
            for one in _distinct(self.micrographs)
        ]

    def origin(self) -> dict[str, NDArray[Any]]:
        """``AXIS/micrograph``, …; further ones of a direction as ``AXIS/image2/micrograph``, …

        ``AXIS/grey``, which may be large, stands with the first direction that has the image.
        """
        arrays: dict[str, NDArray[Any]] = {}
        told: set[int] = set()
        for axis, several in self.micrographs.items():
            for number, one in enumerate(several, 1):
                prefix = axis if number == 1 else f"{axis}/image{number}"
                arrays |= {
                    f"{prefix}/micrograph": one.labels,
                    f"{prefix}/phase": np.array(one.phase),
                    f"{prefix}/source": np.array(one.source),
                }
                if one.grey is not None and id(one) not in told:
                    arrays[f"{prefix}/grey"] = one.grey
                told.add(id(one))
                if one.pixel_size is not None:
                    arrays[f"{prefix}/pixel_size"] = np.array(one.pixel_size)
                    arrays[f"{prefix}/unit"] = np.array(one.unit)
        return arrays


def _distinct(micrographs: Mapping[str, tuple[Micrograph, ...]]) -> list[Micrograph]:
    """Each micrograph once, however many directions it stands for."""
    return list({id(one): one for several in micrographs.values() for one in several}.values())


def _same(one: Micrograph, other: Micrograph) -> bool:
    return one.phase == other.phase and np.array_equal(one.labels, other.labels)


def _check_phases(micrographs: Mapping[str, tuple[Micrograph, ...]]) -> None:
    """One phase each against the rest; or all of them, and then the same three or more."""
    every = {
        tuple(np.unique(one.labels).tolist()) if one.every_phase else (): one
        for one in reversed(_distinct(micrographs))
    }
    if len(every) > 1:
        listed = ", ".join(
            f"{','.join(map(str, np.unique(one.labels)))} ({one.source})" for one in every.values()
        )
        raise InputError(
            f"micrograph: expected the same phases in all images, found {listed}; choose images, crops or "
            "micrograph.segmentation that show all of them, or one of them as micrograph.phase"
        )
