"""``mcrdist reconstruct``: a micrograph becomes a volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcrdist.commands.resume import settings
from mcrdist.commands.terminal import program, relative, say, together
from mcrdist.config import from_mapping

if TYPE_CHECKING:
    from mcrdist.store.run import Run

INTERRUPTED = 130


def run(overrides: Sequence[str]) -> int:
    """Reconstruct and say where the results are and how good they are; return the exit status."""
    with together():
        config = from_mapping(settings(overrides, {}))
    # After the settings are known to be good: torch takes a second to load.
    from mcrdist.reconstruct import reconstruct

    if config.resume and config.run.dir and _finished(Path(config.run.dir)):
        say(f"the run in {config.run.dir} is complete: nothing is left to do\n")
    result = reconstruct(config, abrupt=True, say=say)
    say(closing(result))
    if result.summary["status"] == "interrupted":
        say(f"\n{to_go_on(result.path)}")
        return INTERRUPTED
    say(f"\n{further(result)}")
    return 0


def _finished(path: Path) -> bool:
    from mcrdist.store import checksums

    return checksums.is_finished(path.expanduser().absolute())


def closing(result: Run) -> str:
    """Return the last words: paths, and the errors, rounded (relaxed), of every direction.

    Where there are several micrographs, how far they lie from their own mean stands in brackets.
    """
    summary: dict[str, Any] = result.summary
    facts = []  # an interrupted run may not know much about itself
    if "shape" in summary:
        facts.append("x".join(map(str, summary["shape"])))
    if "seconds" in summary:
        facts.append(duration(summary["seconds"]))
    if summary["status"] != "complete":
        facts.append(summary["status"])
    lines = [f"volume  {result.path / 'volume.zarr'}  ({', '.join(facts)})"]
    if result.report is not None:
        lines.append(f"report  {result.report}")
    errors = summary.get("errors") or {}
    if errors.get("rounded"):
        lines += [
            "",
            *_error_table(errors["rounded"], errors.get("relaxed") or {}, summary.get("spread") or {}),
        ]
    if summary.get("phases"):
        lines += ["", *_fraction_table(summary["phases"])]
    return "\n".join(lines)


def to_go_on(path: Path) -> str:
    """Return how an interrupted run, or a sweep, goes on, as it can be typed here."""
    return f"next\n  {program()} reconstruct run.dir={relative(path)} resume=true"


def further(result: Run) -> str:
    """Return what one may want to do next, as it can be typed here."""
    where = relative(result.path)
    steps = {
        "view": ("", "look at it"),
        "analyze": ("", "measure it: may it be trusted? a section more in the report"),
        "report": (" report.figures=pdf", "its figures as files, for a paper"),
        "export": (" format=vti", "for ParaView and others; more formats: export --help"),
    }
    if result.summary["shape"][0] == 1:
        del steps["analyze"]  # measures volumes, no single plane
    commands = [f"{program()} {verb} run.dir={where}{more}" for verb, (more, _) in steps.items()]
    width = max(map(len, commands)) + 2
    return "next\n" + "\n".join(
        f"  {command:<{width}}{why}" for command, (_, why) in zip(commands, steps.values(), strict=True)
    )


Errors = dict[str, dict[str, float | None]]


def _error_table(rounded: Errors, relaxed: Errors, spread: Errors) -> list[str]:
    """Return a line a descriptor with a column a direction; diagonal ones, of which there are six, share one."""
    columns: dict[str, list[str]] = {}
    for direction in rounded:
        columns.setdefault(direction if len(direction) == 1 else "diagonals", []).append(direction)
    names = list(dict.fromkeys(name for errors in rounded.values() for name in errors))
    heading, first, width = "error, rounded (relaxed)", 26, 22
    if spread:
        heading, first, width = f"{heading} [of the micrographs]", 48, 30
    lines = [f"{heading:<{first}}" + "".join(f"{column:<{width}}" for column in columns).rstrip()]
    for name in names:
        cells = [
            _cell(*(_mean(part, of, name) for part in (rounded, relaxed, spread))) for of in columns.values()
        ]
        row = f"{name.replace('_', ' '):<{first}}" + "".join(f"{cell:<{width}}" for cell in cells)
        lines.append(row.rstrip())
    return lines


def _mean(errors: Errors, directions: Sequence[str], name: str) -> float | None:
    """Return the mean error over directions, or None where one is not known."""
    found = [errors.get(direction, {}).get(name) for direction in directions]
    known = [value for value in found if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if len(known) == len(found) else None


def _cell(rounded: float | None, relaxed: float | None, spread: float | None) -> str:
    if rounded is None:
        return "-"
    told = f"{rounded:.2%}" + (f" ({relaxed:.2%})" if relaxed is not None else "")
    return told if spread is None else f"{told} [{spread:.2%}]"


def _fraction_table(phases: dict[str, Any]) -> list[str]:
    """Return a line a phase: the volume fraction of the rounded volume, and the one wanted in each direction."""
    heading = "volume fraction"
    axes = list(next(iter(phases.values()))["volume_fraction"]["target"])
    axes = [axis for axis in axes if len(axis) == 1]
    lines = [f"{heading:<26}" + "".join(f"{'wanted ' + axis:<22}" for axis in axes) + "rounded"]
    for label, phase in phases.items():
        fractions = phase["volume_fraction"]
        wanted = "".join(f"{fractions['target'][axis]:<22.4f}" for axis in axes)
        lines.append(f"{'phase ' + label:<26}{wanted}{fractions['rounded']:.4f}")
    return lines


def duration(seconds: float) -> str:
    """Return a time for people: ``4.2 s``, ``3 min 12 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
