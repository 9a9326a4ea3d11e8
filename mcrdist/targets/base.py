"""A target, and what every source of targets offers."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.descriptors.base import Descriptor, Floats
from mcrdist.descriptors.joint import JointDescriptor
from mcrdist.directions import AXES, Direction
from mcrdist.gaussian import Wish
from mcrdist.micrograph import in_words

Shape = tuple[int, int, int]
#: Descriptors small enough to be kept for every slice, and compared there by the report.
BY_SLICE = ("s2", "variation", "volume_fraction")


@dataclass(frozen=True)
class Target:
    """The descriptors of one direction and phase at one level.

    Attributes
    ----------
    values : mapping of descriptor name to float64 array (T, ...)
        T is 1, or the number of slices where every slice has a target of its own. The first phase's has the
        descriptors of all phases together too.
    spread : mapping of descriptor name to float
        How far several micrographs lie from their mean, 1/n Σ_i ‖D_i − D̄‖ / ‖D̄‖: the metric of Eq. 10 among them.
        Empty for a single one.
    """

    values: Mapping[str, Floats]
    spread: Mapping[str, float] = field(default_factory=dict)

    @property
    def fraction(self) -> float:
        """Volume fraction, the mean over slices."""
        return float(np.mean(self.values["volume_fraction"]))

    @classmethod
    def mean(cls, measured: Mapping[str, Sequence[Floats]]) -> Target:
        """The mean over micrographs of what was measured on each, and its spread."""
        values, spread = {}, {}
        for name, each in measured.items():
            mean = np.mean(each, axis=0)
            values[name] = np.asarray(mean)[None]
            size = float(np.linalg.norm(mean)) or 1.0
            if len(each) > 1:
                spread[name] = float(np.mean([np.linalg.norm(one - mean) for one in each])) / size
        return cls(values, spread)


class Targets(ABC):
    """Where targets come from.

    Attributes
    ----------
    lags : int
        The window of two-point correlations on the finest level.
    periodic : bool
        Statistics with wrap-around.
    """

    lags: int
    periodic: bool

    @property
    @abstractmethod
    def phases(self) -> tuple[int, ...]:
        """The label of the phase that is reconstructed, or of all of them if there are three or more."""

    @property
    def shown(self) -> int:
        """Which of the phases stands for all of them in pictures."""
        return 0

    @property
    @abstractmethod
    def one_for_all(self) -> bool:
        """Whether planes normal to z, y and x have the same sources: what is known of one is known of all."""

    @abstractmethod
    def images(self) -> dict[str, Floats]:
        """Every image (H, W) by a name of its own, 1 where the phase is; empty if there are only statistics."""

    @abstractmethod
    def wish(self, axis: str, variable: int, factor: int, lags: int) -> Wish:
        """What the spectral start of a variable needs: its S2 and mean in the planes normal to `axis`.

        Parameters
        ----------
        axis : "z", "y" or "x"
        variable : int
            As numbered in :mod:`mcrdist.phases`: the first is a phase, a further one the phase's share in what those
            before it leave over.
        factor : int
            Pixels a voxel.
        lags : int
            At most so many lags, in voxels.
        """

    @abstractmethod
    def images_at(self, direction: Direction, factor: int) -> list[Floats]:
        """An image of every phase (H, W), averaged over factor x factor pixels, to choose descriptors by.

        Its rows and columns lie as far apart as those of the slices.
        """

    @abstractmethod
    def lags_at(self, direction: Direction, factor: int, shape: Shape) -> int:
        """The window of lags on a level of this shape (nz, ny, nx), whose voxels are `factor` pixels wide."""

    @abstractmethod
    def at(
        self,
        direction: Direction,
        factor: int,
        shape: Shape,
        descriptors: Sequence[Descriptor],
        joint: Sequence[JointDescriptor],
    ) -> tuple[Target, ...]:
        """The targets of the slices of one direction, one a phase.

        Parameters
        ----------
        direction : Direction
        factor : int
            Pixels a voxel of the level.
        shape : tuple of int
            (nz, ny, nx) of the level.
        descriptors, joint : sequence
            What to describe: of each phase, and of all phases together.

        Raises
        ------
        InputError
            Something cannot be told from what the user gave.
        """

    @abstractmethod
    def rooms(self) -> list[tuple[int, str]]:
        """The longest lag on which each source has statistics, and what to call the source in a message."""

    @abstractmethod
    def sizes(self) -> list[tuple[float, str, str]]:
        """Side of a pixel, its unit, and whose it is, for each source that knows it."""

    @abstractmethod
    def origin(self) -> dict[str, NDArray[Any]]:
        """The sources as arrays, from which :func:`mcrdist.targets.files.rebuild` makes them again."""

    def facts(self) -> list[dict[str, Any]]:
        """What was made of each image, as `Micrograph.facts`, with the `axes` that its planes are normal to."""
        return []

    def told(self) -> list[str]:
        """The same for people, a line an image."""
        lines = []
        for facts in self.facts():
            where = "" if len(facts["axes"]) == len(AXES) else f"normal to {', '.join(facts['axes'])}; "
            lines.append(f"image   {facts['source']}  ({where}{in_words(facts)})")
        return lines

    @property
    def pixel_size(self) -> tuple[float, str] | None:
        """Side of a pixel and its unit, from the first source that knows them."""
        for size, unit, _ in self.sizes():
            return size, unit
        return None

    def head(self) -> dict[str, NDArray[Any]]:
        """What holds for all directions, as arrays."""
        return {
            "lags": np.array(self.lags),
            "periodic": np.array(self.periodic),
            "phases": np.array(self.phases),
        }

    def arrays(self, found: Mapping[str, Sequence[Target]]) -> dict[str, NDArray[Any]]:
        """Everything about the finest level as arrays, named as in ``targets.npz``.

        Parameters
        ----------
        found : mapping of direction name to a Target a phase
            What `at` returned there.

        Returns
        -------
        dict
            ``DIRECTION/DESCRIPTOR``, the mean where slices have targets of their own; with several phases
            ``DIRECTION/LABEL/DESCRIPTOR`` of each, the former then being that of the phase that is shown.
            ``…/spread/DESCRIPTOR`` where there are several micrographs, ``…/slices/DESCRIPTOR`` for those of
            `BY_SLICE` where slices have targets of their own, and the sources.
        """
        arrays = self.head()
        for name, targets in found.items():
            prefixes = [f"{name}/{label}" for label in self.phases] if len(self.phases) > 1 else []
            for prefix, target in [(name, targets[self.shown]), *zip(prefixes, targets, strict=False)]:
                arrays |= {f"{prefix}/{key}": value.mean(0) for key, value in target.values.items()}
                arrays |= {
                    f"{prefix}/slices/{key}": value
                    for key, value in target.values.items()
                    if key in BY_SLICE and len(value) > 1
                }
                arrays |= {f"{prefix}/spread/{key}": np.array(value) for key, value in target.spread.items()}
        return arrays | self.origin()


def npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The content of an npz file with these arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
