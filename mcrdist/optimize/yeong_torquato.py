"""Simulated annealing by swaps (Yeong and Torquato 1998): the schedule, for any system that can swap.

A swap that raises the energy by Δ is accepted with probability exp(−Δ/T). The first temperature accepts such a swap
with probability one half on average; from sweep to sweep it falls by a constant factor, so that the whole range from
there to where hardly any is accepted is covered in the sweeps that there are: more of them cool more slowly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

PROBES = 1000  # swaps whose energies tell the first temperature
ACCEPTED = 0.5  # share of the rises that the first temperature accepts
COLDEST = 1e-5  # last temperature in units of the first


class System(Protocol):
    """What can swap."""

    @property
    def energy(self) -> float:
        """As it is now, without the rounding of the swaps before."""
        ...

    def attempt(self, attempts: int, temperature: float) -> int:
        """Try random swaps by Metropolis' rule; return how many were made."""
        ...

    def probe(self, attempts: int) -> NDArray[np.float64]:
        """By how much random swaps would change the energy; none is made."""
        ...


@dataclass(frozen=True)
class AnnealOptions:
    """How long to cool: `sweeps` of `attempts` swaps each."""

    sweeps: int
    attempts: int


@dataclass(frozen=True)
class AnnealState:
    """One sweep: the energy after it, its temperature and the share of its swaps that was made."""

    sweep: int
    energy: float
    temperature: float
    accepted: float


@dataclass(frozen=True)
class AnnealResult:
    """How the annealing ended: "frozen", "no energy left", "iteration cap" or "interrupted"."""

    energy: float
    sweeps: int
    stop: str


AnnealCallback = Callable[[AnnealState], bool | None]


def anneal(
    system: System,
    options: AnnealOptions,
    callback: AnnealCallback | None = None,
    start: AnnealState | None = None,
) -> AnnealResult:
    """Lower the energy of `system`, which changes in place.

    Parameters
    ----------
    callback
        Called with the `AnnealState` at the start and after each sweep; returning True stops.
    start
        Of an earlier call that was cut short after this sweep: cools on from there.
    """
    factor = COLDEST ** (1.0 / max(1, options.sweeps - 1))
    if start is None:
        temperature = first_temperature(system.probe(PROBES))
        state = AnnealState(0, system.energy, temperature, 1.0)
    else:
        temperature, state = start.temperature * (factor if start.sweep else 1.0), start
    told = start is not None  # of this sweep, by the call that was cut short
    while True:
        stop = "interrupted" if not told and callback is not None and callback(state) else None
        told = False
        if stop is None and state.energy == 0.0:
            stop = "no energy left"
        if stop is None and state.accepted == 0.0:
            stop = "frozen"
        if stop is None and state.sweep >= options.sweeps:
            stop = "iteration cap"
        if stop is not None:
            return AnnealResult(state.energy, state.sweep, stop)
        accepted = system.attempt(options.attempts, temperature)
        state = AnnealState(state.sweep + 1, system.energy, temperature, accepted / options.attempts)
        temperature *= factor


def first_temperature(prices: NDArray[np.float64]) -> float:
    """The temperature that accepts `ACCEPTED` of a rise in energy like the mean of those found."""
    rises = prices[prices > 0.0]
    return float(rises.mean()) / -math.log(ACCEPTED) if len(rises) else 0.0
