"""Write docs/results.md and its pictures from the runs that benchmarks/paper.py made, and from nothing else.

    python benchmarks/results_page.py [--out paper] [--records benchmarks/paper.jsonl] [--page docs/results.md]
                                      [--readme README.md] [--experiments benchmarks/paper.yaml]

The records and pictures of the runs in OUT take the place of those that were kept of earlier ones, and other records
stay as they are: not all runs need to be made again, nor on one machine. A run whose settings the list has changed
since is forgotten. Every table comes with the commands of its rows. Where a figure of ours is worse than the paper's,
the page says so, and of runs that are not there, that they are not. Pictures go into a directory beside the page, named
as it is, which they have to themselves; README.md shows some between `<!-- gallery -->` and `<!-- /gallery -->`.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shutil
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _pictures as pictures
import _records as records
from _experiments import LIST, OUT, RECORDS, ROOT, SHOWN, Experiment, Figure, load, runs, shown
from _outcomes import Column, Outcome, percent, table

from mcrdist.analysis import words
from mcrdist.analysis.drawing import Picture

#: Where README has its gallery, and pictures side by side there.
GALLERY = re.compile(r"(<!-- gallery -->\n)(.*?)(<!-- /gallery -->)", re.DOTALL)
ABREAST = 3
#: What all pictures together may take.
MOST_BYTES = 1_500_000

HEAD = """\
# Results

<!-- Written by benchmarks/results_page.py; do not edit. -->

The experiments of Seibert et al. (2022), and some beyond them. `make paper` runs them (`benchmarks/paper.yaml` lists
them; those of more than ten minutes with `PAPER='--most-minutes 90'`) and writes this page from what the runs left.
Every number in a table is one that a run left (`benchmarks/paper.jsonl` keeps them), and the command of each is below
its table ({shown} is the directory of the micrographs). {made}

E is Eq. 10 of the paper, the mean over slices of ‖D − D_des‖ / ‖D_des‖, and the mean over directions. *Relaxed* is the
field with its grey voxels, when the descent has ended; *two phases* is the field that was then driven to two phases;
*rounded* is the volume that you get. E(G) takes all layers of the network as one vector. The *judge* is a program that
shares no code with this one; it looks at the rounded volume, on lags up to 16. Runs of fewer threads than there are
cores had others beside them, which cost them time.

{attribution}

"""
TAIL = """\
## Other benchmarks

Numbers that `benchmarks/` has printed, each with its command. Pictures of what descriptors do are in the
[gallery](gallery.md), the comparison with real volumes is [a page of its own](truth.md).

--8<-- "README.md:benchmarks"

[truth]: truth.md
"""


@dataclass
class Section:
    """A figure of the list with what came of it."""

    figure: Figure
    done: list[Outcome]
    place: Path
    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a paragraph, unless there is nothing to say."""
        if text:
            self.lines += [text.rstrip("\n"), ""]

    def draw(self, picture: Picture | None, caption: str) -> None:
        """Add a figure."""
        if picture is not None:
            path = self.place / f"{picture.name}.svg"
            path.write_bytes(picture.content("svg"))
            self.say(f"![{caption}]({self.place.name}/{path.name})")


def errors(section: Section) -> None:
    """The errors of all runs beside the paper's."""
    columns = [
        Column("E(S₂) relaxed", lambda one: percent(one.relaxed("s2"))),
        Column("two phases", lambda one: percent(one.error("relaxed", "s2"))),
        Column("rounded", lambda one: percent(one.error("rounded", "s2"))),
        Column("judge", lambda one: percent(one.judged("E_S2"))),
        Column("paper's E(S)", lambda one: percent(one.experiment.paper.get("s2"))),
        Column("E(S₃) relaxed", lambda one: percent(one.relaxed("s3"))),
        Column("rounded", lambda one: percent(one.error("rounded", "s3"))),
        Column("E(G) two phases", lambda one: percent(one.gram("relaxed"))),
        Column("rounded", lambda one: percent(one.gram("rounded"))),
        Column("paper's E(G)", lambda one: percent(one.experiment.paper.get("gram"))),
        Column("E(V) rounded", lambda one: percent(one.error("rounded", "variation"))),
        Column("E(φ) rounded", lambda one: percent(one.error("rounded", "volume_fraction"))),
        Column("lineal path (judge)", lambda one: percent(one.judged("E_lineal"))),
        Column("grid imprint (judge)", lambda one: _plain(one.judged("grid_imprint"), "{:.3f}")),
        Column("grey", lambda one: percent(one.record["grey_fraction"])),
        Column("lags", lambda one: _plain(one.record["lags"], "{:d}")),
        Column("iterations", lambda one: str(one.record["iterations"])),
        Column("time", lambda one: words.duration(one.record["seconds"])),
        Column("threads", lambda one: str(one.record["threads"])),
        Column("memory", lambda one: _plain(one.record["memory_GB"], "{:.2f} GB")),
    ]
    rows = [(one.experiment.label, [column.of(one) for column in columns]) for one in section.done]
    section.say(table("run", rows, [column.title for column in columns]))


def parts(section: Section) -> None:
    """The errors of some directions alone, where the paper has them."""
    titles = ["planes normal to", "E(S₂) two phases", "rounded", "paper's E(S)", "E(G) two phases", "rounded"]
    rows = []
    for one in section.done:
        for name, part in one.experiment.parts.items():
            axes = part["directions"]
            cells = [
                ", ".join(axes),
                percent(one.error("relaxed", "s2", axes)),
                percent(one.error("rounded", "s2", axes)),
                percent(part.get("s2")),
                percent(one.gram("relaxed", axes)),
                percent(one.gram("rounded", axes)),
                percent(part.get("gram")),
            ]
            rows.append((f"{one.experiment.label}: {name}", cells))
    if rows:
        section.say(table("part", rows, [*titles, "paper's E(G)"]))


def verdict(section: Section) -> None:
    """Whether our errors are at or below the paper's, run by run."""
    for name, said, ours in (
        ("s2", "E(S₂) of the relaxed field against the paper's E(S)", lambda one: one.relaxed("s2")),
        ("gram", "E(G) of the field of two phases against the paper's", lambda one: one.gram("relaxed")),
    ):
        known = [
            (one.experiment.label, ours(one), one.experiment.paper[name])
            for one in section.done
            if name in one.experiment.paper and ours(one) is not None
        ]
        better = [_against(*row) for row in known if row[1] <= row[2]]
        worse = [_against(*row) for row in known if row[1] > row[2]]
        if known:
            sentences = [f"at or below it for {'; '.join(better)}"] * bool(better)
            sentences += [f"**worse** for {'; '.join(worse)}"] * bool(worse)
            section.say(f"{said}: {'. '.join(sentences)}.")


def _against(label: str, ours: float, theirs: float) -> str:
    return f"{label} ({words.percent(ours)} against {words.percent(theirs)})"


def fig02(section: Section) -> None:
    """Error against iterations and time."""
    section.draw(pictures.convergence(section.done), "E(S₂) against iterations and against time")
    errors(section)


#: How the curves of Fig. 7 are called.
MATCHED, MINIMISED = "matched (Eq. 9)", "minimised (Eq. 7)"
#: Least errors that differ by less than this share of themselves are alike: there is one seed.
ALIKE = 0.05


def fig06(section: Section) -> None:
    """Error against lambda."""
    series: dict[str, list[tuple[float, Outcome]]] = {}
    constraint = None
    for one in section.done:
        settings = one.record["variation"]
        if settings["mode"] == "constrain":
            constraint = one
        else:
            label = {"match": MATCHED, "minimize": MINIMISED}[settings["mode"]]
            series.setdefault(label, []).append((float(settings["weight"]), one))
    section.draw(pictures.against_weight(series, constraint), "E(S₂) of the rounded volume against λ")
    errors(section)
    least: dict[str, float] = {}
    for label, own in series.items():
        known = {w: e for w, one in own if (e := one.error("rounded", "s2")) is not None}
        if not known:
            continue
        best = min(known, key=lambda weight: known[weight])
        least[label] = known[best]
        section.say(
            f"{label[0].upper()}{label[1:]}: the least E(S₂), {words.percent(known[best])}, at λ = {best:g}; over "
            f"all λ here it is at most {max(known.values()) / known[best]:.1f} times as large."
        )
    if MATCHED in least and MINIMISED in least:
        ratio = least[MATCHED] / least[MINIMISED]
        told = "as in the paper, matching comes nearer than minimising"
        if abs(ratio - 1) < ALIKE:
            told = "matching and minimising come equally near; in the paper matching does"
        elif ratio > 1:
            told = "**unlike in the paper**, matching does not come nearer than minimising"
        section.say(f"With the best λ of each, {told}. What differs is how much it matters to choose λ well.")


def fig10(section: Section) -> None:
    """The paper gives the time alone."""
    errors(section)
    for one in section.done:
        slowest = 60 * max(one.experiment.paper["minutes"])
        ours = one.record["seconds"]
        told = f"{words.duration(ours)} against the {words.duration(slowest)} of the paper"
        told += f", {slowest / ours:.0f} times as fast." if ours <= slowest else ": **slower**."
        section.say(
            f"{told} It is not like with like: ours are fewer iterations and descriptors, in single precision."
        )


def fig11(section: Section) -> None:
    """Table 2."""
    errors(section)
    parts(section)
    verdict(section)


def table1(section: Section) -> None:
    """Time an iteration."""
    rows, slower, faster = [], [], []
    for one in section.done:
        paper, ours = one.experiment.paper, one.record["an_iteration"]
        theirs = []
        if "iterations" in paper:
            theirs = sorted(60 * t / n for t, n in zip(paper["minutes"], paper["iterations"], strict=True))
        if theirs and ours is not None:
            (slower if ours > theirs[-1] else faster).append(one.experiment.label)
        told = " to ".join(dict.fromkeys(f"{words.number(value, 2)} s" for value in theirs))
        threads = str(one.record["threads"])
        rows.append((one.experiment.label, [_plain(ours, "{:.3g} s"), told, threads]))
    section.say(table("descriptors and size", rows, ["ours", "the paper's, on an A100", "threads"]))
    for said, labels in (("No slower than the A100", faster), ("**Slower** than the A100", slower)):
        if labels:
            section.say(f"{said}: {'; '.join(labels)}.")


def optimizers(section: Section) -> None:
    """Error against time."""
    section.draw(pictures.over_time(section.done), "E(S₂) against time")
    errors(section)


def ensemble(section: Section) -> None:
    """Mean and standard deviation of each figure over the runs."""
    names = {"s2": "E(S₂)", "variation": "E(V)", "volume_fraction": "E(φ)"}
    section.draw(pictures.spread(section.done, list(names)), "Errors of the rounded volumes")
    rows = []
    for title, values in [
        *(
            (f"{said}, rounded", [one.error("rounded", name) for one in section.done])
            for name, said in names.items()
        ),
        *(
            (f"{said} (judge)", [one.judged(name) for one in section.done])
            for name, said in (("E_S2", "E(S₂)"), ("E_lineal", "lineal path"), ("E_chord", "chord lengths"))
        ),
    ]:
        known = [value for value in values if value is not None]
        if len(known) > 1:
            cells = [percent(statistics.mean(known)), percent(statistics.stdev(known)), str(len(known))]
            rows.append((title, cells))
    section.say(table("figure", rows, ["mean", "standard deviation", "volumes"]) if rows else "")


#: How the sections are written that are more than a table of errors.
WRITERS: dict[str, Callable[[Section], None]] = {
    "fig02": fig02,
    "fig06": fig06,
    "fig10": fig10,
    "fig11": fig11,
    "table1": table1,
    "optimizers": optimizers,
    "ensemble": ensemble,
}


def written(figure: Figure, kept: Mapping[str, Mapping[str, Any]], place: Path) -> str:
    """The section of a figure."""
    found = [(run, Outcome(run, kept[run.name]) if run.name in kept else None) for run in figure.runs]
    section = Section(figure, [one for _, one in found if one is not None], place)
    section.say(f"## {figure.title}")
    section.say(figure.text)
    if section.done:
        WRITERS.get(figure.id, errors)(section)
    if figure.show:
        section.say(_blocks(section))
    section.say(_commands("Commands", [one.experiment for one in section.done]))
    absent = [run for run, one in found if one is None]
    if absent:
        section.say(f"**Not run:** {'; '.join(run.label for run in absent)}.")
        section.say(_commands("Their commands", absent))
    return "\n".join(section.lines)


def _blocks(section: Section) -> str:
    """Pictures of all volumes, with their labels."""
    cells = []
    for one in section.done:
        label, path = one.experiment.label, section.place / f"{one.experiment.name}.png"
        if path.is_file():
            cells.append((label, f"![{label}]({section.place.name}/{path.name})"))
    return _side_by_side(cells, section.figure.show)


def _side_by_side(cells: Sequence[tuple[str, str]], abreast: int) -> str:
    """Tables of pictures with their captions above them."""
    lines = []
    for start in range(0, len(cells), abreast):
        row = cells[start : start + abreast]
        lines += [f"| {' | '.join(caption for caption, _ in row)} |", "|" + "---|" * len(row)]
        lines += [f"| {' | '.join(image for _, image in row)} |", ""]
    return "\n".join(lines)


def gallery(readme: Path, place: Path, experiments: Path) -> None:
    """Show those pictures in README that there are."""
    wanted, attribution = shown(experiments)
    where = Path(os.path.relpath(place, readme.parent))
    cells = [
        (caption, f"![{caption}]({(where / name).as_posix()}.png)")
        for name, caption in wanted
        if (place / f"{name}.png").is_file()
    ]
    text = f"{_side_by_side(cells, ABREAST)}\n{attribution}\n" if cells else ""
    before = readme.read_text(encoding="utf-8")
    readme.write_text(GALLERY.sub(lambda found: found[1] + text + found[3], before), encoding="utf-8")


def _commands(title: str, experiments: Sequence[Experiment]) -> str:
    """What was typed for each row, folded up."""
    if not experiments:
        return ""
    lines = [f"# {run.label}\n{run.command}" for run in experiments]
    return f"<details><summary>{title}</summary><pre><code>{html.escape(chr(10).join(lines))}</code></pre></details>"


def _plain(value: float | None, show: str) -> str:
    return "" if value is None else show.format(value)


def _made(kept: Iterable[Mapping[str, Any]]) -> str:
    """On what the runs were made."""
    places = sorted({"{cores} cores ({machine}), torch {torch}".format(**one["made"]) for one in kept})
    return f"They ran on {'; '.join(places)}, without a GPU." if places else "None has been run yet."


def gathered(figures: Sequence[Figure], path: Path, out: Path) -> dict[str, Mapping[str, Any]]:
    """The records of all runs of the list, new ones for kept ones; they are what is kept from now on."""
    known = records.read(path) | records.new(out)
    found = {run.name: records.of(run, known) for figure in figures for run in figure.runs}
    kept = {name: record for name, record in found.items() if record is not None}
    records.write(path, kept.values())
    return kept


def pictured(figures: Sequence[Figure], kept: Iterable[str], out: Path, place: Path) -> None:
    """Leave in `place` the pictures of volumes that the page shows, new ones for old ones, and nothing else."""
    place.mkdir(parents=True, exist_ok=True)
    wanted = {
        f"{run.name}.png" for figure in figures if figure.show for run in figure.runs if run.name in kept
    }
    for old in [*place.glob("*.png"), *place.glob("*.svg")]:
        if old.name not in wanted:
            old.unlink()
    for name in wanted:
        if (out / name).is_file():
            shutil.copyfile(out / name, place / name)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT, help="where the runs are")
    parser.add_argument("--records", type=Path, default=RECORDS, help="what is kept of runs")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results.md")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--experiments", type=Path, default=LIST)
    arguments = parser.parse_args()
    figures = load(arguments.experiments)
    place = arguments.page.with_suffix("")
    kept = gathered(figures, arguments.records, arguments.out)
    pictured(figures, kept, arguments.out, place)
    text = HEAD.format(
        made=_made(kept.values()), shown=f"`{SHOWN}`", attribution=shown(arguments.experiments)[1]
    )
    text += "\n".join(written(figure, kept, place) for figure in figures)
    arguments.page.write_text(f"{text}\n{TAIL}", encoding="utf-8")
    gallery(arguments.readme, place, arguments.experiments)
    size = sum(path.stat().st_size for path in place.iterdir())
    print(f"{arguments.page}: {len(kept)} of {len(runs(figures))} runs, {size / 1e6:.2f} MB of pictures")
    if size > MOST_BYTES:
        print(f"{place}: expected at most {MOST_BYTES / 1e6:g} MB of pictures", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
