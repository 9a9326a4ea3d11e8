"""OME-Zarr 0.5 metadata of one multiscale image, written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from mcrdist.errors import InputError

AXES = ("z", "y", "x")
CHANNEL = "c"

#: Short names people write, and the names OME-Zarr (UDUNITS-2) wants.
UNITS = {
    "pm": "picometer",
    "å": "angstrom",
    "angstrom": "angstrom",
    "nm": "nanometer",
    "um": "micrometer",
    "µm": "micrometer",  # micro sign
    "μm": "micrometer",  # Greek mu
    "micron": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "in": "inch",
}
_SHORT = {
    "picometer": "pm",
    "angstrom": "Å",
    "nanometer": "nm",
    "micrometer": "µm",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
    "inch": "in",
}


#: Their lengths.
METRES = {
    "picometer": 1e-12,
    "angstrom": 1e-10,
    "nanometer": 1e-9,
    "micrometer": 1e-6,
    "millimeter": 1e-3,
    "centimeter": 1e-2,
    "meter": 1.0,
    "inch": 0.0254,
}
_COLOURS = ("FFFFFF", "E69F00", "56B4E9", "009E73", "CC79A7")


def long_unit(unit: str | None) -> str | None:
    """OME-Zarr's name of a unit of length; None stays None.

    Raises
    ------
    InputError
        The unit is none that OME-Zarr knows.
    """
    if unit is None:
        return None
    name = UNITS.get(unit.strip().lower(), unit.strip().lower())
    if name not in _SHORT:
        known = ", ".join(sorted(set(_SHORT.values()) | {"um"}))
        raise InputError(f"micrograph.unit: expected a unit of length ({known}), found {unit!r}")
    return name


def short_unit(unit: str | None) -> str:
    """The symbol of a unit for people to read ("µm"); "px" for None."""
    return "px" if unit is None else _SHORT.get(unit, unit)


def multiscale(
    name: str,
    scales: Sequence[Sequence[float]],
    unit: str | None,
    window: tuple[float, float],
    downsampling: str,
    channels: int = 1,
) -> dict[str, Any]:
    """The ``ome`` attribute of a group that holds datasets "0" (finest), "1", ...

    Voxels are cell-centred: the centre of the finest grid's first voxel is the origin, and a coarser
    grid with voxels `s` times as wide has its first centre at h·(s - 1)/2.

    Parameters
    ----------
    name
        What viewers call the image.
    scales
        Voxel size (z, y, x) of every dataset, finest first.
    unit
        OME-Zarr's name of the unit, or None for voxels.
    window
        Values shown as black and white: without it some viewers stretch labels 0 and 1 over 0..255.
    downsampling
        How the coarser datasets came about.
    channels
        More than one stand before the axes of space.
    """
    first = [1.0] if channels > 1 else []  # a channel is one channel wide
    axes: list[dict[str, str]] = [{"name": CHANNEL, "type": "channel"}] if channels > 1 else []
    axes += [{"name": axis, "type": "space"} | ({"unit": unit} if unit else {}) for axis in AXES]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [*first, *(float(s) for s in scale)]},
                {
                    "type": "translation",
                    "translation": [
                        *(0.0 for _ in first),
                        *((s - h) / 2 for s, h in zip(scale, scales[0], strict=True)),
                    ],
                },
            ],
        }
        for level, scale in enumerate(scales)
    ]
    low, high = window
    shown = [
        {
            "label": name if channels == 1 else f"{name} {number}",
            "color": colour,
            "active": True,
            "window": {"min": low, "max": high, "start": low, "end": high},
        }
        for number, colour in zip(range(channels), cycle(_COLOURS if channels > 1 else _COLOURS[:1]))
    ]
    return {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": datasets, "type": downsampling}],
        "omero": {"channels": shown, "rdefs": {"model": "greyscale" if channels == 1 else "color"}},
    }
