"""Three-point correlation S3 on sets of triangles, and its hand-derived adjoint.

A triangle is counted once, whichever of its corners comes first and wherever it lies: the first corner in reading
order is its origin, so both others lie ahead, in the half-window of rows 0 … R and columns −R … R. With w(x) the
vector of the slice shifted by all K lags of that window, every triangle at once is one matrix product,

    S3(a, b) = 1/N Σ_x I(x) w_a(x) w_b(x),

and the adjoint is another. At a window of 5 x 5 voxels that is 20 million operations a slice of 64 x 64, which
processors do best, against 40 Fourier transforms or 580 products of shifted slices, which are bound by
memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mcrdist.descriptors.aligned import aligned, bmm
from mcrdist.descriptors.base import Descriptor, Floats, SliceGrid, Targets, Term, row_norms

#: The matrix w has a multiple of this many rows, the last ones empty: a third less time than an odd number takes.
ROWS = 16
#: Numbers of the matrix w that are held at once: they stay in a processor's cache, or fill a graphics card.
CACHED, ON_CARD = 2**18, 2**26


class Triangles:
    """All triangles whose corners lie on a square grid of (reach + 1)² points, once each up to translation.

    Corners may lie on a line. Pairs of points are among them, as triangles of which two corners are one: with them
    the statistics of the other phase follow (`complement`).

    Parameters
    ----------
    reach : int
        Sides of the square, in steps.
    step : int
        Distance of neighbouring points in voxels.
    larger : bool
        A set with twice the step follows: triangles that it has too are left to it.

    Attributes
    ----------
    first, second : int arrays (T,)
        Lags of the two further corners, as numbers into `rows` and `columns`. Number 0 is the origin itself;
        where `first` is 0 the "triangle" is a pair.
    rows, columns : int arrays (K,)
        The lags in reading order, in voxels.
    """

    def __init__(self, reach: int, step: int = 1, larger: bool = False) -> None:
        self.reach, self.step = reach, step
        self.kernel = (reach + 1, 2 * reach + 1)
        rows, columns = np.divmod(np.arange(reach, self.kernel[0] * self.kernel[1]), self.kernel[1])
        columns -= reach
        first, second = np.triu_indices(len(rows), 1)
        kept = _width(columns[first], columns[second]) <= reach
        if larger:
            odd = (rows | columns) % 2 == 1
            kept &= (first == 0) | odd[first] | odd[second]
        self.first, self.second = first[kept], second[kept]
        self.rows, self.columns = rows * step, columns * step

    def __len__(self) -> int:
        return len(self.first)

    @property
    def margin(self) -> int:
        """Voxels by which triangles reach beyond their origin."""
        return self.reach * self.step

    def counts(self, shape: tuple[int, int]) -> Floats:
        """How often each fits into an image of this shape (H, W): (T,)."""
        rows = np.maximum(self.rows[self.first], self.rows[self.second])
        columns = _width(self.columns[self.first], self.columns[self.second])
        counts: Floats = ((shape[0] - rows) * (shape[1] - columns)).astype(np.float64)
        return counts

    def complement(self, values: Floats, fraction: float) -> Floats:
        """The same statistics (T,) of the other phase: the product of 1 − I at the corners, multiplied out.

        The lag from the first further corner to the second has the difference of their numbers.
        """
        pairs = np.zeros(len(self.rows))
        pairs[0] = fraction
        pairs[self.second[self.first == 0]] = values[self.first == 0]
        sides = pairs[self.first] + pairs[self.second] + pairs[self.second - self.first]
        return np.asarray(1.0 - 3.0 * fraction + sides - values)


def _width(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Columns from the leftmost to the rightmost of three corners, the origin being one."""
    return np.maximum(np.maximum(one, other), 0) - np.minimum(np.minimum(one, other), 0)


class TripleProducts:
    """Sums over slices of the products at the corners of triangles, and their adjoint.

    Parameters
    ----------
    triangles : Triangles
    shape : tuple of int
        (H, W) of the slices; as large as the triangles reach, at least.
    periodic : bool
        Wrap around at the border, or count only what lies inside.
    device : torch.device
    """

    def __init__(
        self, triangles: Triangles, shape: tuple[int, int], periodic: bool, device: torch.device
    ) -> None:
        self.triangles, self.periodic = triangles, periodic
        self._shape = shape
        lags = -(-triangles.kernel[0] * triangles.kernel[1] // ROWS) * ROWS
        held = CACHED if device.type == "cpu" else ON_CARD
        self._rows = min(shape[0], max(1, held // (lags * shape[1])))
        #: Slices that are worth taking at once.
        self.batch = max(1, held // (lags * shape[0] * shape[1]))
        # The window has the lags before the origin too, in its row: none of the triangles uses them.
        self._lags, self._origin = lags, triangles.reach
        self._first = torch.as_tensor(triangles.first + self._origin, device=device)
        self._second = torch.as_tensor(triangles.second + self._origin, device=device)

    def sums(self, slices: Tensor) -> Tensor:
        """Σ_x I(x) I(x + a) I(x + b) of slices (S, H, W): (S, T) float64."""
        padded = self._padded(slices)
        total = torch.zeros(len(slices), self._lags, self._lags, dtype=torch.float64, device=slices.device)
        for row in range(0, self._shape[0], self._rows):
            shifted, origin = self._shifted(padded, row)
            weighted = aligned((len(shifted), *shifted.shape[1:]), shifted.dtype, shifted.device)
            torch.mul(shifted, origin, out=weighted)
            total += bmm(weighted, shifted.transpose(1, 2))
        return total[:, self._first, self._second]

    def spread(self, slices: Tensor, residual: Tensor) -> Tensor:
        """The derivative (S, H, W) of Σ_T residual · sums, for residuals (S, T)."""
        matrix = aligned((len(slices), self._lags, self._lags), slices.dtype, slices.device).zero_()
        matrix[:, self._first, self._second] = residual
        matrix[:, self._second, self._first] = residual
        padded = self._padded(slices)
        result = torch.zeros_like(padded)
        margin, triangles = self.triangles.margin, self.triangles
        for row in range(0, self._shape[0], self._rows):
            shifted, origin = self._shifted(padded, row)
            filtered = bmm(matrix, shifted)
            at_origin = shifted.mul_(filtered).sum(1).mul_(0.5)
            filtered *= origin
            filtered[:, self._origin] = at_origin
            rows = min(self._rows, self._shape[0] - row) + margin
            result[:, row : row + rows] += functional.fold(
                filtered[:, : triangles.kernel[0] * triangles.kernel[1]],
                (rows, padded.shape[2]),
                triangles.kernel,
                triangles.step,
            )[:, 0]
        return self._unpadded(result)

    def _shifted(self, padded: Tensor, row: int) -> tuple[Tensor, Tensor]:
        """Some rows of the slice shifted by all lags (S, K, n), with 1 at the origin; and the slice (S, 1, n)."""
        count, _, width = padded.shape
        rows = min(self._rows, self._shape[0] - row)
        (high, wide), step = self.triangles.kernel, self.triangles.step
        plane, down, right = padded.stride()
        windows = padded.as_strided(
            (count, high, wide, rows, self._shape[1]),
            (plane, step * down, step * right, down, right),
            padded.storage_offset() + row * width,
        )
        shifted = aligned((count, self._lags, rows * self._shape[1]), padded.dtype, padded.device)
        shifted[:, : high * wide].view(windows.shape).copy_(windows)
        shifted[:, high * wide :] = 0.0
        origin = shifted[:, self._origin : self._origin + 1].clone()
        shifted[:, self._origin] = 1.0
        return shifted, origin

    def _padded(self, slices: Tensor) -> Tensor:
        """With margins below, left and right: what is there in the periodic slice, or zeros."""
        margin = self.triangles.margin
        if not self.periodic:
            return functional.pad(slices, (margin, margin, 0, margin))
        tall = torch.cat([slices, slices[:, :margin]], dim=1)
        return torch.cat([tall[:, :, -margin:], tall, tall[:, :, :margin]], dim=2)

    def _unpadded(self, padded: Tensor) -> Tensor:
        """The transpose of `_padded`; `padded` is overwritten."""
        margin, (height, width) = self.triangles.margin, self._shape
        inner = padded[:, :height, margin : margin + width]
        if self.periodic:
            padded[:, :margin] += padded[:, height:]
            inner[:, :, :margin] += padded[:, :height, margin + width :]
            inner[:, :, width - margin :] += padded[:, :height, :margin]
        return inner


class ThreePointTerm(Term):
    """S3 of every slice, periodic, on sets of triangles.

    As for S2, errors are relative to the rarer phase (`TwoPointTerm`).

    Parameters
    ----------
    target : array (T, triangles)
        S3 of the micrograph, one for all slices or one a slice.
    fraction : array (T,)
        Volume fractions that belong to it.
    weight : float
    sets : sequence of Triangles
    grid : SliceGrid
    """

    name = "s3"

    def __init__(
        self, target: Floats, fraction: Floats, weight: float, sets: Sequence[Triangles], grid: SliceGrid
    ) -> None:
        self.weight = weight
        self.norm = float(np.linalg.norm(target, axis=1).mean())
        other = [_complement(sets, one, phi) for one, phi in zip(target, fraction, strict=True)]
        self.scale = min(self.norm, float(np.linalg.norm(other, axis=1).mean()))
        self._targets = Targets(target, grid, torch.float64)
        self._sets = [TripleProducts(one, grid.shape, True, grid.device) for one in sets]
        self._pixels = grid.shape[0] * grid.shape[1]

    def accumulate(self, slices: Tensor, gradient: Tensor | None, share: float, at: range) -> Tensor:
        slices = slices.contiguous()
        found = torch.cat([self._each(products, slices) for products in self._sets], dim=1)
        residual = found / self._pixels - self._targets.of(at)
        if gradient is not None:
            slope = residual * (2.0 * self.weight * share / (self.scale**2 * self._pixels))
            parts = torch.split(slope.to(slices.dtype), [len(one.triangles) for one in self._sets], dim=1)
            for products, part in zip(self._sets, parts, strict=True):
                for start in range(0, len(slices), products.batch):
                    some = slice(start, start + products.batch)
                    gradient[some] += products.spread(slices[some], part[some])
        return row_norms(residual) / self.scale

    def _each(self, products: TripleProducts, slices: Tensor) -> Tensor:
        return torch.cat([products.sums(some) for some in torch.split(slices, products.batch)])


def _complement(sets: Sequence[Triangles], values: Floats, fraction: float) -> Floats:
    """S3 of the other phase, of all sets one after the other."""
    ends = np.cumsum([len(one) for one in sets])[:-1]
    parts = zip(sets, np.split(values, ends), strict=True)
    return np.concatenate([one.complement(part, float(fraction)) for one, part in parts])


class ThreePointCorrelation(Descriptor):
    """S3(a, b) = ⟨I(x) I(x + a) I(x + b)⟩ on the triangles {0, a, b} of one or more sets.

    Parameters
    ----------
    lags : int
        Size of the largest triangles in voxels: they fit into a square of lags + 1 voxels.
    sparse : bool
        Not all triangles up to that size, but those of 3 x 3 points that are 1, 2, 4, … voxels apart.
    """

    name = "s3"
    # Grey voxels lower products of three more than those of two: a stiff problem, in which a weight like that of S2
    # would hold up everything else.
    balance = 0.1

    def __init__(self, lags: int, sparse: bool = False) -> None:
        self.lags = lags
        reach = min(2, lags) if sparse else lags
        steps = [1]
        while sparse and 2 * steps[-1] * reach <= lags:
            steps.append(2 * steps[-1])
        self.sets = [Triangles(reach, step, larger=step < steps[-1]) for step in steps]

    def describe(self, image: Floats, periodic: bool) -> Floats:
        """S3 of one image (H, W): (triangles,)."""
        slices = torch.from_numpy(np.ascontiguousarray(image, np.float64))[None]
        shape = (image.shape[0], image.shape[1])
        found = []
        for one in self.sets:
            sums = TripleProducts(one, shape, periodic, slices.device).sums(slices)[0].numpy()
            found.append(sums / (image.size if periodic else one.counts(shape)))
        return np.concatenate(found)

    def term(self, targets: Mapping[str, Floats], weight: float, grid: SliceGrid) -> ThreePointTerm:
        return ThreePointTerm(targets[self.name], targets["volume_fraction"], weight, self.sets, grid)
