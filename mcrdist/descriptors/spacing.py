"""What a micrograph says of slices whose rows, or columns, lie further apart than its pixels, as in diagonal ones.

Grey values half-way between pixels would be a third phase: they lower S2 and take boundary away. So no pixel is made
up.

* S2, cross-correlations and the variation are measured at whole lags, on all pixels, and interpolated as functions of
  the lag: by cubics whose points lie on one side of lag zero, where the functions have a kink.
* The volume fraction does not know how far apart pixels are.
* What needs an image gets the nearest pixels: of the same phases as before, and with an S2 that is, in the mean, the
  micrograph's, interpolated linearly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mcrdist.descriptors.base import Descriptor, Floats
from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.descriptors.cross_correlation import CrossCorrelation
from mcrdist.descriptors.joint import JointDescriptor
from mcrdist.descriptors.variation import Variation, step_length
from mcrdist.descriptors.volume_fraction import VolumeFraction

#: Distance of neighbouring rows, and of neighbouring columns, in pixels of the micrograph.
Spacing = tuple[float, float]
PIXELS: Spacing = (1.0, 1.0)
#: Whole lags that a value is interpolated from.
POINTS = 4


def reach(lags: int, spacing: Spacing) -> int:
    """The longest lag of slices, 1 at least, that is no longer than `lags` pixels."""
    return max(1, int(lags / max(spacing)))


def describe(descriptor: Descriptor, image: Floats, periodic: bool, spacing: Spacing) -> Floats:
    """As ``descriptor.describe(image, periodic)``, for slices of this spacing."""
    if spacing == PIXELS or type(descriptor) is VolumeFraction:
        return descriptor.describe(image, periodic)
    if type(descriptor) is TwoPointCorrelation:
        wide = TwoPointCorrelation(_wide(descriptor.lags, image, periodic, spacing))
        return stretched(wide.describe(image, periodic), descriptor.lags, spacing)
    if type(descriptor) is Variation:
        lengths = [
            _length(image, axis, apart, periodic, descriptor.smoothing) for axis, apart in enumerate(spacing)
        ]
        return np.asarray(sum(lengths))
    return descriptor.describe(resampled(image, spacing, periodic), periodic)


def describe_together(
    descriptor: JointDescriptor, images: Sequence[Floats], periodic: bool, spacing: Spacing
) -> Floats:
    """As ``descriptor.describe(images, periodic)``, for slices of this spacing."""
    if spacing == PIXELS:
        return descriptor.describe(images, periodic)
    if type(descriptor) is CrossCorrelation:
        wide = CrossCorrelation(_wide(descriptor.lags, images[0], periodic, spacing))
        return stretched(wide.describe(images, periodic), descriptor.lags, spacing)
    return descriptor.describe([resampled(image, spacing, periodic) for image in images], periodic)


def resampled(image: Floats, spacing: Spacing, periodic: bool) -> Floats:
    """The pixels of an image (H, W) that are nearest to the places of slices; what is periodic stays so."""
    if spacing == PIXELS:
        return image
    rows, columns = (_nearest(n, apart, periodic) for n, apart in zip(image.shape, spacing, strict=True))
    return image[np.ix_(rows, columns)]


def stretched(values: Floats, lags: int, spacing: Spacing) -> Floats:
    """Correlations at the lags of slices, from those at whole lags of the micrograph.

    Parameters
    ----------
    values : array (..., 2W+1, W+1) or (..., 2W+1, 2W+1)
        On rows −W … W, and columns 0 … W or −W … W.
    lags : int
        L, of the slices.

    Returns
    -------
    array (..., 2L+1, L+1) or (..., 2L+1, 2L+1)
    """
    origin = values.shape[-2] // 2
    half = values.shape[-1] == origin + 1
    rows, columns = (
        [lag * apart for lag in range(first, lags + 1)]
        for first, apart in zip((-lags, 0 if half else -lags), spacing, strict=True)
    )
    found = _between(np.moveaxis(values, -2, -1), origin, rows)
    return _between(np.moveaxis(found, -1, -2), 0 if half else origin, columns)


def _wide(lags: int, image: Floats, periodic: bool, spacing: Spacing) -> int:
    """Whole lags that are enough for `lags` of the slices, as far as the image has them."""
    side = int(min(image.shape))
    there = side // 2 if periodic else side - 1
    return min(int(lags * max(spacing)) + POINTS // 2, there)


def _length(image: Floats, axis: int, apart: float, periodic: bool, smoothing: float) -> float:
    """Mean length of the steps from each pixel to the place that lies `apart` from it along an axis."""
    if apart == 1.0:
        return step_length(image, axis, 1, periodic, smoothing)
    there = min(POINTS, image.shape[axis])
    lengths = [step_length(image, axis, lag, periodic, smoothing) for lag in range(there)]
    return float(_between(np.array(lengths), 0, [apart])[0])


def _between(values: Floats, origin: int, lags: Sequence[float]) -> Floats:
    """Values along the last axis, where lag zero is at `origin`, at lags between whole ones: Lagrange's cubics."""
    found = np.empty((*values.shape[:-1], len(lags)))
    for number, lag in enumerate(lags):
        side = -1 if lag < 0.0 else 1
        there = (origin if side < 0 else values.shape[-1] - 1 - origin) + 1
        first = max(0, min(int(abs(lag)) - (POINTS // 2 - 1), there - POINTS))
        points = np.arange(first, min(first + POINTS, there))
        weights = [np.prod((abs(lag) - points[points != p]) / (p - points[points != p])) for p in points]
        found[..., number] = values[..., origin + side * points] @ np.array(weights)
    return found


def _nearest(pixels: int, apart: float, periodic: bool) -> NDArray[np.int64]:
    """Which of so many pixels in a row are nearest to places that lie `apart` from one another."""
    if apart == 1.0:
        return np.arange(pixels)
    count = round(pixels / apart)
    step = pixels / count if periodic else apart  # as many whole steps as go round
    return np.array([int((place + 0.5) * step) for place in range(count)])
