"""Figures in words: percentages, durations, sizes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

_NBSP = "\u00a0"
DASH = "–"  # noqa: RUF001 (an en dash stands for "no figure")

_DESCRIPTORS = {"s2": "S₂", "s3": "S₃", "cross_correlation": "cross-correlation", "gram": "Gram matrices"}


def descriptor(name: str) -> str:
    """A descriptor for people: "lineal path" for "lineal_path", "S₂ at 1/4 resolution" for "s2@4"."""
    plain, _, pooled = name.partition("@")
    said = _DESCRIPTORS.get(plain, plain.replace("_", " "))
    return f"{said} at 1/{pooled} resolution" if pooled else said


def mean(values: Iterable[Any]) -> float | None:
    """The mean of what are figures among the values; None without one."""
    numbers = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    return sum(numbers) / len(numbers) if numbers else None


def means(each: Collection[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of every figure by name, over those that have it."""
    names = dict.fromkeys(name for one in each for name in one)
    found = {name: mean(one.get(name) for one in each) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def number(value: Any, digits: int = 3) -> str:
    """A figure with so many significant digits, or a dash where there is none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:.{places}f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}·10{superscript}"


def percent(value: Any) -> str:
    """A fraction as a percentage, two significant digits and at most three decimals."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return DASH
    shown = 100 * value
    if shown == 0:
        return f"0{_NBSP}%"
    if abs(shown) < 5e-4:
        return f"< 0.001{_NBSP}%"
    places = 3 if abs(shown) < 0.1 else 2 if abs(shown) < 10 else 1
    return f"{shown:.{places}f}{_NBSP}%"


def duration(seconds: Any) -> str:
    """Seconds as "41 s", "3 min 12 s", "2 h 5 min"."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return DASH
    if seconds < 10:
        return f"{seconds:.1f}{_NBSP}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{_NBSP}s"
    if whole < 3600:
        return f"{whole // 60}{_NBSP}min {whole % 60}{_NBSP}s"
    return f"{whole // 3600}{_NBSP}h {whole % 3600 // 60}{_NBSP}min"


def memory(size: Any) -> str:
    """Bytes as MiB or GiB."""
    if not isinstance(size, int | float) or size <= 0:
        return DASH
    return f"{size / 2**30:.1f}{_NBSP}GiB" if size >= 2**30 else f"{size / 2**20:.0f}{_NBSP}MiB"


def shape(values: Iterable[int] | None) -> str:
    """(nz, ny, nx) as "128³" or "96 × 128 × 160"; a single plane as "256²"."""  # noqa: RUF002
    if not values:
        return DASH
    sizes = [int(n) for n in values]
    sizes = sizes[1:] if len(sizes) == 3 and sizes[0] == 1 else sizes
    if len(set(sizes)) == 1 and len(sizes) in (2, 3):
        return f"{sizes[0]}{'²' if len(sizes) == 2 else '³'}"
    return f"{_NBSP}×{_NBSP}".join(map(str, sizes))  # noqa: RUF001


def dig(data: Mapping[str, Any], *keys: str) -> Any:
    """``data[a][b]...`` or None where a key is absent: reports are also written for half-finished runs."""
    found: Any = data
    for key in keys:
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found
