"""The list of the paper's experiments, benchmarks/paper.yaml; no benchmark itself."""

from __future__ import annotations

import hashlib
import itertools
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "benchmarks" / "paper.yaml"
#: What is kept of the runs.
RECORDS = ROOT / "benchmarks" / "paper.jsonl"
#: Where the micrographs are, and where the results go, unless somebody says so.
DATA = ROOT.parent / "shared" / "data" / "micrographs"
OUT = ROOT / "paper"
#: Stands for the directory of the micrographs in commands that people read.
SHOWN = "$DATA"


@dataclass(frozen=True)
class Experiment:
    """One run; its attributes are explained in paper.yaml.

    Attributes
    ----------
    settings : sequence of str
        {data} is not replaced yet.
    paper, parts : mapping
        What the paper gives; empty where it gives nothing.
    """

    name: str
    label: str
    settings: Sequence[str]
    minutes: float
    paper: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)
    measure: Sequence[str] = ()
    alone: bool = False

    def overrides(self, data: Path | str, out: Path | str) -> list[str]:
        """Settings as they are typed."""
        given = [setting.replace("{data}", str(data)) for setting in self.settings]
        return [*given, f"run.dir={out}/{self.name}"]

    def absent(self, data: Path) -> list[str]:
        """Names of the micrographs that it needs and that are not there."""
        values = [setting.partition("=")[2] for setting in self.settings]
        names = [value.removeprefix("{data}/") for value in values if value.startswith("{data}/")]
        return [name for name in dict.fromkeys(names) if not (data / name).is_file()]

    @property
    def command(self) -> str:
        """For people."""
        return f"mcrdist reconstruct {' '.join(self.overrides(SHOWN, OUT.name))}"

    @property
    def preset(self) -> str:
        """Digits that are others when the settings of a preset are; the command would be the same."""
        names = [setting.partition("=")[2] for setting in self.settings if setting.startswith("+experiment=")]
        files = [ROOT / "conf" / "experiment" / f"{name}.yaml" for name in names]
        content = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
        return (
            hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12] if content else ""
        )


@dataclass(frozen=True)
class Figure:
    """A section of the page with its runs; `show` pictures of volumes are side by side, or there are none."""

    id: str
    title: str
    text: str
    runs: Sequence[Experiment]
    show: int = 0


def load(path: Path = LIST) -> list[Figure]:
    """All figures, in the order of the page; a run may be in several."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    known: dict[str, Experiment] = {}
    found = []
    for figure in content["figures"]:
        common = shlex.split(figure.get("common", ""))
        shared = {"alone": figure.get("alone", False), "measure": figure.get("measure", ())}
        runs = [run for entry in figure["runs"] for run in _expanded(shared | entry, common, known)]
        known |= {run.name: run for run in runs if run.name not in known}
        found.append(Figure(figure["id"], figure["title"], figure["text"], runs, figure.get("show", 0)))
    return found


def shown(path: Path = LIST) -> tuple[list[tuple[str, str]], str]:
    """The runs of README's gallery with their captions, and whose micrographs they are of."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [(one["run"], one["caption"]) for one in content.get("gallery", [])], content.get(
        "attribution", ""
    )


def runs(figures: Sequence[Figure]) -> list[Experiment]:
    """Each run once, cheap ones first."""
    once = {run.name: run for figure in reversed(figures) for run in reversed(figure.runs)}
    return sorted(reversed(once.values()), key=lambda run: run.minutes)


def _expanded(
    entry: Mapping[str, Any], common: Sequence[str], known: Mapping[str, Experiment]
) -> Iterator[Experiment]:
    """The runs that an entry stands for."""
    if "settings" not in entry:
        first = known[entry["name"]]
        yield replace(first, label=entry.get("label", first.label), paper=entry.get("paper", first.paper))
        return
    each = entry.get("each", {})
    for values in itertools.product(*each.values()):
        chosen = dict(zip(each, values, strict=True))

        def filled(text: str, chosen: Mapping[str, Any] = chosen) -> str:
            for key, value in chosen.items():
                text = text.replace(f"{{{key}}}", str(value))
            return text

        paper = entry.get("paper", {})
        if each and values[0] in paper:
            paper = paper[values[0]]
        yield Experiment(
            filled(entry["name"]),
            filled(entry["label"]),
            [*common, *shlex.split(filled(entry["settings"]))],
            entry["minutes"],
            paper,
            entry.get("parts", {}),
            entry["measure"],
            entry["alone"],
        )
