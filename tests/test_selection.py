"""From the keys of the configuration to descriptors and their weights."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import mcrdist
from mcrdist import InputError, synthetic
from mcrdist.config import from_mapping
from mcrdist.descriptors.lineal_path import HARDLY_EVER, LinealPath, lineal_path, telling_length
from mcrdist.descriptors.pooled import Pooled
from mcrdist.descriptors.three_point import ThreePointCorrelation
from mcrdist.directions import ORTHOGONAL
from mcrdist.selection import Selection, select
from mcrdist.targets import load_targets
from mcrdist.targets.measure import Measured, measure
from mcrdist.view import View

Floats = NDArray[np.float64]
IMAGE = (
    synthetic.ThresholdedGaussian(length=4.0, fraction=0.4)
    .draw((64, 64), np.random.default_rng(1))
    .astype(np.float64)
)
VIEW = View((32, 24), [IMAGE], periodic=False, lags=10, finest=True)


def chosen(view: View = VIEW, **descriptors: dict[str, Any]) -> Selection:
    config = from_mapping(
        {"micrograph": IMAGE.astype(np.uint8), "volume": {"size": 32}, "descriptors": descriptors}
    )
    return select(config.descriptors, view)


def weights(selection: Selection) -> dict[str, float]:
    """As they were given."""
    return {one.descriptor.name: round(one.weight / one.descriptor.balance, 12) for one in selection.single}


def test_what_is_always_reported() -> None:
    found = chosen(s2={"weight": 0.0, "pooled": [2]}, variation={"weight": 2.0})
    assert weights(found) == {"s2": 0.0, "variation": 2.0, "volume_fraction": 1.0}
    assert not found.joints


def test_each_descriptor_at_each_resolution_with_its_weight() -> None:
    found = chosen(
        s2={"weight": 0.5, "pooled": [2, 4, 2]},
        variation={"pooled": [2]},
        s3={"weight": 3.0, "lags": 3, "pooled": [2], "every": 4},
        lineal_path={"weight": 4.0, "length": 7, "every": 3},
        patches={"weight": 1.0, "every": 2},
    )
    assert weights(found) == {
        "s2": 0.5, "s2@2": 0.5, "s2@4": 0.5, "variation": 1.0, "variation@2": 1.0, "volume_fraction": 1.0,
        "s3": 3.0, "s3@2": 3.0, "lineal_path": 4.0, "patches": 1.0,
    }  # fmt: skip
    costly = {"s3": 4, "s3@2": 4, "lineal_path": 3, "patches": 2}
    assert {one.descriptor.name: one.every for one in found.single if one.every > 1} == costly
    by_name = {descriptor.name: descriptor for descriptor in found.descriptors}
    # a window of 10 voxels has no room on 8 x 6 averaged ones
    assert by_name["s2@4"].descriptor.lags == 3  # type: ignore[attr-defined]
    assert by_name["lineal_path"].length == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("shape", "image", "periodic", "lags"),
    [((8, 20), (64, 64), False, 4), ((40, 40), (16, 30), False, 7), ((40, 40), (16, 30), True, 8)],
)
def test_triangles_have_room(
    shape: tuple[int, int], image: tuple[int, int], periodic: bool, lags: int
) -> None:
    view = View(shape, [IMAGE[: image[0], : image[1]]], periodic, 2, True)
    (three,) = (
        descriptor
        for descriptor in chosen(view, s3={"weight": 1.0, "lags": 12}).descriptors
        if isinstance(descriptor, ThreePointCorrelation)
    )
    assert three.lags == lags
    assert three.describe(view.images[0], periodic).shape == (sum(map(len, three.sets)),)


def test_coarse_levels_do_what_they_can() -> None:
    """12 is not a multiple of 8, and 2 of 8 voxels are no slice."""
    coarse = replace(VIEW, shape=(12, 8), finest=False)
    found = chosen(coarse, s2={"pooled": [2, 4, 8]}, s3={"weight": 1.0, "pooled": [3]})
    pooled = [one.descriptor.name for one in found.single if isinstance(one.descriptor, Pooled)]
    assert pooled == ["s2@2"]


def measured(shape: tuple[int, int, int], factor: int, **descriptors: dict[str, Any]) -> Measured:
    config = from_mapping(
        {
            "micrograph": IMAGE.astype(np.uint8),
            "volume": {"shape": shape},
            "descriptors": descriptors,
        }
    )
    targets = load_targets(config.micrograph, config.target)
    level = tuple(round(n / factor) for n in shape)
    return measure(targets, config.descriptors, ORTHOGONAL, level, factor)  # type: ignore[arg-type]


#: Volumes whose directions have room for different descriptors on a coarse level.
UNEVEN: dict[str, tuple[tuple[int, int, int], int, dict[str, Any]]] = {
    "9 x 8 voxels": ((36, 32, 32), 4, {"s2": {"pooled": [2]}}),
    "short windows": ((16, 48, 48), 4, {"patches": {"weight": 1.0, "sizes": [6]}}),
    "few voxels of an average": ((16, 64, 64), 4, {"s3": {"weight": 1.0, "pooled": [4]}}),
}


@pytest.mark.parametrize("name", UNEVEN)
def test_all_directions_of_a_level_have_the_same_descriptors(name: str) -> None:
    """All that was asked for on the finest level, and on a coarse one what each direction has room for."""
    shape, factor, descriptors = UNEVEN[name]
    counts = []
    for pixels in (1, factor):
        found = measured(shape, pixels, **descriptors)
        names = [selection.names() for selection in found.selections.values()]
        assert names[0] == names[1] == names[2]
        assert all(list(found.targets[axis][0].values) == names[0] for axis in "zyx")
        counts.append(len(names[0]))
    assert counts[0] == counts[1] + 1


@pytest.mark.parametrize(
    ("shape", "descriptors", "setting"),
    [
        ((8, 32, 32), {"patches": {"weight": 1.0, "sizes": [10]}}, "descriptors.patches.sizes"),
        ((8, 32, 32), {"patches": {"weight": 1.0, "sizes": [3, 10]}}, "descriptors.patches.sizes"),
        ((9, 32, 32), {"s2": {"pooled": [2]}}, "descriptors.s2.pooled"),
        ((33, 31, 35), {"s2": {"pooled": [2]}}, "descriptors.s2.pooled"),
    ],
)
def test_what_some_directions_or_none_can_have_is_refused(
    shape: tuple[int, int, int], descriptors: dict[str, Any], setting: str
) -> None:
    with pytest.raises(InputError, match=f"^{setting}: expected ") as caught:
        measured(shape, 1, **descriptors)
    assert "\n" not in str(caught.value)


def test_a_run_whose_coarse_slices_have_different_room(tmp_path: Path) -> None:
    """9 x 8 x 8 voxels: slices normal to z can be averaged over 2 x 2 of them, others cannot."""
    run = mcrdist.reconstruct(
        micrograph={"image": IMAGE.astype(np.uint8)},
        volume={"shape": [36, 32, 32]},
        levels={"count": 3, "coarsest": 8},
        descriptors={"s2": {"pooled": [2]}},
        optimizer={"iterations": 2, "binarize_iterations": 1, "flip_rounds": 1},
        runtime={"threads": 1},
        run={"dir": tmp_path / "run", "report": False},
    )
    assert [level["shape"] for level in run.summary["levels"]] == [[9, 8, 8], [18, 16, 16], [36, 32, 32]]
    assert all("s2@2" in errors for errors in run.summary["errors"]["rounded"].values())


@pytest.mark.parametrize("factor", [5, 8, 3])
def test_a_resolution_that_slices_do_not_have(factor: int) -> None:
    with pytest.raises(InputError) as caught:
        chosen(s2={"pooled": [2, factor]})
    message = str(caught.value)
    assert message.startswith("descriptors.s2.pooled: expected factors that divide")
    assert "32x24 voxels" in message and f"found {factor}" in message and "\n" not in message


def test_cross_correlations_need_three_phases() -> None:
    with pytest.raises(
        InputError, match=r"^descriptors\.cross_correlation\.weight: expected .* three phases"
    ):
        chosen(cross_correlation={"weight": 1.0})
    view = replace(VIEW, images=[k == IMAGE for k in range(3)])
    (joint,) = chosen(view, cross_correlation={"weight": 2.0}).joint
    assert joint.descriptor.name == "cross_correlation"
    assert joint.weight == 2.0 * joint.descriptor.balance


def test_segments_end_where_phases_do() -> None:
    """Squares of 5 x 5 pixels: none is longer, and the matrix between them is followed as far as there is room."""
    squares = np.zeros((60, 60))
    for row in range(3, 60, 12):
        for column in range(3, 60, 12):
            squares[row : row + 5, column : column + 5] = 1.0
    board = np.kron(np.indices((12, 12)).sum(0) % 2, np.ones((5, 5)))
    assert telling_length([board], True, 30) == 6
    assert telling_length([squares], True, 30) == 30
    assert telling_length([board], True, 4) == 4
    found = chosen(replace(VIEW, images=[board]), lineal_path={"weight": 1.0})
    (path,) = (one for one in found.descriptors if isinstance(one, LinealPath))
    assert path.length == 6


@pytest.mark.parametrize("periodic", [True, False])
def test_hardly_ever_is_what_it_says(periodic: bool) -> None:
    length = telling_length([IMAGE], periodic, 31)
    paths = np.concatenate([lineal_path(one, 31, periodic) for one in (IMAGE, 1.0 - IMAGE)])
    shares = (paths / paths[:, :1]).max(0)
    if length < 31:
        assert shares[length - 1] < HARDLY_EVER
    assert shares[length - 2] >= HARDLY_EVER


@pytest.fixture
def three_phases(tmp_path: Path) -> Path:
    blobs = synthetic.ThresholdedGaussian(length=3.0, fraction=0.5)
    drawn = [blobs.draw((40, 44), np.random.default_rng(seed)) for seed in (2, 3)]
    path = tmp_path / "phases.npy"
    np.save(path, (drawn[0] * (1 + drawn[1])).astype(np.uint8))
    return path


def test_from_the_command_line(three_phases: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "mcrdist", "reconstruct", f"micrograph.path={three_phases}",
            "micrograph.phase=null", "volume.shape=[12,16,8]", f"run.dir={tmp_path / 'out'}", "run.report=false",
            "optimizer.iterations=3", "optimizer.binarize_iterations=3", "optimizer.flip_rounds=8",
            "descriptors.s2.pooled=[2]", "descriptors.variation.pooled=[2]",
            "descriptors.s3.weight=1", "descriptors.s3.triangles=sparse", "descriptors.lineal_path.weight=1",
            "descriptors.cross_correlation.weight=1",
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    names = {
        "s2",
        "s2@2",
        "variation",
        "variation@2",
        "volume_fraction",
        "s3",
        "lineal_path",
        "cross_correlation",
    }
    for field in ("relaxed", "rounded"):
        for errors in summary["errors"][field].values():
            assert set(errors) == names
            assert all(0.0 <= error < 1.0 for error in errors.values())


def test_what_does_not_fit_leaves_no_traces(three_phases: Path, tmp_path: Path) -> None:
    for descriptors in ({"s3": {"weight": 1.0, "pooled": [3]}}, {"cross_correlation": {"weight": 1.0}}):
        with pytest.raises(InputError):
            mcrdist.reconstruct(
                micrograph={"path": str(three_phases), "phase": 1},
                volume={"size": 16},
                descriptors=descriptors,
                run={"dir": str(tmp_path / "out")},
            )
        assert not (tmp_path / "out").exists()
