"""Reading an image file: the array as stored, and the pixel size where the file gives one.

Nothing here knows of phases. The kind of file is told by its first bytes, not by its name; sizes are checked
before anything is decoded, and nothing is ever unpickled.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mcrdist.errors import InputError
from mcrdist.firstbytes import first_bytes

MAX_PIXELS = 2**27  # 11585 x 11585: larger than any micrograph, smaller than what exhausts a laptop
KINDS = "PNG, TIFF, JPEG, BMP, PGM or npy"
MICROMETRES = {"angstrom": 1e-4, "nm": 1e-3, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}

PixelSize = tuple[float, float]

_PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "PPM")
_ALIASES = {
    "å": "angstrom",
    "a": "angstrom",
    "ångström": "angstrom",
    "nanometer": "nm",
    "µm": "um",
    "μm": "um",
    "micron": "um",
    "microns": "um",
    "micrometer": "um",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
    "inch": "inch",
    "in": "inch",
}
_INCH = 25400.0  # micrometres
# What graphics programs write when nobody told them the scale; it says nothing about the specimen.
_SCREEN_AND_PRINT_DPI = {72, 75, 90, 96, 100, 120, 144, 150, 200, 240, 300, 400, 600, 1200, 2400}


@dataclass(frozen=True)
class ImageFile:
    """An image as it was stored.

    Attributes
    ----------
    array : array (H, W) or (H, W, channels)
        The values of the file, of any type.
    pixel_size : (float, float) or None
        Micrometres a pixel down and across, when the file gives a size that was measured.
    lossy : bool
        Whether the compression may have moved values (JPEG).
    """

    array: NDArray[Any]
    pixel_size: PixelSize | None = None
    lossy: bool = False


def read(path: Path) -> ImageFile:
    """Read the image file at `path`.

    Raises
    ------
    InputError
        No such file, a directory, not readable, empty, truncated, too large, several pages, or not an image.
    """
    head = _first_bytes(path)
    with _readable(path):
        if head.startswith(b"\x93NUMPY"):
            return _read_npy(path)
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _read_tiff(path)
        return _read_pillow(path)


def _first_bytes(path: Path) -> bytes:
    """Return the first bytes of a file, or say why there are none."""
    try:
        head = first_bytes(path, 16)
    except FileNotFoundError:
        raise InputError(f"{path}: expected an image, found no such file; check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected an image, found a directory; name a file in it") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{path}: expected a readable image, found: {reason}; check the path") from None
    if not head:
        raise InputError(f"{path}: expected an image, found an empty file; save or copy it again")
    return head


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what the decoders raise at a damaged file into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes are checked here, by numbers of our own
            yield
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(
            f"{path}: expected at most {MAX_PIXELS} values, found far more; cut or bin the micrograph first"
        ) from None
    except UnidentifiedImageError:
        raise InputError(
            f"{path}: expected {KINDS}, found something else; save the micrograph as PNG or TIFF"
        ) from None
    except MemoryError:
        raise
    except Exception as error:
        # Decoders fail in many ways on bytes that are not theirs (struct.error, KeyError, zlib.error, …):
        # whatever they call it, the file is what is wrong.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"{path}: expected a complete image, found a damaged or truncated one ({reason}); "
            "save or copy it again"
        ) from None


def _check_pixels(path: Path, shape: tuple[int, ...]) -> None:
    pixels = int(np.prod(shape, dtype=np.float64))
    if pixels > MAX_PIXELS:
        size = "x".join(map(str, shape))
        raise InputError(
            f"{path}: expected at most {MAX_PIXELS} values, found {size}; cut or bin the micrograph first"
        )


def _read_npy(path: Path) -> ImageFile:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    _check_pixels(path, array.shape)
    return ImageFile(np.array(array))


# ---------------------------------------------------------------------------------------- PNG, JPEG, BMP, PGM


def _read_pillow(path: Path) -> ImageFile:
    with Image.open(path, formats=_PILLOW_FORMATS) as image:
        _check_pixels(path, image.size)
        lossy = image.format == "JPEG"
        size = _dpi_size(image.info.get("dpi"))
        if image.mode == "P":
            return ImageFile(_palette(image), size, lossy)
        return ImageFile(np.array(image), size, lossy)


def _palette(image: Image.Image) -> NDArray[Any]:
    """Return a palette image as grey levels when its palette is grey, as labels when it has a few colours."""
    indices = np.array(image)
    used = np.unique(indices)
    flat = image.getpalette("RGB") or []
    colours = np.array(flat, dtype=np.uint8).reshape(-1, 3)
    if used.max() < len(colours) and (colours[used] == colours[used][:, :1]).all():
        return np.asarray(colours[:, 0][indices])
    # A mask with a colour a label is indexed by label; a photograph reduced to 256 colours is not one.
    return indices if len(used) <= 8 else np.array(image.convert("RGB"))


def _dpi_size(dpi: Any) -> PixelSize | None:
    """Return micrometres a pixel from dots an inch (x, y), unless they are a screen's or a printer's."""
    if not dpi:
        return None
    across, down = float(dpi[0]), float(dpi[1])
    if not (0 < across < np.inf and 0 < down < np.inf):
        return None
    if abs(across - round(across)) < 0.02 and round(across) in _SCREEN_AND_PRINT_DPI:
        return None
    return _INCH / down, _INCH / across


# ---------------------------------------------------------------------------------------- TIFF


@contextmanager
def open_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF whose pages come to an end; tifffile follows a chain that leads back into itself for ever.

    Raises
    ------
    ValueError
        They do not.
    """
    with tifffile.TiffFile(path) as tiff:
        seen: set[int] = set()
        offset: int | None = tiff.pages.first.offset
        while offset is not None:
            if offset in seen:
                raise ValueError(f"its pages go round in a circle from byte {offset}")
            seen.add(offset)
            offset = _next_page(tiff, offset)
        yield tiff


def _next_page(tiff: tifffile.TiffFile, offset: int) -> int | None:
    """Return where the page after the one at `offset` is, None where tifffile finds none."""
    form, file = tiff.tiff, tiff.filehandle
    try:
        file.seek(offset)
        (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
        file.seek(offset + form.tagnosize + tags * form.tagsize)
        (following,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    except (struct.error, OSError, ValueError):
        return None
    return int(following) if 0 < following < file.size else None


def _read_tiff(path: Path) -> ImageFile:
    with open_tiff(path) as tiff:
        series, page = tiff.series[0], tiff.pages.first
        pages = sum(1 for item in tiff.series if not getattr(item.keyframe, "is_reduced", False))
        stack = [n for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YXS" and n > 1]
        if stack or pages > 1:
            count = int(np.prod(stack)) if stack else pages
            raise InputError(
                f"{path}: expected one image, found {count} pages; save the page that is wanted as a file "
                "of its own"
            )
        _check_pixels(path, series.shape)
        size = pixel_size(tiff)
        array = _tiff_array(path, series)
        if series.axes.endswith("S") or "S" not in series.axes:
            array = np.squeeze(array)
        else:  # colours stored one plane after the other
            array = np.squeeze(np.moveaxis(array, series.axes.index("S"), -1))
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and array.dtype.kind in "bu":
            top = 1 if array.dtype.kind == "b" else 2 ** int(page.bitspersample) - 1
            array = ~array if array.dtype.kind == "b" else array.dtype.type(top) - array
        lossy = page.compression in (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG)
    return ImageFile(array, size, lossy)


def _tiff_array(path: Path, series: tifffile.TiffPageSeries) -> NDArray[Any]:
    """Decode the pixels; Pillow knows compressions for which tifffile wants a package more."""
    try:
        array: NDArray[Any] = series.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        with Image.open(path, formats=("TIFF",)) as image:
            array = np.array(image)
            if series.keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
                array = ~array  # Pillow has inverted already; _read_tiff does it again
    return array


def pixel_size(tiff: tifffile.TiffFile) -> PixelSize | None:
    """Return micrometres a pixel from OME, ImageJ or plain resolution tags, in this order."""
    if tiff.is_ome and tiff.ome_metadata:
        return _ome_size(tiff.ome_metadata)
    tags = tiff.pages.first.tags
    across, down = (_ratio(tags.valueof(name)) for name in ("XResolution", "YResolution"))
    if not across or not down:
        return None
    if tiff.is_imagej:
        unit = _unit_in_um((tiff.imagej_metadata or {}).get("unit"))
        return (unit / down, unit / across) if unit else None
    per_inch = {2: 1.0, 3: 2.54}.get(int(tags.valueof("ResolutionUnit", default=2)))
    return _dpi_size((across * per_inch, down * per_inch)) if per_inch else None


def _ratio(value: Any) -> float | None:
    """Return a TIFF rational as a number."""
    if not isinstance(value, tuple) or len(value) < 2 or not value[1]:
        return None
    return float(value[0]) / float(value[1])


def _ome_size(xml: str) -> PixelSize | None:
    sizes = _ome_lengths(xml)
    across, down = sizes.get("X"), sizes.get("Y", sizes.get("X"))
    return (down, across) if across and down else None


def _ome_lengths(xml: str) -> dict[str, float | None]:
    """Return the side of a voxel in micrometres along each of X, Y, Z that OME-XML gives one for."""
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:  # OME has neither; entities are how XML explodes
        return {}
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return {}
    for element in root.iter():
        if element.tag.rpartition("}")[2] == "Pixels" and "PhysicalSizeX" in element.attrib:
            found: dict[str, float | None] = {}
            for axis in "XYZ":
                if f"PhysicalSize{axis}" in element.attrib:
                    unit = _unit_in_um(element.attrib.get(f"PhysicalSize{axis}Unit", "µm"))
                    found[axis] = float(element.attrib[f"PhysicalSize{axis}"]) * unit if unit else None
            return found
    return {}


def plane_distance(tiff: tifffile.TiffFile) -> float | None:
    """Return micrometres from one page of a stack to the next, from OME or ImageJ; None where neither says."""
    if tiff.is_ome and tiff.ome_metadata:
        return _ome_lengths(tiff.ome_metadata).get("Z")
    if tiff.is_imagej:
        found = tiff.imagej_metadata or {}
        spacing, unit = found.get("spacing"), _unit_in_um(found.get("unit"))
        return float(spacing) * unit if spacing and unit else None
    return None


def _unit_in_um(unit: Any) -> float | None:
    """Return the length of `unit` in micrometres; None for pixels and units that are not lengths."""
    if not isinstance(unit, str):
        return None
    name = re.sub(r"\\u00b5", "µ", unit.strip().strip("\0").lower())  # ImageJ escapes the micro sign
    name = _ALIASES.get(name, name)
    return _INCH if name == "inch" else MICROMETRES.get(name)
