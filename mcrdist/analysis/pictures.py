"""Label images as small PNGs: slices and micrographs in the same colours and at the same scale."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: The described phase is dark, the other one light; both print well in grey and differ for every eye.
DARK, LIGHT = "#1f3a5f", "#f1ece0"
#: More phases, after Okabe and Ito; the last is for voxels that were never written.
COLOURS = (LIGHT, DARK, "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#f0e442")
_MISSING = "#b0b0b0"


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def label_png(labels: NDArray[Any]) -> str:
    """A (rows, columns) label image as a data URI of a PNG."""
    return _uri(label_bytes(labels))


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def label_bytes(labels: NDArray[Any], unknown: int | None = 255) -> bytes:
    """A (rows, columns) label image as a paletted PNG, 1 bit a pixel for two phases; `unknown` stands for no phase."""
    missing = np.zeros(labels.shape, bool) if unknown is None else labels == unknown
    index = np.where(missing, 0, labels % len(COLOURS)).astype(np.uint8)
    used = max(2, int(index.max(initial=0)) + 1)
    colours = [*COLOURS[:used]]
    if missing.any():
        index[missing] = used
        colours.append(_MISSING)
    image = Image.fromarray(index, "P")
    image.putpalette([value for colour in colours for value in _rgb(colour)])
    buffer = io.BytesIO()
    bits = 1 if len(colours) <= 2 else 2 if len(colours) <= 4 else 4
    image.save(buffer, "PNG", bits=bits, compress_level=7)
    return buffer.getvalue()


def coloured(labels: NDArray[Any], light: float = 1.0) -> NDArray[np.uint8]:
    """A (rows, columns) label image as (rows, columns, 3) colours, darkened where `light` is below 1."""
    palette = np.array([_rgb(colour) for colour in (*COLOURS, _MISSING)])
    index = np.where(labels == 255, len(COLOURS), labels % len(COLOURS))
    return np.asarray(np.rint(palette[index] * light), np.uint8)


def centre_crop(image: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """The middle of an image, at most (rows, columns) of it."""
    height, width = image.shape
    top, left = max(0, (height - rows) // 2), max(0, (width - columns) // 2)
    return image[top : top + rows, left : left + columns]


def grey_png(grey: NDArray[np.uint8]) -> str:
    """(rows, columns) grey levels as a data URI of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(grey, "L").save(buffer, "PNG")
    return _uri(buffer.getvalue())


def averaged(grey: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Grey levels with pixels `factor` times as wide, each the mean of what was there."""
    return np.asarray(np.rint(_cells(grey, factor).mean((1, 3))), np.uint8)


def coarsened(labels: NDArray[Any], factor: int) -> NDArray[np.uint8]:
    """A label image with pixels `factor` times as wide, each what most of it was."""
    if factor == 1:
        return labels.astype(np.uint8)
    cells = _cells(labels, factor)
    found = np.unique(cells)[::-1]  # of two that are as frequent, the greater label
    shares = np.stack([(cells == label).mean((1, 3)) for label in found])
    return np.asarray(found[shares.argmax(0)], np.uint8)


def _cells(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """Pixels by squares of `factor`: (rows, factor, columns, factor); of a smaller image each by itself."""
    factor = factor if min(image.shape) >= factor else 1
    rows, columns = (n // factor for n in image.shape)
    return image[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
