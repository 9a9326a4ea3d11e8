"""Planes of several runs as small pictures, all cut to a size that a page can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis.material import Phase
from mcrdist.analysis.pictures import centre_crop, label_png
from mcrdist.analysis.plates import micrograph
from mcrdist.analysis.slices import planes
from mcrdist.store.run import Run

#: Pixels along the edges of a picture.
_PIXELS = 256


def picture(plane: NDArray[Any], name: str, what: str) -> dict[str, Any]:
    """The middle of a plane, with its name and what it is."""
    part = centre_crop(plane, _PIXELS, _PIXELS)
    cut = "" if part.shape == plane.shape else ", its middle"
    return {
        "name": name,
        "image": label_png(part),
        "rows": part.shape[0],
        "columns": part.shape[1],
        "what": what + cut,
    }


def of_volume(run: Run, name: str, indices: Mapping[str, Sequence[int]]) -> dict[str, list[dict[str, Any]]]:
    """Pictures of the planes of a run with these numbers, for each axis, from one pass over the volume."""
    volume = run.volume
    chosen = {axis: np.asarray(numbers, np.int64) for axis, numbers in indices.items()}
    found = planes(volume, volume.phase(), chosen)
    return {
        axis: [
            picture(plane, name, f"{axis} = {number}")
            for plane, number in zip(found[axis], numbers, strict=True)
        ]
        for axis, numbers in indices.items()
    }


def of_micrograph(run: Run, material: Sequence[Phase], axis: str = "z") -> dict[str, Any] | None:
    """The micrograph of a run for planes normal to an axis, cut to the size of these; None without one."""
    labels = micrograph(run.targets, axis, len(material) > 1)
    if labels is None:
        return None
    shape = [n for name, n in zip("zyx", run.volume.shape, strict=True) if name != axis]
    source = str(run.targets.get(f"{axis}/source", "")).rpartition("/")[2]
    return picture(centre_crop(labels, shape[0], shape[1]), "Micrograph", source)
