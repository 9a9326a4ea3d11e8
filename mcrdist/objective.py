"""The loss of a volume and its gradient: every slice of every direction against its target (Eqs. 3 and 9).

The work on a slice is single-threaded; threads, like ranks, take different slices. What crosses slices is
summed in float64 in the order of the slices, so the loss does not depend, to the last bit, on how many of
either there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.descriptors.base import Term
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.targets import AXES

#: Voxels a thread works on at a time: small enough for its intermediate results to stay in the cache.
BATCH_VOXELS = 2**18
#: Slices that are taken together where they run fastest in memory (normal to x): one cache line of float32.
LANES = 16


@dataclass(frozen=True)
class Evaluation:
    """A loss, and where it comes from.

    Attributes
    ----------
    loss : float
    errors : mapping of axis name to {descriptor name: array (slices,)}
        What `Term.accumulate` returned for every slice of the volume, the same on every rank.
    """

    loss: float
    errors: Mapping[str, Mapping[str, NDArray[np.float64]]]


class Objective:
    """Loss and gradient of the field of one level.

    Parameters
    ----------
    slab : Slab
        Who owns which planes.
    terms : mapping of axis name to sequence of Term
        What the slices normal to each axis must reach; the same descriptors for all axes.
    comm, workers
        The ranks, and the threads of each.
    """

    def __init__(self, slab: Slab, terms: Mapping[str, Sequence[Term]], comm: Comm, workers: Workers) -> None:
        self.slab = slab
        self.terms = terms
        self.evaluations = 0
        self._comm = comm
        self._workers = workers
        self.share = 1.0 / sum(slab.shape)

    def __call__(self, field: Tensor, gradient: Tensor | None) -> Evaluation:
        """Evaluate the loss; overwrite `gradient`, both (planes, ny, nx), with its derivative if given."""
        self.evaluations += 1
        if gradient is not None:
            gradient.zero_()
        errors: dict[str, dict[str, NDArray[np.float64]]] = {}
        loss = 0.0
        for axis, name in enumerate(AXES):
            terms = self.terms[name]
            rows = np.empty((len(self.slab.owned(axis)), len(terms)))
            self._visit(axis, terms, field, gradient, rows)
            rows = self._comm.gather_rows(rows)
            errors[name] = {term.name: rows[:, i] for i, term in enumerate(terms)}
            loss += sum(float(np.sum(term.loss(rows[:, i]))) for i, term in enumerate(terms))
        return Evaluation(loss * self.share, errors)

    def _visit(
        self,
        axis: int,
        terms: Sequence[Term],
        field: Tensor,
        gradient: Tensor | None,
        rows: NDArray[np.float64],
    ) -> None:
        origin = self.slab.owned(axis).start
        lanes = axis == 2
        height, width = (n for i, n in enumerate(self.slab.shape) if i != axis)
        batch = LANES if lanes else max(1, BATCH_VOXELS // (height * width))

        def visit(first: int, slices: Tensor, gradients: Tensor | None) -> None:
            def evaluate(start: int) -> None:
                stop = min(start + batch, len(slices))
                part = slices[start:stop]
                into = None if gradients is None else gradients[start:stop]
                values = (
                    _in_lanes(terms, part, into, self.share)
                    if lanes
                    else _plain(terms, part, into, self.share)
                )
                rows[first - origin + start : first - origin + stop] = values

            self._workers.map(evaluate, range(0, len(slices), batch))

        self.slab.visit(axis, field, gradient, visit, width=LANES * self._workers.count)

    def flip_constants(self, evaluation: Evaluation) -> list[NDArray[np.float64]]:
        """Per axis, what a flip of one voxel adds to the loss beyond its gradient, (slices,) each."""
        constants = []
        for axis, name in enumerate(AXES):
            height, width = (n for i, n in enumerate(self.slab.shape) if i != axis)
            constants.append(
                sum(
                    (
                        term.flip_constant(evaluation.errors[name][term.name], (height, width), self.share)
                        for term in self.terms[name]
                    ),
                    np.zeros(self.slab.shape[axis]),
                )
            )
        return constants

    def relative(self, evaluation: Evaluation) -> dict[str, dict[str, float]]:
        """The errors of Eq. 10 by axis and descriptor: means over slices of ‖D_s − D_des‖ / ‖D_des‖."""
        return {
            name: {
                term.name: float(np.mean(np.abs(evaluation.errors[name][term.name])) * term.scale / term.norm)
                for term in self.terms[name]
            }
            for name in AXES
        }


def _plain(
    terms: Sequence[Term], slices: Tensor, gradient: Tensor | None, share: float
) -> NDArray[np.float64]:
    """Evaluate all terms; add the sum of their gradients in one go, or rounding would depend on the ranks."""
    own = None if gradient is None else torch.zeros_like(slices)
    errors = [term.accumulate(slices, own, share) for term in terms]
    if gradient is not None and own is not None:
        gradient += own
    return np.asarray(torch.stack(errors, dim=1).cpu().numpy())


def _in_lanes(
    terms: Sequence[Term], slices: Tensor, gradient: Tensor | None, share: float
) -> NDArray[np.float64]:
    """Evaluate slices whose index runs fastest in memory, always `LANES` of them, the missing ones empty.

    The copy gathers what lies a whole row of the volume apart; the constant number keeps the shapes of matrix
    products, and with them the rounding, independent of who owns how many slices.
    """
    count, height, width = slices.shape
    values = slices.new_zeros(height, width, LANES)
    values[..., :count] = slices.permute(1, 2, 0)
    own = None if gradient is None else torch.zeros_like(values).permute(2, 0, 1)
    errors = [term.accumulate(values.permute(2, 0, 1), own, share) for term in terms]
    if gradient is not None and own is not None:
        gradient += own[:count]
    return np.asarray(torch.stack(errors, dim=1)[:count].cpu().numpy())
