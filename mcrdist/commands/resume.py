"""The settings of a run that goes on: those it began with; others are refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcrdist.begun import check, flat, read
from mcrdist.commands.compose import compose, mapping, split
from mcrdist.config import from_mapping
from mcrdist.errors import InputError

_VERB = "reconstruct"


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
    checksums.require(path, CONFIG)
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
    values = flat(found)
    names = {split(override)[1] for override in overrides} | set(flat(given))
    if any(name == "experiment" for name in names):
        usual = flat(compose(_VERB, []))
        names |= {key for key, value in values.items() if usual.get(key) != value}
    asked: dict[str, Any] = {}
    for key, value in values.items():
        if any(key == name or key.startswith(f"{name}.") for name in names):
            _put(asked, key, value)
    return asked


def together(path: Path, stored: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run with what may change changed."""
    merged = stored
    for key, value in flat(asked).items():
        merged = _with(merged, key, value)
    size = (asked.get("volume") or {}).get("size")
    if size is not None:
        merged = _with(merged, "volume.shape", None)
    check(path, read(stored, path), from_mapping(merged), "leave them out, or start another run")
    if any("<array" in str(value) for key, value in flat(merged).items() if key.endswith("path")):
        raise InputError(
            f"micrograph: expected the array that the run in {path} began with, found none; it was given in Python: "
            "give it again there"
        )
    return merged


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
