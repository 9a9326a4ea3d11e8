"""The pictures of the page of results: curves as SVG, volumes as small PNG; no benchmark itself."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from _outcomes import Outcome
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image

from mcrdist.analysis import scatter
from mcrdist.analysis.drawing import Picture, pen, style, svg
from mcrdist.analysis.figures import percent_axis
from mcrdist.analysis.pictures import coloured
from mcrdist.analysis.plates import block
from mcrdist.store.run import Run

#: Pixels along the edges of a picture of a volume, and its colours.
EDGE, COLOURS = 300, 32
#: Errors below this are drawn there.
SMALLEST = 1e-6


def volume(run: Run, path: Path, edge: int = EDGE) -> None:
    """The volume from outside, or the plane."""
    drawn = block(run.volume)
    if drawn is None:
        plane = run.phase[0]
        image = Image.fromarray(coloured(plane)).resize((edge, edge), Image.Resampling.NEAREST)
    else:
        buffer = io.BytesIO()
        with style():
            drawn.figure.savefig(buffer, format="png", dpi=edge / drawn.figure.get_figwidth())
        image = Image.open(buffer).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def convergence(outcomes: Sequence[Outcome]) -> Picture:
    """The error of S2 against iterations and against time; a sweep of the annealing is an attempt a pixel."""
    with style():
        figure = Figure(figsize=(8.4, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for number, one in enumerate(outcomes):
            level, iteration, seconds, s2 = (
                one.curve[name] for name in ("level", "iteration", "seconds", "s2")
            )
            last = level == level[-1]
            attempts = math.prod(one.record["shape"]) if one.record["stage"] == "anneal" else 1
            errors, how = 100 * np.maximum(s2[last], SMALLEST), pen(number, last.sum())
            left.plot(attempts * (iteration[last] - iteration[last][0] + 1), errors, **how)
            right.plot(seconds[last], errors, label=one.experiment.label, **how)
        left.set(xscale="log", yscale="log", xlabel="iterations", ylabel="E(S₂) (%)")
        right.set(xscale="log", xlabel="time (s)")
        right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        right.xaxis.set_minor_formatter(NullFormatter())
        for axes in (left, right):
            axes.grid(color="#e6e9ed", lw=0.7)
        right.legend(loc="lower left")
        return svg(figure, "fig02")


def against_weight(series: Mapping[str, Sequence[tuple[float, Outcome]]], level: Outcome | None) -> Picture:
    """E(S2) of the rounded volume against lambda, a curve a mode; `level` is one without any lambda."""
    with style():
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.subplots()
        for number, (label, own) in enumerate(series.items()):
            known = [(weight, one.error("rounded", "s2")) for weight, one in sorted(own, key=lambda p: p[0])]
            pairs = [(weight, 100 * error) for weight, error in known if error is not None]
            axes.plot([w for w, _ in pairs], [e for _, e in pairs], **pen(number), label=label)
        constant = None if level is None else level.error("rounded", "s2")
        if constant is not None:
            axes.axhline(100 * constant, color="#222222", lw=1.0, ls=(0, (4, 2)), label="constraint")
        axes.set(xscale="log", xlabel="λ", ylabel="E(S₂), rounded (%)")
        percent_axis(axes)
        axes.grid(color="#e6e9ed", lw=0.7)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return svg(figure, "fig07")


def over_time(outcomes: Sequence[Outcome]) -> Picture | None:
    """The error of S2 against time."""
    return scatter.errors_over_time({one.experiment.label: _fall(one) for one in outcomes}, "s2")


def _fall(one: Outcome) -> scatter.Fall:
    final = one.error("rounded", "s2")
    end = None if final is None else (one.record["seconds"], final)
    return scatter.Fall(one.curve["seconds"], one.curve["s2"], end)


def spread(outcomes: Sequence[Outcome], names: Sequence[str]) -> Picture | None:
    """A dot a run and descriptor."""
    return scatter.error_scatter({"": [one.errors("rounded") for one in outcomes]}, names)
