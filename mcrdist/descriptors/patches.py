"""Distributions of small patches: the sliced Wasserstein distance between those of a slice and of the micrograph.

Projected on a filter w, a random direction in the space of k x k patches, the patches of an image are numbers, one a
pixel. The distance between two sets of numbers is that of their quantile functions Q(u), which sorting finds:

    W² = ∫₀¹ (Q_slice(u) − Q_micrograph(u))² du.

Its mean over directions tells how different the distributions of whole patches are. Those know corners, necks and
junctions, which S2, a statistic of pairs, does not see. Here Q is known by its means over equal parts of [0, 1].
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

#: Equal parts of [0, 1] on which the means of quantile functions are compared. Few, for the sake of the optimiser: were
#: every pixel held to a quantile of its own, a grey field would fall to the nearest two phases at once and stay there.
QUANTILES = 16
#: Sets of filters that take turns, if they do; the target has the quantiles of them all.
SETS = 16
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
    redraw : bool
        Let sets of filters take turns as the optimisation goes on. More directions are seen that way, but an
        optimiser that learns curvature must begin anew with each set.
    """

    name = "patches"
    # A tenth of what S2 has: with more S2 gives way, and by more than the morphology gains.
    balance = 0.1

    def __init__(self, kinds: Sequence[PatchKind], filters: int, redraw: bool = False) -> None:
        self.kinds = tuple(kinds)
        self.filters = filters
        self.sets = SETS if redraw else 1

    def describe(self, image: Floats, periodic: bool) -> Floats:
        """Quantiles of one image (H, W): (sets, kinds x filters, QUANTILES).

        An image that is not periodic has the patches that lie in it.
        """
        found = np.empty((self.sets, len(self.kinds), self.filters, QUANTILES))
        for row, kind in enumerate(self.kinds):
            patches = kind.unfold(torch.as_tensor(image, dtype=float64)[None])[0]
            if not periodic:
                height, width = (side - kind.side + 1 for side in image.shape)
                patches = patches.view(-1, *image.shape)[:, :height, :width].flatten(1)
            for number in range(self.sets):
                responses = torch.as_tensor(kind.filters(self.filters, number)) @ patches
                found[number, row] = cell_means(responses.sort(1).values, QUANTILES).numpy()
        return found.reshape(self.sets, -1, QUANTILES)

    def term(self, targets: Mapping[str, Floats], weight: float, grid: SliceGrid) -> PatchTerm:
        return PatchTerm(self, targets[self.name], weight, grid)


class PatchTerm(Term):
    """The quantiles of a slice's projections: their root mean square error, relative to their spread in the micrograph.

    The gradient is that for the order which sorts the projections, as if it stayed the same.

    Parameters
    ----------
    descriptor : PatchDistributions
    target : array (T, sets, kinds x filters, QUANTILES)
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
        self._take(0)

    @property
    def redraws(self) -> bool:
        return self._descriptor.sets > 1

    def redraw(self, round: int) -> None:
        """Take the next set of filters, with its own target."""
        self._take(round % self._descriptor.sets)

    def _take(self, number: int) -> None:
        grid = self._grid
        self._filters = [
            torch.as_tensor(
                kind.filters(self._descriptor.filters, number), dtype=grid.dtype, device=grid.device
            )
            for kind in self._descriptor.kinds
        ]
        self._targets = Targets(self._target[:, number], grid, float64)

    def accumulate(self, slices: Tensor, gradient: Tensor | None, share: float, at: range) -> Tensor:
        kinds, count = self._descriptor.kinds, self._descriptor.filters
        rows = len(kinds) * count
        pixels = slices.shape[1] * slices.shape[2]
        slope = None if gradient is None else 2.0 * self.weight * share / (self.scale**2 * rows * pixels)
        squares = torch.zeros(len(slices), dtype=float64, device=slices.device)
        batch = max(1, BATCH // (pixels * max(count, *(kind.size**2 for kind in kinds))))
        for start in range(0, len(slices), batch):
            chosen = slice(start, start + batch)
            part, target = slices[chosen].contiguous(), self._targets.of(at[chosen])
            for first, kind, filters in zip(range(0, rows, count), kinds, self._filters, strict=True):
                found, own = _distance(part, kind, filters, target[:, first : first + count], slope)
                squares[chosen] += found
                if gradient is not None and own is not None:
                    gradient[chosen] += own
        return squares.div_(rows).sqrt_().div_(self.scale)


def _distance(
    slices: Tensor, kind: PatchKind, filters: Tensor, target: Tensor, slope: float | None
) -> tuple[Tensor, Tensor | None]:
    """Squared distances between the quantiles of projections and the target's, and their gradient.

    Parameters
    ----------
    slices : Tensor (S, H, W)
    kind : PatchKind
    filters : Tensor (F, size²)
    target : Tensor (1 or S, F, QUANTILES), float64
    slope : float or None
        Of the loss by a projection, for a distance of 1 of its quantile; None asks for no gradient.

    Returns
    -------
    Tensor (S,), float64
        Mean squares, summed over filters.
    Tensor (S, H, W) or None
    """
    count, height, width = slices.shape
    projections = bmm(filters.expand(count, -1, -1), kind.unfold(slices))
    order = ascending(projections)
    distance = cell_means(projections.gather(2, order), QUANTILES) - target
    squares = distance.square().mean(2).sum(1)
    if slope is None:
        return squares, None
    back = cell_means(distance, height * width).mul_(slope).to(slices.dtype)
    slopes = projections.scatter_(2, order, back)
    columns = bmm(filters.T.contiguous().expand(count, -1, -1), slopes)
    return squares, kind.fold(columns, (height, width))
