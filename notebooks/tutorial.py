"""What the notebooks share: how large they work, where results go, volumes as pictures, and a striped material."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap, to_rgb
from mpl_toolkits.mplot3d import Axes3D
from numpy.typing import NDArray

import mcrdist
from mcrdist.analysis.pictures import COLOURS

Labels = NDArray[np.uint8]


_TRIAL = "MCRDIST_NOTEBOOK_SIZE"


def size(default: int) -> int:
    """Voxels along an edge: `default`, or $MCRDIST_NOTEBOOK_SIZE, with which the tests make them small, and brief."""
    if _TRIAL not in os.environ:
        return default
    mcrdist.reconstruct = functools.partial(_briefly, mcrdist.reconstruct)
    return int(os.environ[_TRIAL])


def _briefly(reconstruct: Any, *overrides: str, **settings: Any) -> Any:
    """Reconstruct in so few iterations that the result is nothing to look at."""
    wanted = settings.pop("optimizer", {})
    few = {"iterations": min(30, wanted.get("iterations", 30)), "binarize_iterations": 5}
    if wanted.get("name") != "yeong_torquato":  # which swaps voxels
        few["flip_rounds"] = 10
    return reconstruct(*overrides, optimizer=wanted | few, **settings)


def directory() -> Path:
    """A new directory for results; put a path of your own here to keep them."""
    return Path(tempfile.mkdtemp(prefix="mcrdist-"))


def paint(axes: Any, labels: NDArray[Any]) -> None:
    """Draw a label image (rows, columns): phase 1 dark, phase 0 light, others coloured, a voxel a square."""
    colours = ListedColormap(COLOURS)
    axes.imshow(labels, cmap=colours, vmin=0, vmax=len(COLOURS) - 1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def show(pictures: Mapping[str, NDArray[Any]], columns: int = 4, side: float = 2.5) -> None:
    """Draw titled label images side by side."""
    rows = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    _, places = plt.subplots(
        rows, columns, figsize=(columns * side, rows * (side + 0.3)), squeeze=False, layout="constrained"
    )
    for axes in places.flat:
        axes.axis("off")
    for axes, (title, labels) in zip(places.flat, pictures.items(), strict=False):
        paint(axes, labels)
        axes.axis("on")
        axes.set_title(title, fontsize=10)


def middle_planes(volume: Labels) -> dict[str, Labels]:
    """The middle plane normal to each axis of a volume (nz, ny, nx)."""
    nz, ny, nx = volume.shape
    return {
        "normal to z": volume[nz // 2],
        "normal to y": volume[:, ny // 2],
        "normal to x": volume[:, :, nx // 2],
    }


def cube(axes: Axes3D, volume: Labels) -> None:
    """Draw the three faces of a volume (nz, ny, nx) that one sees from a corner above; z points up."""
    nz, ny, nx = volume.shape
    colours = np.array([to_rgb(colour) for colour in COLOURS])
    z, y, x = (np.arange(n + 1.0) for n in volume.shape)
    faces = (
        (np.meshgrid(x, y), "xy", nz, volume[-1], 1.0),
        (np.meshgrid(x, z), "xz", 0.0, volume[:, 0], 0.85),
        (np.meshgrid(y, z), "yz", nx, volume[:, :, -1], 0.7),
    )
    for (across, up), name, where, labels, light in faces:
        level = np.full_like(across, where)
        place = {"xy": (across, up, level), "xz": (across, level, up), "yz": (level, across, up)}[name]
        axes.plot_surface(
            *place,
            facecolors=light * colours[labels],
            rstride=1,
            cstride=1,
            shade=False,
            linewidth=0,
            antialiased=False,
        )
    axes.set_box_aspect((nx, ny, nz), zoom=1.05)
    axes.view_init(elev=28, azim=-58)
    axes.set_axis_off()


def cubes(volumes: Mapping[str, Labels], columns: int = 5, side: float = 2.6) -> None:
    """Draw titled volumes side by side."""
    rows = -(-len(volumes) // columns)
    columns = min(columns, len(volumes))
    figure = plt.figure(figsize=(columns * side, rows * (side + 0.2)), layout="constrained")
    for number, (title, volume) in enumerate(volumes.items(), 1):
        axes = figure.add_subplot(rows, columns, number, projection="3d")
        cube(axes, volume)
        axes.set_title(title, fontsize=10)


def stripes(side: int, period: float = 12.0, seed: int = 0) -> Labels:
    """A material of winding stripes, as block copolymers are, periodic, (side, side) pixels.

    The Swift–Hohenberg equation, ∂u/∂t = r u − (1 + ∇²/k²)² u − u³, grows stripes of one period out of noise; a pixel
    is phase 1 where u is positive.
    """
    waves = np.fft.fftfreq(side)[:, None] ** 2 + np.fft.rfftfreq(side)[None] ** 2
    growth = 0.3 - (1 - waves * period**2) ** 2
    step = 0.5
    u = 0.1 * np.random.default_rng(seed).standard_normal((side, side))
    for _ in range(300):
        u = np.fft.irfft2((np.fft.rfft2(u) - step * np.fft.rfft2(u**3)) / (1 - step * growth), s=u.shape)
    return (u > 0).astype(np.uint8)
