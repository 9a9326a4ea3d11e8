"""A micrograph: an image file, or an array, turned into phases with a pixel size.

Grey-scale images are segmented (Otsu, multi-Otsu, a given threshold); labelled ones are taken as they are.
Whatever is wrong with the image is an InputError of one line, naming the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist import imagefile
from mcrdist.config.micrograph import MINIMUM_SIZE, MicrographSource
from mcrdist.errors import InputError

MAX_LABELS = 8  # an image with more distinct values than this is grey-scale
SYNTHETIC = "synthetic:"

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Micrograph:
    """A plane of the material, one label a pixel.

    Attributes
    ----------
    labels : uint8 array (H, W)
        Phase of every pixel.
    phase : int
        The label that is reconstructed against the rest; it occurs in `labels`, and so does another one. Where all
        phases are wanted, the one that stands for them in pictures and windows.
    pixel_size : float or None
        Side of a pixel in `unit`; None when nobody knows it.
    unit : str or None
        "um", "nm", …; None without a pixel size.
    source : str
        What to show people: the path, or what stands for one.
    grey : uint8 array (H, W) or None
        The grey-scale image that was segmented, stretched to 0..255; None for a labelled one.
    notes : tuple of str
        What was decided on the way: how it was segmented, which values became which labels.
    every_phase : bool
        There are three phases or more, and all of them are reconstructed.
    """

    labels: Labels
    phase: int
    pixel_size: float | None
    unit: str | None
    source: str
    grey: Labels | None = None
    notes: tuple[str, ...] = ()
    every_phase: bool = False

    @property
    def indicator(self) -> NDArray[np.float64]:
        """1 where the phase is and 0 elsewhere, float64 (H, W)."""
        indicator: NDArray[np.float64] = (self.labels == self.phase).astype(np.float64)
        return indicator

    @property
    def fraction(self) -> float:
        """The area fraction of the phase."""
        return float(np.mean(self.labels == self.phase))

    @property
    def facts(self) -> dict[str, Any]:
        """What was made of the image, as plain data.

        Its `source`; in `segmentation` the notes, none where it was segmented by an earlier run; the area `fractions`
        of all phases by label; and which of them are `described`.
        """
        labels, counts = np.unique(self.labels, return_counts=True)
        shares = {str(label): int(n) / self.labels.size for label, n in zip(labels, counts, strict=True)}
        described = labels.tolist() if self.every_phase else [self.phase]
        return {
            "source": self.source,
            "segmentation": list(self.notes),
            "fractions": shares,
            "described": described,
        }


def in_words(facts: Mapping[str, Any]) -> str:
    """`Micrograph.facts` on one line, but for the source: a wrong threshold must be seen before hours go by."""
    shares = ", ".join(f"phase {label} {share:.2%}" for label, share in facts["fractions"].items())
    described = facts["described"]
    which = "all" if len(described) > 1 else f"phase {described[0]}"
    return "; ".join([*facts["segmentation"], shares, f"described: {which}"])


def load(source: MicrographSource) -> Micrograph:
    """Read, crop and segment the one micrograph that `source` describes (see `MicrographSource.each`).

    Raises
    ------
    InputError
        For everything that makes it unfit: no such file, a directory, an empty, truncated or colour image,
        values that are not numbers, a crop outside the image, one grey level only, a phase that does not
        occur, fewer than 8 pixels a side.
    """
    name, file = _open(source)
    plane = _plane(file, name)
    _check_values(plane, name)
    plane = _crop(plane, source.crop, name)
    _check_levels(plane, name)
    labels, notes = _segment(plane, source, name)
    is_grey = not any(note.startswith("labels") for note in notes)
    if source.invert:
        labels = (labels.max() + labels.min() - labels).astype(np.uint8)
        notes = (*notes, "inverted")
    phase = _phase(labels, source, name, notes)
    pixel_size, unit = _pixel_size(source, file.pixel_size, name)
    return Micrograph(
        labels,
        phase,
        pixel_size,
        unit,
        name,
        _stretch(plane) if is_grey else None,
        notes,
        every_phase=source.phase is None and len(np.unique(labels)) > 2,
    )


def _open(source: MicrographSource) -> tuple[str, imagefile.ImageFile]:
    """Return what to call the image, and the image."""
    image, path = source.image, source.path
    assert not isinstance(image, tuple) and not isinstance(path, tuple), "one at a time"
    if image is not None:
        shape = "x".join(map(str, image.shape))
        return f"array of {shape} {image.dtype}", imagefile.ImageFile(np.asarray(image))
    if path is None:
        raise InputError(
            "micrograph.path: expected an image, found nothing (null); e.g. micrograph.path=sem.tif"
        )
    if path.startswith(SYNTHETIC):
        # Only here: a user with an image of their own does not need the synthetic structures.
        from mcrdist import synthetic

        return path, imagefile.ImageFile(synthetic.micrograph(path.removeprefix(SYNTHETIC)))
    return path, imagefile.read(Path(path).expanduser())


def _plane(file: imagefile.ImageFile, name: str) -> NDArray[Any]:
    """Return the image as one plane of numbers (H, W)."""
    array = file.array
    if array.dtype.kind not in "buif":
        raise InputError(
            f"{name}: expected integers, floats or booleans, found values of type {array.dtype}; save the "
            "micrograph as one number a pixel"
        )
    if array.ndim == 3 and 1 in array.shape:
        array = np.squeeze(array)
    if array.ndim == 3 and array.shape[-1] in (2, 3, 4):
        array = _from_channels(array, file.lossy, name)
    if array.ndim != 2:
        shape = "x".join(map(str, array.shape)) or "a single value"
        raise InputError(f"{name}: expected a plane of rows and columns, found {shape}; choose one plane")
    return array


def _from_channels(array: NDArray[Any], lossy: bool, name: str) -> NDArray[Any]:
    """Return the plane that all colour channels share."""
    colours, alpha = (array[..., :-1], array[..., -1]) if array.shape[-1] in (2, 4) else (array, None)
    if alpha is not None and alpha.min() != alpha.max():
        raise InputError(
            f"{name}: expected an opaque image, found transparent pixels; save the micrograph without "
            "transparency"
        )
    spread = np.ptp(colours.astype(np.float64), axis=-1).max()
    if spread > (4 if lossy else 0):  # a grey photograph may be a level or two off grey after JPEG
        raise InputError(
            f"{name}: expected a grey-scale or labelled image, found a colour photograph (or colours for "
            "phases); "
            "convert it to grey-scale"
        )
    plane: NDArray[Any] = colours[..., 0]
    return plane


def _check_values(plane: NDArray[Any], name: str) -> None:
    finite = np.isfinite(plane)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        what = "NaN" if np.isnan(plane[row, column]) else "infinity"
        count = int((~finite).sum())
        raise InputError(
            f"{name}: expected finite values, found {count} that are not ({what} at row {row}, column "
            f"{column}); "
            "fill or crop them"
        )


def _crop(plane: NDArray[Any], crop: tuple[int, int, int, int] | None, name: str) -> NDArray[Any]:
    height, width = plane.shape
    if crop is not None:
        row0, row1, column0, column1 = crop
        if row1 > height or column1 > width:
            raise InputError(
                f"{name}: expected a crop [row0,row1,column0,column1] inside {height} rows and {width} "
                f"columns, found {list(crop)}; e.g. micrograph.crop=[0,{height},0,{width}]"
            )
        plane = plane[row0:row1, column0:column1]
    if min(plane.shape) < MINIMUM_SIZE:
        size = "x".join(map(str, plane.shape))
        raise InputError(
            f"{name}: expected at least {MINIMUM_SIZE} pixels a side, found {size}; take a larger image"
        )
    return np.ascontiguousarray(plane)


def _check_levels(plane: NDArray[Any], name: str) -> None:
    if plane.min() == plane.max():
        raise InputError(
            f"{name}: expected two grey levels or phases at least, found only {plane.flat[0]:g} everywhere; "
            "check the file and the crop"
        )


def _segment(plane: NDArray[Any], source: MicrographSource, name: str) -> tuple[Labels, tuple[str, ...]]:
    """Return labels (H, W) and how they came about."""
    kind = source.segmentation
    if kind == "auto" and source.threshold is not None:
        kind = "threshold"
    if kind == "auto" or kind == "labels":
        values = np.unique(plane)
        if kind == "labels" or len(values) <= MAX_LABELS:
            return _from_labels(plane, values, name)
        kind = "otsu"
    if kind == "threshold":
        assert source.threshold is not None
        threshold = source.threshold
        if not plane.min() <= threshold < plane.max():
            raise InputError(
                f"{name}: expected a threshold within its grey levels {plane.min():g} to {plane.max():g}, "
                "found "
                f"{threshold:g}, which makes it all one phase; set micrograph.threshold"
            )
        return (plane > threshold).astype(np.uint8), (f"threshold {threshold:g}",)
    # Here, not above: scikit-image takes a second to import, which labelled images need not wait for.
    from skimage.filters import threshold_multiotsu, threshold_otsu

    values, scale = _for_histogram(plane)
    if kind == "otsu":
        level = threshold_otsu(values)
        return (values > level).astype(np.uint8), (f"Otsu threshold {level * scale:.6g}",)
    try:
        levels = threshold_multiotsu(values, classes=source.classes)
    except ValueError:
        raise InputError(
            f"{name}: expected grey levels enough for {source.classes} classes, found "
            f"{len(np.unique(plane))} distinct values; take fewer micrograph.classes"
        ) from None
    labels = np.searchsorted(levels, values, side="left").astype(np.uint8)
    return labels, (f"multi-Otsu thresholds {', '.join(f'{level * scale:.6g}' for level in levels)}",)


def _for_histogram(plane: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Return `plane` over `scale`, and `scale`: the histogram is small then and squares are finite."""
    if plane.dtype in (np.uint8, np.uint16):
        return plane, 1.0  # scikit-image keeps a bin a level: exact here, endless for 64 bits
    values = plane.astype(np.float64)
    scale = float(np.abs(values).max())
    return values / scale, scale


def _from_labels(plane: NDArray[Any], values: NDArray[Any], name: str) -> tuple[Labels, tuple[str, ...]]:
    """Take small labels as they are; number others, such as 0 and 255, from 0 in their order."""
    whole = plane.dtype.kind in "bui" or bool((values == np.round(values)).all())
    if whole and values[0] >= 0 and values[-1] < MAX_LABELS:
        return plane.astype(np.uint8), ("labels as they are",)
    if len(values) > MAX_LABELS:
        raise InputError(
            f"{name}: expected at most {MAX_LABELS} labels, found {len(values)} distinct values; is it a "
            "grey-scale "
            "image? use micrograph.segmentation=otsu"
        )
    listed = ", ".join(f"{value:g}" for value in values)
    numbered = ", ".join(map(str, range(len(values))))
    return np.searchsorted(values, plane).astype(np.uint8), (f"labels {numbered} for the values {listed}",)


def _phase(labels: Labels, source: MicrographSource, name: str, notes: tuple[str, ...]) -> int:
    """Return the phase that was asked for: by default 1, or the largest where there is no 1."""
    found = np.unique(labels).tolist()
    how = notes[0]
    if len(found) == 1:
        raise InputError(
            f"{name}: expected two phases at least, found all pixels in phase {found[0]} ({how}); choose "
            "another "
            "micrograph.segmentation or crop"
        )
    if source.phase is None:
        return 1 if 1 in found else int(found[-1])
    if source.phase not in found:
        listed = ", ".join(map(str, found))
        raise InputError(
            f"{name}: expected micrograph.phase to be one of the phases found, {listed} ({how}), found "
            f"{source.phase}; e.g. micrograph.phase={found[-1]}"
        )
    return source.phase


def _pixel_size(
    source: MicrographSource, found: imagefile.PixelSize | None, name: str
) -> tuple[float | None, str | None]:
    """Return the pixel size and its unit: the user's, else the file's."""
    unit = source.unit or "um"
    if source.pixel_size is not None:
        return source.pixel_size, unit
    if found is None:
        return None, None
    down, across = found
    if abs(across - down) > 0.01 * max(across, down):
        # The statistics would be stretched without anybody noticing.
        raise InputError(
            f"{name}: expected square pixels, found {down:.4g} um down and {across:.4g} um across; "
            "resample the "
            "micrograph, or set micrograph.pixel_size if the file is wrong"
        )
    return (down + across) / 2 / imagefile.MICROMETRES[unit], unit


def _stretch(plane: NDArray[Any]) -> Labels:
    """Return grey levels as 0..255 for people to look at."""
    if plane.dtype == np.uint8:
        return plane
    values, _ = _for_histogram(plane)
    low, high = float(values.min()), float(values.max())
    stretched: Labels = np.round((values - low) * (255 / (high - low))).astype(np.uint8)
    return stretched
