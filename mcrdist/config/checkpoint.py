"""How often a run is saved, and how completely."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from mcrdist.config.kinds import boolean
from mcrdist.config.schema import INVALID, Check, setting

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def _seconds(text: str) -> float | None:
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(s|min|h)?\s*", text)
    seconds = float(match[1]) * _SECONDS[match[2] or "s"] if match else 0.0
    return seconds if seconds > 0.0 else None


def _time(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        value = f"{value:.9g}s"
    return value if isinstance(value, str) and _seconds(value) else INVALID


def _duration(**options: Any) -> Check:
    return Check("a time in s, min or h", _time, literal=True, **options)


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved on the way, and whether the optimiser's memory is kept with the volume."""

    every: str | None = setting(_duration(optional=True, example="10min"), "10min")
    history: bool = setting(boolean(), True)

    @property
    def seconds(self) -> float:
        """Between two savings; infinite where there are none in between."""
        found = None if self.every is None else _seconds(self.every)
        return math.inf if found is None else found
