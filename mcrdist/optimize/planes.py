"""What an optimiser asks of whoever stores the field: to work on its planes, and to bring their sums together.

A distributed field answers on every rank for all of it, with the same bits on each, so that all ranks take the same
decisions and need no further communication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Map = Callable[[Callable[[int], Any], Iterable[int]], list[Any]]
"""``map(work, planes)``: the results in order, computed one after another or by a pool of threads."""

Gather = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""``gather(rows)``: from a row of numbers for each plane that this rank holds, those of all planes, in their order."""


def serial_map(work: Callable[[int], Any], planes: Iterable[int]) -> list[Any]:
    """The plain loop."""
    return [work(plane) for plane in planes]


def alone(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows of all planes where one process holds them all."""
    return rows
