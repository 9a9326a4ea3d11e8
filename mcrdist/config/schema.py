"""Reading settings: what one key may hold, and what to say when it holds something else.

A :class:`Check` knows the values one key accepts; a :class:`Section` is a mapping of keys to checks. Settings
are declared once, as dataclass fields (:func:`setting`), and reading, defaults, suggestions for misspelt keys
and the list of all dotted keys follow from that declaration.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from mcrdist.errors import InputError

INVALID = object()


@dataclasses.dataclass(frozen=True)
class Check:
    """What one key accepts.

    Attributes
    ----------
    expected : str
        For people: "an integer of at least 8".
    convert : callable
        Takes the value found, returns the value to keep, or ``INVALID``.
    optional : bool
        Whether ``null`` (None) is a value too: "decide for me" or "none".
    example : str
        A value that works, shown in the message.
    literal : bool
        The value is text to be taken as it is written (a path, a name), so that ``run.dir=001`` is "001".
    listed : bool
        A list of such texts is a value too: ``[a.tif,b.tif]``.
    hidden : bool
        Not among the keys that people are told about: it is for Python only.
    """

    expected: str
    convert: Callable[[object], Any]
    optional: bool = False
    example: str = ""
    literal: bool = False
    listed: bool = False
    hidden: bool = False

    def __call__(self, value: object, key: str) -> Any:
        """Return the value to keep for `key`, or raise InputError."""
        if value is None and self.optional:
            return None
        converted = self.convert(value)
        if converted is INVALID:
            remedy = f"; e.g. {key}={self.example}" if self.example else ""
            raise InputError(f"{key}: expected {self.expected}, found {show(value)}{remedy}")
        return converted


@dataclasses.dataclass(frozen=True)
class Section:
    """A mapping of keys; reading one gives the keys that were given, checked, as a dict."""

    checks: Mapping[str, Check | Section]
    build: Callable[[dict[str, Any], str], Any]
    shorthand: Callable[[object], object] = lambda value: value

    def __call__(self, value: object, key: str) -> Any:
        """Return what `build` makes of the checked mapping found at `key`."""
        return self.build(self.given(value, key), key)

    def given(self, value: object, key: str) -> dict[str, Any]:
        """Return the checked values of the keys that are present; None counts as an empty mapping."""
        mapping = self._known(value, key)
        return {
            name: check(mapping[name], f"{key}.{name}" if key else name)
            for name, check in self.checks.items()
            if name in mapping
        }

    def verify(self, value: object, key: str) -> None:
        """Check every key and value alone: what is missing, or fits nothing else, passes."""
        mapping = self._known(value, key)
        for name, check in self.checks.items():
            if name in mapping:
                where = f"{key}.{name}" if key else name
                if isinstance(check, Section):
                    check.verify(mapping[name], where)
                else:
                    check(mapping[name], where)

    def _known(self, value: object, key: str) -> Mapping[str, Any]:
        """Return the mapping found at `key`, which has no keys that are not known."""
        value = self.shorthand(value)
        mapping = {} if value is None else value
        if not isinstance(mapping, Mapping):
            first = next(iter(self.checks))
            where = f"{key}.{first}" if key else first
            raise InputError(
                f"{key or 'configuration'}: expected a mapping with the keys {', '.join(self.checks)}, "
                f"found {show(value)}; e.g. {where}=…"
            )
        for name in mapping:
            if name not in self.checks:
                known = list(dotted(self.checks))
                raise InputError(_unknown(f"{key}.{name}" if key else str(name), key, known))
        return mapping


def _unknown(key: str, section: str, known: list[str]) -> str:
    """Return the message for a key that does not exist, with the nearest one that does."""
    inside = key.removeprefix(f"{section}.") if section else key
    # A forgotten section (`size=128`) is as common as a slip of the finger (`volume.sise=128`).
    leaves = [name for name in known if name.rpartition(".")[2] == inside]
    heads = list(dict.fromkeys(name.split(".")[0] for name in known))
    near = leaves or difflib.get_close_matches(inside, [*known, *heads], 1, 0.6)
    prefix = f"{section}." if section else ""
    if near:
        return f"{key}: unknown key; did you mean {prefix}{near[0]}?"
    return f"{key}: unknown key; {section or 'the top level'} has {', '.join(heads)}"


def dotted(checks: Mapping[str, Check | Section], prefix: str = "") -> dict[str, Check]:
    """Return every key below `checks` in dotted form, with its check."""
    found: dict[str, Check] = {}
    for name, check in checks.items():
        if isinstance(check, Section):
            found |= dotted(check.checks, f"{prefix}{name}.")
        elif not check.hidden:
            found[f"{prefix}{name}"] = check
    return found


def setting(check: Check | Section, default: Any) -> Any:
    """Declare a dataclass field that is a setting."""
    return dataclasses.field(default=default, metadata={"check": check})


def checks_of(cls: type) -> dict[str, Check | Section]:
    """Return the checks of the settings declared in the dataclass `cls`, in their order."""
    return {f.name: f.metadata["check"] for f in dataclasses.fields(cls) if "check" in f.metadata}


def section(cls: type) -> Section:
    """Return a section that builds the dataclass `cls` from the settings declared in it."""
    return Section(checks_of(cls), lambda given, key: cls(**given))


def show(value: object) -> str:
    """Return `value` for an error message: short, on one line."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
