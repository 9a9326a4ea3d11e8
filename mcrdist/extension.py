"""Descriptors of the user's own: found by name, tried once, and used like the built-in ones.

``descriptors.extra=[module:Class]`` names a class in a module, ``descriptors.extra=[name]`` one that an installed
package registers in the entry-point group ``mcrdist.descriptors``; ``*0.5`` after either is its weight.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcrdist.config import DescriptorConfig
from mcrdist.descriptors.base import Descriptor, Floats, SliceGrid
from mcrdist.descriptors.differentiable import DifferentiableDescriptor
from mcrdist.descriptors.volume_fraction import GreynessTerm
from mcrdist.errors import InputError

GROUP = "mcrdist.descriptors"
_KEY = "descriptors.extra"


@dataclass(frozen=True)
class Extra:
    """A descriptor of the user's own.

    Attributes
    ----------
    source : str
        What the user wrote, without the weight; for messages.
    descriptor : Descriptor
    weight : float
        What stands behind ``*``, 1 by default.
    """

    source: str
    descriptor: Descriptor
    weight: float


class PlainClass(DifferentiableDescriptor):
    """A class with no more than a `name` and `measure`, perhaps `describe` and `balance`, as a descriptor."""

    def __init__(self, own: Any) -> None:
        self._own = own
        self.name = own.name
        self.balance = float(getattr(own, "balance", self.balance))

    def measure(self, slices: Tensor) -> Tensor:
        measured: Tensor = self._own.measure(slices)
        return measured

    def describe(self, image: Floats, periodic: bool) -> Floats:
        if hasattr(self._own, "describe"):
            return np.asarray(self._own.describe(image, periodic), np.float64)
        return super().describe(image, periodic)


def load(config: DescriptorConfig) -> list[Extra]:
    """Import the classes that `config` names and make one descriptor of each.

    Raises
    ------
    InputError
        No such module, class or entry point, a class without `name` or `measure`, or a name that is taken.
    """
    taken = {*config.weights, GreynessTerm.name}
    extras = []
    for entry in config.extra:
        source, weight = _split(entry)
        extra = Extra(source, _descriptor(source, _find(source)), weight)
        name = extra.descriptor.name
        if name in taken:
            raise InputError(f"{_KEY}: {source}: expected a name of its own, found {name!r}, which is taken")
        taken.add(name)
        extras.append(extra)
    return extras


def try_out(config: DescriptorConfig, shapes: Sequence[tuple[int, int]], dtype: torch.dtype) -> None:
    """Let every descriptor of the user's own measure random slices, before the long work starts.

    Parameters
    ----------
    config : DescriptorConfig
    shapes : sequence of (H, W)
        Of the slices to come.
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


def _split(entry: str) -> tuple[str, float]:
    """``module:Class*0.5`` as the class and its weight."""
    source, star, factor = entry.strip().partition("*")
    try:
        weight = float(factor) if star else 1.0
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0.0):
        raise InputError(
            f"{_KEY}: {entry}: expected a weight of at least 0 after *, found {factor!r}; e.g. {source}*0.5"
        )
    return source.strip(), weight


def _find(source: str) -> Any:
    """The class that `source` names."""
    module, colon, path = source.partition(":")
    if not colon:
        return _entry_point(source)
    if not (re.fullmatch(r"\w+(\.\w+)*", module) and re.fullmatch(r"[^\W\d][\w.]*", path)):
        raise InputError(f"{_KEY}: {source}: expected module:Class; e.g. {_KEY}=[mine:Coarseness]")
    with _current_directory_first(), _told(source, "be imported"):
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the module is there, and wants one that is not
            raise InputError(
                f"{_KEY}: {source}: expected a module, found no {error.name}.py in {os.getcwd()} nor a package "
                f"of that name; start mcrdist beside the file or install it"
            ) from None
    for part in path.split("."):
        if not hasattr(found, part):
            known = [name for name, value in vars(found).items() if hasattr(value, "measure")]
            raise InputError(
                f"{_KEY}: {source}: expected a class in {module}, found no {part} there"
                + (f"; it has {', '.join(known)}" if known else "")
            )
        found = getattr(found, part)
    return found


def _entry_point(name: str) -> Any:
    points = importlib.metadata.entry_points(group=GROUP)
    if name not in points.names:
        installed = ", ".join(sorted(points.names)) or "none"
        raise InputError(
            f"{_KEY}: expected module:Class or the name of an installed descriptor ({installed}), found {name}; "
            f"e.g. {_KEY}=[mine:Coarseness]"
        )
    with _told(name, "be imported"):
        return points[name].load()


def _descriptor(source: str, found: Any) -> Descriptor:
    with _told(source, "be made without arguments"):
        own = found() if isinstance(found, type) else found
    if isinstance(own, Descriptor) and not hasattr(own, "measure"):
        missing = [] if hasattr(own, "name") else ["name"]  # with a `term` of its own
    else:
        missing = [what for what in ("name", "measure") if not hasattr(own, what)]
    if missing:
        raise InputError(
            f"{_KEY}: {source}: expected a class with name and measure(slices), found no {' and no '.join(missing)}"
        )
    if not (isinstance(own.name, str) and re.fullmatch(r"[^\W\d]\w*", own.name)):
        raise InputError(
            f"{_KEY}: {source}: expected a name of letters, digits and underscores, found {own.name!r}"
        )
    return own if isinstance(own, Descriptor) else PlainClass(own)


def _tried(extra: Extra, image: Tensor, dtype: torch.dtype) -> tuple[int, ...]:
    """Describe an image, and hold a slice to the result; return the result's shape."""
    descriptor = extra.descriptor
    if isinstance(descriptor, DifferentiableDescriptor):
        _check_measure(extra, descriptor, torch.stack([image, image.flip(1)]).to(dtype))
    with _told(extra.source, "describe an image"):
        target = np.asarray(descriptor.describe(np.asarray(image), False))
    if target.dtype.kind != "f" or not np.isfinite(target).all():
        raise _unfit(extra, "describe to return finite numbers", f"{target.dtype} {target.tolist()}")
    targets = {descriptor.name: target[None], "volume_fraction": np.array([float(image.mean())])}
    height, width = image.shape
    slices = image.flip(0)[None].to(dtype)
    with _told(extra.source, "be compared with a target"):
        term = descriptor.term(targets, 1.0, SliceGrid((height, width), dtype))
        errors, gradient = term.evaluate(slices, 1.0, range(1))
    if not (errors.isfinite().all() and gradient.isfinite().all()):
        raise _unfit(extra, "a finite error and gradient", "NaN or infinity")
    return target.shape


def _check_measure(extra: Extra, descriptor: DifferentiableDescriptor, slices: Tensor) -> None:
    slices.requires_grad_()
    with _told(extra.source, "measure slices"):
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
    with _told(extra.source, "be differentiated"):
        (slope,) = torch.autograd.grad(measured.sum(), slices, allow_unused=True)
    if slope is None or not slope.isfinite().all():
        raise _unfit(extra, "a finite derivative of measure", "none" if slope is None else "NaN or infinity")


def _unfit(extra: Extra, expected: str, found: str) -> InputError:
    return InputError(f"{_KEY}: {extra.source}: expected {expected}, found {found}")


@contextmanager
def _told(source: str, what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into one line that says where."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"{_KEY}: {source}: cannot {what}: {type(error).__name__}: {error} "
            f"({os.path.basename(last.filename)}, line {last.lineno})"
        ) from error


@contextmanager
def _current_directory_first() -> Iterator[None]:
    """Look for modules in the current directory, as ``python -m`` does and the installed command does not."""
    here = os.getcwd()
    sys.path.insert(0, here)
    importlib.invalidate_caches()  # the file may be younger than the last look at the directory
    try:
        yield
    finally:
        sys.path.remove(here)
