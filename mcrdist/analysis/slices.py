"""Planes of a volume on disk, and their statistics, without holding the volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.analysis.material import AXES, Phase, phases, plane_axes
from mcrdist.descriptors.correlation import cropped, two_point
from mcrdist.descriptors.variation import variation
from mcrdist.store.volume import Volume

#: In-plane axes (rows, columns) of the planes normal to each axis.
IN_PLANE = {"z": ("y", "x"), "y": ("z", "x"), "x": ("z", "y")}
_BATCH = 16


def spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` indices spread evenly over ``range(count)``, both ends among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def planes(volume: Volume, array: Any, indices: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
    """Chosen planes of the three directions in one pass over the z-blocks of an array.

    Parameters
    ----------
    volume
        Where `array` belongs.
    array
        zarr.Array (nz, ny, nx).
    indices
        Sorted plane numbers for each of "z", "y", "x"; an axis that is left out has no planes in the result.

    Returns
    -------
    dict
        (planes, rows, columns) for each axis, see `IN_PLANE`.
    """
    nz, ny, nx = array.shape
    indices = {axis: indices.get(axis, np.empty(0, np.int64)) for axis in AXES}
    out: dict[str, NDArray[Any]] = {
        "z": np.empty((len(indices["z"]), ny, nx), array.dtype),
        "y": np.empty((len(indices["y"]), nz, nx), array.dtype),
        "x": np.empty((len(indices["x"]), nz, ny), array.dtype),
    }
    for z0 in range(0, nz, volume.depth):
        z1 = min(z0 + volume.depth, nz)
        block = volume.read(array, slice(z0, z1))
        here = (indices["z"] >= z0) & (indices["z"] < z1)
        out["z"][here] = block[indices["z"][here] - z0]
        out["y"][:, z0:z1] = block[:, indices["y"]].swapaxes(0, 1)
        out["x"][:, z0:z1] = block[:, :, indices["x"]].transpose(2, 0, 1)
    return out


@dataclass(frozen=True)
class Correlation:
    """S2 of the planes normal to an axis against what was wanted.

    Attributes
    ----------
    phase : Phase
        The one that S2 is of.
    axis : str
    wanted, mean, low, high : (2L + 1, L + 1) float64
        Rows are lags -L..L, columns 0..L; `low` and `high` are the 5th and 95th percentile over planes.
    planes, of : int
        Planes looked at, and how many there are.
    error : float
        Mean over these planes of the relative error (Eq. 10).
    variation_wanted : float or None
    variation : tuple of float
        Mean, 5th and 95th percentile over these planes.
    """

    phase: Phase
    axis: str
    wanted: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    planes: int
    of: int
    error: float
    variation_wanted: float | None
    variation: tuple[float, float, float]

    @property
    def lags(self) -> int:
        """L, the largest lag."""
        return int(self.wanted.shape[1]) - 1


def correlations(
    volume: Volume,
    targets: Mapping[str, NDArray[Any]],
    most: int = 64,
    of: Sequence[Phase] | None = None,
) -> list[Correlation]:
    """S2 and variation of the rounded volume's planes against the targets, phase by phase and direction by direction.

    Parameters
    ----------
    volume
        The volume; its planes are taken as periodic, as they were reconstructed.
    targets
        ``targets.npz`` as a dict; directions that it does not hold are left out.
    most
        Planes looked at in each direction.
    of
        The phases; by default the described one.
    """
    count = dict(zip(AXES, volume.shape, strict=True))
    chosen = {axis: spread(count[axis], most) for axis in plane_axes(volume.shape)}
    found = planes(volume, volume.phase(), chosen)
    return [
        _correlation(phase, axis, found[axis] == phase.label, chosen[axis], count[axis], targets)
        for phase in of or phases({}, targets)
        for axis in chosen
        if f"{axis}/s2" in targets
    ]


def _correlation(
    phase: Phase,
    axis: str,
    slices: NDArray[np.bool_],
    chosen: NDArray[np.int64],
    count: int,
    targets: Mapping[str, NDArray[Any]],
) -> Correlation:
    """Of the planes numbered `chosen` out of `count`, whose indicators are `slices` (planes, rows, columns)."""
    prefix = f"{axis}/{phase.source}" if f"{axis}/{phase.source}/s2" in targets else axis
    most = min(slices.shape[1:]) // 2
    wanted = cropped(targets[f"{prefix}/s2"], most).astype(np.float64)
    own = wanted[None]
    if f"{prefix}/slices/s2" in targets:  # a graded material
        own = cropped(targets[f"{prefix}/slices/s2"][chosen], most).astype(np.float64)
    about = targets.get(f"{prefix}/variation")
    batches = [slices[k : k + _BATCH].astype(np.float64) for k in range(0, len(slices), _BATCH)]
    got = np.concatenate([two_point(batch, wanted.shape[1] - 1, True) for batch in batches])
    rough = np.concatenate([variation(batch, True) for batch in batches])
    low, high = np.percentile(got, (5, 95), axis=0)
    errors = np.linalg.norm(got - own, axis=(1, 2)) / np.linalg.norm(own, axis=(1, 2)).mean()
    return Correlation(
        phase=phase,
        axis=axis,
        wanted=wanted,
        mean=got.mean(0),
        low=low,
        high=high,
        planes=len(slices),
        of=count,
        error=float(errors.mean()),
        variation_wanted=None if about is None else float(about),
        variation=(float(rough.mean()), *(float(v) for v in np.percentile(rough, (5, 95)))),  # type: ignore[arg-type]
    )
