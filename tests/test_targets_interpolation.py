"""Targets between two others, and the random fields that a graded material starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from ranks import run_ranks
from wanted import DIRECTIONS, SHAPE, at, blobs, descriptors, targets_of

from mcrdist.descriptors.base import SliceGrid
from mcrdist.errors import InputError
from mcrdist.multigrid import Level
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.phases import Phases
from mcrdist.start import Start
from mcrdist.targets import Interpolation
from mcrdist.targets.base import npz
from mcrdist.targets.pymks import lay_out

NEAR, FAR = blobs(seed=1, fraction=0.3), blobs((44, 52), seed=2, length=(3.0, 8.0), fraction=0.5)
ENDS = at(targets_of(NEAR)), at(targets_of(FAR))


def between(**interpolate: Any) -> Interpolation:
    found = targets_of(NEAR, {"micrograph": FAR} | interpolate)
    assert isinstance(found, Interpolation)
    return found


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
def test_the_straight_line_in_descriptor_space(t: float) -> None:
    found = at(between(t=t))
    for name in ("s2", "variation", "volume_fraction"):
        wanted = (1.0 - t) * ENDS[0].values[name] + t * ENDS[1].values[name]
        np.testing.assert_allclose(found.values[name], wanted)
    wish = between(t=t).wish("z", 0, 1, 5)
    np.testing.assert_allclose(wish.s2, found.values["s2"][0])
    assert wish.fraction == pytest.approx(found.fraction)


def test_halfway_by_default() -> None:
    np.testing.assert_array_equal(at(between()).values["s2"], at(between(t=0.5)).values["s2"])


@pytest.mark.parametrize("along", ["z", "y", "x"])
def test_planes_normal_to_the_axis_have_a_target_each(along: str) -> None:
    planes = SHAPE["zyx".index(along)]
    t = np.linspace(0.0, 1.0, planes)
    for name in DIRECTIONS:
        near, far = (at(targets_of(end), name).values["s2"][0] for end in (NEAR, FAR))
        found = at(between(along=along), name).values
        if name == along:
            assert len(found["s2"]) == planes
            for plane in range(planes):
                wanted = (1.0 - t[plane]) * near + t[plane] * far
                np.testing.assert_allclose(found["s2"][plane], wanted)
        else:
            np.testing.assert_allclose(found["s2"], [(near + far) / 2.0])
        assert found["variation"].shape == found["volume_fraction"].shape == (len(found["s2"]),)


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6), st.integers(2, 40))
def test_the_way_starts_and_ends_where_it_says(way: list[float], planes: int) -> None:
    ends = targets_of(NEAR), targets_of(FAR)
    profile = Interpolation.between(ends, tuple(way), "z", 5).profile(planes)
    assert (profile[0], profile[-1]) == pytest.approx((way[0], way[-1]))
    assert min(way) - 1e-12 <= profile.min() <= profile.max() <= max(way) + 1e-12


def test_there_and_back_closes_the_circle() -> None:
    profile = between(along="z", t=[0, 1, 0]).profile(21)
    np.testing.assert_allclose(profile, 1.0 - np.abs(np.linspace(-1.0, 1.0, 21)))


def test_spreads_lie_between_those_of_the_ends() -> None:
    several = [NEAR, blobs(seed=5, fraction=0.3)]
    near = at(targets_of(several))
    found = at(targets_of(several, {"micrograph": FAR, "t": 0.25}))
    size = [np.linalg.norm(one.values["s2"]) for one in (near, found)]
    assert found.spread["s2"] == pytest.approx(0.75 * near.spread["s2"] * size[0] / size[1])


def test_both_ends_share_window_and_levels() -> None:
    targets = targets_of(NEAR, {"micrograph": blobs((22, 60))}, lags=None)
    assert targets.lags == 10
    assert [end.lags for end in targets.ends] == [10, 10]  # type: ignore[attr-defined]
    assert len(targets.images()) == 6
    with pytest.raises(InputError, match="found 22x60"):
        targets_of(NEAR, {"micrograph": blobs((22, 60))}, lags=11)


def test_the_far_end_takes_what_it_does_not_set() -> None:
    targets = targets_of({"image": NEAR, "phase": 0}, {"micrograph": {"image": FAR}, "t": 1})
    assert at(targets).fraction == pytest.approx((FAR == 0).mean())
    own = targets_of({"image": NEAR, "phase": 0}, {"micrograph": {"image": FAR, "phase": 1}, "t": 1})
    assert at(own).fraction == pytest.approx((FAR == 1).mean())
    directed = targets_of(NEAR, {"micrograph": {"image": NEAR, "x": {"image": FAR}}, "t": 1})
    assert at(directed, "x").fraction == pytest.approx(FAR.mean())
    assert at(directed, "y").fraction == pytest.approx(NEAR.mean())


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "t without an end": ({"t": 0.5}, "interpolate.t: expected null without a second micrograph"),
    "along without an end": ({"along": "z"}, "interpolate.along: expected null without a second"),
    "t outside": ({"micrograph": FAR, "t": 1.5}, "interpolate.t: expected a number from 0 to 1"),
    "t outside in a list": ({"micrograph": FAR, "along": "z", "t": [0, -1]}, "interpolate.t: expected"),
    "no t": ({"micrograph": FAR, "along": "z", "t": []}, "interpolate.t: expected"),
    "a way without an axis": ({"micrograph": FAR, "t": [0, 1]}, "e.g. interpolate.along=z"),
    "one t along an axis": ({"micrograph": FAR, "along": "z", "t": 0.5}, "expected two numbers or more"),
    "no such axis": ({"micrograph": FAR, "along": "w"}, "interpolate.along: expected z, y or x"),
    "two ends": ({"micrograph": FAR, "path": "a.npz"}, "found both"),
    "settings alone": ({"micrograph": {"phase": 0}}, "interpolate.micrograph.path: expected an image"),
    "other phases": (
        {"micrograph": FAR + np.eye(44, 52, dtype=np.uint8)},
        "expected the same phases at both ends, found 1 and 0,1,2",
    ),
    "other pixels": ({"micrograph": {"image": FAR, "pixel_size": 2.0}}, "expected one pixel size"),
    "no such file": ({"path": "none.npz"}, "interpolate.path: expected a file of targets, found no such"),
    "no such key": ({"micrograf": FAR}, "did you mean interpolate.micrograph"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes(name: str) -> None:
    interpolate, said = BAD[name]
    with pytest.raises(InputError) as error:
        targets_of({"image": NEAR, "pixel_size": 1.0}, interpolate)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_ends_with_and_without_wrap_around(tmp_path: Path) -> None:
    """A periodic file stays so, beside an image that is not."""
    file = tmp_path / "targets.npz"
    periodic = targets_of(NEAR, periodic=True)
    file.write_bytes(npz(periodic.arrays({})))
    said = (
        r"^interpolate: expected .* at both ends or at none, found them at the {} and not at the {}; .*=true$"
    )
    with pytest.raises(InputError, match=said.format("first", "second")) as caught:
        targets_of(None, {"micrograph": FAR}, path=str(file))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=said.format("second", "first")):
        targets_of(NEAR, {"path": str(file)})
    both = targets_of(None, {"micrograph": FAR}, path=str(file), periodic=True)
    assert both.periodic
    wanted = [at(one).values["s2"] for one in (periodic, targets_of(FAR, periodic=True))]
    np.testing.assert_allclose(at(both).values["s2"], 0.5 * (wanted[0] + wanted[1]))


def test_statistics_from_elsewhere_fit_both_kinds_of_ends(tmp_path: Path) -> None:
    file = tmp_path / "s2.npy"
    np.save(file, lay_out([at(targets_of(NEAR)).values["s2"][0]]))
    for periodic in (False, True):
        targets = targets_of(FAR, {"path": str(file)}, periodic=periodic)
        assert targets.periodic is periodic


# --------------------------------------------------------------------------------------------- the start


SPARSE, DENSE = (blobs((96, 96), 2.0, seed, fraction) for seed, fraction in ((3, 0.2), (4, 0.6)))
LONG = blobs((96, 96), (2.0, 9.0), 4, 0.6)


def start(
    shape: tuple[int, int, int], along: str, factor: int = 1, stretched: bool = False
) -> NDArray[np.float64]:
    """Each rank's planes of the start of a graded material: round grains, in the end perhaps long along x."""
    end = {"image": LONG if stretched else DENSE, "x": {"image": DENSE}}
    targets = targets_of(SPARSE, {"micrograph": end, "along": along})
    with Comm.start("cpu") as comm:
        workers = Workers(1)
        slab = Slab(shape, comm, workers, torch.float64)
        made = Start(Level(0, shape, factor), slab, Phases((1,), workers), "zyx", comm, 0).spectral(targets)
        workers.close()
    return made.numpy()


@pytest.mark.parametrize("along", ["z", "y", "x"])
def test_a_graded_start_has_every_planes_fraction(along: str) -> None:
    field = np.moveaxis(start((32, 28, 36), along), "zyx".index(along), 0)
    fractions = (field > 0.5).mean((1, 2))
    wanted = np.linspace(SPARSE.mean(), DENSE.mean(), len(field))
    assert np.abs(fractions - wanted).mean() < 0.03  # the scatter of a plane
    assert fractions.mean() == pytest.approx(wanted.mean(), abs=0.01)
    assert (field == 0.0).any() and (field == 1.0).any()


def test_a_graded_start_turns_from_one_morphology_to_the_other() -> None:
    field = (start((32, 32, 32), "z", stretched=True) > 0.5).astype(float)
    steps = [np.abs(np.diff(field, axis=axis)).mean((1, 2)) for axis in (1, 2)]
    ratio = steps[0] / steps[1]
    assert ratio[:8].mean() == pytest.approx(1.0, abs=0.15)
    assert ratio[-8:].mean() > 1.4


def test_a_grey_graded_start_keeps_to_grey_levels() -> None:
    field = start((24, 24, 24), "y", factor=2)
    means = field.mean((0, 2))
    assert np.abs(means - np.linspace(0.2, 0.6, 24)).mean() < 0.05
    assert ((field > 0.0) & (field < 1.0)).mean() > 0.3


@pytest.mark.parametrize("along", ["z", "x"])
def test_a_graded_start_is_the_same_on_any_number_of_ranks(along: str) -> None:
    shape = (11, 9, 10)
    whole = start(shape, along)
    np.testing.assert_array_equal(np.concatenate(run_ranks(start, 3, shape, along)), whole)


def test_planes_are_held_to_their_own_targets() -> None:
    """The loss of a slice is measured against its target, whoever owns it."""
    targets = between(along="y")
    values = at(targets, "y").values
    slices = torch.rand(SHAPE[1], SHAPE[0], SHAPE[2], dtype=torch.float64)
    grid = SliceGrid((SHAPE[0], SHAPE[2]), torch.float64)
    for descriptor in descriptors():
        term = descriptor.term(values, 1.0, grid)
        errors = term.accumulate(slices, None, 1.0, range(SHAPE[1]))
        for plane in (0, 7, SHAPE[1] - 1):
            alone = {name: value[plane : plane + 1] for name, value in values.items()}
            own = descriptor.term(alone, 1.0, grid)
            one = own.accumulate(slices[plane : plane + 1], None, 1.0, range(plane, plane + 1))
            assert float(one[0]) * own.scale == pytest.approx(float(errors[plane]) * term.scale)
