"""Estimates on images and on S2: the room for lags, and where S2 of an image has settled."""

from __future__ import annotations

from mcrdist.descriptors.base import Floats
from mcrdist.descriptors.correlation import two_point
from mcrdist.descriptors.settling import settled

#: The window that is taken at least, where the micrograph has room for it: shorter ones leave features of a
#: few pixels undetermined.
SMALLEST_WINDOW = 16


def room(shape: tuple[int, ...], periodic: bool) -> int:
    """The longest lag on which an image of this shape still has statistics: half of it in every direction."""
    return min(shape) // 2 if periodic else min(shape) // 2 - 1


def settled_lag(image: Floats, periodic: bool) -> int:
    """The lag beyond which S2, averaged over directions, stays within `SETTLED` of its far value.

    Lags beyond a quarter of the image are not looked at: there the estimate is mostly noise.
    """
    furthest = max(1, min(image.shape) // 4)
    return settled(two_point(image[None], furthest, periodic)[0], float(image.mean()))
