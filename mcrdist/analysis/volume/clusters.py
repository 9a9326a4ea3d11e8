"""Clusters of a phase and whether they cross the volume: blocks are labelled once, and joined where their faces meet.

dask-image does the same, but keeps the labels of the whole volume with the workers, once for each way of joining
opposite faces, and reads every block tens of times. What is needed here are the labels on faces and the sizes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mcrdist.analysis.material import AXES

Index = tuple[int, int, int]


@dataclass(frozen=True)
class Labelled:
    """The clusters inside one block.

    Attributes
    ----------
    sizes : (n,) int64
        Voxels of clusters 1, ..., n.
    faces : sequence of (first, last) int32 arrays
        Labels on the two faces normal to z, y, x; 0 outside the phase.
    """

    sizes: NDArray[np.int64]
    faces: Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]]


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


def label(block: NDArray[np.bool_]) -> Labelled:
    """Label a block (p, q, r) of the phase."""
    labels, count = ndimage.label(block)
    labels = labels.astype(np.int32, copy=False)
    faces = [(np.take(labels, 0, axis), np.take(labels, -1, axis)) for axis in range(3)]
    return Labelled(np.bincount(labels.ravel(), minlength=count + 1)[1:], faces)


def join(blocks: Mapping[Index, Labelled], periodic: bool) -> Clusters:
    """Join the clusters of blocks, which are numbered along z, y, x and fill the volume."""
    offsets = dict(
        zip(blocks, np.cumsum([0, *(len(block.sizes) for block in blocks.values())]), strict=False)
    )
    sizes = np.concatenate([block.sizes for block in blocks.values()])
    count = [1 + max(index[axis] for index in blocks) for axis in range(3)]
    inside = [_meeting(blocks, offsets, count, axis, across=False) for axis in range(3)]
    across = [_meeting(blocks, offsets, count, axis, across=True) if periodic else [] for axis in range(3)]
    whole = _sizes_of(_components(itertools.chain(*inside, *across), len(sizes)), sizes)
    total = max(1, int(sizes.sum()))
    percolating = {}
    for axis, name in enumerate(AXES):
        # Open along the axis in question: joined there too, every cluster at the border would seem to cross.
        joined = itertools.chain(*inside, *(pairs for other, pairs in enumerate(across) if other != axis))
        component = _components(joined, len(sizes))
        ends = [_at_end(blocks, offsets, axis, where, side) for where, side in ((0, 0), (count[axis] - 1, 1))]
        crossing = np.intersect1d(component[ends[0]], component[ends[1]])
        percolating[name] = float(_sizes_of(component, sizes)[crossing].sum() / total)
    return Clusters(len(whole), float(whole.max(initial=0) / total), percolating)


def _meeting(
    blocks: Mapping[Index, Labelled],
    offsets: Mapping[Index, int],
    count: Sequence[int],
    axis: int,
    across: bool,
) -> list[NDArray[np.int64]]:
    """Pairs (n, 2) of clusters that touch where a block ends and the next begins, or (`across`) the first one."""
    found = []
    for index, block in blocks.items():
        last = index[axis] == count[axis] - 1
        if last != across:
            continue
        z, y, x = (0 if k == axis and last else n + (k == axis) for k, n in enumerate(index))
        other = blocks[z, y, x]
        a, b = block.faces[axis][1], other.faces[axis][0]
        both = (a > 0) & (b > 0)
        pairs = np.stack([a[both] + (offsets[index] - 1), b[both] + (offsets[z, y, x] - 1)], axis=1)
        found.append(np.unique(pairs, axis=0).astype(np.int64))
    return found


def _at_end(
    blocks: Mapping[Index, Labelled], offsets: Mapping[Index, int], axis: int, where: int, side: int
) -> NDArray[np.int64]:
    """Clusters on a face of the volume."""
    found = [
        np.unique(block.faces[axis][side]) + (offsets[index] - 1)
        for index, block in blocks.items()
        if index[axis] == where
    ]
    firsts = [offsets[index] - 1 for index in blocks if index[axis] == where]
    return np.concatenate([own[own > first] for own, first in zip(found, firsts, strict=True)]).astype(
        np.int64
    )


def _components(pairs: Iterable[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """The number of the component that each of `count` clusters belongs to."""
    joined = np.concatenate([np.empty((0, 2), np.int64), *pairs])
    graph = coo_array((np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _sizes_of(component: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Voxels of every component."""
    return np.bincount(component, weights=sizes).astype(np.int64) if len(sizes) else np.empty(0, np.int64)
