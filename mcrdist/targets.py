"""What every direction and level must reach: the micrograph's descriptors on a window of lags."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.config import MicrographConfig, TargetConfig
from mcrdist.descriptors.base import Descriptor
from mcrdist.descriptors.correlation import two_point
from mcrdist.descriptors.joint import JointDescriptor
from mcrdist.descriptors.variation import variation
from mcrdist.directions import AXES, Direction
from mcrdist.errors import InputError
from mcrdist.gaussian import Wish
from mcrdist.imagefile import MICROMETRES
from mcrdist.micrograph import Micrograph, load

#: S2 has settled where the autocovariance, averaged over directions, stays below this share of the variance.
SETTLED = 0.05
#: The window that is taken at least, where the micrograph has room for it: shorter ones leave features of a
#: few pixels undetermined.
SMALLEST_WINDOW = 16
#: Pixel sizes that differ by no more than this share are one: files round them.
SAME_SIZE = 1e-3


@dataclass(frozen=True)
class Target:
    """The descriptors of one direction and phase at one level."""

    values: Mapping[str, NDArray[np.float64]]
    spread: Mapping[str, float]

    @property
    def fraction(self) -> float:
        """Volume fraction."""
        return float(np.mean(self.values["volume_fraction"]))


@dataclass(frozen=True)
class Targets:
    """The micrographs of the three directions, and how to describe them.

    Attributes
    ----------
    micrographs : mapping of "z", "y", "x" to Micrograph
    periodic : bool
        Statistics with wrap-around.
    lags : int
        The window on the finest level.
    """

    micrographs: Mapping[str, Micrograph]
    periodic: bool
    lags: int

    @property
    def phases(self) -> tuple[int, ...]:
        """The labels of the channels: one phase against the rest, or all of three or more."""
        micrograph = self.micrographs["z"]
        return tuple(np.unique(micrograph.labels).tolist()) if micrograph.every_phase else (micrograph.phase,)

    def images(self) -> dict[str, NDArray[np.float64]]:
        return {name: self.micrographs[name].indicator for name in AXES}

    def wish(self, axis: str, variable: int, factor: int, lags: int) -> Wish:
        """What the spectral start of a variable needs: its S2 and mean in the planes normal to `axis`.

        Of one phase, of the averaged image. The variable of a further phase is its share in what the phases before
        it leave over: as if the two were independent, its S2 is the phase's over that of what is left over, on the
        pixels themselves (averages of shares would not be shares of averages).
        """
        labels = self.micrographs[axis].labels
        if len(self.phases) == 1:
            image = averaged((labels == self.phases[0]).astype(np.float64), factor)
            lags = min(lags, _room(image.shape, self.periodic))
            return Wish(two_point(image[None], lags, self.periodic)[0], float(image.mean()))
        labels = labels[::factor, ::factor]
        lags = min(lags, _room(labels.shape, self.periodic))
        phase = (labels == self.phases[variable]).astype(np.float64)
        left = np.isin(labels, self.phases[variable:]).astype(np.float64)
        both = two_point(np.stack([phase, left]), lags, self.periodic)
        share = np.divide(both[0], both[1], out=np.zeros_like(both[0]), where=both[1] > 0.0)
        return Wish(share, float(phase.mean() / left.mean()))

    def lags_at(self, direction: Direction, factor: int, shape: tuple[int, int, int]) -> int:
        image = averaged(self.micrographs[AXES[direction.axis]].indicator, factor)
        return max(
            1, min(self.lags, min(direction.slice_shape(shape)) // 2, _room(image.shape, self.periodic))
        )

    def at(
        self,
        direction: Direction,
        factor: int,
        shape: tuple[int, int, int],
        descriptors: Sequence[Descriptor],
        joint: Sequence[JointDescriptor],
    ) -> tuple[Target, ...]:
        micrograph = self.micrographs[AXES[direction.axis]]
        found = []
        for phase in self.phases:
            image = averaged((micrograph.labels == phase).astype(float), factor)
            found.append(Target({d.name: d.describe(image, self.periodic)[None] for d in descriptors}, {}))
        return tuple(found)

    @property
    def pixel_size(self) -> tuple[float, str] | None:
        """Side of a pixel and its unit, from the first direction that knows them."""
        for micrograph in self.micrographs.values():
            if micrograph.pixel_size is not None and micrograph.unit is not None:
                return micrograph.pixel_size, micrograph.unit
        return None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything about the finest level as arrays, named as in ``targets.npz``."""
        arrays: dict[str, NDArray[Any]] = {"lags": np.array(self.lags), "periodic": np.array(self.periodic)}
        for name, micrograph in self.micrographs.items():
            arrays |= {
                f"{name}/s2": two_point(micrograph.indicator[None], self.lags, self.periodic)[0],
                f"{name}/variation": variation(micrograph.indicator[None], self.periodic)[0],
                f"{name}/volume_fraction": np.array(micrograph.indicator.mean()),
                f"{name}/micrograph": micrograph.labels,
                f"{name}/phase": np.array(micrograph.phase),
                f"{name}/source": np.array(micrograph.source),
            }
            if micrograph.pixel_size is not None:
                arrays[f"{name}/pixel_size"] = np.array(micrograph.pixel_size)
                arrays[f"{name}/unit"] = np.array(micrograph.unit)
        return arrays

    def npz(self) -> bytes:
        """The content of ``targets.npz``."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self.arrays())  # type: ignore[arg-type]
        return buffer.getvalue()


def load_targets(micrographs: MicrographConfig, target: TargetConfig) -> Targets:
    """Read the micrographs of the three directions and settle the lag window.

    Raises
    ------
    InputError
        A micrograph does not work, is smaller than the lag window, or has another pixel size than the others.
    """
    images: dict[str, Micrograph] = {}
    read: dict[Any, Micrograph] = {}
    for name in AXES:
        source = micrographs.source(name)
        key = (id(source.image), str(source))
        if key not in read:
            read[key] = load(source)
        images[name] = read[key]
    _check_pixel_sizes(images)
    room = {name: _room(images[name].labels.shape, target.periodic) for name in AXES}
    if target.lags is not None:
        for name in AXES:
            if target.lags > room[name]:
                height, width = images[name].labels.shape
                raise InputError(
                    f"{images[name].source}: expected a micrograph larger than the lag window, found "
                    f"{height}x{width} pixels for target.lags={target.lags}; take target.lags={room[name]} "
                    "at most, or a larger image"
                )
        return Targets(images, target.periodic, target.lags)
    settled = max(settled_lag(images[name].indicator, target.periodic) for name in AXES)
    return Targets(images, target.periodic, min(max(settled, SMALLEST_WINDOW), *room.values()))


def settled_lag(image: NDArray[np.float64], periodic: bool) -> int:
    """The lag beyond which S2, averaged over directions, stays within `SETTLED` of its far value.

    Lags beyond a quarter of the image are not looked at: there the estimate is mostly noise.
    """
    furthest = max(1, min(image.shape) // 4)
    s2 = two_point(image[None], furthest, periodic)[0]
    fraction = image.mean()
    rows, columns = np.arange(-furthest, furthest + 1)[:, None], np.arange(furthest + 1)[None, :]
    distance = np.rint(np.hypot(rows, columns)).astype(int)
    inside = distance <= furthest
    profile = np.bincount(distance[inside], s2[inside]) / np.bincount(distance[inside])
    unsettled = np.flatnonzero(np.abs(profile - fraction**2) > SETTLED * fraction * (1.0 - fraction))
    return int(unsettled[-1]) + 1


def averaged(image: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Means over squares of factor x factor pixels; what is left at the far edges is dropped."""
    if factor == 1:
        return image
    height, width = (n // factor for n in image.shape)
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor)
    return np.asarray(blocks.mean((1, 3)))


def _room(shape: tuple[int, ...], periodic: bool) -> int:
    """The longest lag on which an image of this shape still has statistics: half of it in every direction."""
    return min(shape) // 2 if periodic else min(shape) // 2 - 1


def _check_pixel_sizes(images: Mapping[str, Micrograph]) -> None:
    known: dict[float, str] = {}
    for micrograph in images.values():
        if micrograph.pixel_size is not None and micrograph.unit is not None:
            size = micrograph.pixel_size * MICROMETRES[micrograph.unit]
            known[size] = f"{micrograph.pixel_size:g} {micrograph.unit} ({micrograph.source})"
    if known and max(known) > min(known) * (1.0 + SAME_SIZE):
        found = ", ".join(known.values())
        raise InputError(
            f"micrograph: expected one pixel size in all directions, found {found}; resample the images "
            "to one"
        )
