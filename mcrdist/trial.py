"""A trial of the user's own descriptors on random slices, before the long work starts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mcrdist.config import DescriptorConfig
from mcrdist.descriptors.base import SliceGrid
from mcrdist.descriptors.differentiable import DifferentiableDescriptor
from mcrdist.errors import InputError
from mcrdist.extension import KEY, Extra, load, told


def try_out(config: DescriptorConfig, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> None:
    """Let every descriptor of the user's own measure random slices.

    Parameters
    ----------
    config : DescriptorConfig
    shapes : sequence of (H, W)
        Of the slices to come, and of the micrographs.
    dtype : torch.dtype
        Of the slices to come.

    Raises
    ------
    InputError
        As for `load`, and for a measure that fails or whose result is no tensor of finite numbers, one row a
        slice, of a shape that does not depend on the slice's, and differentiable.
    """
    sizes = sorted(set(shapes), key=math.prod)
    for extra in load(config):
        found: set[tuple[int, ...]] = set()
        for height, width in dict.fromkeys((sizes[0], sizes[-1])):
            image = torch.rand(height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            found.add(_tried(extra, image, dtype))
        if len(found) > 1:
            raise _unfit(extra, "a result whose shape does not depend on the slice's", f"shapes {found}")


def _tried(extra: Extra, image: Tensor, dtype: torch.dtype) -> tuple[int, ...]:
    """Describe an image, and hold a slice to the result; return the result's shape."""
    descriptor = extra.descriptor
    if isinstance(descriptor, DifferentiableDescriptor):
        _check_measure(extra, descriptor, torch.stack([image, image.flip(1)]).to(dtype))
    with told(extra.source, "describe an image"):
        target = np.asarray(descriptor.describe(np.asarray(image), False))
    if target.dtype.kind != "f" or not np.isfinite(target).all():
        raise _unfit(extra, "describe to return finite numbers", f"{target.dtype} {target.tolist()}")
    targets = {descriptor.name: target[None], "volume_fraction": np.array([float(image.mean())])}
    height, width = image.shape
    slices = image.flip(0)[None].to(dtype)
    with told(extra.source, "be compared with a target"):
        term = descriptor.term(targets, 1.0, SliceGrid((height, width), dtype))
        errors, gradient = term.evaluate(slices, 1.0, range(1))
    if not (errors.isfinite().all() and gradient.isfinite().all()):
        raise _unfit(extra, "a finite error and gradient", "NaN or infinity")
    return target.shape


def _check_measure(extra: Extra, descriptor: DifferentiableDescriptor, slices: Tensor) -> None:
    slices.requires_grad_()
    with told(extra.source, "measure slices"):
        measured: object = descriptor.measure(slices)
    if not isinstance(measured, Tensor):
        raise _unfit(extra, "measure to return a tensor", type(measured).__name__)
    if measured.ndim == 0 or len(measured) != len(slices):
        shape = tuple(measured.shape)
        raise _unfit(extra, f"measure to return one row a slice, ({len(slices)}, …)", f"shape {shape}")
    if not measured.is_floating_point() or not measured.requires_grad:
        raise _unfit(extra, "measure to be differentiable by torch", f"{measured.dtype} without a gradient")
    if not measured.isfinite().all():
        raise _unfit(extra, "measure to return finite numbers", "NaN or infinity")
    with told(extra.source, "be differentiated"):
        (slope,) = torch.autograd.grad(measured.sum(), slices, allow_unused=True)
    if slope is None or not slope.isfinite().all():
        raise _unfit(extra, "a finite derivative of measure", "none" if slope is None else "NaN or infinity")


def _unfit(extra: Extra, expected: str, found: str) -> InputError:
    return InputError(f"{KEY}: {extra.source}: expected {expected}, found {found}")
