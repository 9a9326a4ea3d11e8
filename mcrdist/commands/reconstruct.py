"""``mcrdist reconstruct``: a micrograph becomes a volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mcrdist.commands.compose import compose
from mcrdist.commands.terminal import say, together
from mcrdist.config import from_mapping

if TYPE_CHECKING:
    from mcrdist.store.run import Run

INTERRUPTED = 130


def run(overrides: Sequence[str]) -> int:
    """Reconstruct and say where the results are and how good they are; return the exit status."""
    with together():
        config = from_mapping(compose("reconstruct", overrides))
    # After the settings are known to be good: torch takes a second to load.
    from mcrdist.reconstruct import reconstruct

    result = reconstruct(config)
    say(closing(result))
    return INTERRUPTED if result.summary["status"] == "interrupted" else 0


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
        spread = summary.get("spread") or {}
        lines += ["", *_error_table(errors["rounded"], errors.get("relaxed") or {}, spread)]
    return "\n".join(lines)


def _error_table(rounded: dict[str, Any], relaxed: dict[str, Any], spread: dict[str, Any]) -> list[str]:
    """Return a line a descriptor with a column a direction."""
    axes = list(rounded)
    names = list(dict.fromkeys(name for axis in axes for name in rounded[axis]))
    heading, width = "error, rounded (relaxed)", 22
    if spread:
        heading, width = f"{heading} [of the micrographs]", 30
    first = max(26, len(heading) + 2)
    lines = [f"{heading:<{first}}" + "".join(f"{axis:<{width}}" for axis in axes).rstrip()]
    for name in names:
        cells = [_cell(*(of.get(axis, {}).get(name) for of in (rounded, relaxed, spread))) for axis in axes]
        row = f"{name.replace('_', ' '):<{first}}" + "".join(f"{cell:<{width}}" for cell in cells)
        lines.append(row.rstrip())
    return lines


def _cell(rounded: float | None, relaxed: float | None, spread: float | None) -> str:
    if rounded is None:
        return "-"
    told = f"{rounded:.2%}" + (f" ({relaxed:.2%})" if relaxed is not None else "")
    return told if spread is None else f"{told} [{spread:.2%}]"


def duration(seconds: float) -> str:
    """Return a time for people: ``4.2 s``, ``3 min 12 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
