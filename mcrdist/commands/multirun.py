"""``mcrdist reconstruct -m``: a run for every combination of the values that keys are given.

The grammar is Hydra's: ``seed=0,1,2,3``, ``seed=range(0,4)``, ``seed=choice(0,1)``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mcrdist.commands.compose import as_yaml, is_list, is_text, mapping, parsed, quoted, split
from mcrdist.commands.reconstruct import INTERRUPTED, closing
from mcrdist.commands.terminal import say, together
from mcrdist.config import ReconstructConfig, from_mapping
from mcrdist.errors import InputError

_VERB = "reconstruct"
#: Where all runs of a sweep belong, and what all ranks must know before they meet: one value for all runs.
_SHARED = ("run.dir", "runtime.device", "runtime.timeout", "runtime.shared_memory")


def run(overrides: Sequence[str]) -> int:
    """Reconstruct every combination and say where the results are; return the exit status."""
    with together():
        where, configs = jobs(overrides, {})
    # After the settings are known to be good: torch takes a second to load.
    from mcrdist.sweep import sweep

    runs = sweep(where, configs, abrupt=True)
    for one in runs:
        say(f"{one.path.name}\n{closing(one)}\n")
    say(f"sweep   {runs[0].path.parent / 'report.html'}  ({len(runs)} of {len(configs)} runs)")
    complete = len(runs) == len(configs) and all(one.summary["status"] == "complete" for one in runs)
    return 0 if complete else INTERRUPTED


def configurations(overrides: Sequence[str]) -> str:
    """Return the settings of every combination as YAML documents."""
    return "\n---\n".join(as_yaml(_VERB, job) for _, job in _combinations(overrides))


def jobs(
    overrides: Sequence[str], settings: Mapping[str, Any]
) -> tuple[str | None, list[tuple[dict[str, str], ReconstructConfig]]]:
    """Return the directory of the sweep, and the values and configuration of every run, all of them checked.

    Raises
    ------
    InputError
        A value does not work; nothing has been started then.
    """
    combinations = _combinations(overrides)
    found = [(values, from_mapping(mapping(_VERB, job, settings))) for values, job in combinations]
    if any(config.resume for _, config in found):
        raise InputError("resume: expected false with several runs, found true; go on with each run alone")
    return found[0][1].run.dir, found


def _combinations(overrides: Sequence[str]) -> list[tuple[dict[str, str], list[str]]]:
    """The values of the swept keys, and the overrides of one run, for every run."""
    choices = [_choices(override) for override in overrides]
    swept = [key for key, values in choices if len(values) > 1]
    if len(set(swept)) < len(swept):
        twice = next(key for key in swept if swept.count(key) > 1)
        raise InputError(f"{twice}: expected the values of a sweep once, found them twice; join them")
    found = []
    for values in itertools.product(*(values for _, values in choices)):
        chosen = {key: _shown(v) for (key, all_), v in zip(choices, values, strict=True) if len(all_) > 1}
        signs = [split(override)[0] for override in overrides]
        job = [f"{sign}{key}={v}" for sign, (key, _), v in zip(signs, choices, values, strict=True)]
        found.append((chosen, job))
    return found


def _choices(override: str) -> tuple[str, list[str]]:
    """The key of an override, and the values it is to have, each as it would be typed alone."""
    sign, key, value = split(override)
    if is_list(_VERB, key, value):
        return key, [value]
    if is_text(_VERB, key) and not re.match(r"\s*(['\"]|choice\()", value):
        if key in _SHARED or "," not in value:
            return key, [value]
        # A comma separates values, unlike in a single run; quotes keep one that belongs to a file's name.
        value = ",".join(quoted(part.strip()) for part in value.split(","))
    read = parsed(f"{sign}{key}={value}", override)
    if not read.is_sweep_override():
        return key, [value]
    if key in _SHARED:
        raise InputError(f"{override}: expected one value for all runs of a sweep, found several")
    return key, list(read.sweep_string_iterator())


def _shown(value: str) -> str:
    """A value for people and directory names: without quotes."""
    bare = re.fullmatch(r"(['\"])(.*)\1", value, flags=re.DOTALL)
    return bare[2].replace(f"\\{bare[1]}", bare[1]) if bare else value
