"""Distributions of small patches: the sliced Wasserstein distance between those of a slice and of the micrograph.

Projected on a filter w, a random direction in the space of k x k patches, the patches of an image are numbers, one a
pixel. The distance between two sets of numbers is that of their quantile functions Q(u), which sorting finds:

    W² = ∫₀¹ (Q_slice(u) − Q_micrograph(u))² du.

Its mean over directions tells how different the distributions of whole patches are. Those know corners, necks and
junctions, which S2, a statistic of pairs, does not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, float64

from mcrdist.descriptors.aligned import bmm
from mcrdist.descriptors.base import Descriptor, Floats, SliceGrid, Targets, Term
from mcrdist.descriptors.projections import PatchKind
from mcrdist.descriptors.quantiles import ascending, cell_means

#: Equal parts of [0, 1] on which the target keeps the means of its quantile functions.
QUANTILES = 1024
#: Sets of filters that take turns; the target has the quantiles of them all.
SETS = 4
#: Numbers in the patches of the slices that are worked on at a time, to stay in the cache.
BATCH = 2**19


class PatchDistributions(Descriptor):
    """Quantile functions of patches projected on random filters.

    Parameters
    ----------
    kinds : sequence of PatchKind
        Sizes of patches and their resolutions.
    filters : int
        Number of each kind in a set.
    """

    name = "patches"

    def __init__(self, kinds: Sequence[PatchKind], filters: int) -> None:
        self.kinds = tuple(kinds)
        self.filters = filters

    def describe(self, image: Floats, periodic: bool) -> Floats:
        """Quantiles of one image (H, W): (SETS, kinds x filters, QUANTILES).

        An image that is not periodic has the patches that lie in it.
        """
        found = np.empty((SETS, len(self.kinds), self.filters, QUANTILES))
        for row, kind in enumerate(self.kinds):
            patches = kind.unfold(torch.as_tensor(image, dtype=float64)[None])[0]
            if not periodic:
                height, width = (side - kind.side + 1 for side in image.shape)
                patches = patches.view(-1, *image.shape)[:, :height, :width].flatten(1)
            for number in range(SETS):
                responses = torch.as_tensor(kind.filters(self.filters, number)) @ patches
                found[number, row] = cell_means(responses.sort(1).values, QUANTILES).numpy()
        return found.reshape(SETS, -1, QUANTILES)

    def term(self, targets: Mapping[str, Floats], weight: float, grid: SliceGrid) -> PatchTerm:
        return PatchTerm(self, targets[self.name], weight, grid)


class PatchTerm(Term):
    """The root mean square of W over the filters of a set, relative to the spread of the micrograph's projections.

    For a given order of its projections a slice's W² is a parabola, and the order that sorts them gives the smallest
    of all: the gradient takes the order as fixed.

    Parameters
    ----------
    descriptor : PatchDistributions
    target : array (T, SETS, kinds x filters, QUANTILES)
        What `describe` returns, one for all slices or one a slice.
    weight : float
    grid : SliceGrid
    """

    name = "patches"

    def __init__(
        self, descriptor: PatchDistributions, target: Floats, weight: float, grid: SliceGrid
    ) -> None:
        self.weight = weight
        # Means are no measure of size: those of the projections are the volume fraction's affair.
        self.norm = float(np.sqrt(target.var(-1).mean()))
        self.scale = self.norm or 1.0
        self._descriptor, self._target, self._grid = descriptor, target, grid
        self.redraw(0)

    def redraw(self, round: int) -> None:
        """Take the next set of filters, with its own target."""
        grid, count = self._grid, self._descriptor.filters
        number = round % SETS
        self._filters = [
            torch.as_tensor(kind.filters(count, number), dtype=grid.dtype, device=grid.device)
            for kind in self._descriptor.kinds
        ]
        self._targets = Targets(self._target[:, number], grid, float64)
        self._at_ranks = self._ranked(range(1)) if len(self._target) == 1 else None

    def _ranked(self, at: range) -> Tensor:
        """What the projections of the slices `at` must be in ascending order: (1 or S, kinds x filters, H W)."""
        pixels = self._grid.shape[0] * self._grid.shape[1]
        return cell_means(self._targets.of(at), pixels).to(self._grid.dtype)

    def accumulate(self, slices: Tensor, gradient: Tensor | None, share: float, at: range) -> Tensor:
        kinds, count = self._descriptor.kinds, self._descriptor.filters
        pixels = slices.shape[1] * slices.shape[2]
        numbers = pixels * len(kinds) * count  # projections of a slice
        slope = None if gradient is None else 2.0 * self.weight * share / (self.scale**2 * numbers)
        squares = torch.zeros(len(slices), dtype=float64, device=slices.device)
        batch = max(1, BATCH // (pixels * max(count, *(kind.size**2 for kind in kinds))))
        for start in range(0, len(slices), batch):
            chosen = slice(start, start + batch)
            part = slices[chosen].contiguous()
            wanted = self._ranked(at[chosen]) if self._at_ranks is None else self._at_ranks
            for number, (kind, filters) in enumerate(zip(kinds, self._filters, strict=True)):
                rows = slice(number * count, (number + 1) * count)
                found, own = _distance(part, kind, filters, wanted[:, rows], slope)
                squares[chosen] += found
                if gradient is not None and own is not None:
                    gradient[chosen] += own
        return squares.div_(numbers).sqrt_().div_(self.scale)

    def flip_constant(self, error: Floats, shape: tuple[int, int], share: float) -> Floats:
        """A flip moves the projections of the patches it is in by the weights of the filter, cell by cell.

        In the old order of the projections; sorting them anew can only lower the loss further.
        """
        moved = np.mean([1.0 / kind.pooled**2 for kind in self._descriptor.kinds])
        return np.full_like(error, self.weight * share * moved / (self.scale**2 * shape[0] * shape[1]))


def _distance(
    slices: Tensor, kind: PatchKind, filters: Tensor, wanted: Tensor, slope: float | None
) -> tuple[Tensor, Tensor | None]:
    """Squared distances of projections to what they must be in ascending order, and their gradient.

    Parameters
    ----------
    slices : Tensor (S, H, W)
    kind : PatchKind
    filters : Tensor (F, size²)
    wanted : Tensor (1 or S, F, H W)
    slope : float or None
        Derivative of the loss with respect to half a square; None asks for no gradient.

    Returns
    -------
    Tensor (S,), float64
        Sums over filters and pixels.
    Tensor (S, H, W) or None
    """
    count, height, width = slices.shape
    projections = bmm(filters.expand(count, -1, -1), kind.unfold(slices))
    order = ascending(projections)
    off = projections.gather(2, order).sub_(wanted)
    squares = off.to(float64).square().sum(2).sum(1)
    if slope is None:
        return squares, None
    slopes = projections.scatter_(2, order, off.mul_(slope))
    columns = bmm(filters.T.contiguous().expand(count, -1, -1), slopes)
    return squares, kind.fold(columns, (height, width))
