"""The slices of one direction at one resolution, as the choice of descriptors needs to know them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mcrdist.descriptors.base import Floats
from mcrdist.descriptors.pooled import averaged

#: Averaged slices have at least this many voxels a side.
SMALLEST_POOLED = 4


@dataclass(frozen=True)
class View:
    """The slices of one direction at one resolution, and what they must look like.

    Attributes
    ----------
    shape : tuple of int
        (H, W) of a slice.
    images : sequence of array
        The indicator of every phase on the micrograph, at the resolution of the slices; one of two phases.
    periodic : bool
        The micrograph's statistics wrap around.
    lags : int
        Of the two-point window.
    finest : bool
        The level is the finest: all that was asked for must be possible. Coarse levels do what they can.
    """

    shape: tuple[int, int]
    images: Sequence[Floats]
    periodic: bool
    lags: int
    finest: bool

    @property
    def room(self) -> int:
        """The longest lag that has statistics, on the slices and on the micrograph."""
        border = 0 if self.periodic else 1
        return max(1, min(min(self.shape) // 2, int(min(self.images[0].shape)) // 2 - border))

    def fits(self, factor: int) -> bool:
        """Whether averaging over factor x factor voxels comes out even and leaves something to measure."""
        smallest = min(*self.shape, *self.images[0].shape) // factor
        return not any(n % factor for n in self.shape) and smallest >= SMALLEST_POOLED

    def pooled(self, factor: int) -> View:
        """Averaged over factor x factor voxels."""
        small = replace(
            self,
            shape=(self.shape[0] // factor, self.shape[1] // factor),
            images=[averaged(image, factor) for image in self.images],
        )
        return replace(small, lags=min(self.lags, small.room))
