"""Targets that come as files: ``targets.npz``, and two-point statistics in PyMKS's layout."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from wanted import DIRECTIONS, LAGS, SHAPE, at, blobs, descriptors, targets_of

from mcrdist.descriptors.base import Descriptor
from mcrdist.directions import ORTHOGONAL
from mcrdist.errors import InputError
from mcrdist.npzfile import load_npz
from mcrdist.targets import Targets
from mcrdist.targets.base import npz
from mcrdist.targets.micrographs import MicrographTargets
from mcrdist.targets.pymks import lay_out, take_in

ONE, TWO = blobs((40, 48), seed=1), blobs((52, 44), seed=2)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(targets: Targets, **instead: Any) -> str:
    """The path of a file with the targets' arrays, some of them replaced, or left out if None."""
    found = {d.name: targets.at(d, 1, SHAPE, descriptors(), []) for d in ORTHOGONAL}
    arrays = targets.arrays(found) | {name.replace("__", "/"): value for name, value in instead.items()}
    Path("targets.npz").write_bytes(npz({name: value for name, value in arrays.items() if value is not None}))
    return "targets.npz"


def pymks(image: NDArray[Any]) -> NDArray[np.float64]:
    """What PyMKS's documentation says its two-point statistics are: (H, W), by brute force."""
    height, width = image.shape
    stats = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            shift = (row - height // 2, column - width // 2)
            stats[row, column] = (image * np.roll(image, shift, (0, 1))).mean()
    return stats


# ------------------------------------------------------------------------------------------- targets.npz


@pytest.mark.parametrize(
    "micrograph",
    [
        ONE,
        [ONE, TWO],
        {"image": ONE, "pixel_size": 0.5, "unit": "nm", "phase": 0, "x": {"image": [TWO, ONE]}},
        blobs(seed=1) + (blobs(seed=2) & blobs(seed=1)),
    ],
    ids=["one", "several", "directions", "three phases"],
)
@pytest.mark.parametrize("periodic", [True, False])
def test_they_come_back_as_they_were(micrograph: Any, periodic: bool) -> None:
    written = targets_of(micrograph, periodic=periodic)
    read = targets_of(path=saved(written), lags=None)
    assert (read.lags, read.periodic, read.phases) == (LAGS, periodic, written.phases)
    assert read.pixel_size == written.pixel_size
    for name in ("z", "y", "x", "y+z"):
        for factor in (1, 2):
            ours, theirs = (
                one.at(DIRECTIONS[name], factor, SHAPE, descriptors(), []) for one in (written, read)
            )
            for left, right in zip(ours, theirs, strict=True):
                assert left.spread == right.spread
                for key in left.values:
                    np.testing.assert_array_equal(left.values[key], right.values[key])


def test_the_image_before_it_was_segmented_comes_back_too() -> None:
    grey = np.random.default_rng(0).integers(0, 255, ONE.shape, dtype=np.uint8)
    written = targets_of({"image": grey, "x": {"image": ONE}})
    path = saved(written)
    read = targets_of(path=path, lags=None)
    for targets in (written, read):
        assert isinstance(targets, MicrographTargets)
        np.testing.assert_array_equal(targets.micrographs["z"][0].grey, grey)
        assert targets.micrographs["x"][0].grey is None
        # Once, though it stands for two directions.
        arrays = np.load(saved(targets))
        assert [name for name in arrays if name.endswith("grey")] == ["z/grey"]
        np.testing.assert_array_equal(arrays["z/grey"], grey)


def test_the_values_of_every_descriptor_are_there() -> None:
    class Corner(Descriptor):
        name = "corner"

        def describe(self, image, periodic):  # type: ignore[no-untyped-def]
            return image[:2, :3]

        def term(self, targets, weight, grid):  # type: ignore[no-untyped-def]
            raise AssertionError

    labels = blobs(seed=1) + (blobs(seed=2) & blobs(seed=1))
    targets = targets_of(labels)
    found = {"y": targets.at(DIRECTIONS["y"], 1, SHAPE, [Corner(), *descriptors()], [])}
    arrays = targets.arrays(found)
    for label in (0, 1, 2):
        np.testing.assert_array_equal(arrays[f"y/{label}/corner"], (labels == label)[:2, :3])
        assert arrays[f"y/{label}/s2"].shape == (2 * LAGS + 1, LAGS + 1)
    several = targets_of([ONE, TWO])
    arrays = several.arrays({"y": several.at(DIRECTIONS["y"], 1, SHAPE, [Corner()], [])})
    np.testing.assert_array_equal(arrays["y/corner"], (ONE[:2, :3] + TWO[:2, :3].astype(float)) / 2.0)
    assert arrays["y/spread/corner"].shape == ()


def test_the_users_window_wins() -> None:
    assert targets_of(path=saved(targets_of(ONE)), lags=3).lags == 3
    with pytest.raises(InputError, match=r"found 40x48 pixels for target\.lags=20; take target\.lags=19"):
        targets_of(path="targets.npz", lags=20)


def test_statistics_and_interpolations_come_back_too() -> None:
    np.save("s2.npy", lay_out([at(targets_of(ONE)).values["s2"][0]]))
    for written in (
        targets_of(path="s2.npy"),
        targets_of(ONE, {"micrograph": TWO, "t": 0.25}),
        targets_of(ONE, {"micrograph": TWO, "along": "y", "t": [0, 1, 0.5]}),
    ):
        read = targets_of(path=saved(written))
        for name in "zyx":
            np.testing.assert_array_equal(at(read, name).values["s2"], at(written, name).values["s2"])


BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no lags": ({"lags": None}, "lags: expected an array of 0 dimensions, found none"),
    "lags of text": ({"lags": np.array("5")}, "lags: expected an array of 0 dimensions"),
    "lags too long": ({"lags": np.array(20)}, "expected lags of at most 19, found 20"),
    "negative lags": ({"lags": np.array(-1)}, "expected an integer from 1"),
    "no micrograph in one direction": ({"y__micrograph": None}, "y/micrograph: expected an array of 2"),
    "none at all": ({f"{a}__micrograph": None for a in "zyx"}, "write it with mcrdist characterize"),
    "labels of floats": ({"z__micrograph": ONE * 1.0}, "z/micrograph: expected an array of 2 dimensions"),
    "labels of a volume": ({"z__micrograph": ONE[None]}, "found 3 dimensions of uint8"),
    "labels of 16 bits": ({"z__micrograph": ONE.astype(np.uint16)}, "expected uint8 labels"),
    "one phase": ({"z__micrograph": ONE * 0}, "expected uint8 labels of two phases at least"),
    "phase absent": ({"x__phase": np.array(7)}, "7 among them"),
    "grey levels of others": ({"z__grey": ONE[:-1]}, "z/grey: expected uint8 grey levels of all pixels"),
    "grey levels of floats": ({"z__grey": ONE * 0.5}, "found 40x48 of float64"),
    "too small": ({"z__micrograph": ONE[:7]}, "8 pixels a side, found 7x48"),
    "pixel size": ({"z__pixel_size": np.array(-1.0), "z__unit": np.array("um")}, "expected a length"),
    "unit": (
        {"z__pixel_size": np.array(1.0), "z__unit": np.array("mile")},
        "expected a length, found 1 mile",
    ),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_arrays_that_are_no_targets(name: str) -> None:
    instead, said = BAD_ARRAYS[name]
    path = saved(targets_of(ONE), **instead)
    with pytest.raises(InputError) as error:
        targets_of(path=path, lags=None)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


class Harmful:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("harm"),)


def test_nothing_is_unpickled(directory: Path) -> None:
    objects = np.array([Harmful()], dtype=object)
    np.savez("a.npz", lags=objects, **{"z/micrograph": objects})
    np.save("b.npy", objects)
    for path in ("a.npz", "b.npy"):
        with pytest.raises(InputError):
            targets_of(path=path)
    assert not (directory / "harm").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "found no such file"),
        (b"", "found something else"),
        (b"PK\x03\x04 and no more", "found a damaged file"),
        (b"\x93NUMPY", "expected an npy file with numbers"),
        (b"\x89PNG\r\n\x1a\n", "an image is given as micrograph.path"),
    ],
)
def test_files_that_are_no_targets(content: bytes | None, said: str) -> None:
    if content is not None:
        Path("bad").write_bytes(content)
    with pytest.raises(InputError) as error:
        targets_of(path="bad")
    assert said in str(error.value)
    assert "bad" in str(error.value)
    assert "\n" not in str(error.value)


def header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Of an npy file, with nothing behind it."""
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": dtype, "fortran_order": False, "shape": shape}
    )  # fmt: skip
    return buffer.getvalue()


def claiming(content: bytes, compression: int, size: int | None = None, packed: int | None = None) -> None:
    """A file whose one array is `content`, and whose list of contents claims other sizes."""
    with zipfile.ZipFile("bad.npz", "w", compression) as archive:
        archive.writestr("lags.npy", content)
        entry = archive.infolist()[0]
        entry.file_size, entry.compress_size = size or entry.file_size, packed or entry.compress_size


HUGE = (20_000, 2_000_000)  # float64: 298 GiB
CLAIMS: dict[str, tuple[Callable[[], None], str]] = {
    "by the array": (lambda: claiming(header(HUGE, "<f8"), zipfile.ZIP_STORED), "(20000, 2000000) of float64"),
    "by the list too": (
        lambda: claiming(header(HUGE, "<f8"), zipfile.ZIP_DEFLATED, len(header(HUGE, "<f8")) + 8 * 4 * 10**10),
        "320000000128 bytes claimed of",
    ),
    "by all of the list": (
        lambda: claiming(header(HUGE, "<f8"), zipfile.ZIP_DEFLATED, len(header(HUGE, "<f8")) + 8 * 4 * 10**10, 10**9),
        "contents larger than the file",
    ),
    "of elements without size": (lambda: claiming(header((2**40,), "|V0"), zipfile.ZIP_STORED), "|V0 claimed"),
    "of fewer than none": (lambda: claiming(header((-1, -16), "|u1") + bytes(16), zipfile.ZIP_STORED), "damaged"),
    "of a large element": (lambda: claiming(header((), "<U500000000"), zipfile.ZIP_STORED), "<U500000000 claimed"),
    "of a compression of others": (lambda: claiming(header((), "<i8") + bytes(8), zipfile.ZIP_LZMA), "a compression"),
    "text of no characters": (
        lambda: claiming(header((), "<U1") + bytes([0, 0, 17, 0]), zipfile.ZIP_STORED),
        "characters that do not exist",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLAIMS)
def test_sizes_are_checked_before_memory_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write, said = CLAIMS[name]
    write()
    taken = mock.Mock(wraps=np.lib.format.read_array)
    monkeypatch.setattr(np.lib.format, "read_array", taken)
    for read in (lambda: targets_of(path="bad.npz"), lambda: load_npz(Path("bad.npz"))):
        with pytest.raises(InputError) as error:
            read()
        assert "bad.npz: expected NumPy arrays in an .npz file, found a damaged file" in str(error.value)
        assert said in str(error.value) and "\n" not in str(error.value)
    assert not taken.called or name in ("of fewer than none", "text of no characters")


def test_what_is_there_must_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a kilobyte that unfolds to a megabyte, where half of that is free."""
    np.savez_compressed("bad.npz", lags=np.zeros(2**17))
    assert Path("bad.npz").stat().st_size < 2000
    assert len(load_npz(Path("bad.npz"))["lags"]) == 2**17
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**19))
    with pytest.raises(
        InputError, match=r"bad\.npz: expected at most 0\.00 GiB of arrays, .* found 0\.00 GiB"
    ):
        load_npz(Path("bad.npz"))


def test_interpolations_of_interpolations_come_to_an_end() -> None:
    arrays: dict[str, Any] = {}
    for depth in range(1200):
        arrays |= {f"{'from/' * depth}lags": 3, f"{'from/' * depth}to/t": 0.5}
    np.savez("deep.npz", **arrays)
    with pytest.raises(InputError, match=r"deep\.npz: expected interpolations in at most 64 others"):
        targets_of(path="deep.npz")


# -------------------------------------------------------------------------------------- PyMKS's layout


@pytest.mark.parametrize("shape", [(24, 20), (21, 25), (24, 25)])
def test_they_say_what_the_image_says(shape: tuple[int, int]) -> None:
    image = blobs(shape, length=3.0).astype(float)
    np.save("s2.npy", pymks(image)[None, :, :, None])
    read, wanted = targets_of(path="s2.npy"), targets_of(image, periodic=True)
    assert read.phases == (1,)
    for name in "zyx":
        for key, value in at(wanted, name).values.items():
            np.testing.assert_allclose(at(read, name).values[key], value, atol=1e-12)
    ours, theirs = (one.wish("z", 0, 1, 4) for one in (wanted, read))
    np.testing.assert_allclose(ours.s2, theirs.s2, atol=1e-12)
    assert ours.fraction == pytest.approx(theirs.fraction)


def test_a_cutoff_leaves_the_lag_zero_in_the_middle() -> None:
    whole = pymks(blobs((24, 20)).astype(float))
    cut = whole[12 - 6 : 12 + 7, 10 - 6 : 10 + 7]
    np.testing.assert_array_equal(take_in(cut, "s2")[0], whole[6:19, 10:17])
    np.testing.assert_array_equal(take_in(cut, "s2"), take_in(cut[None, :, :, None], "s2"))


def test_written_and_read() -> None:
    s2 = at(targets_of(ONE)).values["s2"][0]
    laid = lay_out([s2])
    assert laid.shape == (1, 2 * LAGS + 1, 2 * LAGS + 1, 1)
    np.testing.assert_array_equal(laid[0, :, LAGS:, 0], s2)
    np.testing.assert_allclose(laid[0, ::-1, ::-1, 0], laid[0, :, :, 0], atol=1e-15)
    np.testing.assert_array_equal(take_in(laid, "s2")[0], s2)


def test_samples_are_micrographs() -> None:
    images = [blobs((24, 20), 3.0, seed).astype(float) for seed in (1, 2)]
    np.save("s2.npy", np.stack([pymks(image) for image in images])[..., None])
    read, wanted = at(targets_of(path="s2.npy")), at(targets_of(images, periodic=True))
    np.testing.assert_allclose(read.values["variation"], wanted.values["variation"])
    assert read.spread == pytest.approx(wanted.spread)


def test_a_file_for_each_direction() -> None:
    images = {axis: blobs((24, 24), seed=seed).astype(float) for seed, axis in enumerate("zyx")}
    for axis, image in images.items():
        np.save(f"{axis}.npy", pymks(image))
    read = targets_of(path=["z.npy", "y.npy", "x.npy"])
    for axis, image in images.items():
        wanted = at(targets_of(image, periodic=True)).values["s2"]
        np.testing.assert_allclose(at(read, axis).values["s2"], wanted, atol=1e-12)
    with pytest.raises(InputError, match=r"found 2; e\.g\. target\.path="):
        targets_of(path=["z.npy", "y.npy"])


def test_the_window_is_settled_as_for_an_image() -> None:
    image = blobs((64, 64), length=6.0).astype(float)
    np.save("s2.npy", pymks(image))
    found = targets_of(path="s2.npy", lags=None).lags
    assert abs(found - targets_of(image, periodic=True, lags=None).lags) <= 2
    np.save("cut.npy", pymks(image)[32 - 6 : 32 + 7, 32 - 6 : 32 + 7])
    assert targets_of(path="cut.npy", lags=None).lags == 6
    with pytest.raises(InputError, match=r"found those up to 31 for target\.lags=32; take target\.lags=31"):
        targets_of(path="s2.npy", lags=32)


def test_other_descriptors_need_an_image() -> None:
    class Other(Descriptor):
        name = "s3"

        def describe(self, image, periodic):  # type: ignore[no-untyped-def]
            raise AssertionError

        def term(self, targets, weight, grid):  # type: ignore[no-untyped-def]
            raise AssertionError

    np.save("s2.npy", pymks(ONE.astype(float)))
    with pytest.raises(InputError, match=r"an image for the descriptor s3, found .*s2\.npy"):
        targets_of(path="s2.npy").at(DIRECTIONS["z"], 1, SHAPE, [*descriptors(), Other()], [])


GOOD = pymks(blobs((16, 16), 3.0).astype(float))
BAD_STATISTICS: dict[str, tuple[NDArray[Any], str]] = {
    "an image": (ONE, "found 40x48 values of type uint8; for an image use micrograph.path"),
    "one number": (np.array(0.4), "found one values"),
    "a line": (GOOD[0], "expected two-point statistics"),
    "nothing": (GOOD[:0], "expected two-point statistics"),
    "several correlations": (np.stack([GOOD, GOOD], -1)[None], "found 2 correlations; save the one"),
    "few lags": (GOOD[7:10, 7:10], "expected lags up to 2 at least"),
    "not finite": (np.where(np.eye(16) > 0, np.nan, GOOD), "expected finite values"),
    "not shifted": (np.fft.ifftshift(GOOD), "expected the largest value at lag zero"),
    "counts": (GOOD * 256, "volume fraction between 0 and 1"),
    "the mean subtracted": (GOOD - GOOD.mean(), "expected probabilities of at least 0"),
    "not even": (GOOD + 1e-3 * np.arange(16) * (GOOD.max() > GOOD), "expected S2(-r) = S2(r)"),
}


@pytest.mark.parametrize("name", BAD_STATISTICS)
def test_arrays_that_are_no_statistics(name: str) -> None:
    values, said = BAD_STATISTICS[name]
    np.save("bad.npy", values)
    with pytest.raises(InputError) as error:
        targets_of(path="bad.npy")
    assert said in str(error.value)
    assert "bad.npy" in str(error.value)
    assert "\n" not in str(error.value)
