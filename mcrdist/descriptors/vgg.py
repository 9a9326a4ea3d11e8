"""The convolutions of VGG-19 on grey slices, forwards and backwards, with average pooling and periodic borders.

Simonyan and Zisserman's network (2015), as Seibert et al. (2022, section 2.2) take it for Gram matrices. The weights
stand still and only the slices need a gradient, so both ways are written out: either is a border laid around the
feature maps and one convolution without padding, with the kernels turned round on the way back, and the features after
each ReLU are all that is kept in between.

Arrays of features are (B, H, W, C): channels run fastest, which the convolutions of oneDNN and cuDNN like best.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

#: Convolutions of each block, and their channels; blocks are divided by pooling over 2 x 2.
BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
#: What is subtracted from grey values of 0 … 255 before the first convolution: blue, green, red.
MEAN = (103.939, 116.779, 123.68)

#: How maps go on beyond their border. "periodic": round to the other side; this alone has a way back. "far": so too,
#: but with both rows and columns after the last, which shifts the maps by a pixel a convolution: the program of the
#: paper's authors does that, and a test compares with its numbers.
Border = Literal["periodic", "far", "mirror"]
_BEFORE: dict[Border, int] = {"periodic": 1, "far": 0}


@dataclass(frozen=True)
class Layer:
    """One convolution: ``conv3_4``, whose features after the ReLU are ``relu3_4``.

    Attributes
    ----------
    block, place : int
        Numbers in the name, from 1.
    inputs, outputs : int
        Channels.
    reach : int
        How many pixels of the slice beyond its own a feature depends on, on each side.
    """

    block: int
    place: int
    inputs: int
    outputs: int
    reach: int

    @property
    def conv(self) -> str:
        return f"conv{self.block}_{self.place}"

    @property
    def relu(self) -> str:
        return f"relu{self.block}_{self.place}"

    @property
    def factor(self) -> int:
        """Pixels of the slice along a pixel of this layer's feature maps."""
        return int(2 ** (self.block - 1))


def _layers() -> tuple[Layer, ...]:
    found: list[Layer] = []
    inputs, reach = 3, 0
    for block, (count, channels) in enumerate(BLOCKS, 1):
        for place in range(1, count + 1):
            reach += int(2 ** (block - 1))
            found.append(Layer(block, place, inputs, channels, reach))
            inputs = channels
    return tuple(found)


LAYERS = _layers()
BY_NAME = {layer.relu: layer for layer in LAYERS}


class Network:
    """The layers of VGG-19 up to the deepest that is asked for.

    Parameters
    ----------
    weights : mapping of "conv1_1.weight", "conv1_1.bias", … to Tensor
        (outputs, inputs, 3, 3) and (outputs,); input channels blue, green, red.
    names : sequence of str
        Layers whose features are wanted: ``relu1_2``, ….
    dtype, device
        Of the computation.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        names: Sequence[str],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        self.layers = LAYERS[: 1 + max(LAYERS.index(BY_NAME[name]) for name in names)]
        self._kernels: list[Tensor] = []
        self._turned: list[Tensor] = []
        self._biases: list[Tensor] = []
        for layer in self.layers:
            kernel = weights[f"{layer.conv}.weight"].to(torch.float64)
            bias = weights[f"{layer.conv}.bias"].to(torch.float64)
            if layer.inputs == 3:
                # Three equal channels are one, and their means a constant: exact, since the border is laid around
                # what the means have been subtracted from.
                bias = bias - torch.einsum("oikl,i->o", kernel, kernel.new_tensor(MEAN))
                kernel = 255.0 * kernel.sum(1, keepdim=True)
            turned = kernel.transpose(0, 1).flip(2, 3)
            for kept, tensor in ((self._kernels, kernel), (self._turned, turned)):
                kept.append(tensor.to(device, dtype).contiguous(memory_format=torch.channels_last))
            self._biases.append(bias.to(device, dtype))

    def run(self, slices: Tensor, border: Border = "periodic") -> Iterator[tuple[Layer, Tensor]]:
        """Yield every layer with its features after the ReLU, (B, H/2^k, W/2^k, C), of slices (B, H, W) in [0, 1]."""
        maps = slices[..., None]
        for layer, kernel, bias in zip(self.layers, self._kernels, self._biases, strict=True):
            if layer.place == 1 and layer.block > 1:
                maps = _pooled(maps)
            maps = _convolved(_bordered(maps, border), kernel, bias).relu_()
            yield layer, maps

    def pull(self, features: list[Tensor], slopes: Mapping[str, Tensor]) -> Tensor:
        """From d loss / d features of layers by name to d loss / d slices (B, H, W), periodic.

        `features` are those of every layer; they and `slopes` are used up.
        """
        slope: Tensor | None = None
        for index in reversed(range(len(self.layers))):
            layer, maps = self.layers[index], features.pop()
            if slope is not None and self.layers[index + 1].place == 1:
                slope = _spread(slope, maps.shape)
            own = slopes.get(layer.relu)
            if own is not None:
                slope = own if slope is None else slope.add_(own)
            assert slope is not None, "the deepest layer is asked for"
            torch.ops.aten.threshold_backward.grad_input(slope, maps, 0, grad_input=slope)
            slope = _convolved(_bordered(slope, "periodic"), self._turned[index])
        assert slope is not None
        return slope[..., 0]


def _bordered(maps: Tensor, border: Border) -> Tensor:
    """Maps (B, H, W, C) with two more rows and columns, (B, H + 2, W + 2, C)."""
    batch, height, width, channels = maps.shape
    if border == "mirror":
        return maps[:, _mirrored(height)][:, :, _mirrored(width)]
    before = _BEFORE[border]
    after = 2 - before
    rows, columns = slice(before, before + height), slice(before, before + width)
    out = maps.new_empty(batch, height + 2, width + 2, channels)
    out[:, rows, columns] = maps
    # Columns first: the rows that follow then take the corners along.
    if before:
        out[:, rows, :before] = maps[:, :, width - before :]
    if after:
        out[:, rows, before + width :] = maps[:, :, :after]
    if before:
        out[:, :before] = out[:, height : height + before]
    if after:
        out[:, before + height :] = out[:, before : before + after]
    return out


def _mirrored(size: int) -> list[int]:
    """Indices of a row of pixels with one more on either side, the outermost pixel being the mirror."""
    second = min(1, size - 1)
    return [second, *range(size), size - 1 - second]


def _convolved(maps: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Valid convolution of maps (B, H + 2, W + 2, C)."""
    found = torch.conv2d(maps.permute(0, 3, 1, 2), kernel, bias)
    return found.permute(0, 2, 3, 1).contiguous()


def _pooled(maps: Tensor) -> Tensor:
    """Means over 2 x 2 pixels; where a side is odd, the last row or column is left out."""
    return functional.avg_pool2d(maps.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1).contiguous()


def _spread(slope: Tensor, shape: torch.Size) -> Tensor:
    """The adjoint of `_pooled`: each pixel's slope in equal parts to its 2 x 2, none to a row that was left out."""
    height, width = slope.shape[1:3]
    out = slope.new_zeros(shape) if shape[1] % 2 or shape[2] % 2 else slope.new_empty(shape)
    quarter = slope * 0.25
    for row in range(2):
        for column in range(2):
            out[:, row : 2 * height : 2, column : 2 * width : 2] = quarter
    return out
