"""README's tables from the JSON lines of the benchmarks.

    python benchmarks/quality.py >> benchmarks/results.jsonl
    python benchmarks/table.py                  README.md has the tables of benchmarks/results.jsonl
    python benchmarks/table.py --check          exit status 1 if it has not
    python benchmarks/table.py --print quality  a table alone
    python benchmarks/table.py --readme docs/truth.md   the same for another page

A table stands between `<!-- table: NAME -->` and `<!-- /table -->`. It has a row for each line with that name as its
"benchmark", the last one where several are of the same thing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)


@dataclass(frozen=True)
class Column:
    """A title, and how a line's value is shown: a format of `key`, or a function of the whole line."""

    title: str
    key: str
    show: str | Callable[[Any], str] = "{}"

    def of(self, line: dict[str, Any]) -> str:
        if line.get(self.key) is None:
            return "-"
        return self.show.format(line[self.key]) if isinstance(self.show, str) else self.show(line[self.key])


@dataclass(frozen=True)
class Table:
    """The columns, and the keys that tell what a line is of."""

    of: Sequence[str]
    columns: Sequence[Column]


def amount(size: float) -> str:
    """Bytes in decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            return f"{size:.3g} {unit}" if size < 999.5 else f"{size:,.0f} {unit}"
        size /= 1000.0
    raise AssertionError


def errors(values: Sequence[float | None]) -> str:
    """Relative errors along z, y, x, and of the mean."""
    *axes, mean = ["-" if value is None else f"{value:+.1%}" for value in values]
    return f"{mean} ({', '.join(axes)})"


def settings(given: str) -> str:
    """As on the command line."""
    return f"`{given}`" if given else "default"


#: Statistics of a true volume, of its reconstruction and of a random field; see truth.py.
_TRUTH = Table(
    ("phase", "statistic", "direction"),
    [
        Column("phase", "phase"),
        Column("statistic", "statistic"),
        Column("along", "direction"),
        Column("truth", "truth", "{:.3g}"),
        Column("its boxes' scatter", "scatter", "{:.2g}"),
        Column("ours", "ours", "{:.3g}"),
        Column("Gaussian", "gaussian", "{:.3g}"),
        Column("nearer", "nearer"),
    ],
)

TABLES = {
    "truth_ketton": _TRUTH,
    "truth_separator_rods": _TRUTH,
    "truth": Table(
        ("volume", "size", "coarsen", "settings"),
        [
            Column("volume", "volume"),
            Column("voxels", "size", "{}³"),
            Column("settings", "settings", settings),
            Column("nearer than the random field on", "nearer"),
            Column("of", "of"),
            Column("share", "share", "{:.0%}"),
            Column("time", "seconds", "{:.0f} s"),
        ],
    ),
    "truth_flow": Table(
        ("volume", "size", "phase", "settings"),
        [
            Column("volume", "volume"),
            Column("voxels", "size", "{}³"),
            Column("settings", "settings", settings),
            Column("phase", "phase"),
            Column("ours, mean (z, y, x)", "ours", errors),
            Column("Gaussian, mean (z, y, x)", "gaussian", errors),
            Column("true boxes of our volume fraction", "by_fraction", "{:+.1%}"),
            Column("scatter of true boxes", "scatter", "{:.1%}"),
        ],
    ),
    "quality": Table(
        ("micrograph", "size"),
        [
            Column("micrograph", "micrograph"),
            Column("volume", "size", "{}³"),
            Column("E(S₂)", "E_S2", "{:.2%}"),
            Column("E(V)", "E_V", "{:.2%}"),
            Column("E(φ)", "E_vf", "{:.3%}"),
            Column("lineal path", "E_lineal", "{:.1%}"),
            Column("grid imprint", "grid_imprint", "{:.3f}"),
            Column("grey before rounding", "grey_fraction", "{:.2%}"),
            Column("time", "seconds", "{:.0f} s"),
            Column("memory", "memory_GB", "{:.2f} GB"),
        ],
    ),
    "convergence": Table(
        ("micrograph", "size"),
        [
            Column("micrograph", "micrograph"),
            Column("volume", "size", "{}³"),
            *(
                Column(variant, variant, "{:.2%}")
                for variant in ("default", "2 pairs", "8 pairs", "levels", "noise", "noise, levels")
            ),
        ],
    ),
    "realizable": Table(
        ("micrograph", "size", "lags", "periodic"),
        [
            Column("micrograph", "micrograph"),
            Column("volume", "size", "{}³"),
            Column("lags", "lags"),
            Column("pairs across the border", "periodic", lambda periodic: "yes" if periodic else "no"),
            Column("E(S₂) at least", "bound", "{:.2%}"),
            Column("E(S₂) by least squares", "nearest", "{:.2%}"),
        ],
    ),
    "analysis": Table(
        ("size", "workers"),
        [
            Column("volume", "size", "{}³"),
            Column("workers", "workers"),
            Column("time", "seconds", "{:.1f} s"),
            Column("a voxel", "nanoseconds_a_voxel", "{:.0f} ns"),
            Column("memory of the process", "memory", amount),
        ],
    ),
    "plan": Table(
        ("size", "machine"),
        [
            Column("volume", "size", "{}³"),
            Column("a rank has", "machine"),
            Column("fewest ranks", "ranks"),
            Column("each holds at most", "memory", amount),
            Column("sent an evaluation", "sent", amount),
            Column("Fourier transforms", "fft_flop", lambda flop: f"{flop / 1e12:.3g} TFLOP"),
            Column("volume on disk", "volume", amount),
            Column("a checkpoint", "checkpoint", amount),
        ],
    ),
}


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; ValueError, with its number, for one that is no JSON object with a "benchmark"."""
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            line = None
        if not isinstance(line, dict) or "benchmark" not in line:
            raise ValueError(f'{path}:{number}: expected a JSON object with "benchmark", found {text[:60]}')
        lines.append(line)
    return lines


def table(name: str, lines: Sequence[dict[str, Any]]) -> str:
    """The table `name` in Markdown, each line ended; ValueError where there is nothing to show."""
    if name not in TABLES:
        raise ValueError(f"{name}: expected one of {', '.join(TABLES)}")
    what = TABLES[name]
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in lines:
        if line["benchmark"] == name:
            rows[tuple(line.get(key) for key in what.of)] = line
    if not rows:
        raise ValueError(f"{name}: expected results, found none")
    cells = [[column.title for column in what.columns], ["---"] * len(what.columns)]
    cells += [[column.of(line) for column in what.columns] for line in rows.values()]
    return (
        "".join(f"| {' | '.join(row)} |\n" for row in cells)
        .replace("| --- ", "|---")
        .replace("--- |", "---|")
    )


def filled(text: str, lines: Sequence[dict[str, Any]]) -> str:
    """`text` with its marked tables made anew."""
    return MARKED.sub(lambda found: found[1] + table(found[2], lines) + found[4], text)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results.jsonl")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; is the file as it would be made?"
    )
    parser.add_argument("--print", metavar="NAME", dest="name", help="print one table, change nothing")
    arguments = parser.parse_args()
    try:
        lines = read(arguments.results)
        if arguments.name:
            print(table(arguments.name, lines), end="")
            return 0
        before = arguments.readme.read_text(encoding="utf-8")
        after = filled(before, lines)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.check:
        return int(before != after)
    arguments.readme.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
