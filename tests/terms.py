"""Terms of the loss for tests, and slices as the volume lays them out."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.descriptors.base import SliceGrid
from mcrdist.descriptors.correlation import LagWindow, TwoPointTerm, two_point
from mcrdist.descriptors.variation import VariationTerm
from mcrdist.descriptors.volume_fraction import GreynessTerm, VolumeFractionTerm

CPU = torch.device("cpu")


# (S, H, W) of a volume (Z, Y, X), for slices normal to z, y and x.
LAYOUTS = ((0, 1, 2), (1, 0, 2), (2, 0, 1))


def random(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random(shape)


def laid_out(slices: NDArray[np.float64], layout: int) -> Tensor:
    """The same slices (S, H, W) as a view of a volume."""
    order = LAYOUTS[layout]
    volume = np.ascontiguousarray(slices.transpose(np.argsort(order)))
    view = torch.from_numpy(volume).permute(order)
    assert view.shape == slices.shape
    return view


def target_of(value: float) -> NDArray[np.float64]:
    return np.array([value])


def variation_term(target: float, weight: float, smoothing: float) -> VariationTerm:
    return VariationTerm(target_of(target), weight, smoothing, SliceGrid((1, 1), torch.float64))


def fraction_term(target: float, weight: float = 1.0) -> VolumeFractionTerm:
    return VolumeFractionTerm(target_of(target), weight, SliceGrid((1, 1), torch.float64))


def greyness_term(fraction: float, weight: float) -> GreynessTerm:
    return GreynessTerm(fraction, weight, SliceGrid((1, 1), torch.float64))


def riding(s2: TwoPointTerm) -> TwoPointTerm:
    s2.riders = (variation_term(0.6, 0.3, math.inf), fraction_term(0.3, 0.8), greyness_term(0.3, 0.2))
    return s2


def s2_term(shape: tuple[int, int], lags: int, dtype: torch.dtype = torch.float64) -> TwoPointTerm:
    image = (random(*shape, seed=9) < 0.4).astype(float)
    window = LagWindow(shape, lags, dtype, CPU)
    return TwoPointTerm(two_point(image[None], lags, True), target_of(image.mean()), 0.7, window)
