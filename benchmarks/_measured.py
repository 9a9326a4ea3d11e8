"""What is measured of a finished run beside its own summary; no benchmark itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _judge import ask
from numpy.typing import NDArray

from mcrdist.analysis.material import phases, plane_axes
from mcrdist.analysis.slices import planes, spread
from mcrdist.config.descriptors import VGG_DEFAULT
from mcrdist.descriptors.gram import GramMatrices, Vgg19, usable_layers
from mcrdist.store.run import Run
from mcrdist.weightfile import cached
from mcrdist.weightfile import load as load_weights

#: Planes of each direction whose Gram matrices are looked at.
PLANES = 24


def gram_errors(run: Run) -> dict[str, dict[str, float]] | None:
    """E(G) (Eq. 10, all layers unrolled into one vector) by direction, of the relaxed and of the rounded volume.

    Means over phases, on some planes of each direction. None without the network, or where no single micrograph is the
    target.
    """
    targets, volume = run.targets, run.volume
    axes = plane_axes(volume.shape)
    if not cached().is_file() or not all(f"{axis}/micrograph" in targets for axis in axes):
        return None
    shapes = {axis: [n for name, n in zip("zyx", volume.shape, strict=True) if name != axis] for axis in axes}
    names = usable_layers(VGG_DEFAULT, (min(map(min, shapes.values())),) * 2)
    gram = GramMatrices(Vgg19(load_weights(None)), names)
    periodic = bool(targets["periodic"])
    size = dict(zip("zyx", volume.shape, strict=True))
    chosen = {axis: spread(size[axis], PLANES) for axis in axes}
    material = phases(run.summary, targets)
    labels = planes(volume, volume.phase(), chosen)
    found: dict[str, dict[str, list[float]]] = {"relaxed": {}, "rounded": {}}
    for channel, phase in enumerate(material):
        relaxed = _relaxed(run, channel, chosen)
        for axis in axes:
            image = (targets[f"{axis}/micrograph"] == phase.source).astype(np.float64)
            wanted = gram.describe(image, periodic)
            for which, slices in (("relaxed", relaxed[axis]), ("rounded", labels[axis] == phase.label)):
                errors = [
                    float(np.linalg.norm(gram.describe(plane.astype(np.float64), True) - wanted))
                    / float(np.linalg.norm(wanted))
                    for plane in slices
                ]
                found[which].setdefault(axis, []).append(float(np.mean(errors)))
    return {
        which: {axis: float(np.mean(errors)) for axis, errors in own.items()} for which, own in found.items()
    }


def _relaxed(run: Run, channel: int, chosen: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
    """Planes of the relaxed field of a phase."""
    field = run.volume.field()
    whole = run.volume.read(field, (channel, ...)) if field.ndim == 4 else run.volume.read(field)
    return {axis: np.moveaxis(whole, "zyx".index(axis), 0)[numbers] for axis, numbers in chosen.items()}


def judged(run: Run, judge: Path) -> dict[str, Any] | None:
    """What the judge says of the rounded volume, against the micrographs that the run was made from.

    None without the judge, for a single plane, and where no single micrograph is the target.
    """
    targets, shape = run.targets, run.volume.shape
    if not judge.is_file() or shape[0] == 1 or not all(f"{axis}/micrograph" in targets for axis in "zyx"):
        return None
    described = phases(run.summary, targets)
    with tempfile.TemporaryDirectory() as temporary:
        images = {axis: Path(temporary) / f"{axis}.npy" for axis in "zyx"}
        for axis, path in images.items():
            labels = targets[f"{axis}/micrograph"]
            if len(described) == 1:  # one phase against the rest is 1 in every volume
                labels = (labels == int(targets[f"{axis}/phase"])).astype(np.uint8)
            np.save(path, labels)
        content = ask(judge, run.path / "volume.zarr", images.pop("z"), bool(targets["periodic"]), images)
    return {
        "mean": content["mean"],
        "E_S2": {axis: content[axis]["E_S2"] for axis in "zyx"},
    }
