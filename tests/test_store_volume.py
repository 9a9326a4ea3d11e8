"""The volume on disk: round trips, damage, gaps, pyramid, metadata, several writers."""

from __future__ import annotations

import errno
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

from mcrdist.errors import InputError
from mcrdist.store.pyramid import mode, mode_downsample
from mcrdist.store.volume import Volume, VolumeWriter

SHAPES = [(37, 70, 130), (19, 35, 65), (8, 12, 16)]


def random_field(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def blocks(nz: int, depth: int) -> list[tuple[int, int]]:
    return [(z, min(z + depth, nz)) for z in range(0, nz, depth)]


def write_all(path: Path, **options: Any) -> tuple[VolumeWriter, list[np.ndarray], np.ndarray]:
    writer = VolumeWriter.create(path, SHAPES, **options)
    fields = [random_field(shape, k) for k, shape in enumerate(SHAPES)]
    phase = (fields[0] > 0.6).astype(np.uint8)
    for k, field in enumerate(fields):
        for z0, z1 in blocks(len(field), writer.depth):
            writer.write_field(k, z0, field[z0:z1])
    for z0, z1 in blocks(len(phase), writer.depth):
        writer.write_phase(z0, phase[z0:z1])
    return writer, fields, phase


def test_round_trip(tmp_path: Path) -> None:
    writer, fields, phase = write_all(tmp_path / "v.zarr", voxel_size=(0.5, 0.25, 0.25), unit="um")
    writer.finish_phase()
    volume = Volume.open(tmp_path / "v.zarr")
    for k, field in enumerate(fields):
        np.testing.assert_array_equal(volume.field(k)[...], field)
    np.testing.assert_array_equal(volume.phase()[...], phase)
    assert volume.shape == SHAPES[0] == writer.shape
    assert volume.voxel_size == (0.5, 0.25, 0.25)
    assert volume.unit == "micrometer"
    assert volume.levels("field") == 3 and volume.levels("phase") == 3


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("unit", [None, "um", "nm"])
def test_metadata_is_ome_zarr(tmp_path: Path, unit: str | None, finished: bool) -> None:
    writer, _, _ = write_all(tmp_path / "v.zarr", voxel_size=(2, 2, 2) if unit else None, unit=unit)
    if finished:
        writer.finish_phase()
    for image in ("field", "phase"):
        yaozarrs.validate_zarr_store(str(tmp_path / "v.zarr" / image))


def test_coordinates(tmp_path: Path) -> None:
    writer, _, _ = write_all(tmp_path / "v.zarr", voxel_size=(0.5, 0.5, 0.5), unit="um")
    writer.finish_phase()

    def transforms(image: str) -> list[tuple[list[float], list[float]]]:
        ome: Any = zarr.open_group(tmp_path / "v.zarr" / image, mode="r").attrs["ome"]
        pairs = [d["coordinateTransformations"] for d in ome["multiscales"][0]["datasets"]]
        return [(a["scale"], b["translation"]) for a, b in pairs]

    for k, (scale, translation) in enumerate(transforms("phase")):
        assert scale == [0.5 * 2**k] * 3
        assert translation == [0.5 * (2**k - 1) / 2] * 3
    for shape, (scale, translation) in zip(SHAPES, transforms("field"), strict=True):
        np.testing.assert_allclose(np.multiply(scale, shape), np.multiply(0.5, SHAPES[0]))
        np.testing.assert_allclose(translation, (np.array(scale) - 0.5) / 2)


def test_existing_volume_is_refused(tmp_path: Path) -> None:
    VolumeWriter.create(tmp_path / "v.zarr", SHAPES)
    with pytest.raises(InputError, match=r"run\.dir: expected no volume yet"):
        VolumeWriter.create(tmp_path / "v.zarr", SHAPES)


def test_unknown_unit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"micrograph\.unit: expected a unit of length .*'furlong'"):
        VolumeWriter.create(tmp_path / "v.zarr", SHAPES, (1, 1, 1), "furlong")
    assert not (tmp_path / "v.zarr").exists()


@pytest.mark.parametrize("name", ["field/0/c/1/0/0", "phase/0/c/1/0/0", "field/2/c/0/0/0"])
def test_a_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    write_all(tmp_path / "v.zarr")
    chunk = tmp_path / "v.zarr" / name
    whole = chunk.read_bytes()
    volume = Volume.open(tmp_path / "v.zarr")
    array = volume._root[name.rsplit("/c/", 1)[0]]
    for position in np.linspace(0, len(whole) - 1, 12).astype(int):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        chunk.write_bytes(bytes(damaged))
        with pytest.raises(InputError, match="a chunk is damaged"):
            volume.read(array)


def test_missing_chunks_read_as_fill(tmp_path: Path) -> None:
    _, fields, phase = write_all(tmp_path / "v.zarr")
    (tmp_path / "v.zarr/field/0/c/1/0/0").unlink()
    (tmp_path / "v.zarr/phase/0/c/2/0/0").unlink()
    volume = Volume.open(tmp_path / "v.zarr")
    field, labels = volume.field()[...], volume.phase()[...]
    assert np.isnan(field[16:32]).all()
    np.testing.assert_array_equal(field[:16], fields[0][:16])
    assert (labels[32:] == 255).all()
    np.testing.assert_array_equal(labels[:32], phase[:32])


def test_a_gap_is_noticed_when_finishing(tmp_path: Path) -> None:
    writer, _, _ = write_all(tmp_path / "v.zarr")
    (tmp_path / "v.zarr/phase/0/c/2/0/0").unlink()
    with pytest.raises(InputError, match="never written"):
        writer.finish_phase()


def test_blocks_full_of_fill_are_written(tmp_path: Path) -> None:
    VolumeWriter.create(tmp_path / "v.zarr", [(20, 8, 8)])
    writer = VolumeWriter.open(tmp_path / "v.zarr")
    writer.write_phase(0, np.full((16, 8, 8), 255, np.uint8))
    writer.write_field(0, 16, np.full((4, 8, 8), np.nan, np.float32))
    assert (tmp_path / "v.zarr/phase/0/c/0/0/0").is_file()
    assert (tmp_path / "v.zarr/field/0/c/1/0/0").is_file()


@pytest.mark.parametrize(("z0", "planes"), [(1, 15), (0, 15), (8, 8), (32, 8)])
def test_only_whole_blocks(tmp_path: Path, z0: int, planes: int) -> None:
    writer = VolumeWriter.create(tmp_path / "v.zarr", SHAPES)
    with pytest.raises(AssertionError):
        writer.write_phase(z0, np.zeros((planes, 70, 130), np.uint8))


def brute_mode(labels: np.ndarray) -> np.ndarray:
    out = np.zeros([(n + 1) // 2 for n in labels.shape], np.uint8)
    for index in np.ndindex(out.shape):
        cell = labels[tuple(slice(2 * i, 2 * i + 2) for i in index)].ravel()
        values, first, counts = np.unique(cell, return_index=True, return_counts=True)
        out[index] = min(zip(-counts, first, values, strict=True))[2]
    return out


@pytest.mark.parametrize("labels", [2, 3, 7])
@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 7, 9), (1, 3, 2)])
def test_mode_against_brute_force(shape: tuple[int, int, int], labels: int) -> None:
    x = np.random.default_rng(labels).integers(0, labels, shape, dtype=np.uint8)
    np.testing.assert_array_equal(mode(x), brute_mode(x))


def test_mode_keeps_the_fraction_of_a_checkerboard_of_ties() -> None:
    x = np.random.default_rng(0).integers(0, 2, (64, 64, 64), dtype=np.uint8)
    assert abs(mode(x).mean() - 0.5) < 0.01


def test_pyramid_is_the_mode_across_tiles(tmp_path: Path) -> None:
    x = np.random.default_rng(1).integers(0, 3, (21, 33, 40), dtype=np.uint8)
    fine = zarr.create_array(tmp_path / "fine", data=x, chunks=(5, 7, 9))
    coarse = zarr.create_array(tmp_path / "coarse", shape=(11, 17, 20), dtype="uint8", chunks=(3, 5, 8))
    mode_downsample(fine, coarse)
    np.testing.assert_array_equal(coarse[...], brute_mode(x))


def test_pyramid_levels(tmp_path: Path) -> None:
    writer, _, phase = write_all(tmp_path / "v.zarr")
    writer.finish_phase()
    volume = Volume.open(tmp_path / "v.zarr")
    for level in range(1, volume.levels("phase")):
        phase = mode(phase)
        np.testing.assert_array_equal(volume.phase(level)[...], phase)
    assert max(phase.shape) <= 64


def _write_some(path: Path, mine: int, seed: int) -> None:
    writer = VolumeWriter.open(path)
    field = random_field(SHAPES[0], seed)
    for number, (z0, z1) in enumerate(blocks(len(field), writer.depth)):
        if number % 2 == mine:
            writer.write_field(0, z0, field[z0:z1])
            writer.write_phase(z0, (field[z0:z1] > 0.5).astype(np.uint8))


def test_two_processes_write_disjoint_blocks(tmp_path: Path) -> None:
    VolumeWriter.create(tmp_path / "v.zarr", SHAPES)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_some, args=(tmp_path / "v.zarr", k, 5)) for k in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    volume, field = Volume.open(tmp_path / "v.zarr"), random_field(SHAPES[0], 5)
    np.testing.assert_array_equal(volume.field()[...], field)
    np.testing.assert_array_equal(volume.phase()[...], field > 0.5)


class Refusing:
    """Stands for an array on a disk that says no."""

    def __init__(self, code: int) -> None:
        self.shape, self.dtype, self.code = (16, 4, 4), np.dtype("uint8"), code

    def __setitem__(self, key: object, value: object) -> None:
        raise OSError(self.code, "no")


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "can be written to")]
)
def test_a_refusing_disk_is_one_line(tmp_path: Path, code: int, words: str) -> None:
    writer = VolumeWriter.create(tmp_path / "v.zarr", [(16, 4, 4)])
    writer._phase = Refusing(code)
    with pytest.raises(InputError, match=words) as caught:
        writer.write_phase(0, np.zeros((16, 4, 4), np.uint8))
    assert "\n" not in str(caught.value)


def test_other_failures_are_not_the_users(tmp_path: Path) -> None:
    writer = VolumeWriter.create(tmp_path / "v.zarr", [(16, 4, 4)])
    writer._phase = Refusing(errno.EIO)
    with pytest.raises(OSError, match="no"):
        writer.write_phase(0, np.zeros((16, 4, 4), np.uint8))


def test_not_a_volume(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "other.zarr")
    for name in ("absent.zarr", "other.zarr"):
        with pytest.raises(InputError, match=r"expected a volume\.zarr"):
            Volume.open(tmp_path / name)
