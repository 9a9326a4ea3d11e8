"""A level with its slabs, targets and descriptors: from what slices must reach to the loss of a field."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeGuard

import numpy as np
from torch import Tensor

from mcrdist.conditioning.border import Border
from mcrdist.conditioning.known import Given
from mcrdist.descriptors.base import Rider, SliceGrid, Term
from mcrdist.descriptors.correlation import TwoPointTerm
from mcrdist.descriptors.variation import Variation, VariationTerm
from mcrdist.descriptors.volume_fraction import GreynessTerm
from mcrdist.directions import Direction
from mcrdist.look import Held
from mcrdist.multigrid import Level
from mcrdist.objective import Objective, Part, costly, sampled
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.phases import Phases
from mcrdist.selection import Selection
from mcrdist.solver import multipliers
from mcrdist.targets import Target


class Grid:
    """A level with its slabs, targets and descriptors: all that the stages share.

    Parameters
    ----------
    level, slab
        Its shape, and who owns which planes.
    phases : Phases
        What the field's variables mean.
    directions : sequence of Direction
        The stacks of slices.
    targets : mapping of direction name to a Target a channel
    selections : mapping of direction name to Selection
        The descriptors that measured the targets.
    given : Given, optional
        Voxels that are known.
    lanes : int, optional
        Blocks of slices that are under way at a time; see `Objective`.
    """

    def __init__(
        self,
        level: Level,
        slab: Slab,
        phases: Phases,
        directions: Sequence[Direction],
        targets: Mapping[str, Sequence[Target]],
        selections: Mapping[str, Selection],
        comm: Comm,
        workers: Workers,
        *,
        given: Given | None = None,
        seed: int = 0,
        lanes: int | None = None,
    ) -> None:
        self._lanes = lanes
        self.level, self.slab, self.phases, self.directions = level, slab, phases, directions
        self._given = given
        self.fixed = None if given is None else given.mask
        self._targets, self._selections = targets, selections
        self._comm, self._workers, self._seed = comm, workers, seed
        self.multipliers = multipliers.Multipliers()
        self._border = None if given is None else self._join(given)

    @functools.cached_property
    def prepares(self) -> bool:
        """Whether some of the loss is costly, and the rest says enough to begin with that alone."""
        return self.objective().suffices_without(costly)

    @functools.cached_property
    def mends_whole(self) -> bool:
        """Whether some of the loss sees few of the slices, and the rest, all of them, says enough to flip voxels by."""
        return self.objective().suffices_without(sampled)

    def impose(self, field: Tensor) -> None:
        """Set the voxels that are given, in place."""
        if self._given is not None:
            self._given.impose(field, self.phases)

    def _join(self, given: Given) -> Border:
        planes = self.slab.zeros()
        known = self.phases.stack([planes.clone() for _ in range(self.phases.variables)])
        given.impose(known, self.phases)
        return Border(given.mask, self.phases.channels(known), self.slab, self._difference)

    def _difference(self, channel: int, axis: int, lag: int) -> float:
        """The share of neighbours `lag` voxels apart along an axis that are wanted to differ."""
        found = []
        for direction in self.directions:
            if direction.by is not None or direction.axis == axis:
                continue
            target = self._targets[direction.name][channel]
            s2 = target.values["s2"].mean(0)
            lags = s2.shape[1] - 1
            lag = min(lag, lags)
            along_rows = axis == min(i for i in range(3) if i != direction.axis)
            at = s2[lags + lag, 0] if along_rows else s2[lags, lag]
            found.append(2.0 * (target.fraction - float(at)))
        return float(np.mean(found)) if found else 0.0

    def fractions(self) -> list[dict[str, float]]:
        """Of each phase, the volume fraction wanted in each direction."""
        return [
            {name: targets[channel].fraction for name, targets in self._targets.items()}
            for channel in range(len(self.phases.labels))
        ]

    def spread(self) -> dict[str, dict[str, float]]:
        """How far several micrographs lie from their mean, by direction and descriptor; means over phases."""
        found: dict[str, dict[str, float]] = {}
        for direction, targets in self._targets.items():
            for name in dict.fromkeys(name for target in targets for name in target.spread):
                each = [target.spread[name] for target in targets if name in target.spread]
                found.setdefault(direction, {})[name] = float(np.mean(each))
        return found

    def objective(
        self,
        greyness: float | None = None,
        *,
        smoothing: float | None = None,
        without: Callable[[Part], bool] | None = None,
        report: bool = False,
    ) -> Objective:
        """The loss; `greyness` adds that term.

        The variation is smoothed as that of the micrographs was; with another `smoothing` its target is right only
        where they show phases, on the finest level. The loss does `without` such descriptors of a phase. With `report`,
        those of weight 0 are measured too, and all of them on every slice.
        """
        assert smoothing is None or self.level.factor == 1, self.level
        held = {}
        for direction in self.directions:
            grid = SliceGrid(direction.slice_shape(self.level.shape), self.slab.dtype, self._comm.device)
            selection, targets = self._selections[direction.name], self._targets[direction.name]
            channels = tuple(
                tuple(
                    term
                    for term in self._terms(selection, target, grid, greyness, smoothing, report)
                    if without is None or not without(term)
                )
                for target in targets
            )
            self.multipliers.hand(direction.name, channels)
            joint = tuple(
                chosen.descriptor.term(targets[0].values, chosen.weight, grid)
                for chosen in selection.joint
                if chosen.weight or report
            )
            held[direction] = Held(channels, joint)
        return Objective(
            self.slab,
            self.phases,
            held,
            self._comm,
            self._workers,
            self.fixed,
            self._seed,
            self._border,
            self._lanes,
        )

    def _terms(
        self,
        selection: Selection,
        target: Target,
        grid: SliceGrid,
        greyness: float | None,
        smoothing: float | None,
        report: bool,
    ) -> list[Term]:
        terms: list[Term] = []
        s2: TwoPointTerm | None = None
        riders: list[Rider] = []
        for chosen in selection.single:
            if not (chosen.weight or report):
                continue
            descriptor = chosen.descriptor
            if isinstance(descriptor, Variation) and smoothing is not None:
                descriptor = Variation(smoothing, descriptor.mode)
            term = descriptor.term(target.values, chosen.weight, grid)
            term.every = 1 if report else chosen.every
            if isinstance(term, VariationTerm) and s2 is not None:
                # A rare phase makes the errors of S2 loom larger: keep the two in step.
                term.weight *= s2.norm / s2.scale
            if s2 is not None and _rides(term, report):
                riders.append(term)
                continue
            if isinstance(term, TwoPointTerm) and s2 is None:
                s2 = term
            terms.append(term)
        if greyness is not None:
            (terms if s2 is None else riders).append(GreynessTerm(target.fraction, greyness, grid))
        if s2 is not None:
            s2.riders = tuple(riders)
        return terms


def _rides(term: Term, report: bool) -> TypeGuard[Rider]:
    """Whether S2 knows the term. In reports the volume fraction is counted: it is told to many digits."""
    if isinstance(term, VariationTerm):
        return math.isinf(term.smoothing)
    return isinstance(term, Rider) and not report
