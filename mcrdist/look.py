"""How a batch of slices is evaluated: all terms, on the slices that each looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.descriptors.base import Term
from mcrdist.descriptors.joint import JointTerm

#: Slices that are taken together where they run fastest in memory (normal to x): one cache line of float32. Slice s
#: is always in lane s % LANES: a BLAS may round one column of a product otherwise than another.
LANES = 16


@dataclass(frozen=True)
class Held:
    """What the slices of one direction must reach: terms a channel, and those of all channels together."""

    channels: tuple[tuple[Term, ...], ...]
    joint: tuple[JointTerm, ...] = ()

    @property
    def parts(self) -> list[tuple[Term | JointTerm, int]]:
        """Every term that has errors, in the order of their columns, with its channel."""
        own: list[tuple[Term | JointTerm, int]] = [
            (part, channel)
            for channel, terms in enumerate(self.channels)
            for term in terms
            for part in term.parts
        ]
        return own + [(term, 0) for term in self.joint]


@dataclass(frozen=True)
class Look:
    """How a batch of slices is evaluated.

    What is added to the gradient of the volume must be a finished number: summed there, term by term, its rounding
    would depend on what other ranks have added before.

    Attributes
    ----------
    held : Held
    share : float
        What the loss of one slice counts in the whole loss.
    owned : range
        The slices of this rank.
    total : int
        The slices of the direction.
    offsets : mapping of int to int
        The first slice that a descriptor with this stride looks at.
    overwrite : bool
        Whether this is the first direction that adds to the gradient.
    """

    held: Held
    share: float
    owned: range
    total: int
    offsets: Mapping[int, int]
    overwrite: bool

    def plain(
        self, slices: Sequence[Tensor], gradients: Sequence[Tensor] | None, first: int
    ) -> NDArray[np.float64]:
        """Evaluate planes normal to z or y."""
        errors, own = self._together(slices, gradients is not None, first)
        if gradients is not None and own is not None:
            for gradient, part in zip(gradients, own, strict=True):
                gradient.copy_(part) if self.overwrite else gradient.add_(part)
        return errors

    def in_lanes(
        self, slices: Sequence[Tensor], gradients: Sequence[Tensor] | None, first: int
    ) -> NDArray[np.float64]:
        """Evaluate planes normal to x, whose index runs fastest in memory: always `LANES`, some perhaps empty.

        The constant number, and a lane of its own for every slice, keep the shapes of matrix products and the places
        in them, and so the rounding, independent of who owns how many slices.
        """
        count, height, width = slices[0].shape
        lane = first % LANES
        padded = list(slices)
        if count < LANES:
            padded = []
            for part in slices:
                values = part.new_zeros(height, width, LANES)
                values[..., lane : lane + count] = part.permute(1, 2, 0)
                padded.append(values.permute(2, 0, 1))
        errors, own = self._together(padded, gradients is not None, first - lane)
        if gradients is not None and own is not None:
            for gradient, part in zip(gradients, own, strict=True):
                gradient.permute(1, 2, 0).add_(part[lane : lane + count].permute(1, 2, 0))
        return errors[lane : lane + count]

    def _together(
        self, slices: Sequence[Tensor], want: bool, first: int
    ) -> tuple[NDArray[np.float64], list[Tensor] | None]:
        """Errors (S, parts), and the sum of the gradients of each channel in a tensor of its own."""
        at = range(first, first + len(slices[0]))
        columns: list[Tensor] = []
        own: list[Tensor] = []
        for channel, terms in zip(slices, self.held.channels, strict=True):
            rest = list(terms)
            if want and rest[0].every == 1:
                errors, gradient = rest.pop(0).evaluate(channel, self.share, at)
                columns.append(errors)
                own.append(gradient)
            elif want:
                own.append(torch.zeros_like(channel))
            for term in rest:
                into = own[-1:] if want else None
                columns.append(self._evaluate(term, [channel], into, at))
        for joint in self.held.joint:
            columns.append(self._evaluate(joint, slices, own if want else None, at))
        return np.asarray(torch.column_stack(columns).cpu().numpy()), own if want else None

    def _evaluate(
        self,
        term: Term | JointTerm,
        slices: Sequence[Tensor],
        own: Sequence[Tensor] | None,
        at: range,
    ) -> Tensor:
        """Errors of a term; adds to `own`."""
        if term.every == 1:
            return _accumulate(term, slices, own, self.share, at)
        return self._costly(term, slices, own, at)

    def _costly(
        self,
        term: Term | JointTerm,
        slices: Sequence[Tensor],
        own: Sequence[Tensor] | None,
        at: range,
    ) -> Tensor:
        """Errors of a term on the slices that it looks at, NaN elsewhere; adds to `own`.

        Slices that are looked at lie one after the other in memory, whatever the batch: how many of a batch's there are
        depends on who owns them, and rounding must not.
        """
        stride, offset, share = term.every, self.offsets[term.every], self.share
        start, stop = max(at.start, self.owned.start), min(at.stop, self.owned.stop)
        seen = range(start + (offset - start) % stride, stop, stride)
        errors = torch.full((len(at), len(_parts(term))), torch.nan, dtype=torch.float64)
        errors = errors.to(slices[0].device)
        if seen:
            share *= self.total / len(range(offset, self.total, stride))  # those looked at stand for all
            chosen = slice(seen.start - at.start, stop - at.start, stride)
            parts = [part[chosen].contiguous() for part in slices]
            into = None if own is None else [torch.zeros_like(part) for part in parts]
            found = _accumulate(term, parts, into, share, seen).view(len(seen), -1)
            errors[chosen] = found
            for gradient, part in zip(own or (), into or (), strict=True):
                gradient[chosen] += part
        return errors


def _parts(term: Term | JointTerm) -> Sequence[Term | JointTerm]:
    return term.parts if isinstance(term, Term) else (term,)


def _accumulate(
    term: Term | JointTerm, slices: Sequence[Tensor], own: Sequence[Tensor] | None, share: float, at: range
) -> Tensor:
    if isinstance(term, Term):
        return term.accumulate(slices[0], None if own is None else own[0], share, at)
    return term.accumulate(slices, own, share, at)
