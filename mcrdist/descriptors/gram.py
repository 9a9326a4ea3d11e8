"""Gram matrices of VGG-19 features: which patterns occur together, irrespective of where.

G = F Fᵀ / (H W) of the features F (channels, H W) of a layer (Gatys et al. 2015; Seibert et al. 2022, section 2.2). The
error of a slice is relative to the target in each layer, and the root mean square over the layers, so that all of
them count alike, whatever the sizes of their features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mcrdist.descriptors.base import Descriptor, Floats, SliceGrid, Targets, Term, row_norms
from mcrdist.descriptors.vgg import BY_NAME, Border, Layer, Network
from mcrdist.errors import InputError

#: Pixels that go through the network at once. Fewer leave the convolutions of deep layers slow; more gain nothing.
BATCH_PIXELS = 2**16
#: Feature maps with fewer pixels a side have no statistics to speak of for hundreds of channels.
SMALLEST_MAP = 4
#: Of an image that is not periodic, at most this share of a feature map is left out on each side.
MARGIN = 1 / 8


def usable_layers(names: Sequence[str], shape: tuple[int, int]) -> tuple[str, ...]:
    """Those of the layers whose feature maps on slices (H, W) have at least `SMALLEST_MAP` pixels a side."""
    return tuple(name for name in names if min(shape) // BY_NAME[name].factor >= SMALLEST_MAP)


class Vgg19:
    """The weights of the network, and the networks made of them, shared by all that ask for the same."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights
        self._networks: dict[tuple[str, torch.dtype, torch.device], Network] = {}

    def network(self, names: Sequence[str], dtype: torch.dtype, device: torch.device) -> Network:
        """The network up to the deepest of `names`."""
        deepest = max(names)  # relu5_4 comes last in the alphabet too
        key = (deepest, dtype, device)
        if key not in self._networks:
            self._networks[key] = Network(self._weights, [deepest], dtype, device)
        return self._networks[key]


class GramMatrices(Descriptor):
    """Gram matrices of the features of some layers of VGG-19.

    Parameters
    ----------
    vgg : Vgg19
    names : sequence of str
        The layers, ``relu1_2`` and so on.
    dtype : torch.dtype
        In which images are described: double precision gains seven digits that no micrograph determines, and that only
        a comparison with other programs needs.
    border : {"periodic", "far"}
        Of periodic images: "far" for that comparison, since terms are "periodic".
    """

    name = "gram"
    # Even the micrograph's own crops of a slice's size are off by half the size of the matrices and more, which no
    # slice can mend. A tenth makes what is left of that about as much as is left of S2.
    balance = 0.1

    def __init__(
        self,
        vgg: Vgg19,
        names: Sequence[str],
        dtype: torch.dtype = torch.float32,
        border: Border = "periodic",
    ) -> None:
        self.vgg = vgg
        self.layers = tuple(BY_NAME[name] for name in sorted(set(names)))
        self._dtype, self._border = dtype, border

    @property
    def names(self) -> list[str]:
        """The layers, shallow to deep."""
        return [layer.relu for layer in self.layers]

    def split(self, values: Floats) -> list[Floats]:
        """The matrices (..., C, C) of each layer out of what `describe` returns, (..., n)."""
        found, start = [], 0
        for layer in self.layers:
            stop = start + layer.outputs**2
            found.append(values[..., start:stop].reshape(*values.shape[:-1], layer.outputs, layer.outputs))
            start = stop
        return found

    def describe(self, image: Floats, periodic: bool) -> Floats:
        """Gram matrices of one image (H, W), one layer after the other, row by row: (sum of C²,).

        Where the image is not periodic it is mirrored at its border, and so are the feature maps; of these the margin
        that sees the mirror is left out, as far as `MARGIN` allows. Memory: some 800 bytes a pixel.

        Raises
        ------
        InputError
            The image has no pixel for the deepest layer.
        """
        deepest = self.layers[-1]
        if min(image.shape) < deepest.factor:
            height, width = image.shape
            raise InputError(
                f"descriptors.gram.layers: expected a micrograph of at least {deepest.factor} pixels a side for "
                f"{deepest.relu}, found {height}x{width}; leave that layer out, or take a larger image"
            )
        network = self.vgg.network(self.names, self._dtype, torch.device("cpu"))
        part = torch.as_tensor(image, dtype=self._dtype)[None]
        found = []
        for layer, maps in network.run(part, self._border if periodic else "mirror"):
            if layer in self.layers:
                seen = maps if periodic else _inside(layer, maps)
                found.append(_gram(seen.flatten(1, 2))[0].to(torch.float64).numpy().ravel())
        return np.concatenate(found)

    def term(self, targets: Mapping[str, Floats], weight: float, grid: SliceGrid) -> GramTerm:
        return GramTerm(self, targets[self.name], weight, grid)


class GramTerm(Term):
    """Distance of the Gram matrices of slices from those wanted.

    Memory beyond that of the weights: some 2300 bytes for each of `BATCH_PIXELS` pixels, or of a slice that has more,
    in float32; 0.15 GB, and 0.6 GB for slices of 512².
    """

    name = "gram"
    costly = True
    scale = norm = 1.0  # the error is relative already

    def __init__(self, descriptor: GramMatrices, target: Floats, weight: float, grid: SliceGrid) -> None:
        self.weight = weight
        self._layers = descriptor.layers
        self._network = descriptor.vgg.network(descriptor.names, grid.dtype, grid.device)
        matrices = descriptor.split(target)
        self._targets = {layer: Targets(one, grid) for layer, one in zip(self._layers, matrices, strict=True)}
        # All alike, though a micrograph's own quarters have deep ones by their whole size apart
        # (benchmarks/gram_quarters.py): where layers count by the pixels of their maps, a volume held to them alone
        # (+experiment=fig06_match, λ = 0.01) comes nearer to the shallow ones, and has its lineal path off by 10.6
        # instead of 6.3 %.
        #: What the distance of each layer is multiplied by.
        self._shares: dict[Layer, float] = {}
        for layer, one in zip(self._layers, matrices, strict=True):
            norm = float(np.mean(np.linalg.norm(one, axis=(-2, -1)))) or 1.0
            self._shares[layer] = 1.0 / (norm * math.sqrt(len(self._layers)))
        self._batch = max(1, BATCH_PIXELS // math.prod(grid.shape))

    def accumulate(self, slices: Tensor, gradient: Tensor | None, share: float, at: range) -> Tensor:
        errors = [torch.zeros(0, dtype=torch.float64, device=slices.device)]
        for start in range(0, len(slices), self._batch):
            stop = min(start + self._batch, len(slices))
            part, now = slices[start:stop].contiguous(), at[start:stop]
            if len(part) == 1 < self._batch:
                # A slice alone is convolved by another algorithm, which rounds otherwise: it comes twice.
                part, now = part.repeat(2, 1, 1), range(now.start, now.start + 2)
            if gradient is None:
                errors.append(self._errors(part, now)[: stop - start])
            else:
                found, own = self._pulled(part, now, share)
                errors.append(found[: stop - start])
                gradient[start:stop] += own[: stop - start]
        return torch.cat(errors)

    def _errors(self, part: Tensor, at: range) -> Tensor:
        """Errors (B,) of contiguous slices; features are let go layer by layer."""
        total = torch.zeros(len(part), dtype=torch.float64, device=part.device)
        for layer, maps in self._network.run(part):
            if layer in self._layers:
                total += self._residual(layer, maps.flatten(1, 2), at)[1] ** 2
        return total.sqrt_()

    def _pulled(self, part: Tensor, at: range, share: float) -> tuple[Tensor, Tensor]:
        """Errors (B,), and the gradient (B, H, W)."""
        total = torch.zeros(len(part), dtype=torch.float64, device=part.device)
        features, slopes = [], {}
        for layer, maps in self._network.run(part):
            features.append(maps)
            if layer in self._layers:
                pixels = maps.flatten(1, 2)
                residual, errors = self._residual(layer, pixels, at)
                total += errors**2
                # From |R|² with R = s (Fᵀ F / n − G_des), symmetric: 4 s / n F R.
                factor = 4.0 * self._shares[layer] / pixels.shape[1] * self.weight * share
                slopes[layer.relu] = torch.bmm(pixels, residual.mul_(factor)).view_as(maps)
        return total.sqrt_(), self._network.pull(features, slopes)

    def _residual(self, layer: Layer, pixels: Tensor, at: range) -> tuple[Tensor, Tensor]:
        """What is left of one layer's error, (B, C, C), and its length (B,), of features (B, H W, C)."""
        residual = _gram(pixels).sub_(self._targets[layer].of(at)).mul_(self._shares[layer])
        return residual, row_norms(residual)


def _gram(pixels: Tensor) -> Tensor:
    """Fᵀ F / n of features (B, n, C)."""
    return torch.bmm(pixels.mT, pixels).div_(pixels.shape[1])


def _inside(layer: Layer, maps: Tensor) -> Tensor:
    """The feature maps (B, H, W, C) without the margin that sees beyond the border of the image."""
    wanted = -(-layer.reach // layer.factor)
    rows, columns = (min(wanted, int(size * MARGIN)) for size in maps.shape[1:3])
    return maps[:, rows : maps.shape[1] - rows, columns : maps.shape[2] - columns]
