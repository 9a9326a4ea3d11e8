"""Every descriptor of the package, with its definition written down once more: what test_descriptor_matrix.py checks.

A new descriptor joins by a line in `CASES` (or `JOINT`), and all tests of the matrix apply to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mcrdist.descriptors.base import Descriptor, Floats
from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.descriptors.cross_correlation import CrossCorrelation
from mcrdist.descriptors.gram import MARGIN, GramMatrices, Vgg19
from mcrdist.descriptors.joint import JointDescriptor
from mcrdist.descriptors.lineal_path import LinealPath
from mcrdist.descriptors.pooled import Pooled
from mcrdist.descriptors.three_point import ThreePointCorrelation
from mcrdist.descriptors.variation import Variation
from mcrdist.descriptors.vgg import LAYERS, MEAN
from mcrdist.descriptors.volume_fraction import VolumeFraction

Offset = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """A descriptor, and `define(image, periodic)`: the same numbers by loops over voxels.

    `even` says that the sides of slices must be even.
    """

    name: str
    descriptor: Descriptor
    define: Callable[[Floats, bool], Floats]
    even: bool = False


@dataclass(frozen=True)
class JointCase:
    """As `Case`, of the indicators of all phases."""

    name: str
    descriptor: JointDescriptor
    define: Callable[[Sequence[Floats], bool], Floats]


def mean_product(images: Sequence[Floats], offsets: Sequence[Offset], periodic: bool) -> float:
    """⟨Π_i image_i(x + offset_i)⟩ over all x, or those for which every point lies inside."""
    height, width = images[0].shape
    values = []
    for y in range(height):
        for x in range(width):
            points = [(y + dy, x + dx) for dy, dx in offsets]
            if periodic or all(0 <= row < height and 0 <= column < width for row, column in points):
                value = 1.0
                for image, (row, column) in zip(images, points, strict=True):
                    value *= image[row % height, column % width]
                values.append(value)
    return sum(values) / len(values)


def same(image: Floats, offsets: Sequence[Offset], periodic: bool) -> float:
    return mean_product([image] * len(offsets), offsets, periodic)


def define_two_point(lags: int) -> Callable[[Floats, bool], Floats]:
    rows, columns = range(-lags, lags + 1), range(lags + 1)
    return lambda image, periodic: np.array(
        [[same(image, [(0, 0), (dy, dx)], periodic) for dx in columns] for dy in rows]
    )


def define_variation(length: Callable[[float], float]) -> Callable[[Floats, bool], Floats]:
    def define(image: Floats, periodic: bool) -> Floats:
        total = 0.0
        for lines in (image, image.T):
            steps = [length(b - a) for line in lines for a, b in pairwise(line)]
            if periodic:
                steps += [length(line[0] - line[-1]) for line in lines]
            total += sum(steps) / len(steps)
        return np.array(total)

    return define


def corners(descriptor: ThreePointCorrelation) -> Iterator[list[Offset]]:
    """The distinct corners of every triangle, in the order of the descriptor."""
    for one in descriptor.sets:
        lags = list(zip(one.rows.tolist(), one.columns.tolist(), strict=True))
        for a, b in zip(one.first, one.second, strict=True):
            yield list(dict.fromkeys([(0, 0), lags[a], lags[b]]))


def define_three_point(descriptor: ThreePointCorrelation) -> Callable[[Floats, bool], Floats]:
    return lambda image, periodic: np.array([same(image, points, periodic) for points in corners(descriptor)])


def define_lineal_path(length: int) -> Callable[[Floats, bool], Floats]:
    def path(image: Floats, down: bool, n: int, periodic: bool) -> float:
        return same(image, [(k, 0) if down else (0, k) for k in range(n)], periodic)

    return lambda image, periodic: np.array(
        [
            [[path(phase, down, n + 1, periodic) for n in range(length)] for down in (True, False)]
            for phase in (image, 1.0 - image)
        ]
    )


def define_pooled(define: Callable[[Floats, bool], Floats], factor: int) -> Callable[[Floats, bool], Floats]:
    def pooled(image: Floats, periodic: bool) -> Floats:
        height, width = (n // factor for n in image.shape)
        small = [
            [image[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor].mean() for x in range(width)]
            for y in range(height)
        ]
        return define(np.array(small), periodic)

    return pooled


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Weights of VGG-19 that keep features about as large from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for layer in LAYERS:
        shape = (layer.outputs, layer.inputs, 3, 3)
        size = (2.0 / (9 * layer.inputs)) ** 0.5 / (100.0 if layer.inputs == 3 else 1.0)
        found[f"{layer.conv}.weight"] = torch.randn(shape, generator=generator) * size
        found[f"{layer.conv}.bias"] = torch.randn(layer.outputs, generator=generator) * 0.1
    return found


def features(weights: Mapping[str, Tensor], image: Tensor, name: str, periodic: bool = True) -> Tensor:
    """The features (C, H, W) of a layer as the textbook has them: three channels, library calls for everything."""
    maps = (255.0 * image).expand(3, -1, -1) - torch.tensor(MEAN, dtype=image.dtype)[:, None, None]
    for layer in LAYERS:
        if layer.place == 1 and layer.block > 1:
            maps = functional.avg_pool2d(maps, 2)
        kernel, bias = (weights[f"{layer.conv}.{kind}"].to(image.dtype) for kind in ("weight", "bias"))
        padded = functional.pad(maps[None], (1, 1, 1, 1), mode="circular" if periodic else "reflect")
        maps = functional.conv2d(padded, kernel, bias)[0].relu()
        if layer.relu == name:
            return maps
    raise AssertionError(name)


def define_gram(
    weights: Mapping[str, Tensor], margins: Mapping[str, int]
) -> Callable[[Floats, bool], Floats]:
    """`margins`: of every layer, the pixels on each side that see beyond the border of the image."""

    def define(image: Floats, periodic: bool) -> Floats:
        found = []
        for name, margin in margins.items():
            maps = features(weights, torch.from_numpy(image), name, periodic).numpy()
            rows, columns = (0 if periodic else min(margin, int(MARGIN * n)) for n in maps.shape[1:])
            inside = maps[:, rows : maps.shape[1] - rows, columns : maps.shape[2] - columns]
            found.append(np.einsum("iyx,jyx->ij", inside, inside).ravel() / inside[0].size)
        return np.concatenate(found)

    return define


def define_cross_correlation(lags: int) -> Callable[[Sequence[Floats], bool], Floats]:
    window = range(-lags, lags + 1)
    return lambda images, periodic: np.array(
        [
            [[mean_product(pair, [(0, 0), (dy, dx)], periodic) for dx in window] for dy in window]
            for pair in combinations(images, 2)
        ]
    )


def _three_point(name: str, lags: int, sparse: bool = False) -> Case:
    descriptor = ThreePointCorrelation(lags, sparse)
    return Case(name, descriptor, define_three_point(descriptor))


def _pooled(case: Case, factor: int = 2) -> Case:
    return Case(
        f"{case.name}@{factor}",
        Pooled(case.descriptor, factor),
        define_pooled(case.define, factor),
        even=True,
    )


_WEIGHTS = random_weights()
_MARGINS = {"relu1_1": 1, "relu1_2": 2, "relu2_1": 2}

_FULL = (
    Case("s2", TwoPointCorrelation(3), define_two_point(3)),
    Case("variation", Variation(0.0), define_variation(abs)),
    Case("variation, smooth", Variation(), define_variation(lambda step: step * step)),
    Case("volume_fraction", VolumeFraction(), lambda image, periodic: np.array(sum(image.flat) / image.size)),
    _three_point("s3", 3),
    _three_point("s3, sparse", 3, sparse=True),
    Case("lineal_path", LinealPath(3), define_lineal_path(3)),
)

CASES = (
    *_FULL,
    Case(
        "gram",
        GramMatrices(Vgg19(_WEIGHTS), list(_MARGINS), torch.float64),
        define_gram(_WEIGHTS, _MARGINS),
    ),
    _pooled(Case("s2", TwoPointCorrelation(2), define_two_point(2))),
    _pooled(_FULL[2]),
    _pooled(_three_point("s3", 2)),
    _pooled(Case("lineal_path", LinealPath(2), define_lineal_path(2))),
)

JOINT = (JointCase("cross_correlation", CrossCorrelation(3), define_cross_correlation(3)),)
