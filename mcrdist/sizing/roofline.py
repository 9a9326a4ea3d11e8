"""How long an evaluation takes at least: its arithmetic, its passes over memory and its messages, by a roofline.

The machines are described by what their vendors publish. Nothing here was measured on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mcrdist.sizing.footprint import Work, sent

Device = Literal["cpu", "a100", "h100"]

#: Bytes an evaluation reads and writes of a value of a slice, in units of the value's size: two transforms of two
#: passes each (16), |F|² (1.5), cropping (0.5), spreading (0.5), filtering (2.5), adding up (3).
PASSES = 16
#: The same of the optimiser an iteration, beside the history: point, last point, gradient, trial, greyness.
VECTOR_PASSES = 8


@dataclass(frozen=True)
class Machine:
    """What a rank has.

    Attributes
    ----------
    memory : float
        Bytes.
    flops : float
        Floating-point operations a second, float32.
    bandwidth : float
        Of its memory, bytes a second.
    network : float
        Bytes a second that it can send while it receives as many.
    source : str
        Where the figures are from.
    """

    memory: float
    flops: float
    bandwidth: float
    network: float
    source: str


#: A rank is one GPU, or one core of a CPU.
MACHINES: dict[Device, Machine] = {
    "cpu": Machine(
        8e9,
        2.0e9 * 64,
        307.2e9 / 56,
        25e9 / 56,
        "a core of 56 of an Intel Xeon Platinum 8480+: 2.0 GHz x 64 FLOP (two AVX-512 FMA units), its share of eight "
        "channels DDR5-4800 (307.2 GB/s) and of 200 Gb/s InfiniBand; memory 8 GB a core is an assumption",
    ),
    "a100": Machine(
        80e9,
        19.5e12,
        2039e9,
        25e9,
        "NVIDIA A100 80GB SXM data sheet: FP32 19.5 TFLOP/s, 2039 GB/s; 200 Gb/s InfiniBand a GPU as in DGX A100",
    ),
    "h100": Machine(
        80e9,
        67e12,
        3350e9,
        50e9,
        "NVIDIA H100 SXM data sheet: FP32 67 TFLOP/s, 3.35 TB/s; 400 Gb/s InfiniBand a GPU as in DGX H100",
    ),
}


def _stacks(work: Work) -> list[tuple[float, int, int]]:
    """(number of slices that the busiest rank has, H, W) of every stack."""
    nz, ny, nx = work.shape
    if nz == 1:
        return [(1.0, ny, nx)]
    share = [-(-n // work.ranks) for n in work.shape]
    stacks: list[tuple[float, int, int]] = [
        (share[0], ny, nx),
        (share[1], nz, nx),
        (share[2], nz, ny),
    ]
    return stacks + (2 * [stacks[1]] + 4 * [stacks[2]] if work.diagonals else [])


def fft_flops(work: Work) -> float:
    """Operations of the Fourier transforms of an evaluation on a rank: 2.5 N log2 N a real transform, two a slice."""
    return work.phases * sum(n * 5.0 * h * w * math.log2(h * w) for n, h, w in _stacks(work))


def window_flops(work: Work) -> float:
    """Operations of the products with cosines and sines that crop to the lag window and spread from it."""
    total = 0.0
    for n, h, w in _stacks(work):
        lags = min(work.lags, h // 2, w // 2)
        both = 2 * (lags + 1)
        total += n * h * (4.0 * (w // 2 + 1) * both + 2.0 * both * both + both * both)
    return work.phases * total


def traffic(work: Work) -> float:
    """Bytes that an evaluation moves between a rank and its memory."""
    return work.phases * work.itemsize * PASSES * sum(n * h * w for n, h, w in _stacks(work))


def optimizer_traffic(work: Work) -> float:
    """Bytes that the optimiser moves in an iteration: two passes over the history of L-BFGS, three rows of which
    are written, and some vectors."""
    history = (2 * (2 * work.history + 1) + 3) * work.history_itemsize if work.optimizer == "lbfgsb" else 0
    return work.slab * work.variables * (history + VECTOR_PASSES * work.itemsize)


@dataclass(frozen=True)
class Times:
    """Seconds of an iteration of one evaluation; `least` if messages hide behind the work, `most` if nothing does."""

    arithmetic: float
    memory: float
    optimizer: float
    network: float

    @property
    def least(self) -> float:
        return max(self.arithmetic, self.memory, self.network) + self.optimizer

    @property
    def most(self) -> float:
        return self.arithmetic + self.memory + self.network + self.optimizer


def times(work: Work, machine: Machine) -> Times:
    """The roofline of `work` on ranks like `machine`."""
    return Times(
        (fft_flops(work) + window_flops(work)) / machine.flops,
        traffic(work) / machine.bandwidth,
        optimizer_traffic(work) / machine.bandwidth,
        sent(work, 0) / machine.network if work.ranks > 1 else 0.0,
    )
