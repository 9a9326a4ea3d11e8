"""The figure that answers whether a volume is representative: statistics of growing cubes, and their scatter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from mcrdist.analysis.drawing import WANTED, pen, style
from mcrdist.analysis.material import AXES
from mcrdist.store.metadata import short_unit


def growth(found: Mapping[str, Any], unit: str) -> Figure | None:
    """Draw volume fraction, specific surface and diffusivity against the edge of cubes.

    Parameters
    ----------
    found : mapping
        "representative" of a phase in ``analysis.json``.
    unit : str
        Of length, by OME-Zarr's name or "voxel".

    Returns
    -------
    Figure or None
        A dot a cube, the mean over those of one edge with a band of one standard deviation, and a larger mark for
        the middle of the volume; None without cubes.
    """
    if not found["scatters"]:
        return None
    names = list(dict.fromkeys(one["quantity"] for one in found["scatters"]))
    flows = [name for name in names if name.startswith("diffusivity")]
    panels = [["volume fraction"], ["specific surface"], *([flows] if flows else [])]
    titles = [
        "volume fraction",
        f"specific surface (1/{short_unit(unit)})",
        "diffusivity $D_\\mathrm{eff}/D_0$",
    ]
    with style():
        figure = Figure(figsize=(2.5 * len(panels), 2.3), layout="constrained")
        for axes, own, title in zip(
            np.atleast_1d(figure.subplots(1, len(panels))), panels, titles, strict=False
        ):
            for name in own:
                _curve(axes, found, name)
            axes.set_xscale("log", base=2)
            edges = sorted({part["edges"][0] for part in found["cubes"]})
            if found["middle"] is not None:
                edges = sorted({*edges, *found["middle"]["edges"]})
            axes.set_xticks(edges, [str(edge) for edge in edges])
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.minorticks_off()
            axes.set_xlabel("edge of the cubes (voxels)")
            axes.set_title(title)
            axes.set_ylim(bottom=0)
            if len(own) > 1:
                axes.legend(loc="best")
    return figure


def _curve(axes: Axes, found: Mapping[str, Any], name: str) -> None:
    axis = name.rpartition(" ")[2]
    number = AXES.index(axis) if axis in AXES else 0
    how = pen(number)
    colour = how["color"]
    own = [one for one in found["scatters"] if one["quantity"] == name]
    edge = np.array([one["edge"] for one in own])
    mean = np.array([one["mean"] for one in own])
    band = mean * np.nan_to_num([one["scatter"] or 0.0 for one in own])
    axes.fill_between(edge, np.maximum(mean - band, 0), mean + band, color=colour, alpha=0.18, lw=0)
    axes.plot(edge, mean, lw=1.5, label=f"along {axis}" if axis in AXES else None, **how)
    dots = [(part["edges"][0], part["values"][name]) for part in found["cubes"]]
    axes.plot(*zip(*dots, strict=True), ".", color=colour, ms=4.5, alpha=0.45, mew=0)
    if found["middle"] is not None:
        middle = found["middle"]
        size = float(np.prod(middle["edges"])) ** (1 / 3)
        value = middle["values"].get(name)
        if value is not None:
            axes.plot([size], [value], how["marker"], color=colour, ms=7, mec=WANTED, mew=0.8)
