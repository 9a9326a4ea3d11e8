"""Distances to the boundary and local thickness: against SciPy, PoreSpy, brute force and shapes that are known."""

from __future__ import annotations

import functools
import itertools
import operator

import numpy as np
import pytest
from fake_run import smooth_phase
from scipy import ndimage

from mcrdist.analysis.volume.distance import squared_distances
from mcrdist.analysis.volume.pores import Distances, distances
from mcrdist.analysis.volume.thickness import local_radius, thickness


def measured(
    volume: np.ndarray, edges: tuple[int, int, int], size: tuple[float, ...], periodic: bool
) -> Distances:
    """Of all blocks together."""
    counts = [range(0, n, edge) for n, edge in zip(volume.shape, edges, strict=True)]
    parts = []
    for corner in itertools.product(*counts):
        end = [min(c + edge, n) for c, edge, n in zip(corner, edges, volume.shape, strict=True)]
        parts.append(distances(volume.__getitem__, corner, end, volume.shape, size, periodic))
    return functools.reduce(operator.add, parts)


def test_distances_are_scipys_on_a_worker_of_any_number_of_threads() -> None:
    distributed = pytest.importorskip("distributed")
    size, volume = (2.0, 1.0, 0.5), smooth_phase((20, 24, 22), 3.0, 0.6)
    wanted = ndimage.distance_transform_edt(volume, sampling=size) ** 2
    here = squared_distances(volume, size, "a test")
    assert here == pytest.approx(wanted, rel=1e-5)
    options = {"n_workers": 1, "threads_per_worker": 3, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        there = client.submit(squared_distances, volume, size, "a test").result()
    assert (there == here).all()


def test_distances_in_a_sphere() -> None:
    sphere = ((np.indices((48,) * 3) - 23.0) ** 2).sum(0) < 20**2
    found = measured(sphere, (16, 48, 48), (0.5, 0.5, 0.5), True)
    assert found.largest == pytest.approx(10, rel=0.05)
    assert found.mean == pytest.approx(10 / 4, rel=0.05)
    assert found.counts.sum() == sphere.sum()


def to_faces(points: np.ndarray, others: np.ndarray, size: tuple[float, ...]) -> np.ndarray:
    """How far voxels (n, 3) are from the faces of the nearest of others (m, 3), by looking at every pair."""
    sides = np.array(size)
    ways = (others[None] - points[:, None]) * sides
    apart = np.linalg.norm(ways, axis=-1)
    widths = np.linalg.norm(ways * sides, axis=-1) / np.where(apart > 0, apart, 1)
    nearest = apart <= apart.min(1, keepdims=True) * (1 + 1e-9)
    return np.where(nearest, apart - widths / 2, np.inf).min(1)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (0.3, 0.5, 0.9)])
def test_distances_do_not_depend_on_the_blocks(size: tuple[float, float, float], periodic: bool) -> None:
    volume = smooth_phase((8, 10, 9), 2.0, 0.8)
    copies = list(itertools.product((-1, 0, 1), repeat=3)) if periodic else [(0, 0, 0)]
    others = np.concatenate([np.argwhere(~volume) + np.array(copy) * volume.shape for copy in copies])
    wanted = to_faces(np.argwhere(volume), others, size)
    for edges in ((8, 10, 9), (3, 10, 5)):
        found = measured(volume, edges, size, periodic)
        assert found.mean == pytest.approx(wanted.mean(), rel=1e-5)
        assert found.largest == pytest.approx(wanted.max(), rel=1e-5)
    full = measured(np.ones((6, 6, 6), bool), (3, 6, 6), size, periodic)
    assert np.isnan(full.mean)


def test_distances_to_a_flat_boundary_are_those_to_its_faces() -> None:
    """Half a volume, whatever the sides of its voxels are along each axis."""
    for axis in range(3):
        half = np.zeros((16, 16, 16), bool)
        np.moveaxis(half, axis, 0)[:8] = True
        size = tuple(np.roll([4.0, 1.0, 1.0], axis))
        found = measured(half, (16, 8, 16), size, False)  # type: ignore[arg-type]
        assert found.mean == pytest.approx(16) and found.largest == pytest.approx(30)


def test_distances_are_distributed_as_porespy_finds() -> None:
    """It counts from the centres of voxels outside, half a voxel more."""
    metrics, edt = pytest.importorskip("porespy.metrics"), pytest.importorskip("edt")
    volume = smooth_phase((24, 22, 20), 2.5, 0.6)
    found = measured(volume, (12, 22, 20), (1, 1, 1), False)
    edges = np.arange(0.5, 0.5 + 0.5 * len(np.trim_zeros(found.counts, "b")) + 0.25, 0.5)
    theirs = metrics.pore_size_distribution(edt.edt(volume, black_border=False), bins=edges, log=False)
    shares = np.trim_zeros(found.counts, "b") / volume.sum()
    assert np.allclose(shares, theirs.pdf * theirs.bin_widths, atol=1e-6)


@pytest.mark.parametrize("fraction", [0.3, 0.7])
def test_local_thickness_is_that_of_porespy(fraction: float) -> None:
    filters = pytest.importorskip("porespy.filters")
    volume = smooth_phase((24, 22, 20), 2.0, fraction)
    theirs = filters.local_thickness(volume, method="dt")
    assert np.array_equal(local_radius(volume, (1, 1, 1))[volume], theirs[volume])


def test_local_thickness_by_brute_force() -> None:
    """Voxels that are not cubes: every sphere around every voxel."""
    volume, size = smooth_phase((9, 10, 8), 1.2, 0.6), (2.0, 1.0, 1.0)
    points = np.indices(volume.shape).reshape(3, -1).T
    inside = volume.ravel()
    reach = np.zeros(len(points))
    reach[inside] = to_faces(points[inside], points[~inside], size)
    wanted = np.zeros(len(points))
    for radius in range(1, int(reach.max() + 0.5) + 1):
        centres = inside & (reach >= radius - 0.5 - 1e-6)
        wanted[to_faces(points, points[centres], size) < radius - 0.5 - 1e-6] = radius
    assert np.array_equal(local_radius(volume, size).ravel(), wanted)


def test_thickness_of_layers_and_of_a_sphere() -> None:
    layers = np.zeros((24, 8, 8), bool)
    layers[4:9] = layers[14:15] = True  # five voxels, and one
    found = thickness(layers, (0.5, 0.5, 0.5))
    assert found.mean == pytest.approx((5 * 2.5 + 0.5) / 6) and found.median == 2.5
    assert found.counts == [0, 64, 0, 320]
    # Across a longer side: 20 and 4, in steps of one.
    assert thickness(layers, (4, 1, 1)).mean == pytest.approx((5 * 19 + 3) / 6)
    sphere = ((np.indices((48,) * 3) - 23.0) ** 2).sum(0) < 20**2
    assert thickness(sphere, (1, 1, 1)).median == pytest.approx(40, abs=2)
    for nothing in (np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)):
        assert np.isnan(thickness(nothing, (1, 1, 1)).mean)
