"""What the viewer shows of a volume: slices as pictures, surfaces as a plotly figure."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcrdist.analysis import view3d
from mcrdist.analysis.material import AXES, Phase, phases
from mcrdist.analysis.pictures import COLOURS, label_bytes
from mcrdist.analysis.slices import IN_PLANE, spread
from mcrdist.analysis.volume.labels import different
from mcrdist.config import VolumeSourceConfig
from mcrdist.store.metadata import short_unit
from mcrdist.store.run import Run
from mcrdist.store.source import Source, open_source
from mcrdist.store.volume import MISSING

#: Pixels along the longest edge of a slice: a screen shows no more.
_PIXELS = 1024
#: More different values than this are grey levels, not labels.
_LABELS = len(COLOURS)
#: Whole planes that are looked at to know the values of a volume.
_SAMPLE = 5


class Scene:
    """Pictures of one volume.

    Attributes
    ----------
    source : Source
        The finest level.
    labelled : bool
        Whether it holds labels, and so has surfaces.
    """

    def __init__(self, config: VolumeSourceConfig) -> None:
        self.source = open_source(config)
        self._run = None if config.run is None else Run.open(config.run)
        self._labels = self._values()
        self.labelled = self.source.dtype.kind in "ui" and len(self._labels) <= _LABELS
        self._pyramid: view3d.Pyramid = _Flat(self.source)
        if self._run is not None and self.labelled and config.level == 0:
            self._pyramid = self._run.volume
        self._level = 0
        while (
            self._level + 1 < self._pyramid.levels("phase")
            and max(self._pyramid.phase(self._level).shape) > _PIXELS
        ):
            self._level += 1
        self._lock = threading.Lock()

    def _values(self) -> list[int]:
        """Values in a corner of the volume and in a few whole planes; a corner alone may lie beside the sample.

        Of our own volumes without 255, which stands for voxels that were never written.
        """
        if self.source.dtype.kind == "f":
            return []
        found: set[int] = set()
        planes = spread(self.source.shape[0], _SAMPLE).tolist()
        for part in ((slice(128),) * 3, *(slice(z, z + 1) for z in planes)):
            found.update(different(self.source.part(part)))
            if len(found) > _LABELS:
                break
        return sorted(found - {MISSING} if self.source.ours else found)

    def _colours(self, labels: NDArray[Any]) -> NDArray[Any]:
        """The number of each label's colour: the label, or its rank where it is larger than there are colours."""
        if self.source.ours or all(0 <= label < _LABELS for label in self._labels):
            return labels
        return np.searchsorted(self._labels, labels)

    def _colour(self, label: int) -> str:
        return COLOURS[int(self._colours(np.array(label))) % _LABELS]

    def facts(self) -> dict[str, Any]:
        """What the page needs to know."""
        source = self.source
        return {
            "name": source.path.parent.name if self._run is not None else source.path.name,
            "image": source.name,
            "shape": dict(zip(AXES, source.shape, strict=True)),
            "voxel": dict(zip(AXES, source.voxel_size, strict=True)),
            "unit": short_unit(source.unit),
            "known": source.unit is not None,
            "planes": IN_PLANE,
            "surfaces": self.labelled and min(source.shape) > 1,
            "phases": [{"label": k, "colour": self._colour(k)} for k in self._labels]
            if self.labelled
            else [],
        }

    def slice(self, axis: str, index: int) -> bytes:
        """A plane of the volume as a PNG, coarser where it has more pixels than a screen."""
        number = AXES.index(axis)
        array = self._pyramid.phase(self._level if self.labelled else 0)
        at = min(index >> (self._level if self.labelled else 0), array.shape[number] - 1)
        selection: list[Any] = [slice(None)] * 3
        selection[number] = at
        with self._lock:
            plane = self._pyramid.read(array, tuple(selection))
        step = -(-max(plane.shape) // _PIXELS)
        plane = plane[::step, ::step]
        if not self.labelled:
            return _grey(plane, self.source)
        return label_bytes(self._colours(plane), MISSING if self.source.ours else None)

    @cached_property
    def surfaces(self) -> bytes:
        """The plotly figure as JSON, "null" where there is none."""
        if not self.labelled:
            return b"null"
        with self._lock:
            figure = view3d.figure(self._pyramid, view3d.drawn(self._pyramid, self._phases()))
        return json.dumps(figure).encode()

    def _phases(self) -> Sequence[Phase]:
        if self._run is not None:
            return phases(self._run.summary, self._run.targets)
        if len(self._labels) == 2:
            last = self._labels[1]
            return (Phase(last, last, f"phase {last}", COLOURS[1]),)
        return tuple(Phase(k, k, f"phase {k}", self._colour(k)) for k in self._labels)


def _grey(plane: NDArray[Any], source: Source) -> bytes:
    """Grey levels: a field from 0 to 1, bytes as they are, other values from the least to the greatest."""
    if source.dtype != np.uint8:
        values = np.nan_to_num(plane.astype(np.float64))
        low, high = (0.0, 1.0) if source.ours else (float(values.min()), float(values.max()))
        plane = np.rint(255 * np.clip((values - low) / max(high - low, 1e-30), 0, 1)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plane)).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


class _Flat:
    """A volume without a pyramid, as one of a single level."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.shape, self.voxel_size = source.shape, source.voxel_size

    def levels(self, image: str) -> int:
        return 1

    def phase(self, level: int = 0) -> Any:
        return self._source.array

    def read(self, array: Any, selection: Any = ...) -> NDArray[Any]:
        return self._source.part(selection)
