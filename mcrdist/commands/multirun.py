"""``mcrdist reconstruct -m``: a run for every combination of the values that keys are given.

The grammar is Hydra's: ``seed=0,1,2,3``, ``seed=range(0,4)``, ``seed=choice(0,1)``. A sweep goes on as a run does:
``run.dir=DIR resume=true``, with its values or without them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcrdist.commands.compose import as_yaml, compose, is_list, is_text, mapping, parsed, quoted, split
from mcrdist.commands.reconstruct import INTERRUPTED, closing, to_go_on
from mcrdist.commands.resume import asked, names_sweep, place_of
from mcrdist.commands.resume import together as carried_on
from mcrdist.commands.terminal import say, together
from mcrdist.config import ReconstructConfig, from_mapping
from mcrdist.errors import InputError, first_of

_VERB = "reconstruct"
#: Where all runs of a sweep belong, and what all ranks must know before they meet: one value for all runs.
_SHARED = ("run.dir", "resume", "runtime.device", "runtime.timeout", "runtime.shared_memory")


def run(overrides: Sequence[str]) -> int:
    """Reconstruct every combination and say where the results are; return the exit status."""
    with together():
        where, configs = jobs(overrides, {})
    # After the settings are known to be good: torch takes a second to load.
    from mcrdist.sweep import sweep

    runs = sweep(where, configs, abrupt=True, say=say)
    for one in runs:
        say(f"{one.path.name}\n{closing(one)}\n")
    place = runs[0].path.parent
    report = f"{place / 'report.html'}  " if configs[0][1].run.report else ""
    say(f"sweep   {report}({len(runs)} of {len(configs)} runs)")
    if len(runs) == len(configs) and all(one.summary["status"] == "complete" for one in runs):
        return 0
    say(f"\n{to_go_on(place)}")
    return INTERRUPTED


def goes_on(overrides: Sequence[str]) -> bool:
    """Whether this is to go on with a sweep: ``run.dir=DIR resume=true``, with one in that directory."""
    with together():
        if not {"run.dir", "resume"} <= {split(override)[1] for override in overrides}:
            return False
        found = compose(_VERB, overrides)
    return found.get("resume") is True and names_sweep((found.get("run") or {}).get("dir"))


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
    found = [(values, mapping(_VERB, job, settings)) for values, job in combinations]
    where = (found[0][1].get("run") or {}).get("dir")
    if found[0][1].get("resume") is True:
        if not where:
            raise InputError(
                "run.dir: expected the directory of the sweep to go on with, found nothing (null)"
            )
        if names_sweep(where):
            own = [
                (v, asked(job, settings, one)) for (v, job), (_, one) in zip(combinations, found, strict=True)
            ]
            return where, _again(place_of(where), own)
    return where, [(values, from_mapping(one)) for values, one in found]


def _again(
    path: Path, given: list[tuple[dict[str, str], dict[str, Any]]]
) -> list[tuple[dict[str, str], ReconstructConfig]]:
    """The runs that the sweep in `path` has, with what may be another setting now; all of them, if none are named."""
    from mcrdist.store import sweepfile
    from mcrdist.store.run import SWEEP

    there = sweepfile.read(path)
    if given[0][0]:  # some values are swept
        here = [values for values, _ in given]
        if here != [run.values for run in there]:
            raise InputError(
                f"run.dir: expected the values of the sweep in {path}, which are {_told([r.values for r in there])}, "
                f"found {_told(here)}; leave them out, or choose another run.dir"
            )
    else:
        given = given * len(there)
    return [
        (dict(run.values), from_mapping(carried_on(path / run.dir, run.settings, own, path / SWEEP)))
        for run, (_, own) in zip(there, given, strict=True)
    ]


def _told(values: Sequence[Mapping[str, str]]) -> str:
    """The values of the runs of a sweep, the first ones."""
    each = [",".join(f"{key}={value}" for key, value in one.items()) for one in values]
    return f"{first_of(each, ' ')} ({len(values)})"


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
