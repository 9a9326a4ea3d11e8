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
        errors: dict[str, dict[str, NDArray[np.float64]]] = {}
        loss = 0.0
        for axis, name in enumerate(AXES):
            terms = self.terms[name]
            parts = self._parts(name)
            rows = np.empty((len(self.slab.owned(axis)), len(parts)))
            self._visit(axis, terms, field, gradient, rows)
            rows = self._comm.gather_rows(rows)
            errors[name] = {part.name: rows[:, i] for i, part in enumerate(parts)}
            loss += sum(float(np.sum(part.loss(rows[:, i]))) for i, part in enumerate(parts))
        return Evaluation(loss * self.share, errors)

    def _parts(self, axis: str) -> list[Term]:
        return [part for term in self.terms[axis] for part in term.parts]

    def _visit(
        self,
        axis: int,
        terms: Sequence[Term],
        field: Tensor,
        gradient: Tensor | None,
        rows: NDArray[np.float64],
    ) -> None:
        origin = self.slab.owned(axis).start
        evaluate_batch = _EVALUATE[axis]
        height, width = (n for i, n in enumerate(self.slab.shape) if i != axis)
        batch = LANES if axis == 2 else max(1, BATCH_VOXELS // (height * width))

        def visit(first: int, slices: Tensor, gradients: Tensor | None) -> None:
            def evaluate(start: int) -> None:
                stop = min(start + batch, len(slices))
                part = slices[start:stop]
                into = None if gradients is None else gradients[start:stop]
                values = evaluate_batch(terms, part, into, self.share)
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
                        for term in self._parts(name)
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
                for term in self._parts(name)
            }
            for name in AXES
        }


def _together(
    terms: Sequence[Term], slices: Tensor, want: bool, share: float
) -> tuple[NDArray[np.float64], Tensor | None]:
    """Errors (S, parts), and the sum of the gradients in a tensor of its own.

    What is added to the gradient of the volume must be a finished number: summed there, term by term, its rounding
    would depend on what other ranks have added before.
    """
    if want:
        errors, own = terms[0].evaluate(slices, share)
    else:
        errors, own = terms[0].accumulate(slices, None, share), None
    rest = [term.accumulate(slices, own, share) for term in terms[1:]]
    return np.asarray(torch.column_stack([errors, *rest]).cpu().numpy()), own


def _first(
    terms: Sequence[Term], slices: Tensor, gradient: Tensor | None, share: float
) -> NDArray[np.float64]:
    """Evaluate planes normal to z, the first to be visited: the gradient is overwritten."""
    errors, own = _together(terms, slices, gradient is not None, share)
    if gradient is not None and own is not None:
        gradient.copy_(own)
    return errors


def _plain(
    terms: Sequence[Term], slices: Tensor, gradient: Tensor | None, share: float
) -> NDArray[np.float64]:
    """Evaluate planes normal to y."""
    errors, own = _together(terms, slices, gradient is not None, share)
    if gradient is not None and own is not None:
        gradient += own
    return errors


def _in_lanes(
    terms: Sequence[Term], slices: Tensor, gradient: Tensor | None, share: float
) -> NDArray[np.float64]:
    """Evaluate planes normal to x, whose index runs fastest in memory: always `LANES` of them, some perhaps empty.

    The constant number keeps the shapes of matrix products, and with them the rounding, independent of who owns
    how many slices.
    """
    count, height, width = slices.shape
    padded = slices
    if count < LANES:
        values = slices.new_zeros(height, width, LANES)
        values[..., :count] = slices.permute(1, 2, 0)
        padded = values.permute(2, 0, 1)
    errors, own = _together(terms, padded, gradient is not None, share)
    if gradient is not None and own is not None:
        gradient.permute(1, 2, 0).add_(own[:count].permute(1, 2, 0))
    return errors[:count]


#: How the planes normal to z, y and x are evaluated.
_EVALUATE = (_first, _plain, _in_lanes)
