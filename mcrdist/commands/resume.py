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
    path = place_of(where)
    if names_sweep(where):
        raise InputError(
            f"run.dir: expected a run to go on with, found the sweep {path}; go on with it by mcrdist.sweep"
        )
    if not (path / CONFIG).exists():
        _require_settings(path, found)
        return found
    checksums.require(path, CONFIG)
    stored = Run.open(path).config
    return together(path, stored, asked(overrides, given, found), path / CONFIG)


def place_of(where: str) -> Path:
    """The directory that ``run.dir`` names."""
    return Path(where).expanduser().absolute()


def names_sweep(where: str | None) -> bool:
    """Whether ``run.dir`` names the directory of a sweep."""
    if not where:
        return False
    from mcrdist.store.run import is_sweep

    return is_sweep(place_of(where))


def _require_settings(path: Path, found: Mapping[str, Any]) -> None:
    """A run that is not there can be started, where there is enough to start it with."""
    try:
        from_mapping(found)
    except InputError as error:
        raise InputError(
            f"run.dir: expected a run to go on with in {path}, found none, nor the settings to start one ({error})"
        ) from None


def asked(overrides: Sequence[str], given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that somebody gave, as nested mappings, and not those that are there by default."""
    values = flat(found)
    names = {split(override)[1] for override in overrides} | set(flat(given))
    if any(name == "experiment" for name in names):
        usual = flat(compose(_VERB, []))
        names |= {key for key, value in values.items() if usual.get(key) != value}
    chosen: dict[str, Any] = {}
    for key, value in values.items():
        if any(key == name or key.startswith(f"{name}.") for name in names):
            _put(chosen, key, value)
    return chosen


def together(path: Path, stored: Mapping[str, Any], given: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The settings of the run in `path`, which `file` has `stored`, with what may change as it is `given`."""
    merged = dict(stored)
    for key, value in flat(given).items():
        merged = _with(merged, key, value)
    size = (given.get("volume") or {}).get("size")
    if size is not None:
        merged = _with(merged, "volume.shape", None)
    check(path, read(stored, file), from_mapping(merged), "leave them out, or start another run")
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
