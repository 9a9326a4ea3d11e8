"""Clusters of a phase and whether they cross the volume, by dask-image: a block's labels at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcrdist.extras import library

AXES = ("z", "y", "x")


@dataclass(frozen=True)
class Clusters:
    """Parts of a phase that hang together through faces of voxels.

    Attributes
    ----------
    number : int
    largest : float
        Share of the phase in the largest.
    percolating : dict of str to float
        Share of the phase in clusters that reach from one face to the opposite one, along z, y, x; in a
        periodic volume they may go around along the other two axes on their way.
    """

    number: int
    largest: float
    percolating: dict[str, float]


def clusters(phase: Any, periodic: bool) -> Clusters:
    """Label a phase, a dask array of bool (nz, ny, nx) in blocks."""
    whole = _labels(phase, (0, 1, 2) if periodic else ())
    sizes = _sizes(whole)
    number = int((sizes > 0).sum())
    total = max(1, int(sizes.sum()))
    percolating = {}
    for axis, name in enumerate(AXES):
        # Open along the axis in question: joined there too, every cluster at the border would seem to cross.
        labels = _labels(phase, tuple(k for k in range(3) if k != axis)) if periodic else whole
        own = _sizes(labels) if periodic else sizes
        near, far = (labels[(slice(None),) * axis + (k,)].compute() for k in (0, -1))
        crossing = np.intersect1d(near, far)
        crossing = crossing[crossing > 0]
        percolating[name] = float(own[crossing - 1].sum() / total)
    return Clusters(number, float(sizes.max(initial=0) / total), percolating)


def _labels(phase: Any, wrap: tuple[int, ...]) -> Any:
    ndmeasure = library("dask_image.ndmeasure", "mcrdist analyze", "analysis")
    labels, _ = ndmeasure.label(phase, wrap_axes=wrap or None)
    return labels.persist()  # read three times: for sizes and for two faces


def _sizes(labels: Any) -> NDArray[np.int64]:
    """Voxels of each cluster, the background left out."""
    dask = library("dask", "mcrdist analyze", "analysis")
    counted = [dask.delayed(np.unique)(block, return_counts=True) for block in labels.to_delayed().ravel()]
    found = dask.compute(*counted)
    sizes = np.zeros(max(int(block[0].max()) for block in found) + 1, np.int64)
    for labels_of_block, count in found:
        sizes[labels_of_block] += count
    return sizes[1:]
