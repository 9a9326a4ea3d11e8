"""Measuring the targets of a level with the descriptors that the configuration asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcrdist.config import DescriptorConfig
from mcrdist.directions import Direction
from mcrdist.selection import Selection, select, shared
from mcrdist.targets.base import Shape, Target, Targets
from mcrdist.view import View


@dataclass(frozen=True)
class Measured:
    """The targets of one level.

    Attributes
    ----------
    selections : mapping of direction name to Selection
        The descriptors that measured them, of the same names in all directions.
    targets : mapping of direction name to a Target a phase
    """

    selections: Mapping[str, Selection]
    targets: Mapping[str, Sequence[Target]]


def measure(
    targets: Targets,
    config: DescriptorConfig,
    directions: Sequence[Direction],
    shape: Shape,
    factor: int = 1,
) -> Measured:
    """Measure the targets of a level of this shape (nz, ny, nx), whose voxels are `factor` pixels wide.

    Coarse levels do without descriptors that the slices of some direction have no room for.

    Raises
    ------
    InputError
        A descriptor needs more than the user gave, or, on the finest level, than the slices of a direction have.
    """
    selections = {}
    for direction in directions:
        view = View(
            direction.slice_shape(shape),
            targets.images_at(direction, factor),
            targets.periodic,
            targets.lags_at(direction, factor, shape),
            finest=factor == 1,
        )
        selections[direction.name] = select(config, view)
    selections = shared(selections)
    found = {}
    for direction in directions:
        own = selections[direction.name]
        found[direction.name] = targets.at(direction, factor, shape, own.descriptors, own.joints)
    return Measured(selections, found)
