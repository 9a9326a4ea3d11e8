"""Micrographs as people have them, and what is said about those that do not work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from mcrdist import imagefile
from mcrdist.config import MicrographSource
from mcrdist.errors import InputError
from mcrdist.micrograph import Micrograph, load

BLOBS = (np.add.outer(np.arange(32) // 5, np.arange(40) // 7) % 3 == 0).astype(
    np.uint8
)  # (32, 40), about a third
rng = np.random.default_rng(0)
GREY = np.clip(60 + 130 * BLOBS + rng.normal(0, 9, BLOBS.shape), 0, 255).astype(np.uint8)
THREE = (np.arange(32)[:, None] // 11 + np.zeros((1, 40), int)).astype(np.uint8)


def of(path: Path | str, **settings_: Any) -> Micrograph:
    return load(MicrographSource(path=str(path), **settings_))


def from_array(array: NDArray[Any], **settings_: Any) -> Micrograph:
    return load(MicrographSource(image=array, **settings_))


# --------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("suffix", ["png", "bmp", "pgm", "tif", "npy"])
def test_two_levels_become_labels_in_every_lossless_format(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    if suffix == "npy":
        np.save(path, BLOBS * 255)
    else:
        Image.fromarray(BLOBS * 255).save(path)
    micrograph = of(path)
    assert micrograph.labels.dtype == np.uint8
    np.testing.assert_array_equal(micrograph.labels, BLOBS)
    assert micrograph.grey is None
    assert micrograph.notes == ("labels 0, 1 for the values 0, 255",)
    assert micrograph.fraction == BLOBS.mean()
    assert micrograph.indicator.dtype == np.float64
    assert micrograph.source == str(path)


def test_the_kind_of_file_is_told_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    tifffile.imwrite(path, BLOBS)
    np.testing.assert_array_equal(of(path).labels, BLOBS)


def test_jpeg_of_two_levels_is_grey_and_comes_back_by_otsu(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(BLOBS * 255).save(path, quality=90)
    micrograph = of(path)
    assert micrograph.grey is not None
    assert (micrograph.labels != BLOBS).mean() < 0.01
    Image.fromarray(GREY).convert("RGB").save(path)  # saved as colour by a camera program
    assert of(path).labels.shape == BLOBS.shape


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGB", "RGBA", "I;16"])
def test_modes_of_png(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    image = (
        Image.fromarray(BLOBS.astype(np.uint16) * 65535)
        if mode == "I;16"
        else Image.fromarray(BLOBS * 255).convert(mode)
    )
    image.save(path)
    np.testing.assert_array_equal(of(path).labels, BLOBS)


def test_a_mask_with_a_colour_a_label(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    image = Image.frombytes("P", (40, 32), THREE.tobytes())
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.save(path)
    np.testing.assert_array_equal(of(path, phase=2).labels, THREE)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.uint16, np.float32, np.float64, ">i4"])
def test_types_of_npy(dtype: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", BLOBS.astype(dtype))
    np.testing.assert_array_equal(of(tmp_path / "image.npy").labels, BLOBS)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib"},
        {"photometric": "miniswhite"},
        {"bigtiff": True},
        {"tile": (16, 16)},
        {"byteorder": ">"},
        {"imagej": True},
        {"ome": True},
    ],
    ids=str,
)
def test_variants_of_tiff(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "image.ome.tif" if "ome" in options else tmp_path / "image.tif"
    tifffile.imwrite(path, BLOBS * np.uint8(255), **options)
    expected = 1 - BLOBS if options.get("photometric") == "miniswhite" else BLOBS
    np.testing.assert_array_equal(of(path).labels, expected)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "group4"])
@pytest.mark.parametrize("mode", ["L", "1"])
def test_compressions_of_tiff(compression: str, mode: str, tmp_path: Path) -> None:
    if compression == "group4" and mode == "L":
        pytest.skip("group 4 is for two levels")
    path = tmp_path / "image.tif"
    Image.fromarray(BLOBS * 255).convert(mode).save(path, compression=compression)
    np.testing.assert_array_equal(of(path).labels, BLOBS)


def test_a_stack_of_one_is_an_image_and_of_two_is_not(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, BLOBS[None])
    np.testing.assert_array_equal(of(path).labels, BLOBS)
    for options in ({}, {"imagej": True}, {"ome": True}):
        tifffile.imwrite(path, np.stack([BLOBS, BLOBS]), photometric="minisblack", **options)
        with pytest.raises(InputError, match="expected one image, found 2 pages"):
            of(path)
    with tifffile.TiffWriter(path) as writer:
        writer.write(BLOBS)
        writer.write(np.zeros((64, 64), np.uint8))
    with pytest.raises(InputError, match="expected one image, found 2 pages"):
        of(path)


def test_the_micrographs_of_the_project() -> None:
    directory = Path(__file__).parents[2] / "shared" / "data" / "micrographs"
    if not directory.is_dir():
        pytest.skip("no ../shared/data")
    for path in [*directory.glob("*.npy"), *directory.glob("*.tif")]:
        micrograph = of(path)
        assert 0 < micrograph.fraction < 1, path
        assert micrograph.notes == ("labels as they are",)


def test_synthetic() -> None:
    synthetic = pytest.importorskip("mcrdist.synthetic")
    for name in synthetic.NAMES:
        assert of(f"synthetic:{name}").labels.shape == (256, 256)
    assert of("synthetic:gaussian", crop=(0, 64, 10, 90)).labels.shape == (64, 80)
    with pytest.raises(InputError, match="gaussian"):
        of("synthetic:nothing")


# ------------------------------------------------------------------------------------------ pixel size


def test_pixel_size_of_png_and_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(BLOBS).save(path, dpi=(25400 / 0.25, 25400 / 0.25))
    assert of(path).pixel_size == pytest.approx(0.25, rel=1e-3)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, BLOBS, resolution=(40000, 40000), resolutionunit="CENTIMETER")
    assert (of(path).pixel_size, of(path).unit) == (pytest.approx(0.25), "um")
    assert of(path, unit="nm").pixel_size == pytest.approx(250)
    tifffile.imwrite(path, BLOBS, imagej=True, resolution=(2, 2), metadata={"unit": "um"})
    assert of(path).pixel_size == pytest.approx(0.5)
    tifffile.imwrite(path, BLOBS, imagej=True, resolution=(2, 2), metadata={"unit": "\\u00B5m"})
    assert of(path).pixel_size == pytest.approx(0.5)
    tifffile.imwrite(path, BLOBS, imagej=True, resolution=(2, 2), metadata={"unit": "pixel"})
    assert of(path).pixel_size is None
    metadata = {
        "PhysicalSizeX": 30.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 30.0,
        "PhysicalSizeYUnit": "nm",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", BLOBS, ome=True, metadata=metadata)
    assert of(tmp_path / "a.ome.tif").pixel_size == pytest.approx(0.03)


@pytest.mark.parametrize("dpi", [72, 96, 300])
def test_the_resolution_of_a_screen_is_not_a_pixel_size(dpi: int, tmp_path: Path) -> None:
    for name in ("a.png", "a.tif", "a.jpg"):
        Image.fromarray(GREY).save(tmp_path / name, dpi=(dpi, dpi))
        assert (of(tmp_path / name).pixel_size, of(tmp_path / name).unit) == (None, None)


def test_the_pixel_size_given_wins(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", BLOBS, resolution=(40000, 20000), resolutionunit="CENTIMETER")
    with pytest.raises(InputError, match=r"square pixels, found 0\.5 um down and 0\.25 um across"):
        of(tmp_path / "a.tif")
    given_ = of(tmp_path / "a.tif", pixel_size=2.0, unit="nm")
    assert (given_.pixel_size, given_.unit) == (2.0, "nm")
    assert from_array(BLOBS, pixel_size=3.0).unit == "um"


# ---------------------------------------------------------------------------------------- segmentation


def test_grey_is_segmented_by_otsu() -> None:
    micrograph = from_array(GREY)
    np.testing.assert_array_equal(micrograph.labels, BLOBS)
    assert micrograph.grey is not None
    np.testing.assert_array_equal(micrograph.grey, GREY)
    assert micrograph.notes[0].startswith("Otsu threshold")
    stretched = from_array(GREY.astype(np.float32) * 1000).grey
    assert stretched is not None
    assert (stretched.min(), stretched.max(), stretched.dtype) == (0, 255, np.uint8)


def test_threshold_multi_otsu_and_invert() -> None:
    np.testing.assert_array_equal(from_array(GREY, threshold=125.0).labels, GREY > 125)
    np.testing.assert_array_equal(from_array(GREY, invert=True).labels, 1 - BLOBS)
    grey = 40.0 + 80 * THREE + rng.normal(0, 4, THREE.shape)
    micrograph = from_array(grey, segmentation="multi-otsu", classes=3, phase=2)
    assert (micrograph.labels != THREE).mean() < 0.002  # scikit-image's threshold is the middle of a bin
    with pytest.raises(InputError, match="within its grey levels"):
        from_array(GREY, segmentation="threshold", threshold=256.0)
    with pytest.raises(InputError, match="enough for 3 classes"):
        from_array(BLOBS, segmentation="multi-otsu", classes=3)


def test_small_labels_are_taken_as_they_are() -> None:
    labels = THREE + 1
    micrograph = from_array(labels, phase=3, crop=(12, 32, 0, 40))
    assert set(np.unique(micrograph.labels)) == {2, 3}
    np.testing.assert_array_equal(from_array(THREE, invert=True).labels, 2 - THREE)


@given(
    st.sets(st.integers(-1000, 1000) | st.integers(0, 7), min_size=2, max_size=8), st.integers(0, 2**32 - 1)
)
def test_labels_keep_their_order(values: set[int], seed: int) -> None:
    ordered = np.array(sorted(values))
    generator = np.random.default_rng(seed)
    ranks = generator.permutation(np.resize(np.arange(len(ordered)), 9 * 11)).reshape(9, 11)
    plane = ordered[ranks]
    kept = ordered[0] >= 0 and ordered[-1] < 8
    labels = from_array(plane, phase=int(ordered[-1]) if kept else 1).labels
    np.testing.assert_array_equal(labels, plane if kept else ranks)
    floats = from_array(plane.astype(np.float64), phase=int(ordered[-1]) if kept else 1).labels
    np.testing.assert_array_equal(labels, floats)


@given(st.tuples(st.integers(0, 24), st.integers(0, 32)), st.tuples(st.integers(8, 32), st.integers(8, 40)))
def test_a_crop_is_rows_then_columns(start: tuple[int, int], size: tuple[int, int]) -> None:
    (row, column), (height, width) = start, size
    crop = (row, row + height, column, column + width)
    if row + height > 32 or column + width > 40:
        with pytest.raises(InputError, match="inside 32 rows and 40 columns"):
            from_array(BLOBS, crop=crop)
    else:
        expected = BLOBS[row : row + height, column : column + width]
        try:
            np.testing.assert_array_equal(from_array(BLOBS, crop=crop).labels, expected)
        except InputError:
            assert expected.min() == expected.max()


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(
        dtype=st.sampled_from([np.uint8, np.int16, np.float32, np.float64, np.bool_]),
        shape=arrays.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=12),
    )
)
def test_any_array_becomes_phases_or_one_line(array: NDArray[Any]) -> None:
    try:
        micrograph = from_array(array)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert micrograph.labels.ndim == 2
        assert 0 < micrograph.fraction < 1


# -------------------------------------------------------------------------------- what does not work


def _png(path: Path, array: NDArray[Any]) -> None:
    Image.fromarray(array).save(path, format="PNG")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _truncated(path: Path, save: Any, keep: float = 0.6) -> None:
    save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


COLOUR = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
NOISE = rng.integers(0, 255, (64, 64), dtype=np.uint8)
NOT_A_NUMBER = np.where(np.arange(1024).reshape(32, 32) == 70, np.nan, 0.5)

BAD_FILES: dict[str, tuple[Any, str]] = {
    "missing": (lambda path: None, "found no such file"),
    "directory": (lambda path: path.mkdir(), "found a directory"),
    "empty": (lambda path: _write(path, b""), "found an empty file"),
    "text": (lambda path: _write(path, b"hello, world, this is no image"), "found something else"),
    "truncated png": (lambda path: _truncated(path, lambda p: _png(p, NOISE)), "truncated"),
    "truncated jpeg": (
        lambda path: _truncated(path, lambda p: Image.fromarray(NOISE).save(p, "JPEG")),
        "truncated",
    ),
    "truncated tiff": (lambda path: _truncated(path, lambda p: tifffile.imwrite(p, NOISE)), "truncated"),
    "truncated zlib tiff": (
        lambda path: _truncated(path, lambda p: tifffile.imwrite(p, NOISE, compression="zlib")),
        "truncated",
    ),
    "head of a tiff": (lambda path: _write(path, b"II*\0\x08\0\0\0"), "truncated"),
    "truncated npy": (lambda path: _truncated(path, lambda p: _npy(p, NOISE)), "truncated"),
    "pickled npy": (lambda path: _npy(path, np.array([{}, []], dtype=object)), "found a damaged"),
    "colour photograph": (lambda path: _png(path, COLOUR), "colour photograph"),
    "colour jpeg": (lambda path: Image.fromarray(COLOUR).save(path, "JPEG"), "colour photograph"),
    "colour tiff": (lambda path: tifffile.imwrite(path, COLOUR, photometric="rgb"), "colour photograph"),
    "planar colour tiff": (
        lambda path: tifffile.imwrite(
            path, np.moveaxis(COLOUR, -1, 0), photometric="rgb", planarconfig="separate"
        ),
        "colour photograph",
    ),
    "transparent": (lambda path: _png(path, np.dstack([GREY, GREY, GREY, GREY])), "transparent"),
    "one grey level": (lambda path: _png(path, np.full((32, 32), 7, np.uint8)), "found only 7 everywhere"),
    "nan": (lambda path: _npy(path, NOT_A_NUMBER), "NaN at row 2, column 6"),
    "infinity": (lambda path: _npy(path, np.where(np.isnan(NOT_A_NUMBER), np.inf, 0.5)), "infinity at row 2"),
    "three dimensions": (lambda path: _npy(path, np.zeros((9, 9, 9))), "found 9x9x9"),
    "one dimension": (lambda path: _npy(path, np.arange(99)), "found 99"),
    "nothing in it": (lambda path: _npy(path, np.zeros((0, 9))), "found 0x9"),
    "complex": (lambda path: _npy(path, np.zeros((9, 9), complex)), "complex128"),
    "strings": (lambda path: _npy(path, np.full((9, 9), "a")), "<U1"),
    "too small": (lambda path: _png(path, BLOBS[:7]), "found 7x40"),
    "bomb": (lambda path: _bomb(path), "found far more"),
    "npy bomb": (lambda path: _npy_bomb(path), "found 60000x60000"),
}


def _npy(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)


def _npy_bomb(path: Path) -> None:
    """A header that promises 3.6 billion values, and a sparse file that seems to hold them."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (60000, 60000)}
        )
        file.truncate(file.tell() + 60000 * 60000)


def _bomb(path: Path) -> None:
    """A PNG whose header promises 3.6 billion pixels."""
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        size = (60000).to_bytes(4, "big")
        PngImagePlugin.putchunk(file, b"IHDR", size, size, b"\x08\0\0\0\0")
        PngImagePlugin.putchunk(file, b"IDAT", b"x\x9c\x03\0\0\0\0\x01")
        PngImagePlugin.putchunk(file, b"IEND", b"")


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_do_not_work(case: str, tmp_path: Path) -> None:
    make, message = BAD_FILES[case]
    path = tmp_path / "micrograph.dat"
    make(path)
    with pytest.raises(InputError) as caught:
        of(path)
    assert message in str(caught.value)
    assert "micrograph.dat" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    _png(path, BLOBS)
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        of(path)


def test_a_phase_that_does_not_occur() -> None:
    with pytest.raises(InputError, match=r"one of the phases found, 0, 1 \(.*0, 255\), found 255"):
        from_array(BLOBS * 255, phase=255)


def test_labels_that_are_none() -> None:
    with pytest.raises(InputError, match=r"at most 8 labels, found \d+ distinct values"):
        from_array(GREY, segmentation="labels")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_told_in_one_line(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    kind = data.draw(st.sampled_from(["PNG", "TIFF", "JPEG", "npy"]))
    if kind == "npy":
        _npy(path, GREY)
    elif kind == "TIFF":
        tifffile.imwrite(path, GREY, compression="zlib")
    else:
        Image.fromarray(GREY).save(path, format=kind)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        of(path)
    except InputError as error:
        assert "\n" not in str(error)


def test_the_limit_is_on_values_not_on_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(imagefile, "MAX_PIXELS", 1000)
    tifffile.imwrite(tmp_path / "a.tif", BLOBS)
    with pytest.raises(InputError, match="at most 1000 values, found 32x40"):
        of(tmp_path / "a.tif")
