"""Verdicts: from numbers to a sentence, how much of a worry it is, and where the limits lie. Pure functions.

Nothing here reads a file: `evidence` finds the numbers, and the tests go through every limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mcrdist.analysis.words import descriptor, number, percent, shape

#: From the least worry to the greatest; "note" states a fact that is neither good nor bad, "open" what nobody knows.
TONES = ("good", "note", "open", "caution", "bad")


@dataclass(frozen=True)
class Finding:
    """One thing to know about a volume.

    Attributes
    ----------
    tone : str
        One of `TONES`.
    sentence : str
    limits : str
        Where the tone changes, for the reader to disagree with; of a fact, what it does not tell, or nothing.
    """

    tone: str
    sentence: str
    limits: str = ""


@dataclass(frozen=True)
class Answer:
    """What is known about one of the questions that a reader has."""

    question: str
    findings: Sequence[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """The first thing that a report says: a tone and a headline, and the answers behind them."""

    tone: str
    headline: str
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Limits:
    """Up to `good` there is no worry, up to `fair` a reservation, and beyond a warning."""

    good: float
    fair: float

    def tone(self, value: float) -> str:
        """The tone of a figure that should be small."""
        return "good" if value <= self.good else "caution" if value <= self.fair else "bad"

    def __str__(self) -> str:
        return f"Good up to {_round(self.good)}, fair up to {_round(self.fair)}"


def _round(share: float) -> str:
    """A limit: a round number of per cent."""
    return f"{100 * share:g}\u00a0%"


#: Mean relative errors over planes (Eq. 10) in the worst direction.
S2, VARIATION, OTHER = Limits(0.02, 0.05), Limits(0.02, 0.05), Limits(0.05, 0.15)
#: Relative error of the whole volume's fraction, and undecided voxels before rounding.
FRACTION, GREY = Limits(0.01, 0.03), Limits(0.02, 0.1)
#: Boundaries too many on the busiest lattice planes, and how far apart two pieces of one material may well be.
IMPRINT, APART = Limits(0.05, 0.15), Limits(0.1, 0.25)
#: Share of statistics that are further from a true volume's than pieces of one material would be.
STRANGE = Limits(0.25, 0.5)
#: Ratio of integral ranges beyond the micrograph's own, and correlation between distant parts of planes.
ISOTROPY, REPETITION = Limits(0.1, 0.25), Limits(0.1, 0.3)
#: Standard deviations: of the micrograph's own volume fraction, and of statistics between volumes of this size.
SAMPLING, SCATTER = Limits(0.05, 0.15), Limits(0.05, 0.15)
#: Lengths of correlation along the shortest edge of the volume.
WIDE, NARROW = 4.0, 2.0
#: Rounding is mentioned as a cost where the error grows by this factor, to more than this.
_COSTLY, _NOTICED = 1.5, 0.005


def made(sides: Sequence[int], sources: Sequence[str], gaussian: bool) -> Finding:
    """What the run has made, and of what."""
    what = f"A periodic {'plane' if sides[0] == 1 else 'volume'} of {shape(sides)} voxels"
    # The whole path stands below the title; what is no path has spaces in it.
    names = [source if " " in source else source.rpartition("/")[2] for source in sources]
    of = f" of {', '.join(names)}" if names else ""
    if gaussian:
        said = (
            f"{what}: a Gaussian random field with the two-point correlation{of}, cut at its volume fraction."
        )
        return Finding("note", said)
    planes = "which" if sides[0] == 1 else "every plane of which"
    return Finding("note", f"{what}, {planes} was held to the statistics{of or ' that were given'}.")


def ended(status: str, stop: str | None) -> Finding:
    """Whether the run came to its end, and why its last level stopped."""
    if status != "complete":
        return Finding("open", "The run was interrupted: what is shown is how far it came.")
    if stop == "iteration cap":
        return Finding(
            "note",
            "The run is complete. Its last level stopped at the iteration cap: more iterations "
            "(optimizer.iterations) may bring it nearer.",
        )
    return Finding("good", "The run is complete.")


def planes(rounded: Sequence[float], relaxed: Sequence[float] = ()) -> Finding:
    """The error of S2 in every direction, rounded and relaxed."""
    mean, worst = sum(rounded) / len(rounded), max(rounded)
    where = f" on average ({percent(worst)} in the worst direction)" if len(rounded) > 1 else ""
    said = f"A plane differs from the wanted two-point correlation S₂ by {percent(mean)}{where}."
    before = sum(relaxed) / len(relaxed) if relaxed else mean
    if mean > _COSTLY * before and mean > _NOTICED:
        said += f" Rounding costs accuracy here: the relaxed field stands at {percent(before)}."
    tone = S2.tone(worst)
    if tone != "good" and len(rounded) > 1:
        said += " mcrdist characterize tells how much of it no volume could avoid."
    return Finding(tone, said, f"{S2}, in the worst direction.")


def boundary(errors: Sequence[float]) -> Finding:
    """The error of the variation in every direction."""
    mean, worst = sum(errors) / len(errors), max(errors)
    where = f" on average ({percent(worst)} in the worst direction)" if len(errors) > 1 else ""
    said = f"The amount of phase boundary in a plane differs from the wanted one by {percent(mean)}{where}."
    return Finding(VARIATION.tone(worst), said, f"{VARIATION}, in the worst direction.")


def others(worst: Mapping[str, float]) -> Finding:
    """The errors of the other descriptors that it was fitted to, by name, each in its worst direction."""
    listed = ", ".join(f"{descriptor(name)} {percent(value)}" for name, value in worst.items())
    return Finding(
        OTHER.tone(max(worst.values())),
        f"What else it was fitted to is met with errors of: {listed}.",
        f"{OTHER}, in the worst direction.",
    )


def within_spread(error: float, spread: float) -> Finding:
    """The error of S2 beside the distance of several micrographs from their mean."""
    if error <= spread:
        said = (
            f"The volume is as like its micrographs as these are like one another ({percent(spread)} in S₂)."
        )
        return Finding("good", said, "Good up to the micrographs' own spread.")
    said = f"The volume is further from its micrographs in S₂ than these are from one another ({percent(spread)})."
    return Finding("note", said, "Good up to the micrographs' own spread.")


def fraction(wanted: float, got: float, name: str = "the described phase") -> Finding:
    """The volume fraction of the whole volume."""
    error = abs(got - wanted) / wanted if wanted > 0 else float(got > 0)
    said = f"The volume fraction of {name} is {number(got, 4)}, {number(wanted, 4)} was wanted."
    return Finding(FRACTION.tone(error), said, f"{FRACTION} of the wanted one.")


def decided(grey: float) -> Finding:
    """The share of voxels that rounding decides."""
    more = "; rounding decides them" if grey > GREY.good else ""
    said = f"{percent(grey)} of the voxels were undecided before rounding (between 0.05 and 0.95){more}."
    return Finding(GREY.tone(grey), said, f"{GREY}.")


def imprint(more: float, chance: float) -> Finding:
    """How much more phase boundary than the mean the busiest lattice planes have, and what chance makes of that.

    Twice of what chance makes is taken for chance: the moduli that show it are few.
    """
    excess = max(0.0, more - 2 * chance)
    tone = IMPRINT.tone(excess)
    if tone == "good":
        said = "No grid shows: phase boundaries lie on all lattice planes alike"
    else:
        said = "A grid shows: phase boundaries prefer every second, fourth or eighth lattice plane"
    said += f" (the busiest ones have {percent(more)} more than the mean; {percent(chance)} is chance)."
    return Finding(tone, said, f"{IMPRINT} beyond twice the chance.")


def unprescribed(found: Sequence[tuple[str, float]]) -> Finding:
    """What was not asked for: names of statistics with their relative distance from the micrograph."""
    name, worst = max(found, key=lambda pair: pair[1])
    close = sum(distance <= APART.good for _, distance in found)
    said = (
        f"Of {len(found)} statistics that it was not fitted to and a micrograph has too, {close} are within "
        f"{_round(APART.good)} of the micrograph's; the furthest, {name}, is {percent(worst)} away."
    )
    return Finding(APART.tone(worst), said, f"{APART}: two pieces of one material differ as well.")


def beside_truth(near: int, known: int, boxes: bool) -> Finding:
    """How many statistics are as near to those of a true volume as its own boxes are to one another."""
    reach = "the scatter (two standard deviations) of its boxes" if boxes else _round(APART.good)
    said = f"Of {known} statistics, {near} agree with the true volume's to within {reach}."
    return Finding(STRANGE.tone(1 - near / max(1, known)), said, f"{STRANGE} that are further away.")


def isotropy(volume: float, micrograph: float) -> Finding:
    """The longest integral range of S2 over the shortest, in the volume and in its micrographs."""
    apart = max(volume, micrograph) / min(volume, micrograph) - 1.0
    said = (
        f"Along one axis S₂ reaches {number(volume)} times as far as along another; in the micrographs, "
        f"{number(micrograph)} times."
    )
    return Finding(ISOTROPY.tone(apart), said, f"{ISOTROPY} of difference between the two.")


def repetition(largest: float) -> Finding:
    """The largest correlation of a plane with itself beyond the window."""
    tone = REPETITION.tone(largest)
    if tone == "good":
        said = "Nothing repeats at long range"
    else:
        said = "Something repeats at long range, unless the material itself is ordered"
    said += f": beyond the window, the largest correlation is {number(largest, 2)} (1 is a copy)."
    return Finding(tone, said, f"Good up to {REPETITION.good:g}, fair up to {REPETITION.fair:g}.")


def connectivity(
    percolating: Mapping[str, float], largest: float, name: str = "The described phase"
) -> Finding:
    """Shares of a phase that cross the volume along each axis, and that of its largest cluster."""
    through = [f"{axis} ({percent(share)} of it)" for axis, share in percolating.items() if share > 0]
    if through:
        said = f"{name} crosses the volume along {', '.join(through)}"
    else:
        said = f"{name} crosses the volume along no axis"
    said += f"; its largest cluster holds {percent(largest)}."
    return Finding("note", said, "A micrograph cannot tell whether the material's does.")


def window(length: int, lags: int, side: int) -> Finding:
    """How many lengths of correlation the volume is wide; `length` beyond `lags` says that S2 has not settled."""
    if length > lags:
        said = (
            f"S₂ of the micrograph has not settled within the window of {lags} voxels: structure longer than that "
            "is not held to anything."
        )
        return Finding("caution", said, "Good where S₂ is within 5 % of the variance at the window's end.")
    wide = side / length
    tone = "good" if wide >= WIDE else "caution" if wide >= NARROW else "bad"
    said = f"The volume's shortest edge is {number(wide, 2)} times the {length} voxels after which S₂ has settled."
    if tone != "good":
        said += " Expect other seeds to differ from this one, and take several."
    return Finding(tone, said, f"Good from {WIDE:g} times on, fair from {NARROW:g}.")


def sampling(deviation: float) -> Finding:
    """How well the micrograph itself knows the material: the relative standard deviation of its fraction."""
    said = f"A micrograph of this size tells the material's volume fraction to within ±{percent(deviation)}"
    said += (
        " (one standard deviation, by the integral range of its S₂): no volume made from it can know better."
    )
    return Finding(SAMPLING.tone(deviation), said, f"{SAMPLING}.")


def representative(scatter: Mapping[str, float]) -> Finding:
    """The relative standard deviation between volumes of this size, by statistic, told from parts of this one."""
    name, worst = max(scatter.items(), key=lambda pair: pair[1])
    said = f"Judged by its parts, another volume as large would differ by {percent(worst)} in its {name}"
    if len(scatter) > 1:
        said += f", and by less in {len(scatter) - 1} other statistics"
    return Finding(SCATTER.tone(worst), f"{said} (one standard deviation).", f"{SCATTER}.")


def usable(findings: Sequence[Finding], baseline: bool, analysed: bool, name: str) -> Finding:
    """The last word, on all that was found before."""
    tones = [finding.tone for finding in findings]
    warnings, marked = tones.count("bad"), tones.count("caution")
    if "open" in tones:
        return Finding("open", "Not as it is: let the run come to its end, or take this for a look only.")
    if baseline:
        return Finding(
            "caution", "A thresholded Gaussian field that no optimiser has touched: to compare with."
        )
    if analysed:
        beyond = "What was not asked for, such as connectivity and transport, is promised by nobody."
    else:
        beyond = (
            "Connectivity, chords and pore sizes were not asked for, and have not been measured yet: "
            f"mcrdist analyze run.dir={name}"
        )
    depends = "for what depends on amounts, boundaries and two-point correlation"
    if warnings:
        return Finding(
            "bad", f"Not before you know the reason of the {_times(warnings, 'warning')}. {beyond}"
        )
    if marked:
        return Finding("caution", f"With care, {depends}: mind the {_times(marked, 'reservation')}. {beyond}")
    return Finding("good", f"Yes, as far as these figures tell, {depends}. {beyond}")


def _times(count: int, what: str) -> str:
    return what if count == 1 else f"{count} {what}s"


def headline(findings: Sequence[Finding], matched: Finding | None) -> tuple[str, str]:
    """The tone of the whole page, and its first sentence; `matched` is what `planes` said."""
    tones = [finding.tone for finding in findings]
    if "open" in tones:
        return "open", "The run was interrupted: this is how far it came."
    if matched is None:
        return "open", "No error has been measured for this volume."
    first = {
        "good": "The planes match the micrograph closely",
        "caution": "The planes match the micrograph fairly",
        "bad": "The planes differ visibly from the micrograph",
    }[matched.tone]
    worst = next((tone for tone in ("bad", "caution") if tone in tones), "good")
    if worst == "good" or matched.tone == "bad":
        return worst, f"{first}."
    what, count = "warning" if worst == "bad" else "reservation", tones.count(worst)
    return worst, f"{first}; {f'a {what}' if count == 1 else f'{what}s'} below."
