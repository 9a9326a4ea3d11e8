"""Statistics of volumes against closed forms, brute force and the libraries that have them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fake_run import smooth_field, smooth_phase
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import euler_number

from mcrdist.analysis.material import Phase
from mcrdist.analysis.volume import image
from mcrdist.analysis.volume.chords import chords, lineal_path, mean_chord
from mcrdist.analysis.volume.clusters import Clusters, join, label
from mcrdist.analysis.volume.lags import correlation, integral_range, pair_counts, ranges
from mcrdist.analysis.volume.minkowski import configurations, directions, functionals
from mcrdist.analysis.volume.parts import cube_tasks, look_at_part
from mcrdist.analysis.volume.prescribed import repetition
from mcrdist.config import TransportConfig, VolumeSourceConfig
from mcrdist.store.source import open_source


def wrapped(volume: np.ndarray) -> np.ndarray:
    return np.pad(volume, ((0, 1),) * 3, mode="wrap")


@pytest.mark.parametrize("connectivity", [(1, "euler_6"), (3, "euler_26")])
@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_euler_number_is_that_of_scikit_image(connectivity: tuple[int, str], fraction: float) -> None:
    volume = np.random.default_rng(0).random((9, 8, 7)) < fraction
    padded = np.pad(volume, 2)
    got = functionals(configurations(padded), (1, 1, 1))[connectivity[1]] * configurations(padded).sum()
    assert round(got, 6) == euler_number(volume, connectivity[0])


def test_a_sphere() -> None:
    radius, size = 20.3, 64
    grid = np.indices((size,) * 3) - 31.7
    sphere = (grid**2).sum(0) < radius**2
    found = functionals(configurations(wrapped(sphere)), (0.5, 0.5, 0.5))
    volume = (size * 0.5) ** 3
    r = radius * 0.5
    assert found["volume_fraction"] * volume == pytest.approx(4 / 3 * np.pi * r**3, rel=0.005)
    assert found["specific_surface"] * volume == pytest.approx(4 * np.pi * r**2, rel=0.01)
    assert found["mean_curvature"] * volume == pytest.approx(4 * np.pi * r, rel=0.03)
    assert found["euler_6"] * volume == pytest.approx(1) and found["euler_26"] * volume == pytest.approx(1)
    assert found["crossings_z"] == pytest.approx(2 * np.pi * r**2 / volume, rel=0.01)


def test_lamellae_and_voxels_that_are_not_cubes() -> None:
    lamellae = np.zeros((12, 8, 8), bool)
    lamellae[::6] = lamellae[1::6] = True
    found = functionals(configurations(wrapped(lamellae)), (2.0, 1.0, 1.0))
    assert found["crossings_z"] == pytest.approx(4 / 24)
    assert found["crossings_y"] == found["crossings_x"] == 0
    assert found["euler_6"] == pytest.approx(0, abs=1e-12)  # closed planes of a torus
    assert directions((2.0, 1.0, 1.0))[2].sum() == pytest.approx(1)
    sphere = (
        (np.indices((32, 64, 64)) - np.array([15.8, 31.7, 31.7])[:, None, None, None]) ** 2
        * np.array([4, 1, 1])[:, None, None, None]
    ).sum(0) < 20.3**2
    squeezed = functionals(configurations(wrapped(sphere)), (2.0, 1.0, 1.0))
    assert squeezed["specific_surface"] * 64**3 == pytest.approx(4 * np.pi * 20.3**2, rel=0.02)


def counted(volume: np.ndarray, slabs: Sequence[int]) -> np.ndarray:
    """Of a volume that is not periodic and was cut into slabs, each with the first plane of the next."""
    cuts = [*itertools.accumulate(slabs, initial=0)]
    assert cuts[-1] == len(volume)
    return sum(
        configurations(volume[a : b + 1], (b == len(volume), True, True)) for a, b in itertools.pairwise(cuts)
    )


@pytest.mark.parametrize("slabs", [(10,), (4, 5, 1)])
def test_every_voxel_and_every_pair_of_neighbours_counts_once(slabs: Sequence[int]) -> None:
    volume, size = smooth_phase((10, 9, 8)), (2.0, 1.0, 0.5)
    found = functionals(counted(volume, slabs), size)
    assert found["volume_fraction"] == volume.mean()
    for axis, name in enumerate("zyx"):
        wanted = np.diff(volume, axis=axis).mean() / size[axis]
        assert found[f"crossings_{name}"] == pytest.approx(wanted)
    steps, lengths, shares = directions(size)
    crossings = []
    for step in steps:
        first = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(step, volume.shape, strict=True))
        second = tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip(step, volume.shape, strict=True))
        crossings.append((volume[first] != volume[second]).mean())
    assert found["specific_surface"] == pytest.approx(2 * shares @ (np.array(crossings) / lengths))
    # Nothing depends on which end is the last one.
    for axes in ((0,), (1,), (2,), (0, 1, 2)):
        mirrored = functionals(counted(np.flip(volume, axes), (10,)), size)
        assert mirrored == pytest.approx(found)


def test_a_phase_in_the_last_planes_only() -> None:
    wedge = np.zeros((8, 8, 8), bool)
    wedge[-1] = wedge[:, -1] = True
    found = functionals(counted(wedge, (3, 5)), (1, 1, 1))
    assert found["volume_fraction"] == 15 / 64
    assert found["crossings_z"] == found["crossings_y"] == 1 / 8 and found["crossings_x"] == 0


def test_the_last_planes_of_a_cube_count_too(tmp_path: Path) -> None:
    volume = smooth_phase((6, 6, 6))
    transport = TransportConfig(enabled=False)
    found = []
    for name, labels in (("a", volume), ("b", volume[::-1, ::-1, ::-1])):
        np.save(tmp_path / f"{name}.npy", labels.astype(np.uint8))
        config = VolumeSourceConfig(path=str(tmp_path / f"{name}.npy"))
        (task,) = cube_tasks(config, open_source(config), 1, transport, [6], 1)
        found.append(look_at_part(task))
    assert found[0].surface == pytest.approx(found[1].surface) and found[0].surface > 0


def brute_chords(line: np.ndarray, periodic: bool) -> list[tuple[int, bool]]:
    n = len(line)
    if line.all():
        return [(n, periodic)]
    found = []
    for k in range(n):
        if line[k] and not (line[k - 1] if periodic or k else False):
            length = 1
            while (periodic or k + length < n) and line[(k + length) % n]:
                length += 1
            found.append((length, periodic or (k > 0 and k + length < n)))
    return found


@given(arrays(bool, st.tuples(st.integers(1, 4), st.integers(2, 9))), st.booleans())
@settings(deadline=None)
def test_chords_and_lineal_path_are_those_of_brute_force(lines: np.ndarray, periodic: bool) -> None:
    n = lines.shape[1]
    counts = chords(lines, periodic)
    wanted = np.zeros((2, n + 1), int)
    for line in lines:
        for length, whole in brute_chords(line, periodic):
            wanted[0, length] += 1
            wanted[1, length] += whole
    assert np.array_equal(counts, wanted)
    path = lineal_path(counts, len(lines), n, periodic)
    for m in range(1, n + 1):
        starts = range(n) if periodic else range(n - m + 1)
        inside = [[line[[(k + i) % n for i in range(m)]].all() for k in starts] for line in lines]
        assert path[m - 1] == pytest.approx(np.mean(inside))


def test_mean_chord_of_lamellae() -> None:
    lines = np.tile(np.arange(30) % 10 < 3, (4, 1))
    assert mean_chord(chords(lines, True)) == 3
    assert np.isnan(mean_chord(chords(np.zeros((2, 5), bool), False)))


@pytest.mark.parametrize("periodic", [True, False])
def test_s2_in_space_is_that_of_brute_force_in_any_blocks(periodic: bool) -> None:
    volume = smooth_phase((11, 9, 10))
    lags = 3
    whole = np.concatenate([volume, volume[:lags]]) if periodic else volume
    counts = sum(
        pair_counts(whole[start : start + own + lags], own, lags, periodic)
        for start, own in ((0, 4), (4, 5), (9, 2))
    )
    s2 = correlation(counts, volume.shape, periodic)
    for dz, dy, dx in itertools.product(range(lags + 1), range(-lags, lags + 1), range(-lags, lags + 1)):
        if periodic:
            wanted = (volume & np.roll(volume, (-dz, -dy, -dx), (0, 1, 2))).mean()
        else:
            sides = list(zip((dz, dy, dx), volume.shape, strict=True))
            first = tuple(slice(max(0, -d), n - max(0, d)) for d, n in sides)
            second = tuple(slice(max(0, d), n - max(0, -d)) for d, n in sides)
            wanted = (volume[first] & volume[second]).mean()
        assert s2[dz, lags + dy, lags + dx] == pytest.approx(wanted, abs=1e-5)


def shares(volume: np.ndarray) -> dict[str, np.ndarray]:
    """Of the phase in the planes normal to each axis."""
    return {name: volume.mean(tuple(k for k in range(3) if k != axis)) for axis, name in enumerate("zyx")}


@pytest.mark.parametrize("periodic", [True, False])
def test_a_phase_and_the_rest_have_the_same_integral_ranges(periodic: bool) -> None:
    volume, lags = smooth_field((20, 22, 24), (3, 2, 2), 0.3, 5) > 0.5, 8
    found = []
    for one in (volume, ~volume):
        planes = np.concatenate([one, one[:lags]]) if periodic else one
        s2 = correlation(pair_counts(planes, len(one), lags, periodic), one.shape, periodic)
        found.append(ranges(s2, shares(one), periodic, lags))
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    # By brute force: the covariance of what lies so far apart.
    for axis, name in enumerate("zyx"):
        values = np.moveaxis(volume, axis, 0).astype(float)
        if periodic:
            pairs = [(values, np.roll(values, -lag, 0)) for lag in range(lags + 1)]
        else:
            pairs = [(values[: len(values) - lag], values[lag:]) for lag in range(lags + 1)]
        covariance = np.array([((a - a.mean()) * (b - b.mean())).mean() for a, b in pairs])
        wanted = (covariance.sum() - (covariance[0] + covariance[-1]) / 2) / covariance[0]
        assert found[0][name] == pytest.approx(wanted, rel=1e-3)
        covariance = covariance[:4]  # and of a window that S2 goes beyond
        wanted = (covariance.sum() - (covariance[0] + covariance[-1]) / 2) / covariance[0]
        assert ranges(s2, shares(~volume), periodic, 3)[name] == pytest.approx(wanted, rel=1e-3)
    assert np.isnan(integral_range(np.ones(3), np.ones(5), periodic))


def test_the_micrograph_is_measured_as_the_volume_is() -> None:
    """Without periodicity, whatever its targets were: as a plane of a volume with many alike."""
    mask, lags = smooth_field((22, 24), (3, 2), 0.3, 5) > 0.5, 6
    found = image.measure({"z/micrograph": mask.astype(np.uint8)}, Phase(1, 1, "", ""), lags)[0]
    volume = np.tile(mask, (12, 1, 1))
    s2 = correlation(pair_counts(volume, 12, lags, False), volume.shape, False)
    wanted = ranges(s2, shares(volume), False, lags)
    assert found["integral_range_y"] == pytest.approx(wanted["y"], rel=1e-4)
    assert found["integral_range_x"] == pytest.approx(wanted["x"], rel=1e-4)


def labelled(seed: int, shape: tuple[int, int] = (40, 48)) -> np.ndarray:
    """Three phases."""
    return np.digitize(smooth_field(shape, (2, 2), 0.5, seed), (0.2, 0.8)).astype(np.uint8)


def test_every_micrograph_has_a_label_of_its_own_for_the_phase() -> None:
    one, two, three = labelled(0), labelled(1, (48, 40)), labelled(2)
    targets = {
        "phases": np.array([2]),
        "z/micrograph": one,
        "z/phase": np.array(2),
        "z/image2/micrograph": two,
        "z/image2/phase": np.array(0),
        "x/micrograph": three,
        "x/phase": np.array(1),
    }
    wanted = ((one == 2).mean() / 2 + (two == 0).mean() / 2 + (three == 1).mean()) / 2
    found, paths = image.measure(targets, Phase(1, 2, "", ""), 6)
    assert found["volume_fraction"] == pytest.approx(wanted)
    # Along y: the rows of both images normal to z, and the columns of that normal to x.
    lines = [
        np.diff(mask, axis=axis).mean() for mask, axis in ((one == 2, 0), (two == 0, 0), (three == 1, 1))
    ]
    assert found["crossings_y"] == pytest.approx((lines[0] / 2 + lines[1] / 2 + lines[2]) / 2)
    assert len(paths["y"]) == 20 and paths["y"][0] == pytest.approx(wanted)
    # 0 is what is left over in each of them, and no other label is in such a volume.
    rest = image.measure(targets, Phase(0, 0, "", ""), 6)[0]
    assert rest["volume_fraction"] == pytest.approx(1 - wanted)
    assert {k: v for k, v in rest.items() if k.startswith(("cross", "integral"))} == pytest.approx(
        {k: v for k, v in found.items() if k.startswith(("cross", "integral"))}
    )
    assert image.measure(targets, Phase(2, 2, "", ""), 6) == ({}, {})


def test_several_phases_keep_their_labels_in_the_micrographs() -> None:
    targets = {"phases": np.arange(3), "y/micrograph": labelled(0), "y/phase": np.array(1)}
    for k in range(3):
        found = image.measure(targets, Phase(k, k, "", ""), 6)[0]
        assert found["volume_fraction"] == (labelled(0) == k).mean()


def test_what_one_micrograph_does_not_know_is_that_of_the_others() -> None:
    """Of layers along x no chord along x is whole."""
    layers = np.tile(np.arange(40) % 10 < 3, (40, 1)).T
    targets = {"z/micrograph": layers, "z/image2/micrograph": layers.T}
    found = image.measure(targets, Phase(1, 1, "", ""), 6)[0]
    assert found["mean_chord_x"] == found["mean_chord_y"] == 3
    alone = image.measure({"z/micrograph": layers}, Phase(1, 1, "", ""), 6)[0]
    assert "mean_chord_x" not in alone and alone["mean_chord_y"] == 3


def test_integral_range_of_noise_and_of_an_elongated_structure() -> None:
    noise = np.random.default_rng(0).random((64, 64, 64)) < 0.3
    s2 = correlation(pair_counts(np.concatenate([noise, noise[:8]]), 64, 8, True), noise.shape, True)
    assert ranges(s2, shares(noise), True, 8) == pytest.approx(dict.fromkeys("zyx", 0.5), abs=0.02)
    long = smooth_field((48, 48, 48), (4, 1, 1), 0.4, 0) > 0.5
    s2 = correlation(pair_counts(np.concatenate([long, long[:16]]), 48, 16, True), long.shape, True)
    z, y, x = ranges(s2, shares(long), True, 16).values()
    assert z > 2.5 * y and z > 2.5 * x and y == pytest.approx(x, rel=0.3)


def test_repetition_finds_a_copy() -> None:
    tile = np.random.default_rng(0).random((8, 16, 16)) < 0.4
    for volume, wanted in (
        (np.tile(tile, (1, 2, 2)), 1.0),
        (np.random.default_rng(1).random((8, 32, 32)) < 0.4, 0.0),
    ):
        power = (np.abs(np.fft.rfft2(volume)) ** 2).sum(0)
        assert repetition(power, 8, (32, 32), 5) == pytest.approx(wanted, abs=0.06)
    assert np.isnan(repetition(power, 8, (32, 32), 16))


def clusters(volume: np.ndarray, edges: tuple[int, int, int], periodic: bool) -> Clusters:
    """Of a volume that was cut into blocks."""
    counts = [range(-(-n // edge)) for n, edge in zip(volume.shape, edges, strict=True)]
    blocks = {}
    for index in itertools.product(*counts):
        part = tuple(slice(k * edge, (k + 1) * edge) for k, edge in zip(index, edges, strict=True))
        blocks[index] = label(volume[part])
    return join(blocks, periodic)


@pytest.mark.parametrize("edges", [(20, 18, 16), (7, 18, 5)])
@pytest.mark.parametrize("wrap", [None, (0, 1, 2)])
def test_clusters_are_those_of_dask_image(edges: tuple[int, int, int], wrap: tuple[int, ...] | None) -> None:
    ndmeasure, array = pytest.importorskip("dask_image.ndmeasure"), pytest.importorskip("dask.array")
    volume = smooth_phase((20, 18, 16), 1.0, 0.3)
    labels, number = ndmeasure.label(array.from_array(volume, (10, 18, 16)), wrap_axes=wrap)
    found = clusters(volume, edges, wrap is not None)
    sizes = np.bincount(np.asarray(labels).ravel())[1:]
    assert found.number == int(number) == (sizes > 0).sum()
    assert found.largest == sizes.max() / volume.sum()
    for axis, name in enumerate("zyx"):
        others = tuple(k for k in range(3) if k != axis) if wrap else None
        labels, _ = ndmeasure.label(array.from_array(volume, (10, 18, 16)), wrap_axes=others)
        labels = np.asarray(labels)
        ends = np.intersect1d(np.take(labels, 0, axis), np.take(labels, -1, axis))
        assert found.percolating[name] == np.isin(labels, ends[ends > 0]).sum() / volume.sum()


def test_percolation_along_one_axis_only() -> None:
    rods = np.zeros((12, 10, 8), bool)
    rods[:, 2:4, 2:4] = True
    rods[5, 7, 5] = True
    for periodic in (True, False):
        found = clusters(rods, (5, 5, 8), periodic)
        assert found.number == 2 and found.largest == 48 / 49
        assert found.percolating == {"z": 48 / 49, "y": 0.0, "x": 0.0}
    # A stair: from z = 0 to the top only by going around along x.
    stairs = np.zeros((8, 4, 8), bool)
    for k in range(8):
        stairs[k, 1, (k + 4) % 8] = stairs[k, 1, (k + 5) % 8] = True
    assert clusters(stairs, (4, 4, 4), True).percolating["z"] == 1
    assert clusters(stairs, (4, 4, 4), False).percolating["z"] == 0
    empty = clusters(np.zeros((4, 4, 4), bool), (4, 2, 4), True)
    assert empty.number == 0 and empty.largest == 0
    assert empty.percolating == {"z": 0.0, "y": 0.0, "x": 0.0}
