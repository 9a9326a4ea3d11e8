"""The picture of what the micrographs prescribe, which `mcrdist characterize` leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mcrdist.analysis import words
from mcrdist.analysis.drawing import GOT, SECOND, style
from mcrdist.analysis.figures import along_axes, whole
from mcrdist.analysis.material import AXES, as_it_came
from mcrdist.analysis.pictures import DARK, LIGHT
from mcrdist.analysis.slices import IN_PLANE
from mcrdist.npzfile import load_npz
from mcrdist.store.metadata import short_unit
from mcrdist.store.place import writing

#: What of a direction is drawn or told.
_SHOWN = ("s2", "micrograph", "phase", "source", "volume_fraction", "variation", "pixel_size", "unit")


def targets_figure(targets_path: str | Path, picture_path: str | Path) -> Path:
    """A picture of what the micrographs prescribe, for each direction; once where directions share all of it.

    Grey-scale image with the described phase tinted, segmented micrograph, map of S2, S2 along both axes with the lag
    window, phase fraction and variation.

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
    found = _distinct(targets, [axis for axis in AXES if f"{axis}/s2" in targets])
    with style():
        grey = any(f"{axis}/grey" in targets for axis in AXES)
        widths = (1, 1, 1.15, 1.6) if grey else (1, 1.15, 1.6)
        figure = Figure(figsize=(3.2 * sum(widths), 3.7 * len(found)), layout="constrained")
        parts = figure.subfigures(len(found), 1, squeeze=False, hspace=0.04)[:, 0]
        for axes, part in zip(found, parts, strict=True):
            panels = part.subplots(1, len(widths), width_ratios=widths)
            if grey:
                _before(panels[0], axes[0], targets)
            _target_row(panels[-3:], part, axes, targets)
        with writing(path, "run.dir"):
            figure.savefig(path, dpi=130)
    return path


def _distinct(targets: Mapping[str, NDArray[Any]], axes: Sequence[str]) -> list[list[str]]:
    """The directions, those together that are asked for the same."""
    groups: list[list[str]] = []
    for axis in axes:
        for group in groups:
            if all(_equal(targets, f"{axis}/{key}", f"{group[0]}/{key}") for key in _SHOWN):
                group.append(axis)
                break
        else:
            groups.append([axis])
    return groups


def _equal(targets: Mapping[str, NDArray[Any]], one: str, other: str) -> bool:
    return np.array_equal(targets.get(one, np.zeros(0)), targets.get(other, np.zeros(0)))


def _before(axes: Any, axis: str, targets: Mapping[str, NDArray[Any]]) -> None:
    """The image as it came, with what became the described phase tinted: a wrong threshold is seen at once."""
    axes.set_axis_off()
    grey = as_it_came(targets, axis)
    if grey is None:
        return
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
    tint = np.zeros((*grey.shape, 4), np.uint8)
    tint[_described(axis, targets)] = np.rint(255 * np.array(to_rgba(SECOND, 0.4)))
    axes.imshow(tint)
    axes.set_title("image, described phase tinted")


def _described(axis: str, targets: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = targets[f"{axis}/micrograph"] == int(targets.get(f"{axis}/phase", np.int64(1)))
    return found


def _target_row(panels: Any, part: Any, axes: Sequence[str], targets: Mapping[str, NDArray[Any]]) -> None:
    axis = axes[0]
    rows, columns = IN_PLANE[axis] if len(axes) == 1 else ("down", "across")
    along = "along " if len(axes) == 1 else ""
    s2 = np.asarray(targets[f"{axis}/s2"], np.float64)
    lags = s2.shape[1] - 1
    image, mapped, curve = panels
    facts = [f"planes normal to {', '.join(axes)}"]
    if f"{axis}/source" in targets:
        facts.append(str(targets[f"{axis}/source"]).replace("$", r"\$"))
    for key, name in (("volume_fraction", "phase fraction"), ("variation", "variation")):
        if f"{axis}/{key}" in targets:
            facts.append(f"{name} {words.number(float(targets[f'{axis}/{key}']), 4)}")
    part.suptitle("   ·   ".join(facts), x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    if f"{axis}/micrograph" in targets:
        phase = _described(axis, targets)
        image.imshow(phase, cmap=ListedColormap([LIGHT, DARK]), vmin=0, vmax=1)
        image.set_title(f"described phase (dark), {phase.shape[0]} × {phase.shape[1]} px")  # noqa: RUF001
        image.add_patch(_window(lags, phase.shape))
    image.set_xlabel(columns)
    image.set_ylabel(rows)
    extent = (-lags - 0.5, lags + 0.5, lags + 0.5, -lags - 0.5)
    picture = mapped.imshow(whole(s2), cmap="cividis", extent=extent)
    part.colorbar(picture, ax=mapped, shrink=0.85, pad=0.02).outline.set_visible(False)
    mapped.set(
        title="S₂ over all lags of the window", xlabel=f"lag {along}{columns}", ylabel=f"lag {along}{rows}"
    )
    fraction = float(targets.get(f"{axis}/volume_fraction", s2[lags, 0]))
    for values, name, colour in zip(along_axes(s2), (rows, columns), (SECOND, GOT), strict=True):
        curve.plot(values, color=colour, lw=1.8, label=along + name)
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
