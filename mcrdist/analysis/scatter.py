"""Figures of a sweep: how its members scatter in their errors, and in S2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mcrdist.analysis import words
from mcrdist.analysis.ensemble import Member, Spread
from mcrdist.analysis.figures import CURVES, WANTED, along_axes, style, svg
from mcrdist.analysis.slices import IN_PLANE, Correlation

#: Settings that have a name in a legend; beyond these it would cover the picture.
_NAMED = 8


def error_scatter(ensembles: Mapping[str, Sequence[Member]], names: Sequence[str]) -> str | None:
    """A dot a member and descriptor, with mean and standard deviation of each ensemble, as an SVG data URI.

    None where nothing has been measured.
    """
    if not names:
        return None
    with style():
        figure = Figure(figsize=(max(5.0, 1.5 * len(names) + 1.5), 3.2), layout="constrained")
        axes = figure.subplots()
        width = 0.7 / len(ensembles)
        for number, (setting, group) in enumerate(ensembles.items()):
            colour = CURVES[number % len(CURVES)]
            for k, name in enumerate(names):
                values = [member.errors().get(name) for member in group]
                known = 100 * np.array([value for value in values if value])  # 0 has no place on a log axis
                middle = k + (number - (len(ensembles) - 1) / 2) * width
                spread = (
                    np.linspace(-0.3, 0.3, len(known)) * width if len(known) > 1 else np.zeros(len(known))
                )
                axes.plot(middle + spread, known, "o", color=colour, ms=4.5, alpha=0.75, mew=0)
                summed = Spread.of(list(known))
                if summed is not None and len(known) > 1:
                    axes.errorbar(middle, summed.mean, summed.deviation, color=WANTED, capsize=4, lw=1.1)
                    axes.plot(middle, summed.mean, "_", color=WANTED, ms=14, mew=1.4)
            if setting and number < _NAMED:
                axes.plot([], [], "o", color=colour, ms=4.5, label=setting)
        axes.set_xticks(range(len(names)), [words.descriptor(name) for name in names])
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_yscale("log")
        axes.set_ylabel("error, rounded (%)")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(axis="y", color="#e6e9ed", lw=0.7)
        axes.set_axisbelow(True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return svg(figure)


def correlation_curves(ensembles: Mapping[str, Sequence[Correlation]]) -> str:
    """S2 along both in-plane axes of one direction: a line a member (mean over planes), and what was wanted."""
    first = next(iter(ensembles.values()))[0]
    with style():
        figure = Figure(figsize=(6.4, 2.6), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for k, (here, name) in enumerate(zip(axes, IN_PLANE[first.axis], strict=True)):
            for number, (setting, group) in enumerate(ensembles.items()):
                for j, member in enumerate(group):
                    label = (setting or "got") if j == 0 and number < _NAMED else None
                    colour = CURVES[number % len(CURVES)]
                    here.plot(along_axes(member.mean)[k], color=colour, lw=1.0, alpha=0.7, label=label)
                wanted = along_axes(group[0].wanted)[k]
                here.plot(
                    wanted, color=WANTED, lw=1.2, ls=(0, (4, 2)), label="wanted" if number == 0 else None
                )
            here.set_xlim(0, first.lags)
            here.set_xlabel(f"lag along {name} (voxels)")
        axes[0].set_ylabel("S₂")
        axes[0].set_ylim(bottom=0)
        axes[1].legend(loc="upper right")
        return svg(figure)
