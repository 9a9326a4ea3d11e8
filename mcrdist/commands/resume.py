"""The settings of a run that goes on: those it began with; others are refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcrdist.commands.compose import compose, mapping, split
from mcrdist.config import from_mapping, to_mapping
from mcrdist.errors import InputError

_VERB = "reconstruct"
#: What may be another one when a run goes on: where and how it is computed, not what.
_FREE = (
    "resume",
    "run.dir",
    "run.report",
    "checkpoint.every",
    "runtime.device",
    "runtime.threads",
    "runtime.timeout",
    "runtime.shared_memory",
    "memory",  # a run keeps the history that it began with
)


def settings(overrides: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `compose.mapping` does; with ``resume=true``, the settings that the run in ``run.dir`` has.

    Parameters
    ----------
    overrides, given
        As for `compose.mapping`.

    Raises
    ------
    InputError
        No run is named, or settings are given that differ from its own; the message names them.
    """
    found = mapping(_VERB, overrides, given)
    if found.get("resume") is not True:
        return found
    from mcrdist.store import checksums
    from mcrdist.store.run import CONFIG, Run

    where = (found.get("run") or {}).get("dir")
    if not where:
        raise InputError("run.dir: expected the directory of the run to go on with, found nothing (null)")
    path = Path(where).expanduser().absolute()
    if not (path / CONFIG).exists():
        _require_settings(path, found)
        return found
    if (path / checksums.CHECKSUMS).exists():
        damages = [damage for damage in checksums.damages(path) if damage.startswith(f"{path / CONFIG}:")]
        if damages:
            raise InputError(f"{damages[0]}; restore it from a copy or start again in another run.dir")
    stored = Run.open(path).config
    asked = _asked(overrides, given, found)
    return together(path, stored, asked)


def _require_settings(path: Path, found: Mapping[str, Any]) -> None:
    """A run that is not there can be started, where there is enough to start it with."""
    try:
        from_mapping(found)
    except InputError as error:
        raise InputError(
            f"run.dir: expected a run to go on with in {path}, found none, nor the settings to start one ({error})"
        ) from None


def _asked(overrides: Sequence[str], given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that somebody gave, as nested mappings, and not those that are there by default."""
    values = _flat(found)
    names = {split(override)[1] for override in overrides} | set(_flat(given))
    if any(name == "experiment" for name in names):
        usual = _flat(compose(_VERB, []))
        names |= {key for key, value in values.items() if usual.get(key) != value}
    asked: dict[str, Any] = {}
    for key, value in values.items():
        if any(key == name or key.startswith(f"{name}.") for name in names):
            _put(asked, key, value)
    return asked


def together(path: Path, stored: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run with what may change changed."""
    merged = stored
    for key, value in _flat(asked).items():
        merged = _with(merged, key, value)
    size = (asked.get("volume") or {}).get("size")
    if size is not None:
        merged = _with(merged, "volume.shape", None)
    # Read and written again: settings that did not exist when the run began are as usual.
    was, now = (_flat(to_mapping(from_mapping(one))) for one in (stored, merged))
    different = [
        key
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key) and not any(key == f or key.startswith(f"{f}.") for f in _FREE)
    ]
    if different:
        changes = ", ".join(f"{key}={was.get(key)} there and {now.get(key)} here" for key in different)
        raise InputError(
            f"{different[0]}: expected the settings of the run in {path}, found {changes}; "
            "leave them out, or start another run"
        )
    if any("<array" in str(value) for key, value in _flat(merged).items() if key.endswith("path")):
        raise InputError(
            f"micrograph: expected the array that the run in {path} began with, found none; it was given in Python: "
            "give it again there"
        )
    return merged


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key; a null section is one value, a micrograph given as an array is one too."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return found


def _put(nested: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        nested = nested.setdefault(section, {})
    nested[name] = value


def _with(nested: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    if not rest:
        return {**nested, first: value}
    below = nested.get(first)
    return {**nested, first: _with(below if isinstance(below, Mapping) else {}, rest, value)}
