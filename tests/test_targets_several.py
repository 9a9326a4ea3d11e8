"""Several micrographs of one direction: their mean is the target, their spread is told."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from wanted import DIRECTIONS, LAGS, SHAPE, at, blobs, descriptors, targets_of

from mcrdist.descriptors.correlation import two_point
from mcrdist.descriptors.joint import JointDescriptor
from mcrdist.descriptors.variation import variation
from mcrdist.errors import InputError

ONE, TWO, THREE = blobs((40, 48), seed=1), blobs((52, 44), seed=2, fraction=0.5), blobs(seed=3)


@pytest.mark.parametrize("periodic", [True, False])
def test_the_mean_of_descriptors_not_of_images(periodic: bool) -> None:
    target = at(targets_of([ONE, TWO, THREE], periodic=periodic))
    each = [image.astype(float)[None] for image in (ONE, TWO, THREE)]
    s2 = [two_point(image, LAGS, periodic)[0] for image in each]
    rough = [variation(image, periodic)[0] for image in each]
    np.testing.assert_allclose(target.values["s2"], [(s2[0] + s2[1] + s2[2]) / 3.0])
    np.testing.assert_allclose(target.values["variation"], [sum(rough) / 3.0])
    assert target.fraction == pytest.approx(sum(image.mean() for image in each) / 3.0)
    mean = (s2[0] + s2[1] + s2[2]) / 3.0
    far = sum(np.sqrt(((one - mean) ** 2).sum()) for one in s2) / 3.0
    assert target.spread["s2"] == pytest.approx(far / np.sqrt((mean**2).sum()))
    mean = sum(rough) / 3.0
    assert target.spread["variation"] == pytest.approx(sum(abs(one - mean) for one in rough) / 3.0 / mean)


def test_one_micrograph_has_no_spread_and_equal_ones_none_to_speak_of() -> None:
    assert at(targets_of(ONE)).spread == {}
    same = at(targets_of([ONE, ONE.copy()]))
    assert same.spread == dict.fromkeys(("s2", "variation", "volume_fraction"), 0.0)
    np.testing.assert_array_equal(same.values["s2"], at(targets_of(ONE)).values["s2"])


def test_a_direction_of_its_own_may_have_several() -> None:
    targets = targets_of({"image": ONE, "y": {"image": [TWO, THREE]}})
    assert at(targets, "z").spread == {}
    np.testing.assert_array_equal(at(targets, "x").values["s2"], at(targets_of(ONE)).values["s2"])
    np.testing.assert_array_equal(at(targets, "y").values["s2"], at(targets_of([TWO, THREE])).values["s2"])


def test_the_smallest_image_gives_the_room() -> None:
    small = blobs((22, 60))
    with pytest.raises(InputError, match=r"found 22x60 pixels for target\.lags=11; take target\.lags=10"):
        targets_of([ONE, small], lags=11)
    assert targets_of([ONE, small], lags=None).lags == 10
    assert targets_of([ONE, small], lags=None).lags_at(DIRECTIONS["z"], 2, (64, 64, 64)) == 4


def test_the_start_is_wished_the_mean_too() -> None:
    targets = targets_of([ONE, TWO])
    wish = targets.wish("z", 0, 1, LAGS)
    np.testing.assert_allclose(wish.s2, at(targets).values["s2"][0])
    assert wish.fraction == pytest.approx(at(targets).fraction)


def test_pixel_sizes_must_agree_within_a_direction() -> None:
    first = {"image": ONE, "pixel_size": 1.0}
    with pytest.raises(InputError, match=r"one pixel size .* found 1 um .*, 2 um"):
        targets_of(first | {"x": {"image": [TWO, THREE], "pixel_size": 2.0}})
    assert targets_of(first | {"image": [ONE, TWO]}).pixel_size == (1.0, "um")


def three_phases(seed: int, shape: tuple[int, int] = (40, 40)) -> NDArray[np.uint8]:
    return blobs(shape, seed=seed) + (blobs(shape, seed=seed + 10) & blobs(shape, seed=seed))


def test_phases_must_agree() -> None:
    with pytest.raises(
        InputError, match=r"expected the same phases in all images, found 0,1 .*, 0,1,2 "
    ) as error:
        targets_of([three_phases(1), ONE])
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="expected the same phases"):
        targets_of({"image": three_phases(1), "x": {"image": ONE}})
    # Two phases each, called differently: the one that is asked for counts.
    one, other = ONE, (1 - ONE).astype(np.uint8)
    targets = targets_of({"image": one, "y": {"image": other, "phase": 0}})
    np.testing.assert_allclose(at(targets, "y").values["s2"], at(targets, "z").values["s2"])


class Touching(JointDescriptor):
    """How often phases 0 and 1 lie side by side."""

    name = "touching"

    def describe(self, images, periodic):  # type: ignore[no-untyped-def]
        return np.array([(images[0] * np.roll(images[1], 1, 1)).mean(), images[2].mean()])

    def term(self, targets, weight, grid):  # type: ignore[no-untyped-def]
        raise AssertionError


def test_phases_and_what_they_have_together() -> None:
    images = [three_phases(1), three_phases(2, (44, 40))]
    targets = targets_of(images)
    assert targets.phases == (0, 1, 2)
    found = targets.at(DIRECTIONS["x"], 1, SHAPE, descriptors(), [Touching()])
    for label, target in enumerate(found):
        assert target.fraction == pytest.approx(np.mean([(image == label).mean() for image in images]))
    each = [Touching().describe([(image == k) * 1.0 for k in range(3)], False) for image in images]
    np.testing.assert_allclose(found[0].values["touching"], [np.mean(each, axis=0)])
    assert found[0].spread["touching"] > 0.0
    assert "touching" not in found[1].values
