"""Volumes as other programs write them: OME-Zarr of other versions and axes, bare arrays, TIFF stacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from fake_run import build

from mcrdist.config import VolumeSourceConfig
from mcrdist.errors import InputError
from mcrdist.store import Run, source
from mcrdist.store.source import open_source

SHAPE = (20, 24, 28)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "odd"
    return build(path, SHAPE, width=(2, 2, 2), lags=5, levels=2, micrograph=32, pixel_size=0.25)


def test_other_volumes(run: Run, tmp_path: Path) -> None:
    labels = run.phase

    def read(path: Path, **more: Any) -> source.Source:
        found = open_source(VolumeSourceConfig(path=str(path), **more))
        assert found.shape == SHAPE
        assert np.array_equal(np.concatenate([b for _, b in found.slabs(7)]), labels)
        return found

    np.save(tmp_path / "a.npy", labels)
    assert read(tmp_path / "a.npy", voxel_size=(1, 1, 2)).voxel_size == (1, 1, 2)
    np.save(tmp_path / "f.npy", np.asfortranarray(labels))
    read(tmp_path / "f.npy")
    np.save(tmp_path / "b.npy", labels.astype(bool))
    assert read(tmp_path / "b.npy").dtype == np.uint8
    tifffile.imwrite(tmp_path / "plain.tif", labels, photometric="minisblack")
    read(tmp_path / "plain.tif")
    tifffile.imwrite(tmp_path / "packed.tif", labels, compression="zlib", photometric="minisblack")
    read(tmp_path / "packed.tif")
    tifffile.imwrite(tmp_path / "big.tif", labels.astype(">u2"), byteorder=">", photometric="minisblack")
    assert read(tmp_path / "big.tif").dtype == np.uint16
    (tmp_path / "slices").mkdir()
    for k, plane in enumerate(labels):
        tifffile.imwrite(tmp_path / "slices" / f"s{k}.tif", plane)
    read(tmp_path / "slices")
    sizes = {
        "axes": "ZYX",
        "PhysicalSizeZ": 3,
        "PhysicalSizeY": 2,
        "PhysicalSizeX": 1,
        "PhysicalSizeXUnit": "nm",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", labels, metadata=sizes)
    assert read(tmp_path / "a.ome.tif").voxel_size == pytest.approx((3, 2, 1e-3))
    zarr.save_array(tmp_path / "bare.zarr", labels)
    read(tmp_path / "bare.zarr")
    ours = read(run.path / "volume.zarr" / "phase")
    assert ours.voxel_size == (0.25,) * 3 and ours.unit == "micrometer" and ours.depth == 16
    assert read(run.path / "volume.zarr").ours


def test_ome_zarr_of_version_04_with_time_and_channel(run: Run, tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "old.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=run.phase[None, None], chunks=(1, 1, 4, 24, 28))
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    scale = {"type": "scale", "scale": [1, 1, 30, 20, 10]}
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}
    ]
    found = open_source(VolumeSourceConfig(path=str(tmp_path / "old.zarr")))
    assert found.voxel_size == (30, 20, 10) and found.unit == "nanometer" and found.depth == 4
    assert np.array_equal(found.read(2, 11), run.phase[2:11])


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((2, 3, 4, 5), r"3 dimensions \(z, y, x\), found 4 \(2x3x4x5\)"),
        ((4, 5), r"3 dimensions \(z, y, x\), found 2 \(4x5\)"),
        ((), r"3 dimensions \(z, y, x\), found 0 \(a single value\)"),
    ],
)
def test_a_bare_zarr_array_of_other_dimensions(shape: tuple[int, ...], told: str, tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match=rf"a\.zarr: expected an array of {told}; save the volume"):
        open_source(VolumeSourceConfig(path=str(tmp_path / "a.zarr")))


def test_an_ome_zarr_whose_axes_are_not_those_of_its_array(run: Run, tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("0", data=run.phase[None])
    scales = [{"axes": [{"name": a} for a in "zyx"], "datasets": [{"path": "0"}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": scales}
    with pytest.raises(
        InputError, match=r"a\.zarr: expected an array of 3 dimensions \(z, y, x\), found 4 \("
    ):
        open_source(VolumeSourceConfig(path=str(tmp_path / "a.zarr")))
