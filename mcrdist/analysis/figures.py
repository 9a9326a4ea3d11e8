"""Static figures: S2 wanted against got, convergence, and the picture of the targets.

Drawn with matplotlib's objects and without pyplot, so nothing here touches a display or global state.
"""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from mcrdist.analysis import words
from mcrdist.analysis.material import AXES
from mcrdist.analysis.pictures import DARK, LIGHT
from mcrdist.analysis.slices import IN_PLANE, Correlation
from mcrdist.store.metadata import short_unit
from mcrdist.store.place import writing
from mcrdist.store.run import load_npz

WANTED, GOT, SECOND = "#222222", "#0072b2", "#d55e00"  # Okabe and Ito's blue and vermilion
#: One after the other for curves of any number; those beyond the sixth are dashed.
CURVES = (GOT, SECOND, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, and knows subscripts
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.titlesize": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "mcrdist",
    "svg.fonttype": "path",
    "path.simplify": True,
    "image.interpolation": "nearest",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of all figures within the ``with`` block."""
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


def svg(figure: Figure) -> str:
    """A figure as an SVG data URI."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None}, dpi=150, bbox_inches="tight", pad_inches=0.04
    )
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


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


def correlation_curves(
    found: Correlation, voxel_size: Mapping[str, float], unit: str | None, error: float | None = None
) -> str:
    """S2 along both in-plane axes, wanted and got, with the 5-95 % band over planes, as an SVG data URI."""
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
        return svg(figure)


def correlation_maps(found: Correlation) -> str:
    """The maps of S2 over all lags, wanted, got and their difference, as an SVG data URI."""
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
                (axes[2], off, "PuOr", -limit, limit),
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
        return svg(figure)


def _column(metrics: Sequence[Mapping[str, Any]], *keys: str) -> NDArray[np.float64]:
    values = [words.dig(record, *keys) for record in metrics]
    return np.array([np.nan if v is None else float(v) for v in values])


def _continued(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A count that may begin anew at a level, made cumulative."""
    steps = np.diff(values, prepend=0.0)
    return np.cumsum(np.where(steps < 0, values, steps))


def convergence(metrics: Sequence[Mapping[str, Any]]) -> str | None:
    """Loss, errors and grey fraction over all levels against evaluations, as an SVG data URI.

    None without at least two records: there is no curve to draw.
    """
    if len(metrics) < 2:
        return None
    evaluations = _continued(_column(metrics, "evaluations"))
    seconds = _continued(_column(metrics, "seconds"))
    if np.isnan(evaluations).any():
        evaluations = np.arange(1.0, len(metrics) + 1)
    level = _column(metrics, "level")
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
            _draw(loss, evaluations[part], _column(metrics, "loss")[part], WANTED)
            for k, error in enumerate(names):
                values = 100 * _column(metrics, "errors", error)[part]
                name = words.descriptor(error) if number == 0 else None
                stroke = "-" if k < len(CURVES) else "--"
                _draw(errors, evaluations[part], values, CURVES[k % len(CURVES)], name, stroke)
            _draw(grey, evaluations[part], 100 * _column(metrics, "grey")[part], "#009e73")
            start = end
        loss.set_ylabel("loss")
        errors.set_ylabel("error, relaxed (%)")
        grey.set_ylabel("undecided\nvoxels (%)")
        for here in (loss, errors):
            here.set_yscale("log")
            here.yaxis.set_minor_formatter(NullFormatter())
        errors.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        errors.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        errors.set_ylim(bottom=max(errors.get_ylim()[0], 1e-3))  # below, it is zero to everybody
        low, high = loss.get_ylim()
        loss.set_ylim(low, high * (high / low) ** 0.18)  # room for the levels' names
        grey.set_ylim(bottom=0)
        grey.set_xlabel("evaluations of loss and gradient")
        grey.set_xlim(0, float(evaluations[-1]))
        if names:
            errors.legend(loc="upper right", ncols=min(len(names), 5))
        _clock(loss, evaluations, seconds)
        return svg(figure)


def _draw(
    axes: Axes, x: NDArray[Any], y: NDArray[Any], colour: str, label: str | None = None, stroke: str = "-"
) -> None:
    """A curve; a single point must show too, and a figure that is missing must leave no gap."""
    known = ~np.isnan(y)
    marker = "o" if known.sum() == 1 else ""
    axes.plot(x[known], y[known], color=colour, lw=1.5, ls=stroke, label=label, marker=marker, ms=3)


def _clock(axes: Axes, evaluations: NDArray[np.float64], seconds: NDArray[np.float64]) -> None:
    """Time above the axis, at round values."""
    if np.isnan(seconds).any() or not seconds[-1] > 0:
        return
    steps = [m * f for f in (1, 60, 3600, 86400) for m in (1, 2, 5, 10, 15, 20, 30)]
    step = next((s for s in sorted({0.1, 0.2, 0.5, *steps}) if seconds[-1] / s <= 8), 7 * 86400)
    ticks = np.arange(1, int(seconds[-1] / step) + 1) * step
    top = axes.secondary_xaxis("top")
    top.set_xticks(np.interp(ticks, seconds, evaluations), [words.duration(float(t)) for t in ticks])
    top.tick_params(labelsize=8)


def targets_figure(targets_path: str | Path, picture_path: str | Path) -> Path:
    """A picture of what the micrographs prescribe, for each direction.

    Segmented micrograph, map of S2, S2 along both axes with the lag window, phase fraction and variation.

    Parameters
    ----------
    targets_path
        ``targets.npz``. `{axis}/pixel_size` and `{axis}/unit` are used where it has them.
    picture_path
        Where to write; the ending (.png, .pdf, .svg) decides how.

    Returns
    -------
    Path
        The picture.

    Raises
    ------
    InputError
        The targets cannot be read or the picture cannot be written.
    """
    targets, path = load_npz(Path(targets_path)), Path(picture_path)
    found = [axis for axis in AXES if f"{axis}/s2" in targets]
    with style():
        figure = Figure(figsize=(12, 3.7 * len(found)), layout="constrained")
        parts = figure.subfigures(len(found), 1, squeeze=False, hspace=0.04)[:, 0]
        for axis, part in zip(found, parts, strict=True):
            _target_row(part.subplots(1, 3, width_ratios=(1, 1.15, 1.6)), part, axis, targets)
        with writing(path, "run.dir"):
            figure.savefig(path, dpi=130)
    return path


def _target_row(axes: Any, part: Any, axis: str, targets: Mapping[str, NDArray[Any]]) -> None:
    rows, columns = IN_PLANE[axis]
    s2 = np.asarray(targets[f"{axis}/s2"], np.float64)
    lags = s2.shape[1] - 1
    image, mapped, curve = axes
    facts = [f"planes normal to {axis}"]
    if f"{axis}/source" in targets:
        facts.append(str(targets[f"{axis}/source"]).replace("$", r"\$"))
    for key, name in (("volume_fraction", "phase fraction"), ("variation", "variation")):
        if f"{axis}/{key}" in targets:
            facts.append(f"{name} {words.number(float(targets[f'{axis}/{key}']), 4)}")
    part.suptitle("   ·   ".join(facts), x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    if f"{axis}/micrograph" in targets:
        labels = targets[f"{axis}/micrograph"]
        phase = labels == int(targets.get(f"{axis}/phase", np.int64(1)))
        image.imshow(phase, cmap=ListedColormap([LIGHT, DARK]), vmin=0, vmax=1)
        image.set_title(f"described phase (dark), {phase.shape[0]} × {phase.shape[1]} px")  # noqa: RUF001
        image.add_patch(_window(lags, phase.shape))
    image.set_xlabel(columns)
    image.set_ylabel(rows)
    extent = (-lags - 0.5, lags + 0.5, lags + 0.5, -lags - 0.5)
    picture = mapped.imshow(whole(s2), cmap="cividis", extent=extent)
    part.colorbar(picture, ax=mapped, shrink=0.85, pad=0.02).outline.set_visible(False)
    mapped.set(
        title="S₂ over all lags of the window", xlabel=f"lag along {columns}", ylabel=f"lag along {rows}"
    )
    fraction = float(targets.get(f"{axis}/volume_fraction", s2[lags, 0]))
    for values, name, colour in zip(along_axes(s2), (rows, columns), (SECOND, GOT), strict=True):
        curve.plot(values, color=colour, lw=1.8, label=f"along {name}")
    for height, name in ((fraction, "fraction"), (fraction**2, "fraction²")):
        curve.axhline(height, color="#999999", lw=0.8, ls=":")
        curve.annotate(
            name,
            (lags * 1.12, height),
            (0, 2),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color="#777777",
        )
    curve.axvline(lags, color="#777777", lw=1)
    curve.annotate(
        f"lag window, {lags} px{_physical(lags, axis, targets)}", (lags, fraction * 0.97), (-4, 0),
        textcoords="offset points", ha="right", va="top", rotation=90, fontsize=8, color="#555555",
    )  # fmt: skip
    how = "wrapped around" if bool(targets.get("periodic", False)) else "pairs inside the image only"
    curve.set(
        xlim=(0, lags * 1.12), ylim=(0, None), xlabel="lag (pixels)", title=f"S₂ along the axes ({how})"
    )
    curve.legend(loc="upper center")


def _physical(lags: int, axis: str, targets: Mapping[str, NDArray[Any]]) -> str:
    """ " = 3.2 µm" where the targets know the size of a pixel."""
    size = targets.get(f"{axis}/pixel_size")
    if size is None or not np.isfinite(float(size)):
        return ""
    return f" = {words.number(lags * float(size))} {short_unit(str(targets.get(f'{axis}/unit', 'px')))}"


def _window(lags: int, shape: tuple[int, ...]) -> Any:
    """The window of lags at its true size, in the middle of the micrograph."""
    from matplotlib.patches import Rectangle

    corner = (shape[1] / 2 - lags, shape[0] / 2 - lags)
    return Rectangle(corner, 2 * lags, 2 * lags, fill=False, ec=SECOND, lw=1.4)
