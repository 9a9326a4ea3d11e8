"""Targets: which window, which average, and which micrograph belongs to which axis."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mcrdist import synthetic
from mcrdist.config import characterize_from_mapping
from mcrdist.descriptors.base import Descriptor
from mcrdist.descriptors.correlation import TwoPointCorrelation, two_point
from mcrdist.descriptors.pooled import averaged
from mcrdist.descriptors.variation import Variation, variation
from mcrdist.descriptors.volume_fraction import VolumeFraction
from mcrdist.directions import ORTHOGONAL
from mcrdist.errors import InputError
from mcrdist.targets import SETTLED, SMALLEST_WINDOW, Target, Targets, load_targets, settled_lag
from mcrdist.targets.base import npz

AXES = ("z", "y", "x")
Shape = tuple[int, int, int]


def targets_of(micrograph: Any, **target: Any) -> Targets:
    config = characterize_from_mapping({"micrograph": micrograph, "target": target})
    return load_targets(config.micrograph, config.target)


def lags_of(targets: Targets, factor: int, shape: Shape) -> list[int]:
    return [targets.lags_at(direction, factor, shape) for direction in ORTHOGONAL]


def at(targets: Targets, factor: int, shape: Shape, axis: str) -> tuple[Target, ...]:
    """The targets of each phase of one direction."""
    direction = ORTHOGONAL[AXES.index(axis)]
    measures: list[Descriptor] = [
        TwoPointCorrelation(targets.lags_at(direction, factor, shape)),
        Variation(),
        VolumeFraction(),
    ]
    return targets.at(direction, factor, shape, measures, [])


def arrays_of(targets: Targets) -> dict[str, NDArray[Any]]:
    shape = (32, 32, 32)
    return targets.arrays({axis: at(targets, 1, shape, axis) for axis in AXES})


def blobs(shape: tuple[int, int] = (96, 96), length: float | tuple[float, ...] = 6.0) -> NDArray[np.uint8]:
    return synthetic.ThresholdedGaussian(length=length, fraction=0.4).draw(shape, np.random.default_rng(3))


# ------------------------------------------------------------------------------------------------ window


def test_settled_lag_is_where_the_closed_form_settles() -> None:
    structure = synthetic.ThresholdedGaussian(length=16.0, fraction=0.45, waves=0.85)
    image = structure.draw((512, 512), np.random.default_rng(0)).astype(float)
    lags = np.arange(1, 60)
    covariance = structure.s2(np.stack([lags, 0 * lags], axis=-1)) - 0.45**2
    wanted = lags[np.abs(covariance) > SETTLED * 0.45 * 0.55].max() + 1
    assert abs(settled_lag(image, True) - wanted) <= 2
    assert abs(settled_lag(image, False) - wanted) <= 2


def test_noise_settles_at_once_and_a_checkerboard_never() -> None:
    noise = (np.random.default_rng(0).random((256, 256)) < 0.5).astype(float)
    assert settled_lag(noise, True) == 1
    board = (np.indices((64, 64)) // 8).sum(0) % 2.0
    assert settled_lag(board, True) >= 15  # a quarter of the image, as far as is looked
    assert settled_lag(board, True) <= 17


def test_window_is_the_longest_of_the_directions_and_has_a_least() -> None:
    fine, coarse = blobs((192, 192), 2.0), blobs((192, 192), 14.0)
    assert targets_of({"image": fine}).lags == SMALLEST_WINDOW
    settled = settled_lag((coarse == 1).astype(float), False)
    assert settled > SMALLEST_WINDOW
    assert targets_of({"image": fine, "y": {"image": coarse}}).lags == settled


@pytest.mark.parametrize(("periodic", "room"), [(True, 10), (False, 9)])
def test_window_keeps_to_the_room_there_is(periodic: bool, room: int) -> None:
    image = blobs((20, 40))
    assert targets_of({"image": image}, periodic=periodic).lags == room
    assert targets_of({"image": image}, periodic=periodic, lags=room).lags == room
    with pytest.raises(InputError, match=rf"found 20x40 pixels for target\.lags={room + 1}") as error:
        targets_of({"image": image}, periodic=periodic, lags=room + 1)
    assert f"take target.lags={room} at most" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_smallest_direction_gives_the_room() -> None:
    small = blobs((64, 22))
    assert targets_of({"image": blobs(), "x": {"image": small}}).lags == 10
    with pytest.raises(InputError, match="found 64x22"):
        targets_of({"image": blobs(), "x": {"image": small}}, lags=12)


def test_levels_describe_what_a_slice_has_room_for() -> None:
    targets = targets_of({"image": blobs()}, lags=7)
    assert lags_of(targets, 1, (20, 12, 8)) == [4, 4, 6]
    assert lags_of(targets, 1, (64, 64, 64)) == [7, 7, 7]
    # 96 pixels averaged by 16 are 6, and an open window of 6 pixels reaches 2.
    assert lags_of(targets, 16, (64, 64, 64)) == [2, 2, 2]


# ------------------------------------------------------------------------------------------------ values


def test_averaged() -> None:
    image = np.arange(7 * 9, dtype=float).reshape(7, 9)
    found = averaged(image, 3)
    assert found.shape == (2, 3)
    for row in range(2):
        for column in range(3):
            block = image[3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
            assert found[row, column] == pytest.approx(block.mean())
    assert averaged(image, 1) is image


@pytest.mark.parametrize("periodic", [True, False])
def test_a_level_describes_the_averaged_micrograph(periodic: bool) -> None:
    image = blobs((97, 90))
    targets = targets_of({"image": image}, periodic=periodic, lags=6)
    indicator = image.astype(float)
    for factor in (1, 2, 4):
        small = averaged(indicator, factor)
        (target,) = at(targets, factor, (32, 32, 32), "y")
        np.testing.assert_allclose(target.values["s2"], two_point(small[None], 6, periodic))
        # grey steps as the loss counts them, and on two phases the amount of boundary
        steps = float(variation(small[None], periodic, math.inf)[0])
        assert target.values["variation"][0] == pytest.approx(steps)
        assert factor > 1 or steps == pytest.approx(float(variation(small[None], periodic)[0]))
        assert target.fraction == pytest.approx(small.mean())


def test_the_phase_that_is_asked_for_is_described() -> None:
    image = blobs()
    one, other = (
        at(targets_of({"image": image, "phase": phase}), 1, (16, 16, 16), "z")[0].fraction for phase in (1, 0)
    )
    assert one == pytest.approx(image.mean())
    assert one + other == pytest.approx(1.0)


def test_anisotropic_micrographs_land_on_the_right_axes() -> None:
    """Rows and columns of the window are those of the planes: normal to z (y, x), y (z, x), x (z, y)."""
    along_columns, along_rows = blobs((128, 128), (4.0, 16.0)), blobs((128, 128), (16.0, 4.0))
    round_ones = blobs((128, 128), 4.0)
    targets = targets_of(
        {"z": {"image": round_ones}, "y": {"image": along_columns}, "x": {"image": along_rows}}, lags=8
    )
    found = {axis: at(targets, 1, (32, 32, 32), axis)[0].values["s2"][0] for axis in AXES}

    def far(axis: str) -> tuple[float, float]:
        """S2 at 6 pixels along rows' axis and along columns' axis."""
        s2 = found[axis]
        return float(s2[8 + 6, 0]), float(s2[8, 6])

    assert far("y")[1] > far("y")[0] + 0.05  # persists along x
    assert far("x")[0] > far("x")[1] + 0.05  # persists along z
    assert abs(far("z")[0] - far("z")[1]) < 0.03
    np.testing.assert_array_equal(found["y"], two_point(along_columns.astype(float)[None], 8, False)[0])


def test_all_phases_of_three_are_described() -> None:
    image = np.where(blobs() == 1, 2, blobs(length=3.0)).astype(np.uint8)
    targets = targets_of({"image": image})
    assert targets.phases == (0, 1, 2)
    found = at(targets, 1, (16, 16, 16), "x")
    assert [target.fraction for target in found] == pytest.approx(
        [float((image == k).mean()) for k in range(3)]
    )
    assert sum(target.fraction for target in found) == pytest.approx(1.0)
    for label, target in enumerate(found):
        np.testing.assert_allclose(
            target.values["variation"], variation((image == label)[None].astype(float), False)
        )


# ---------------------------------------------------------------------------------------- errors and files


def test_pixel_sizes_must_agree() -> None:
    image = blobs()
    with pytest.raises(InputError, match="expected one pixel size in all directions") as error:
        targets_of({"image": image, "pixel_size": 0.5, "x": {"image": image.T.copy(), "pixel_size": 1.0}})
    assert "0.5 um" in str(error.value) and "1 um" in str(error.value)
    other = image.T.copy()
    assert targets_of({"image": image}).pixel_size is None
    assert targets_of({"image": image, "pixel_size": 0.5, "x": {"image": other}}).pixel_size == (0.5, "um")
    # Known in one direction, it is known in all.
    assert targets_of({"image": image, "x": {"image": other, "pixel_size": 2.0}}).pixel_size == (2.0, "um")


def test_one_pixel_size_in_two_units() -> None:
    image = blobs()
    other = {"image": image.T.copy(), "pixel_size": 500.0, "unit": "nm"}
    targets_of({"image": image, "pixel_size": 0.5, "unit": "um", "x": other})


def test_arrays_and_npz_hold_the_same() -> None:
    image = blobs()
    targets = targets_of({"image": image, "pixel_size": 0.5, "phase": 0}, lags=9, periodic=True)
    arrays = arrays_of(targets)
    with np.load(io.BytesIO(npz(arrays)), allow_pickle=False) as data:
        read = {name: data[name] for name in data.files}
    assert set(read) == set(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(read[name], values)
    assert int(read["lags"]) == 9 and bool(read["periodic"])
    for axis in AXES:
        assert read[f"{axis}/s2"].shape == (19, 10)
        np.testing.assert_array_equal(read[f"{axis}/micrograph"], image)
        assert int(read[f"{axis}/phase"]) == 0
        assert float(read[f"{axis}/volume_fraction"]) == pytest.approx(1.0 - image.mean())
        assert float(read[f"{axis}/pixel_size"]) == 0.5
        assert str(read[f"{axis}/unit"]) == "um"
        assert "96x96" in str(read[f"{axis}/source"])


def test_no_pixel_size_leaves_none_behind() -> None:
    arrays = arrays_of(targets_of({"image": blobs()}))
    assert not [name for name in arrays if "pixel" in name or "unit" in name]
