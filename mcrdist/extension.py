"""Descriptors of the user's own: found by name, and used like the built-in ones.

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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from mcrdist.config import DescriptorConfig
from mcrdist.descriptors.base import Descriptor, Floats
from mcrdist.descriptors.differentiable import DifferentiableDescriptor
from mcrdist.descriptors.volume_fraction import GreynessTerm
from mcrdist.errors import InputError

GROUP = "mcrdist.descriptors"
KEY = "descriptors.extra"


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
            raise InputError(f"{KEY}: {source}: expected a name of its own, found {name!r}, which is taken")
        taken.add(name)
        extras.append(extra)
    return extras


def _split(entry: str) -> tuple[str, float]:
    """``module:Class*0.5`` as the class and its weight."""
    source, star, factor = entry.strip().partition("*")
    try:
        weight = float(factor) if star else 1.0
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0.0):
        raise InputError(
            f"{KEY}: {entry}: expected a weight of at least 0 after *, found {factor!r}; e.g. {source}*0.5"
        )
    return source.strip(), weight


def _find(source: str) -> Any:
    """The class that `source` names."""
    module, colon, path = source.partition(":")
    if not colon:
        return _entry_point(source)
    if not (re.fullmatch(r"\w+(\.\w+)*", module) and re.fullmatch(r"[^\W\d][\w.]*", path)):
        raise InputError(f"{KEY}: {source}: expected module:Class; e.g. {KEY}=[mine:Coarseness]")
    with _current_directory_first(), told(source, "be imported"):
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the module is there, and wants one that is not
            raise InputError(
                f"{KEY}: {source}: expected a module, found no {error.name}.py in {os.getcwd()} nor a package "
                f"of that name; start mcrdist beside the file or install it"
            ) from None
    for part in path.split("."):
        if not hasattr(found, part):
            known = [name for name, value in vars(found).items() if hasattr(value, "measure")]
            raise InputError(
                f"{KEY}: {source}: expected a class in {module}, found no {part} there"
                + (f"; it has {', '.join(known)}" if known else "")
            )
        found = getattr(found, part)
    return found


def _entry_point(name: str) -> Any:
    points = importlib.metadata.entry_points(group=GROUP)
    if name not in points.names:
        installed = ", ".join(sorted(points.names)) or "none"
        raise InputError(
            f"{KEY}: expected module:Class or the name of an installed descriptor ({installed}), found {name}; "
            f"e.g. {KEY}=[mine:Coarseness]"
        )
    with told(name, "be imported"):
        return points[name].load()


def _descriptor(source: str, found: Any) -> Descriptor:
    with told(source, "be made without arguments"):
        own = found() if isinstance(found, type) else found
    if isinstance(own, Descriptor) and not hasattr(own, "measure"):
        missing = [] if hasattr(own, "name") else ["name"]  # with a `term` of its own
    else:
        missing = [what for what in ("name", "measure") if not hasattr(own, what)]
    if missing:
        raise InputError(
            f"{KEY}: {source}: expected a class with name and measure(slices), found no {' and no '.join(missing)}"
        )
    if not (isinstance(own.name, str) and re.fullmatch(r"[^\W\d]\w*", own.name)):
        raise InputError(
            f"{KEY}: {source}: expected a name of letters, digits and underscores, found {own.name!r}"
        )
    return own if isinstance(own, Descriptor) else PlainClass(own)


@contextmanager
def told(source: str, what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into one line that says where."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"{KEY}: {source}: cannot {what}: {type(error).__name__}: {error} "
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
