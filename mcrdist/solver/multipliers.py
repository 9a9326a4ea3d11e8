"""The variation as a constraint: the multipliers of an augmented Lagrangian (footnote 7 of Seibert et al. 2022).

Each slice of each direction and phase has a multiplier μ, and the loss ``w e² + μ e`` of its error e. Minimised
again and again, with ``μ ← μ + 2 w e`` in between, e goes to zero whatever the weight w: there is none to tune.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mcrdist.descriptors.base import Term
from mcrdist.descriptors.variation import VariationTerm
from mcrdist.objective import Evaluation, Objective

#: A constraint is met when the mean error of its slices is smaller than this.
MET = 1e-3
#: Minimisations of a stage that may go by before the constraints are left as they are.
ROUNDS = 4
#: How much more a constraint weighs while single voxels are flipped: they come in steps, which no multiplier balances.
STIFFNESS = 10.0


class Multipliers:
    """The multipliers of one level, by direction and phase, the same on every rank."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, int], NDArray[np.float64]] = {}
        self.stiffness = 1.0

    def plain(self) -> list[tuple[str, int, list[float]]]:
        """The multipliers as plain data; `restore` takes it."""
        return [(*key, values.tolist()) for key, values in self._values.items()]

    def restore(self, plain: Iterable[tuple[str, int, list[float]]]) -> None:
        """Take the multipliers of an earlier run."""
        self._values = {(direction, channel): np.array(values) for direction, channel, values in plain}

    def hand(self, direction: str, channels: Sequence[Sequence[Term]]) -> None:
        """Give the constraints among the terms of a direction, listed by phase, their multipliers and weight."""
        for channel, term in _constraints(channels):
            term.weight *= self.stiffness
            term.multipliers = self._values.get((direction, channel), np.zeros(1))

    def wanted(self, objective: Objective) -> bool:
        """Whether there are constraints at all."""
        return any(True for held in objective.held.values() for _ in _constraints(held.channels))

    def update(self, objective: Objective, evaluation: Evaluation) -> bool:
        """Learn from the errors at a minimum of `objective`.

        Returns
        -------
        bool
            Whether the constraints are not met yet: then minimise again, with the new multipliers in hand.
        """
        violation = 0.0
        for direction, held in objective.held.items():
            for channel, term in _constraints(held.channels):
                error = evaluation.errors[direction.name][term.name][:, channel]
                self._values[direction.name, channel] = term.multipliers + 2.0 * term.weight * error
                violation = max(violation, float(np.abs(error).mean()))
        return violation > MET


def _constraints(channels: Sequence[Sequence[Term]]) -> Iterator[tuple[int, VariationTerm]]:
    for channel, terms in enumerate(channels):
        for term in terms:
            for part in term.parts:
                if isinstance(part, VariationTerm) and part.mode == "constrain":
                    yield channel, part
