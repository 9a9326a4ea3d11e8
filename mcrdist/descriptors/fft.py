"""Two-dimensional real Fourier transforms of stacks of slices, whatever their layout in memory.

A stack (S, H, W) is often a view: planes normal to x are ``volume.permute(2, 0, 1)``, the slice index running
fastest. The transforms here work in the order in which the numbers lie, so no such view is ever copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.descriptors import kernels
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
    # Axis by axis, since together they take a copy of the spectrum: pages that are new every time, and dear.
    values = spectrum.permute(order).numpy()
    values = scipy.fft.ifft(values, axis=inverse[1], overwrite_x=True)
    values = scipy.fft.irfft(values, n=shape[1], axis=inverse[2], overwrite_x=True)
    return torch.from_numpy(values).permute(inverse)


def fold(spectrum: Tensor) -> tuple[Tensor, Tensor]:
    """Sums and differences of |F|² at opposite frequencies of the first in-plane axis.

    Parameters
    ----------
    spectrum : complex tensor (S, H, K)

    Returns
    -------
    even, odd : tensor (S, H//2 + 1, K)
        P(k1) ± P(−k1), P = |F|², for 0 ≤ k1 ≤ H/2; P alone where −k1 is k1. Laid out as the spectrum where its
        slices run fastest in memory, else one slice after another, aligned.
    """
    count, height, frequencies = spectrum.shape
    half = height // 2 + 1
    dtype, device = spectrum.real.dtype, spectrum.device
    lanes = memory_order(spectrum)[-1] == 0
    if device.type != "cpu":
        return fold_by_torch(spectrum)
    if lanes:
        shape = (1, half, frequencies * count)
        even, odd = torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)
    else:
        shape = (count, half, frequencies)
        even, odd = aligned(shape, dtype, device), aligned(shape, dtype, device)
    kernels.fold(_parts(spectrum), even.numpy(), odd.numpy())
    if lanes:
        even, odd = (part.view(half, frequencies, count).permute(2, 0, 1) for part in (even, odd))
    return even, odd


def unfold_(spectrum: Tensor, even: Tensor, odd: Tensor) -> Tensor:
    """Multiply F(k1) by even + odd, and F(−k1) by even − odd, in place; the shapes and layouts are those of `fold`."""
    if spectrum.device.type != "cpu":
        return unfold_by_torch_(spectrum, even, odd)
    if memory_order(spectrum)[-1] == 0:
        even, odd = (part.permute(1, 2, 0).flatten(1)[None] for part in (even, odd))
    kernels.unfold(_parts(spectrum), even.numpy(), odd.numpy())
    return spectrum


def fold_by_torch(spectrum: Tensor) -> tuple[Tensor, Tensor]:
    """What `fold` returns, on any device."""
    height = spectrum.shape[1]
    half, mirrored = height // 2 + 1, (height - 1) // 2
    power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
    mirror = torch.zeros_like(power[:, :half])
    mirror[:, 1 : mirrored + 1] = power[:, half:].flip(1)
    return power[:, :half] + mirror, power[:, :half] - mirror


def unfold_by_torch_(spectrum: Tensor, even: Tensor, odd: Tensor) -> Tensor:
    """What `unfold_` does, on any device."""
    mirrored = (spectrum.shape[1] - 1) // 2
    back = (even - odd)[:, 1 : mirrored + 1].flip(1)
    return spectrum.mul_(torch.cat([even + odd, back], dim=1))


def _parts(spectrum: Tensor) -> NDArray[Any]:
    """Real and imaginary parts by turns (S, H, 2K); of slices that run fastest, (1, H, 2KS)."""
    if memory_order(spectrum)[-1] == 0:
        native = spectrum.permute(1, 2, 0)
        return np.asarray(torch.view_as_real(native).reshape(1, len(native), -1).numpy())
    values = torch.view_as_real(spectrum)
    return np.asarray(values.flatten(2).numpy())
