"""Anisotropic materials: every direction's micrograph must end on its own axis, rows and columns included."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from wanted import blobs

import mcrdist
from mcrdist.store.run import Run

AXES = ("z", "y", "x")
#: Length of the grains along z, y and x: no two of them may be exchanged unnoticed.
LENGTHS = {"z": 2.0, "y": 4.0, "x": 9.0}
IN_PLANE = {"z": ("y", "x"), "y": ("z", "x"), "x": ("z", "y")}
LAG = 3
#: Error of S2 beyond which the micrographs ask for what no volume has.
CONTRADICTION = 0.135


def persistence(volume: NDArray[Any], axis: str) -> float:
    """The correlation of voxels `LAG` apart along an axis: 1 where nothing changes, 0 where nothing remains."""
    field = volume.astype(float)
    shifted = np.roll(field, LAG, AXES.index(axis))
    fraction = field.mean()
    return float(((field * shifted).mean() - fraction**2) / (fraction - fraction**2))


def reconstructed(directory: Path, images: dict[str, NDArray[Any]], size: int = 28) -> Run:
    """From noise, so that the optimiser alone has to find the orientation."""
    return mcrdist.reconstruct(
        micrograph={axis: {"image": image} for axis, image in images.items()},
        volume={"size": size},
        target={"lags": 8},
        initial="noise",
        levels={"count": 1},
        optimizer={"iterations": 60},
        runtime={"threads": 1},
        run={"dir": str(directory / "run"), "report": False},
    )


def assert_oriented(run: Run) -> None:
    """S2 falls fastest along z and slowest along x, in clear steps, and no direction contradicts the others."""
    z, y, x = (persistence(run.phase == 1, axis) for axis in AXES)
    assert z + 0.12 < y < x - 0.12, (z, y, x)
    errors = [run.summary["errors"]["rounded"][axis]["s2"] for axis in AXES]
    assert max(errors) < CONTRADICTION, errors


IMAGES = {
    axis: blobs((192, 192), tuple(LENGTHS[name] for name in IN_PLANE[axis]), seed)
    for seed, axis in enumerate(AXES)
}


def test_the_volume_is_oriented_as_its_micrographs(tmp_path: Path) -> None:
    assert_oriented(reconstructed(tmp_path, IMAGES))


@pytest.mark.slow
@pytest.mark.parametrize("order", [order for order in itertools.permutations(AXES) if order != AXES])
def test_micrographs_on_other_axes_are_found_out(order: tuple[str, ...], tmp_path: Path) -> None:
    exchanged = {axis: IMAGES[other] for axis, other in zip(AXES, order, strict=True)}
    with pytest.raises(AssertionError):
        assert_oriented(reconstructed(tmp_path, exchanged))


@pytest.mark.slow
@pytest.mark.parametrize("axis", AXES)
def test_a_micrograph_on_its_side_is_found_out(axis: str, tmp_path: Path) -> None:
    turned = IMAGES | {axis: np.ascontiguousarray(IMAGES[axis].T)}
    with pytest.raises(AssertionError):
        assert_oriented(reconstructed(tmp_path, turned))


@pytest.mark.slow
@pytest.mark.parametrize("across", AXES)
def test_fibres_of_real_micrographs(across: str, micrographs_dir: Path, tmp_path: Path) -> None:
    """One image across the fibres, which run along x, and one along them; only across=x fits."""
    end, side = (np.load(micrographs_dir / f"pymks_ms_64x64_{number}.npy") for number in (1, 3))
    images = dict.fromkeys(AXES, side) | {across: end}
    volume = reconstructed(tmp_path, images, 32).phase == 1
    z, y, x = (persistence(volume, axis) for axis in AXES)
    assert (x > max(z, y) + 0.2 and abs(z - y) < 0.1) == (across == "x"), (z, y, x)
