"""Pictures of the volume that stand still, for print: planes beside the micrograph, and the block from outside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

from mcrdist.analysis import words
from mcrdist.analysis.drawing import Picture, style, svg
from mcrdist.analysis.material import AXES, Phase, plane_axes
from mcrdist.analysis.pictures import centre_crop, coarsened, coloured
from mcrdist.analysis.slices import IN_PLANE, planes
from mcrdist.store.metadata import short_unit
from mcrdist.store.volume import Volume

#: Pixels along the longest edge: more than print resolves.
_PIXELS = 512
#: Where x, y and z run in the picture of the block, a voxel's edge being 1.
_X, _Y, _Z = (0.91, -0.20), (0.52, 0.33), (0.0, 0.96)
#: Light on the front, the right and the upper face.
_FRONT, _RIGHT, _TOP = 0.93, 0.80, 1.0


def level_for(volume: Volume, most: int = _PIXELS) -> int:
    """The finest level of the pyramid with at most so many voxels along its longest edge, or the coarsest."""
    level = 0
    while level + 1 < volume.levels("phase") and max(volume.phase(level).shape) > most:
        level += 1
    return level


def micrograph(
    targets: Mapping[str, NDArray[Any]], axis: str, several: bool, factor: int = 1
) -> NDArray[Any] | None:
    """The micrograph of a direction, of one phase that phase against the rest; None where there is none."""
    if f"{axis}/micrograph" not in targets:
        return None
    labels = targets[f"{axis}/micrograph"]
    mask = labels == int(targets.get(f"{axis}/phase", np.int64(1)))
    return coarsened(labels if several else mask, factor)


def middle_planes(volume: Volume, targets: Mapping[str, NDArray[Any]], material: Sequence[Phase]) -> Picture:
    """The micrograph, where there is one, and the middle planes of all directions, at one scale, with a bar."""
    level = level_for(volume)
    array, factor, axes = volume.phase(level), 2**level, plane_axes(volume.shape)
    size = dict(zip(AXES, array.shape, strict=True))
    found = planes(volume, array, {axis: np.array([size[axis] // 2]) for axis in axes})
    shown: list[tuple[str, str, NDArray[Any]]] = []
    for axis in axes:
        image = micrograph(targets, axis, len(material) > 1, factor)
        if image is not None:
            part = centre_crop(image, *found[axis].shape[1:])
            if not any(title.startswith("micrograph") and np.array_equal(part, p) for title, _, p in shown):
                shown.append(("micrograph", axis, part))
    if sum(title == "micrograph" for title, _, _ in shown) > 1:
        shown = [(f"micrograph normal to {axis}", axis, part) for _, axis, part in shown]
    shown += [(f"{axis} = {size[axis] // 2 * factor}", axis, found[axis][0]) for axis in axes]
    columns, rows = [part.shape[1] for *_, part in shown], [part.shape[0] for *_, part in shown]
    with style():
        width = min(10.5, 2.5 * len(shown))
        each = width / sum(columns)
        figure = Figure(figsize=(width, each * max(rows) + 0.5), layout="constrained")
        for (title, axis, part), axes_ in zip(
            shown,
            figure.subplots(1, len(shown), width_ratios=columns, squeeze=False)[0],
            strict=True,
        ):
            axes_.imshow(coloured(part), interpolation="none")
            axes_.set_anchor("N")
            axes_.set_title(title)
            axes_.set(xticks=[], yticks=[], ylabel=IN_PLANE[axis][0])
            axes_.set_xlabel(IN_PLANE[axis][1], loc="left")
            axes_.spines[:].set_visible(True)
        handles = [Patch(fc=phase.colour, ec="#555555", lw=0.6, label=phase.name) for phase in material]
        bar = 2 ** round(math.log2(max(volume.shape) / 4))
        unit = (
            ""
            if volume.unit is None
            else f" = {words.number(bar * volume.voxel_size[2])} {short_unit(volume.unit)}"
        )
        _bar(figure.axes[-1], bar / factor, f"{bar} voxels{unit}")
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))
    return svg(figure, "slices")


def _bar(axes: Axes, pixels: float, label: str) -> None:
    """A scale bar below a picture."""
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    drop = 0.07 * (axes.get_ylim()[0] - axes.get_ylim()[1])
    ends = [right - pixels, right]
    axes.add_line(Line2D(ends, [bottom + drop] * 2, lw=3, color="#222222", clip_on=False))
    axes.annotate(
        label, (right - pixels, bottom + drop), (-4, 0), textcoords="offset points", ha="right", va="center",
        fontsize=8, annotation_clip=False,
    )  # fmt: skip


def block(volume: Volume) -> Picture | None:
    """The volume from outside: front (y = 0), right (last x) and upper (last z) face. None for a single plane."""
    if volume.shape[0] == 1:
        return None
    array = volume.phase(level_for(volume))
    nz, ny, nx = array.shape
    found = planes(volume, array, {"y": np.array([0]), "x": np.array([nx - 1]), "z": np.array([nz - 1])})
    hz, hy, hx = (h / max(volume.voxel_size) for h in volume.voxel_size)
    x, y, z = (np.multiply(h, vector) for h, vector in ((hx, _X), (hy, _Y), (hz, _Z)))
    faces = (
        (found["y"][0], x, z, np.zeros(2), _FRONT),  # rows z, columns x
        (found["x"][0], y, z, nx * x, _RIGHT),  # rows z, columns y
        (found["z"][0], x, y, nz * z, _TOP),  # rows y, columns x
    )
    with style():
        figure = Figure(figsize=(4.2, 4.2))
        axes = figure.add_axes((0, 0, 1, 1))
        for labels, column, row, origin, light in faces:
            rows, columns = labels.shape
            place = Affine2D.from_values(*column, *row, *origin) + axes.transData
            axes.imshow(
                coloured(labels, light), extent=(0, columns, 0, rows), origin="lower", transform=place,
                interpolation="none",
            )  # fmt: skip
            corners = np.array([origin, origin + columns * column, origin + columns * column + rows * row])
            outline = np.vstack([corners, origin + rows * row, origin])
            axes.plot(*outline.T, color="#333333", lw=0.7, solid_joinstyle="round")
        ends = np.array(
            [i * nx * x + j * ny * y + k * nz * z for i in (0, 1) for j in (0, 1) for k in (0, 1)]
        )
        room = 0.07 * np.ptp(ends, axis=0).max()
        for name, point, shift in (
            ("x", nx * x / 2, (-0.3, -1)),
            ("y", nx * x + ny * y / 2, (0.7, -0.9)),
            ("z", nz * z / 2, (-1, 0)),
        ):
            across, up = point + 0.6 * room * np.array(shift)
            axes.text(across, up, name, ha="center", va="center", fontsize=11)
        axes.set_xlim(ends[:, 0].min() - room, ends[:, 0].max() + room)
        axes.set_ylim(ends[:, 1].min() - room, ends[:, 1].max() + room)
        axes.set_aspect("equal")
        axes.set_axis_off()
    return svg(figure, "block")
