"""From a micrograph to the targets of a reconstruction, written with a picture of them; no volume is made.

And how near a volume can come to them: micrographs may ask for what no volume has.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mcrdist.config import CharacterizeConfig, to_mapping
from mcrdist.directions import AXES, ORTHOGONAL
from mcrdist.parallel.comm import Comm
from mcrdist.spectrum import nearest
from mcrdist.store.place import write_atomically
from mcrdist.store.run import RunDirectory, environment
from mcrdist.targets import Targets, load_targets
from mcrdist.targets.base import Target, npz
from mcrdist.targets.measure import measure
from mcrdist.targets.pymks import lay_out
from mcrdist.trial import try_out

PICTURE = "targets.png"
#: Two-point statistics in PyMKS's layout.
STATISTICS = "s2_pymks"
#: How near a periodic volume can come.
NEAREST = "nearest.json"


def characterize(config: CharacterizeConfig, say: Callable[[str], None] = lambda text: None) -> Path:
    """Write ``targets.npz``, two-point statistics, ``nearest.json`` and a picture into the run directory; return it.

    ``nearest.json`` has, by phase, `errors` by axis and `bound` of `mcrdist.spectrum.Nearest`, on lags up to `lags`.

    Every rank may call this; the first does the work, and the others learn what came of it.

    Parameters
    ----------
    config
    say
        Takes, on the first rank, a line a micrograph that tells how it was segmented.

    Raises
    ------
    InputError
        For an image or a descriptor of one's own that does not work, or a run directory that is in use; the same on
        every rank.
    """
    with Comm.start("cpu") as comm:
        return comm.first(lambda: _describe(config, say))


def _describe(config: CharacterizeConfig, say: Callable[[str], None]) -> Path:
    from mcrdist.analysis import targets_figure  # plotting libraries take a second to load

    where = config.run.dir or time.strftime("runs/%Y-%m-%d-%H%M%S")
    RunDirectory.free(where)  # before the work
    targets = load_targets(config.micrograph, config.target)
    shape = _shape(targets)
    seen = [shape[1:], *(image.shape for image in targets.images().values())]
    try_out(config.descriptors, seen, torch.float64)
    found = measure(targets, config.descriptors, ORTHOGONAL, shape).targets
    run = RunDirectory.create(where, to_mapping(config), environment())
    for line in targets.told():
        say(line)
    write_atomically(run.targets, npz(targets.arrays(found)))
    s2 = {name: lay_out([target.values["s2"][0] for target in one]) for name, one in found.items()}
    for name, values in _shared(s2).items():
        write_atomically(run.path / name, _npy(values))
    write_atomically(run.path / NEAREST, json.dumps(_nearest(targets.phases, found), indent=1).encode())
    targets_figure(run.targets, run.path / PICTURE)
    return run.path


def in_words(path: Path) -> list[str]:
    """What a characterisation left in `path` says of how near a volume can come, a line a phase."""
    lines = []
    found = json.loads((path / NEAREST).read_text())
    for label, one in found.items():
        of = f" of phase {label}" if len(found) > 1 else ""
        errors = one["errors"]
        each = ", ".join(f"{axis} {value:.2%}" for axis, value in errors.items())
        lines.append(
            f"nearest periodic volume, lags up to {one['lags']}: E(s2){of} {sum(errors.values()) / len(errors):.2%} "
            f"({each}); no volume has less than about {one['bound']:.2%} in the mean"
        )
    return lines


def _nearest(phases: Sequence[int], found: Mapping[str, Sequence[Target]]) -> dict[str, dict[str, object]]:
    told: dict[str, dict[str, object]] = {}
    for i, label in enumerate(phases):
        one = nearest({AXES.index(axis): found[axis][i].values["s2"][0] for axis in AXES})
        errors = {AXES[axis]: round(error, 6) for axis, error in one.errors.items()}
        told[str(label)] = {"lags": one.lags, "errors": errors, "bound": round(one.bound, 6)}
    return told


def _shape(targets: Targets) -> tuple[int, int, int]:
    """Of a volume whose slices are as large as the smallest image, or hold the window of lags."""
    sides = [min(image.shape) for image in targets.images().values()]
    side = max(2 * targets.lags, min(sides, default=0))
    return side, side, side


def _shared(s2: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """By file name: one for all directions where they agree, else one each."""
    first = next(iter(s2.values()))
    if all(np.array_equal(first, other) for other in s2.values()):
        return {f"{STATISTICS}.npy": first}
    return {f"{STATISTICS}_{name}.npy": values for name, values in s2.items()}


def _npy(values: NDArray[np.float64]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()
