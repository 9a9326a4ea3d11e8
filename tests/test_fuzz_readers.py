"""Readers of what users give: of every mutated file they make a value or one line, soon, and in little memory."""

from __future__ import annotations

import logging
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from memory import resident
from PIL import Image
from safetensors.torch import save_file
from test_checkpoints import mutate
from test_reconstruct import IMAGE

from mcrdist.config.volumes import VolumeSourceConfig
from mcrdist.descriptors.correlation import two_point
from mcrdist.directions import AXES
from mcrdist.errors import InputError
from mcrdist.imagefile import read as read_image
from mcrdist.initial import read_field
from mcrdist.npzfile import load_npz
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.store.source import open_source
from mcrdist.targets.files import read_targets
from mcrdist.weightfile import load as load_weights

#: What reading damaged small files may add to the memory of the process, and the seconds that one may take.
MOST_MEMORY, MOST_SECONDS = 2**29, 10.0

SMALL = IMAGE[:24, :20] * np.uint8(255)
VOXELS = np.random.default_rng(0).integers(0, 2, (5, 6, 7)).astype(np.uint8)
TENSORS = {"conv1_1.weight": torch.zeros(4, 3, 3, 3), "conv1_1.bias": torch.ones(4)}


def picture(kind: str) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(SMALL).save(path, format=kind)


def tiff(path: Path) -> None:
    tifffile.imwrite(path, SMALL, resolution=(100, 100), resolutionunit="CENTIMETER")


def statistics(path: Path) -> None:
    s2 = two_point(IMAGE[None, :24, :24].astype(float), 5, True)[0]
    np.save(path, np.concatenate([s2[::-1, :0:-1], s2], axis=1))


def targets(path: Path, save: Callable[..., None] = np.savez) -> None:
    arrays: dict[str, Any] = {"lags": 4, "periodic": 0}
    for axis in AXES:
        arrays |= {f"{axis}/micrograph": IMAGE[:24, :24], f"{axis}/phase": 1, f"{axis}/source": "a.tif"}
    save(path, **arrays)


def voxels(path: Path) -> None:
    source = open_source(VolumeSourceConfig(path=str(path)))
    for start in range(min(source.shape[0], 20)):
        if np.prod(source.shape[1:]) < 2**26:
            source.read(start, start + 1)


def field(path: Path) -> None:
    slab = Slab((5, 6, 7), Comm.start("cpu"), Workers(1))
    read_field(str(path), slab, slab.comm)


FORMATS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "image.png": (picture("png"), read_image),
    "image.jpg": (picture("jpeg"), read_image),
    "image.bmp": (picture("bmp"), read_image),
    "image.pgm": (picture("ppm"), read_image),
    "image.tif": (tiff, read_image),
    "image.npy": (lambda path: np.save(path, SMALL), read_image),
    "targets.npz": (targets, lambda path: read_targets(str(path), "target.path")),
    "small.npz": (
        lambda path: targets(path, np.savez_compressed),
        lambda path: read_targets(str(path), "target.path"),
    ),
    "of_a_run.npz": (lambda path: targets(path, np.savez_compressed), load_npz),
    "pymks.npy": (statistics, lambda path: read_targets(str(path), "target.path")),
    "field.npy": (lambda path: np.save(path, VOXELS / 2), field),
    "voxels.npy": (lambda path: np.save(path, VOXELS), voxels),
    "voxels.tif": (lambda path: tifffile.imwrite(path, VOXELS, photometric="minisblack"), voxels),
    "weights.safetensors": (lambda path: save_file(TENSORS, path), load_weights),
    "weights.pth": (lambda path: torch.save(TENSORS, path), load_weights),
}


@pytest.mark.parametrize(
    "count", [40, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.unmeasured])]
)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.filterwarnings("ignore")
def test_mutated_files(name: str, count: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, "tifffile")  # a line a damaged tag, kept by pytest
    path = tmp_path / name
    write, read = FORMATS[name]
    write(path)
    if not name.startswith("weights"):
        read(path)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    before, slowest, refused = resident("VmHWM"), 0.0, 0
    for _ in range(count):
        path.write_bytes(mutate(whole, random))
        began = time.perf_counter()
        try:
            read(path)
        except InputError as error:
            refused += 1
            assert path.name in str(error)
        slowest = max(slowest, time.perf_counter() - began)
    assert resident("VmHWM") - before < MOST_MEMORY
    assert slowest < MOST_SECONDS
    assert refused
    print(f"{name}: {count} mutated, {refused} refused, {slowest:.2f} s at most")


@pytest.mark.parametrize(
    "count", [400, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.unmeasured])]
)
@pytest.mark.filterwarnings("ignore")
def test_mutated_arrays_with_checksums_that_fit(count: int, tmp_path: Path) -> None:
    """What is behind the checksums of an npz file is tried too."""
    path, random, refused = tmp_path / "targets.npz", np.random.default_rng(0), 0
    targets(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    before = resident("VmHWM")
    for turn in range(count):
        name = str(random.choice(list(members)))
        changed = overwrite(members[name], random) if turn % 2 else mutate(members[name], random)
        with zipfile.ZipFile(path, "w") as archive:
            for other, data in (members | {name: changed}).items():
                archive.writestr(other, data)
        try:
            read_targets(str(path), "target.path")
        except InputError as error:
            refused += 1
            assert path.name in str(error) and "\n" not in str(error)
    assert resident("VmHWM") - before < MOST_MEMORY
    assert 0 < refused < count


def overwrite(data: bytes, random: np.random.Generator) -> bytes:
    """Other bytes, mostly in what follows the header of a small npy file."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 6))):
        changed[random.integers(8 if random.random() < 0.2 else 128, len(changed))] = random.integers(256)
    return bytes(changed)


@pytest.mark.parametrize("pages", [1, 3, 150])
@pytest.mark.parametrize("read", [read_image, voxels])
def test_pages_that_go_round_in_a_circle(read: Callable[[Path], Any], pages: int, tmp_path: Path) -> None:
    """tifffile would follow them for ever: it looks for circles at the hundredth page alone, if at all."""
    path = tmp_path / "round.tif"
    with tifffile.TiffWriter(path) as writer:
        for number in range(pages):
            writer.write(np.full((6, 7), number, np.uint8), contiguous=False, metadata=None)
    with tifffile.TiffFile(path) as tiff:
        last = tiff.pages[-1]
        end, first = last.offset + 2 + 12 * len(last.tags), tiff.pages[pages // 2].offset
    data = bytearray(path.read_bytes())
    assert data[end : end + 4] == bytes(4)
    data[end : end + 4] = first.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"round\.tif: .*go round in a circle"):
        read(path)
