"""Figures of several runs: how they scatter in their errors and in S2, and how fast they got there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mcrdist.analysis import words
from mcrdist.analysis.drawing import CURVES, MARKS, WANTED, Picture, pen, style, svg
from mcrdist.analysis.ensemble import Member, Spread
from mcrdist.analysis.figures import along_axes, column, continued, draw, percent_axis
from mcrdist.analysis.slices import IN_PLANE, Correlation

#: Settings that have a name in a legend; beyond these it would cover the picture.
_NAMED = 8


def error_scatter(
    ensembles: Mapping[str, Sequence[Mapping[str, float]]], names: Sequence[str]
) -> Picture | None:
    """A dot a member and descriptor, with mean and standard deviation of each ensemble; members are their errors.

    None where nothing has been measured.
    """
    if not names:
        return None
    with style():
        figure = Figure(figsize=(max(5.0, 1.5 * len(names) + 1.5), 3.2), layout="constrained")
        axes = figure.subplots()
        width = 0.7 / len(ensembles)
        for number, (setting, group) in enumerate(ensembles.items()):
            colour, mark = CURVES[number % len(CURVES)], MARKS[number % len(MARKS)]
            for k, name in enumerate(names):
                values = [errors.get(name) for errors in group]
                known = 100 * np.array([value for value in values if value])  # 0 has no place on a log axis
                middle = k + (number - (len(ensembles) - 1) / 2) * width
                spread = (
                    np.linspace(-0.3, 0.3, len(known)) * width if len(known) > 1 else np.zeros(len(known))
                )
                axes.plot(middle + spread, known, mark, color=colour, ms=4.5, alpha=0.75, mew=0)
                summed = Spread.of(list(known))
                if summed is not None and len(known) > 1:
                    axes.errorbar(middle, summed.mean, summed.deviation, color=WANTED, capsize=4, lw=1.1)
                    axes.plot(middle, summed.mean, "_", color=WANTED, ms=14, mew=1.4)
            if setting and number < _NAMED:
                axes.plot([], [], mark, color=colour, ms=4.5, label=setting)
        axes.set_xticks(range(len(names)), [words.descriptor(name) for name in names])
        axes.set_xlim(-0.6, len(names) - 0.4)
        percent_axis(axes)
        axes.set_ylabel("error, rounded (%)")
        axes.grid(axis="y", color="#e6e9ed", lw=0.7)
        axes.set_axisbelow(True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return svg(figure, "errors")


def correlation_curves(ensembles: Mapping[str, Sequence[Correlation]]) -> Picture:
    """S2 along both in-plane axes of one direction: a line a member (mean over planes), and what was wanted."""
    first = next(iter(ensembles.values()))[0]
    with style():
        figure = Figure(figsize=(6.4, 2.6), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for k, (here, name) in enumerate(zip(axes, IN_PLANE[first.axis], strict=True)):
            for number, (setting, group) in enumerate(ensembles.items()):
                for j, member in enumerate(group):
                    label = (setting or "got") if j == 0 and number < _NAMED else None
                    curve = along_axes(member.mean)[k]
                    how = pen(number, len(curve)) if len(ensembles) > 1 else {"color": CURVES[0]}
                    here.plot(curve, lw=1.0, alpha=0.7, label=label, **how)
                wanted = along_axes(group[0].wanted)[k]
                here.plot(
                    wanted, color=WANTED, lw=1.2, ls=(0, (4, 2)), label="wanted" if number == 0 else None
                )
            here.set_xlim(0, first.lags)
            here.set_xlabel(f"lag along {name} (voxels)")
        axes[0].set_ylabel("S₂")
        axes[0].set_ylim(bottom=0)
        axes[1].legend(loc="upper right")
        return svg(figure, f"s2-phase-{first.phase.label}-normal-to-{first.axis}")


@dataclass(frozen=True)
class Fall:
    """How an error falls while a run goes on.

    Attributes
    ----------
    seconds, errors : arrays
        Of the relaxed field, one an iteration; NaN where nothing was measured.
    end : (float, float) or None
        Seconds of the finished run and error of its rounded volume.
    """

    seconds: NDArray[np.float64]
    errors: NDArray[np.float64]
    end: tuple[float, float] | None = None

    @classmethod
    def of(cls, member: Member, name: str) -> Fall:
        """That of a descriptor's error."""
        metrics = member.run.metrics
        final, seconds = member.errors().get(name), member.run.summary.get("seconds")
        return cls(
            continued(column(metrics, "seconds")),
            column(metrics, "errors", name),
            (seconds, final) if seconds and final else None,
        )


def errors_over_time(falls: Mapping[str, Fall], name: str) -> Picture | None:
    """The error of a descriptor against the time of each run; a star is the rounded volume's.

    None where no run has recorded any.
    """
    with style():
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        axes = figure.subplots()
        drawn = False
        for number, (label, fall) in enumerate(falls.items()):
            how = pen(number, len(fall.errors))
            known = bool(np.isfinite(fall.seconds * fall.errors).any())
            if known:
                draw(axes, fall.seconds, 100 * fall.errors, how, label)
            if fall.end is not None:
                end, final = fall.end
                axes.plot(
                    *([end], [100 * final], "*"), ms=10, mec=WANTED, mew=0.6, color=how["color"],
                    label=None if known else label,
                )  # fmt: skip
            drawn = drawn or known or fall.end is not None
        if not drawn:
            return None
        percent_axis(axes)
        axes.set_xlim(left=0)
        axes.set_xlabel("time (s)")
        axes.set_ylabel(f"error of {words.descriptor(name)} (%)")
        axes.grid(axis="y", color="#e6e9ed", lw=0.7)
        axes.set_axisbelow(True)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return svg(figure, f"{name}-over-time")
