"""The figures of a run: S2 wanted against got, and convergence."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from mcrdist.analysis import words
from mcrdist.analysis.drawing import GOT, SIGNED, WANTED, Picture, pen, style, svg
from mcrdist.analysis.slices import IN_PLANE, Correlation
from mcrdist.store.metadata import short_unit


def whole(s2: NDArray[np.float64]) -> NDArray[np.float64]:
    """The (2L+1, 2L+1) map of all lags from the (2L+1, L+1) half that is stored: S2(-r) = S2(r)."""
    return np.concatenate([s2[::-1, :0:-1], s2], axis=1)


def along_axes(s2: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """S2 at lags 0..L along the rows' axis and along the columns' axis."""
    lags = s2.shape[1] - 1
    return s2[lags:, 0], s2[lags]


def _second_scale(axes: Axes, width: float, unit: str | None) -> None:
    """The same lags in the physical unit, above."""
    if unit is None:
        return

    def length(lag: Any) -> Any:
        return lag * width

    def lag(length: Any) -> Any:
        return length / width

    top = axes.secondary_xaxis("top", functions=(length, lag))
    top.set_xlabel(f"lag ({short_unit(unit)})", fontsize=8, color="#555555")
    top.tick_params(labelsize=8)


def correlation_curves(found: Correlation, voxel_size: Mapping[str, float], unit: str | None) -> Picture:
    """S2 along both in-plane axes, wanted and got, with the 5-95 % band over planes."""
    with style():
        figure = Figure(figsize=(6.4, 2.75), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        curves = [along_axes(s2) for s2 in (found.wanted, found.mean, found.low, found.high)]
        for k, name in enumerate(IN_PLANE[found.axis]):
            wanted, mean, low, high = (pair[k] for pair in curves)
            lag = np.arange(len(wanted))
            here = axes[k]
            here.fill_between(lag, low, high, color=GOT, alpha=0.22, lw=0, label="got, 5–95 % of planes")  # noqa: RUF001
            here.plot(lag, mean, color=GOT, lw=1.8, label="got, mean")
            here.plot(lag, wanted, color=WANTED, lw=1.2, ls=(0, (4, 2)), label="wanted")
            here.axhline(wanted[0] ** 2, color="#999999", lw=0.8, ls=":")
            here.set_xlim(0, lag[-1])
            here.set_xlabel(f"lag along {name} (voxels)")
            _second_scale(here, voxel_size[name], unit)
            here.annotate(
                "fraction²", (lag[-1], wanted[0] ** 2), (0, 2), textcoords="offset points",
                ha="right", va="bottom", fontsize=7.5, color="#777777",
            )  # fmt: skip
        axes[0].set_ylabel("S₂")
        axes[0].set_ylim(bottom=0)
        axes[1].legend(loc="upper right")
        return svg(figure, f"s2-{_place(found)}")


def _place(found: Correlation) -> str:
    """For the name of a file."""
    return f"phase-{found.phase.label}-normal-to-{found.axis}"


def correlation_maps(found: Correlation) -> Picture:
    """The maps of S2 over all lags, wanted, got and their difference."""
    rows, columns = IN_PLANE[found.axis]
    wanted, mean = whole(found.wanted), whole(found.mean)
    low, high = min(wanted.min(), mean.min()), max(wanted.max(), mean.max())
    off = mean - wanted
    limit = max(float(np.abs(off).max()), 1e-12)
    with style():
        figure = Figure(figsize=(6.4, 2.45), layout="constrained")
        axes = figure.subplots(1, 3, sharey=True)
        extent = (-found.lags - 0.5, found.lags + 0.5, found.lags + 0.5, -found.lags - 0.5)
        pictures = [
            here.imshow(values, cmap=colours, vmin=bottom, vmax=top, extent=extent)
            for here, values, colours, bottom, top in (
                (axes[0], wanted, "cividis", low, high),
                (axes[1], mean, "cividis", low, high),
                (axes[2], off, SIGNED, -limit, limit),
            )
        ]
        for here, title in zip(axes, ("wanted", "got (mean)", "got − wanted"), strict=True):
            here.set_title(title)
            here.set_xlabel(f"lag along {columns}")
            here.spines[:].set_visible(False)
        axes[0].set_ylabel(f"lag along {rows}")
        figure.colorbar(pictures[1], ax=axes[1], shrink=0.8, pad=0.03).outline.set_visible(False)
        last = figure.colorbar(pictures[2], ax=axes[2], shrink=0.8, pad=0.03)
        last.formatter.set_powerlimits((-1, 1))  # type: ignore[attr-defined]
        last.outline.set_visible(False)
        return svg(figure, f"s2-map-{_place(found)}")


def column(metrics: Sequence[Mapping[str, Any]], *keys: str) -> NDArray[np.float64]:
    """A figure of every record, NaN where it has none."""
    values = [words.dig(record, *keys) for record in metrics]
    return np.array([np.nan if v is None else float(v) for v in values])


def continued(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A count that may begin anew at a level, made cumulative."""
    steps = np.diff(values, prepend=0.0)
    return np.cumsum(np.where(steps < 0, values, steps))


def convergence(metrics: Sequence[Mapping[str, Any]]) -> Picture | None:
    """Loss, errors and grey fraction over all levels against evaluations.

    None without at least two records: there is no curve to draw.
    """
    if len(metrics) < 2:
        return None
    evaluations = continued(column(metrics, "evaluations"))
    seconds = continued(column(metrics, "seconds"))
    if np.isnan(evaluations).any():
        evaluations = np.arange(1.0, len(metrics) + 1)
    level = column(metrics, "level")
    cuts = [0, *(np.flatnonzero(np.diff(level)) + 1), len(metrics)]
    parts = [slice(a, b) for a, b in itertools.pairwise(cuts)]
    names = list(dict.fromkeys(name for record in metrics for name in (record.get("errors") or {})))
    with style():
        figure = Figure(figsize=(9.6, 6.2), layout="constrained")
        loss, errors, grey = axes = figure.subplots(3, 1, sharex=True, height_ratios=(1.2, 1.2, 0.8))
        start = 0.0
        for number, part in enumerate(parts):
            end = float(evaluations[part][-1])
            for here in axes:
                if number % 2 == 0:
                    here.axvspan(start, end, color="#f0f2f5", lw=0, zorder=0)
            wide = (end - start) / evaluations[-1]
            if wide > 0.04:
                label = words.shape(metrics[part.start].get("shape"))
                loss.annotate(
                    label, ((start + end) / 2, 1), (0, -3), xycoords=("data", "axes fraction"),
                    textcoords="offset points", ha="center", va="top", fontsize=8.5, color="#444444",
                    fontweight="bold", rotation=90 if wide < 0.12 and len(label) > 5 else 0,
                )  # fmt: skip
            draw(loss, evaluations[part], column(metrics, "loss")[part], {"color": WANTED})
            for k, error in enumerate(names):
                values = 100 * column(metrics, "errors", error)[part]
                name = words.descriptor(error) if number == 0 else None
                draw(errors, evaluations[part], values, pen(k, len(values)), name)
            draw(grey, evaluations[part], 100 * column(metrics, "grey")[part], {"color": WANTED})
            start = end
        loss.set_ylabel("loss")
        errors.set_ylabel("error, relaxed (%)")
        grey.set_ylabel("undecided\nvoxels (%)")
        loss.set_yscale("log")
        loss.yaxis.set_minor_formatter(NullFormatter())
        percent_axis(errors)
        errors.set_ylim(bottom=max(errors.get_ylim()[0], 1e-3))  # below, it is zero to everybody
        low, high = loss.get_ylim()
        loss.set_ylim(low, high * (high / low) ** 0.18)  # room for the levels' names
        grey.set_ylim(bottom=0)
        grey.set_xlabel("evaluations of loss and gradient")
        grey.set_xlim(0, float(evaluations[-1]))
        if names:
            errors.legend(loc="upper right", ncols=min(len(names), 5))
        _clock(loss, evaluations, seconds)
        return svg(figure, "convergence")


def draw(
    axes: Axes, x: NDArray[Any], y: NDArray[Any], how: Mapping[str, Any], label: str | None = None
) -> None:
    """A curve; a single point must show too, and a figure that is missing must leave no gap."""
    known = ~np.isnan(y)
    lone: dict[str, Any] = {"marker": "o", "ms": 3} if known.sum() == 1 else {}
    axes.plot(x[known], y[known], lw=1.5, label=label, **{**how, **lone})


def percent_axis(axes: Axes) -> None:
    """A logarithmic axis for errors in per cent, with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _clock(axes: Axes, evaluations: NDArray[np.float64], seconds: NDArray[np.float64]) -> None:
    """Time above the axis, at round values."""
    if np.isnan(seconds).any() or not seconds[-1] > 0:
        return
    steps = [m * f for f in (1, 60, 3600, 86400) for m in (1, 2, 5, 10, 15, 20, 30)]
    step = next((s for s in sorted({0.1, 0.2, 0.5, *steps}) if seconds[-1] / s <= 8), 7 * 86400)
    ticks = np.arange(1, int(seconds[-1] / step) + 1) * step
    ticks = ticks[ticks >= seconds[0]]  # what came before the first evaluation has no place on the axis
    top = axes.secondary_xaxis("top")
    top.set_xticks(np.interp(ticks, seconds, evaluations), [words.duration(float(t)) for t in ticks])
    top.tick_params(labelsize=8)
