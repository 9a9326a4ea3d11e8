"""The numbers behind the verdict: where they are in a run directory, and which question each of them answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis import imprint, measured, verdict, words
from mcrdist.analysis.material import AXES, Phase, images, plane_axes
from mcrdist.analysis.verdict import Answer, Finding, Verdict
from mcrdist.analysis.volume.representative import said
from mcrdist.analysis.volume.table import LINEAL
from mcrdist.analysis.words import dig
from mcrdist.descriptors.settling import settled
from mcrdist.store.run import Run
from mcrdist.store.volume import Volume

_MAIN = ("s2", "variation", "volume_fraction")


def judge(
    run: Run, volume: Volume | None, material: Sequence[Phase], analysis: Mapping[str, Any] | None
) -> Verdict:
    """All that a reader wants to know first: what did I get, how good is it, may I use it.

    Parameters
    ----------
    run : Run
        Anything in it may be missing.
    volume : Volume or None
        None where the run ended before it wrote one.
    material : sequence of Phase
    analysis : mapping or None
        The content of ``analysis.json``.
    """
    summary, metrics = run.summary, run.metrics
    got = [*_got(summary, metrics[-1] if metrics else None, material)]
    if volume is not None:
        made = verdict.made(volume.shape, sources(run.targets), summary.get("method") == "gaussian")
        got.insert(0, made)
    matched = _matched(summary)
    good = [*([] if matched is None else [matched]), *_errors(summary)]
    use: list[Finding] = []
    if volume is not None:
        if volume.shape[0] > 1 and summary.get("method") != "gaussian":
            busiest, chance = imprint.measure(volume)
            good.append(verdict.imprint(busiest - 1, chance - 1))
        use += _represents(run.targets, material, volume.shape)
    if analysis is not None:
        good += _unprescribed(analysis)
        use += _measured(analysis)
    found = [*got, *good, *use]
    tone, headline = verdict.headline(found, matched)
    baseline = summary.get("method") == "gaussian"
    # Nor can a plane be analysed.
    analysed = analysis is not None or (volume is not None and volume.shape[0] == 1)
    use.insert(0, verdict.usable(found, baseline, analysed, run.path.name))
    answers = (
        Answer("What did I get?", got),
        Answer("How good is it?", good),
        Answer("May I use it?", use),
    )
    return Verdict(tone, headline, [answer for answer in answers if answer.findings])


def figures(summary: Mapping[str, Any], kind: str, name: str) -> list[float]:
    """The errors of a descriptor in every direction that has one."""
    directions = dig(summary, "errors", kind) or {}
    values = [dig(directions, axis, name) for axis in directions]
    return [v for v in values if isinstance(v, int | float) and math.isfinite(v)]


def sources(targets: Mapping[str, NDArray[Any]]) -> list[str]:
    """Micrographs by name, each once."""
    return list(dict.fromkeys(str(targets[f"{a}/source"]) for a in AXES if f"{a}/source" in targets))


def _got(
    summary: Mapping[str, Any], last: Mapping[str, Any] | None, material: Sequence[Phase]
) -> Iterator[Finding]:
    """The run's end, and the volume fractions."""
    levels = summary.get("levels") or [{}]
    yield verdict.ended(str(summary.get("status")), levels[-1].get("stop"))
    if not figures(summary, "rounded", "s2") and last and isinstance(dig(last, "errors", "s2"), int | float):
        where = f"iteration {last.get('iteration', words.DASH)} at {words.shape(last.get('shape'))}"
        said = f"The last record is of {where}: the relaxed field differed from the wanted S₂ by "
        yield Finding("open", f"{said}{words.percent(dig(last, 'errors', 's2'))}.")
    own: Mapping[str, Any] = summary.get("phases") or {}
    for phase in material:
        part = own.get(str(phase.label), {}) if own else summary
        wanted = words.mean((dig(part, "volume_fraction", "target") or {}).values())
        rounded = dig(part, "volume_fraction", "rounded")
        if wanted is not None and rounded is not None:
            yield verdict.fraction(wanted, float(rounded), phase.name if own else "the described phase")
    if isinstance(summary.get("grey_fraction"), int | float):
        yield verdict.decided(float(summary["grey_fraction"]))


def _matched(summary: Mapping[str, Any]) -> Finding | None:
    rounded = figures(summary, "rounded", "s2")
    return verdict.planes(rounded, figures(summary, "relaxed", "s2")) if rounded else None


def _errors(summary: Mapping[str, Any]) -> Iterator[Finding]:
    """Errors of the other descriptors, and of S2 beside the spread of several micrographs."""
    rough = figures(summary, "rounded", "variation")
    if rough:
        yield verdict.boundary(rough)
    directions = dig(summary, "errors", "rounded") or {}
    names = dict.fromkeys(name for one in directions.values() for name in one if name not in _MAIN)
    worst = {name: max(figures(summary, "rounded", name), default=None) for name in names}
    known = {name: value for name, value in worst.items() if value is not None}
    if known:
        yield verdict.others(known)
    spread = words.mean(dig(one, "s2") for one in (summary.get("spread") or {}).values())
    error = words.mean(figures(summary, "rounded", "s2"))
    if spread is not None and error is not None:
        yield verdict.within_spread(error, spread)


def _represents(
    targets: Mapping[str, NDArray[Any]], material: Sequence[Phase], shape: Sequence[int]
) -> Iterator[Finding]:
    """Whether volume and micrograph are large, measured by how far S2 reaches; in the worst direction and phase."""
    lengths: list[int] = []
    deviations: list[float] = []
    lags = 0
    for axis in plane_axes(shape):
        for phase in material:
            prefix = f"{axis}/{phase.source}" if f"{axis}/{phase.source}/s2" in targets else axis
            if f"{prefix}/s2" not in targets:
                continue
            s2 = np.asarray(targets[f"{prefix}/s2"], np.float64)
            lags = s2.shape[1] - 1
            share = float(s2[lags, 0])
            lengths.append(settled(s2, share))
            pixels = sum(image.size for image in images(targets, axis))
            if pixels and 0 < share < 1:
                deviations.append(math.sqrt((1 - share) / share * integral_range(s2) / pixels))
    sides = [n for n in shape if n > 1]
    if lengths:
        yield verdict.window(max(lengths), lags, min(sides))
    if deviations:
        yield verdict.sampling(max(deviations))


def integral_range(s2: NDArray[np.float64]) -> float:
    """What the correlation (S2 - φ²)/(φ - φ²) adds up to over all lags of the window, in pixels; at least one.

    The variance of the phase's share in an image of A pixels is φ (1 - φ) times this over A.
    """
    share = float(s2[s2.shape[0] // 2, 0])
    correlation = (s2 - share**2) / max(share - share**2, 1e-30)
    return max(1.0, float(2 * correlation[:, 1:].sum() + correlation[:, 0].sum()))


def _rows(analysis: Mapping[str, Any], statistic: str) -> list[Mapping[str, Any]]:
    """What was measured of a statistic and not asked for."""
    return [
        row
        for row in analysis["rows"]
        if row["statistic"] == statistic and row["value"] is not None and not row["prescribed"]
    ]


def _unprescribed(analysis: Mapping[str, Any]) -> Iterator[Finding]:
    """Distances from the micrograph of what the volume was not fitted to."""
    several = len({row["phase"] for row in analysis["rows"]}) > 1
    asked = any(
        row["prescribed"] and row["statistic"].startswith("E(lineal_path") for row in analysis["rows"]
    )
    found = []
    for statistic in ("specific surface",) if asked else ("specific surface", "mean chord", LINEAL):
        for row in _rows(analysis, statistic):
            error = statistic == LINEAL  # a relative distance as it is
            if not error and not row["micrograph"]:
                continue
            apart = row["value"] if error else abs(row["value"] / row["micrograph"] - 1)
            what = "lineal path" if error else statistic
            what += f" along {row['direction']}" if row["direction"] else ""
            found.append((f"{what} of phase {row['phase']}" if several else what, float(apart)))
    if found:
        yield verdict.unprescribed(found)
    if analysis.get("truth") is not None:
        beside = measured.beside(analysis["rows"])
        yield verdict.beside_truth(beside["near"], beside["known"], analysis["truth"]["boxes"] > 1)


def _measured(analysis: Mapping[str, Any]) -> Iterator[Finding]:
    """Isotropy, long-range repetition and connectivity."""
    ratios = []
    for phase in analysis["phases"]:
        rows = [row for row in _rows(analysis, "integral range of S2") if str(row["phase"]) == phase]
        pairs = [(row["value"], row["micrograph"]) for row in rows if row["micrograph"] is not None]
        if len(pairs) == len(AXES) and min(min(pair) for pair in pairs) > 0:
            own, beside = zip(*pairs, strict=True)
            ratios.append((max(own) / min(own), max(beside) / min(beside)))
    if ratios:
        yield verdict.isotropy(*max(ratios, key=lambda pair: max(pair) / min(pair)))
    repeated = [row["value"] for row in _rows(analysis, "largest correlation at long range")]
    if repeated:
        yield verdict.repetition(max(repeated))
    several = len(analysis["phases"]) > 1
    scatter = {
        said(one["quantity"]) + (f" of phase {phase}" if several else ""): float(one["expected"])
        for phase, curves in analysis["phases"].items()
        for one in (curves.get("representative") or {}).get("answers", [])
        if one["expected"] is not None
    }
    if scatter:
        yield verdict.representative(scatter)
    for phase in analysis["phases"]:
        shares = [row for row in _rows(analysis, "share that percolates") if str(row["phase"]) == phase]
        largest = [
            row for row in _rows(analysis, "share of the largest cluster") if str(row["phase"]) == phase
        ]
        if shares and largest:
            through = {row["direction"]: float(row["value"]) for row in shares}
            name = f"Phase {phase}" if several else "The described phase"
            yield verdict.connectivity(through, float(largest[0]["value"]), name)
