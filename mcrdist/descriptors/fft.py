"""Two-dimensional real Fourier transforms of stacks of slices, whatever their layout in memory.

A stack (S, H, W) is often a view: planes normal to x are ``volume.permute(2, 0, 1)``, the slice index running
fastest. The transforms here work in the order in which the numbers lie, so no such view is ever copied.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from mcrdist.descriptors.aligned import aligned


def memory_order(tensor: Tensor) -> list[int]:
    """Return the dimensions of `tensor` from the slowest to the fastest in memory."""
    strides = tensor.stride()
    return sorted(range(tensor.ndim), key=lambda dimension: -strides[dimension])


def rfft2(slices: Tensor) -> Tensor:
    """Half-spectrum (S, H, W//2 + 1) of real slices (S, H, W), in their memory order.

    On a CPU pocketfft does the work (it needs no contiguous axes and is single-threaded here: threads work on
    different slices); elsewhere torch's own library does.
    """
    if slices.device.type != "cpu":
        half: Tensor = torch.fft.rfft2(slices)
        return half
    order = memory_order(slices)
    inverse = [order.index(dimension) for dimension in range(3)]
    spectrum = scipy.fft.rfft2(slices.permute(order).numpy(), axes=(inverse[1], inverse[2]))
    return torch.from_numpy(spectrum).permute(inverse)


def irfft2(spectrum: Tensor, shape: tuple[int, int]) -> Tensor:
    """Real slices (S, H, W) of a half-spectrum, `shape` being (H, W); the inverse of `rfft2`.

    The content of `spectrum` may be destroyed.
    """
    if spectrum.device.type != "cpu":
        slices: Tensor = torch.fft.irfft2(spectrum, s=shape)
        return slices
    order = memory_order(spectrum)
    inverse = [order.index(dimension) for dimension in range(3)]
    values = scipy.fft.irfft2(
        spectrum.permute(order).numpy(), s=shape, axes=(inverse[1], inverse[2]), overwrite_x=True
    )
    return torch.from_numpy(values).permute(inverse)


def power(spectrum: Tensor) -> Tensor:
    """|F|² of a half-spectrum: in its memory order where slices run fastest, else one slice after another, aligned."""
    if spectrum.device.type != "cpu" or memory_order(spectrum)[-1] != spectrum.ndim - 1:
        real, imaginary = spectrum.real, spectrum.imag
        return (real * real).addcmul_(imaginary, imaginary)
    values = spectrum.numpy()  # where slices follow one another, NumPy's strided loops are the faster
    count, height, frequencies = spectrum.shape
    result = aligned((count, height, frequencies), spectrum.real.dtype, spectrum.device)
    into = result.numpy()
    np.square(values.real, out=into)
    into += np.square(values.imag)
    return result


def scale_(spectrum: Tensor, filters: Tensor) -> Tensor:
    """Multiply a complex half-spectrum by real filters of the same shape, in place."""
    if spectrum.device.type != "cpu":
        return spectrum.mul_(filters)
    # NumPy multiplies complex by real directly; torch makes the filter complex first, three times the work.
    values = spectrum.numpy()
    np.multiply(values, filters.numpy(), out=values)
    return spectrum
