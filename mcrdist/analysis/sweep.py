"""The report of a sweep: its runs side by side, and their scatter, in one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcrdist.analysis import gallery, words
from mcrdist.analysis.ensemble import Member, Spread, correlation, largest, settings
from mcrdist.analysis.material import Phase, phases
from mcrdist.analysis.report import render
from mcrdist.analysis.scatter import correlation_curves, error_scatter
from mcrdist.analysis.slices import correlations
from mcrdist.errors import InputError
from mcrdist.store import sweepfile
from mcrdist.store.place import write_atomically
from mcrdist.store.run import REPORT, Run

#: Members whose slices are shown, and planes that a member's S2 is averaged over.
_SHOWN, _PLANES = 24, 32


def write(directory: str | Path) -> Path:
    """Write ``report.html`` into the directory of a sweep.

    Parameters
    ----------
    directory
        With ``sweep.json`` and the run directories that it names.

    Returns
    -------
    Path
        The report. It is replaced in one piece and loads nothing from a network.

    Raises
    ------
    InputError
        `directory` is of no sweep, its files are damaged, or the report cannot be written.
    """
    path = Path(directory).expanduser().absolute()
    page = render("sweep.html.j2", _content(path))
    write_atomically(path / REPORT, page.encode())
    return path / REPORT


def load(path: Path) -> tuple[list[Member], int]:
    """The runs of a sweep that were made, to the end or not, and how many were planned."""
    runs = sweepfile.read(path)
    made = [run for run in runs if run.summary is not None]
    if not made:
        raise InputError(
            f"{path}: expected a sweep with a run that was made, found none of {len(runs)}; go on with "
            f"mcrdist reconstruct run.dir={path} resume=true"
        )
    members = [Member(Run.open(path / run.dir), run.values, int(run.settings["seed"])) for run in made]
    return members, len(runs)


def _content(path: Path) -> dict[str, Any]:
    """What the template wants to know."""
    members, planned = load(path)
    first = members[0].run
    material = phases(first.summary, first.targets)
    ensembles = settings(members)
    names = list(dict.fromkeys(name for member in members for name in member.errors()))
    return {
        "name": path.name,
        "planned": planned,
        "phases": material,
        "several": len(material) > 1,
        "descriptors": [words.descriptor(name) for name in names],
        "runs": [_row(member, names, material) for member in members],
        "ensembles": [_ensemble(setting, group, names, material) for setting, group in ensembles.items()],
        "scatter": error_scatter(
            {setting: [member.errors() for member in group] for setting, group in ensembles.items()}, names
        ),
        "pictures": _pictures(members[:_SHOWN]),
        "micrograph": gallery.of_micrograph(first, material),
        "curves": _curves(ensembles, material),
    }


def _row(member: Member, names: Sequence[str], material: Sequence[Phase]) -> dict[str, Any]:
    errors = member.errors()
    return {
        "dir": member.run.path.name,
        "report": member.run.report is not None,
        "status": member.run.summary.get("status"),
        "errors": [errors.get(name) for name in names],
        "fractions": [member.fraction(phase, len(material) > 1) for phase in material],
        "seconds": member.run.summary.get("seconds"),
    }


def _ensemble(
    setting: str, group: Sequence[Member], names: Sequence[str], material: Sequence[Phase]
) -> dict[str, Any]:
    """Means and deviations of the members that share a setting."""
    target = [words.mean(_targets(group[0].run, phase, len(material) > 1)) for phase in material]
    return {
        "setting": setting,
        "count": len(group),
        "errors": [Spread.of([member.errors().get(name) for member in group]) for name in names],
        "fractions": [
            Spread.of([member.fraction(phase, len(material) > 1) for member in group]) for phase in material
        ],
        "wanted": target,
        "seconds": Spread.of([member.run.summary.get("seconds") for member in group]),
        "alike": largest(correlation(group, material[0])),
    }


def _targets(run: Run, phase: Phase, several: bool) -> list[float]:
    """Volume fraction that was wanted of a phase in each direction."""
    summary = words.dig(run.summary, "phases", str(phase.label)) if several else run.summary
    return list((words.dig(summary or {}, "volume_fraction", "target") or {}).values())


def _pictures(members: Sequence[Member]) -> list[dict[str, Any]]:
    """The middle plane normal to z of every member."""
    return [
        gallery.of_volume(m.run, m.run.path.name, {"z": [m.run.volume.shape[0] // 2]})["z"][0]
        for m in members
    ]


def _curves(ensembles: dict[str, list[Member]], material: Sequence[Phase]) -> list[dict[str, Any]]:
    """A figure of S2 of all members for every phase and direction."""
    measured = {
        setting: [correlations(m.run.volume, m.run.targets, _PLANES, material) for m in group]
        for setting, group in ensembles.items()
    }
    first = next(iter(measured.values()))[0]
    return [
        {
            "phase": item.phase,
            "axis": item.axis,
            "figure": correlation_curves({name: [m[k] for m in group] for name, group in measured.items()}),
        }
        for k, item in enumerate(first)
    ]
