"""Kinds of value that a setting may hold: integers, numbers, text, one of a few names, lists of integers."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

from mcrdist.config.schema import INVALID, Check


def _bounds(minimum: float | None, maximum: float | None, above: float | None = None) -> str:
    if above is not None:
        return f" above {above:g}" + (f" and at most {maximum}" if maximum is not None else "")
    if minimum is not None and maximum is not None:
        return f" from {minimum} to {maximum}"
    return (
        f" of at least {minimum}"
        if minimum is not None
        else f" of at most {maximum}"
        if maximum is not None
        else ""
    )


def _integer(value: object) -> int | None:
    """Return `value` as an int when it is one (1e3 is, true is not), else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    try:
        return value.__index__()  # type: ignore[attr-defined, no-any-return]  # NumPy's integers too
    except AttributeError:
        return None


def integer(minimum: int | None = None, maximum: int | None = None, **options: Any) -> Check:
    """Return a check for an integer in [minimum, maximum]."""

    def convert(value: object) -> object:
        number = _integer(value)
        if number is None or (minimum is not None and number < minimum):
            return INVALID
        return INVALID if maximum is not None and number > maximum else number

    return Check(f"an integer{_bounds(minimum, maximum)}", convert, **options)


def number(
    minimum: float | None = None, maximum: float | None = None, above: float | None = None, **options: Any
) -> Check:
    """Return a check for a finite number in [minimum, maximum], or greater than `above`."""

    def convert(value: object) -> object:
        if isinstance(value, bool | str | bytes):
            return INVALID
        try:
            found = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            return INVALID
        if not math.isfinite(found) or (minimum is not None and found < minimum):
            return INVALID
        outside = (maximum is not None and found > maximum) or (above is not None and found <= above)
        return INVALID if outside else found

    return Check(f"a number{_bounds(minimum, maximum, above)}", convert, **options)


#: Bytes of the units of a size.
_UNITS = {"": 1} | {
    f"{letter}{kind}": base**power
    for power, letter in enumerate("KMGT", 1)
    for kind, base in (("B", 1000), ("iB", 1024))
}


def size(**options: Any) -> Check:
    """Return a check for an amount of memory, in bytes or with a unit: 6GiB, 500MB; kept in bytes."""

    def convert(value: object) -> object:
        if isinstance(value, str):
            found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B|)\s*", value, re.IGNORECASE)
            if found is None:
                return INVALID
            unit = next(scale for name, scale in _UNITS.items() if name.lower() == found[2].lower())
            value = int(float(found[1]) * unit)
        number = _integer(value)
        return INVALID if number is None or number < 1 else number

    return Check("an amount of memory, in bytes or as in 6GiB", convert, **options)


def share_or(*names: str, **options: Any) -> Check:
    """Return a check for a number between 0 and 1, or one of some names."""

    def convert(value: object) -> object:
        if isinstance(value, str) and value in names:
            return value
        if isinstance(value, bool | str | bytes):
            return INVALID
        try:
            found = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            return INVALID
        return found if 0.0 < found < 1.0 else INVALID

    return Check(f"{', '.join(names)} or a number between 0 and 1", convert, **options)


def boolean(**options: Any) -> Check:
    """Return a check for true or false."""
    return Check("true or false", lambda v: v if isinstance(v, bool) else INVALID, **options)


def text(expected: str = "text", **options: Any) -> Check:
    """Return a check for text that is not empty; paths (os.PathLike) count as text."""

    def convert(value: object) -> object:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        return value if isinstance(value, str) and value.strip() and "\0" not in value else INVALID

    return Check(expected, convert, literal=True, **options)


def choice(*values: str, **options: Any) -> Check:
    """Return a check for one of a few names."""
    names = ", ".join(values[:-1]) + (" or " if len(values) > 1 else "") + values[-1]
    return Check(
        names, lambda v: v if isinstance(v, str) and v in values else INVALID, literal=True, **options
    )


def integers(count: int, minimum: int, **options: Any) -> Check:
    """Return a check for a list of `count` integers, each at least `minimum`; kept as a tuple."""

    def convert(value: object) -> object:
        if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
            return INVALID
        numbers = [_integer(item) for item in value]
        valid = len(numbers) == count and all(n is not None and n >= minimum for n in numbers)
        return tuple(numbers) if valid else INVALID

    return Check(f"{count} integers of at least {minimum}", convert, **options)


def some_integers(minimum: int, **options: Any) -> Check:
    """Return a check for a list of any number of integers, each at least `minimum`; kept as a tuple."""

    def convert(value: object) -> object:
        if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
            return INVALID
        numbers = [_integer(item) for item in value]
        return tuple(numbers) if all(n is not None and n >= minimum for n in numbers) else INVALID

    return Check(f"a list of integers of at least {minimum}", convert, **options)


def some_choices(*values: str, **options: Any) -> Check:
    """Return a check for a list of one or more of a few names; kept as a tuple."""

    def convert(value: object) -> object:
        if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
            return INVALID
        items = list(value)
        return tuple(items) if items and all(item in values for item in items) else INVALID

    return Check(f"a list of {', '.join(values[:-1])} or {values[-1]}", convert, **options)


def text_or_texts(expected: str, **options: Any) -> Check:
    """Return a check for text as :func:`text` takes it, or a list of such texts; kept as a tuple."""
    one = text(expected)

    def convert(value: object) -> object:
        if not isinstance(value, list | tuple):
            return one.convert(value)
        items = tuple(one.convert(item) for item in value)
        return INVALID if not items or INVALID in items else items

    return Check(f"{expected}, or a list of them", convert, literal=True, listed=True, **options)


def some_numbers(minimum: float, maximum: float, **options: Any) -> Check:
    """Return a check for a number in [minimum, maximum], or a list of such numbers; kept as a tuple."""
    one = number(minimum, maximum)

    def convert(value: object) -> object:
        items = tuple(one.convert(item) for item in (value if isinstance(value, list | tuple) else [value]))
        return INVALID if not items or INVALID in items else items

    return Check(f"{one.expected}, or a list of them", convert, **options)


def some_classes(**options: Any) -> Check:
    """Return a check for a list of classes, each as text or, from Python, itself; kept as a tuple of texts."""

    def text(item: object) -> str | None:
        if isinstance(item, type):
            return f"{item.__module__}:{item.__qualname__}"
        return item if isinstance(item, str) and item.strip() else None

    def convert(value: object) -> object:
        if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
            return INVALID
        items = [text(item) for item in value]
        return INVALID if None in items else tuple(items)

    return Check("a list of module:Class", convert, **options)
