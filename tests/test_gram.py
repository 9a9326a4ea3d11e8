"""Gram matrices of VGG-19: against the reference, against finite differences, and slice by slice the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interrupted import Stop
from matrix import features, random_weights
from numpy.typing import NDArray
from torch import Tensor

import mcrdist
from mcrdist.config import DescriptorConfig, from_mapping
from mcrdist.config.descriptors import VGG_LAYERS
from mcrdist.descriptors import gram
from mcrdist.descriptors.base import SliceGrid
from mcrdist.descriptors.gram import GramMatrices, GramTerm, Vgg19, usable_layers
from mcrdist.descriptors.vgg import BY_NAME, Network
from mcrdist.errors import InputError
from mcrdist.selection import select
from mcrdist.view import View
from mcrdist.weightfile import cached, load

FEW = ["relu1_1", "relu2_2", "relu3_1"]
ALL = ["relu1_2", "relu2_2", "relu3_4", "relu4_4", "relu5_4"]


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return random_weights()


@pytest.fixture(scope="module")
def vgg(weights: dict[str, Tensor]) -> Vgg19:
    return Vgg19(weights)


@pytest.fixture(scope="module")
def real() -> Vgg19:
    if not cached().is_file():
        pytest.skip(f"no weights at {cached()}; run mcrdist weights")
    return Vgg19(load(None))


def images(count: int, *shape: int) -> NDArray[np.float64]:
    return np.random.default_rng(count).random((count, *shape))


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("shape", [(8, 12), (11, 9)])
def test_features_are_those_of_the_textbook(
    weights: dict[str, Tensor], name: str, shape: tuple[int, int]
) -> None:
    image = torch.from_numpy(images(1, *shape)[0])
    network = Network(weights, [name], torch.float64)
    *_, (layer, maps) = network.run(image[None])
    assert layer.relu == name
    torch.testing.assert_close(
        maps[0].permute(2, 0, 1), features(weights, image, name), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("name", ["ceramics_resized_64", "copolymer_resized_64", "pymks_ms_64x64_1_64"])
def test_against_the_program_of_the_papers_authors(real: Vgg19, name: str, micrographs_dir: Path) -> None:
    path = micrographs_dir.parent.parent / "reference" / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"no reference values at {path}")
    reference = np.load(path)
    descriptor = GramMatrices(real, ALL, torch.float64, border="far")
    matrices = descriptor.split(descriptor.describe(reference["image"].astype(float), periodic=True))
    for layer, matrix in zip(ALL, matrices, strict=True):
        if layer in reference:
            assert relative(matrix, reference[layer]) < 1e-10
        assert relative(matrix[:32, :32], reference[f"{layer}_block"]) < 1e-10
        assert np.trace(matrix) == pytest.approx(float(reference[f"{layer}_trace"]), rel=1e-10)
        assert np.linalg.norm(matrix) == pytest.approx(float(reference[f"{layer}_frobenius"]), rel=1e-10)


def test_single_precision_is_good_to_five_digits(real: Vgg19) -> None:
    image = (images(1, 64, 64)[0] > 0.6).astype(float)
    one, other = (GramMatrices(real, ALL, t).describe(image, True) for t in (torch.float32, torch.float64))
    assert relative(one, other) < 1e-5


def relative(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("shape", [(8, 8), (9, 14)])
def test_gradient_against_finite_differences(vgg: Vgg19, shape: tuple[int, int]) -> None:
    descriptor = GramMatrices(vgg, FEW, torch.float64)
    target = descriptor.describe(images(1, *shape)[0], True)
    term = descriptor.term({"gram": target[None]}, 0.7, SliceGrid(shape, torch.float64))
    slices = torch.from_numpy(images(3, *shape))
    share, at = 0.25, range(3)
    gradient = torch.full_like(slices, 2.0)  # added to, not overwritten
    errors = term.accumulate(slices, gradient, share, at)
    assert torch.equal(errors, term.accumulate(slices, None, share, at))
    direction = torch.from_numpy(np.random.default_rng(1).standard_normal(slices.shape))
    step = 1e-5

    def loss(x: Tensor) -> float:
        return share * float(term.loss(term.accumulate(x, None, share, at).numpy()).sum())

    slope = (loss(slices + step * direction) - loss(slices - step * direction)) / (2.0 * step)
    assert float(((gradient - 2.0) * direction).sum()) == pytest.approx(slope, rel=1e-6)


def test_error_counts_all_layers_alike(vgg: Vgg19) -> None:
    descriptor = GramMatrices(vgg, FEW, torch.float64)
    image, other = images(2, 12, 12)
    target, found = descriptor.describe(image, True), descriptor.describe(other, True)
    term = descriptor.term({"gram": target[None]}, 1.0, SliceGrid((12, 12), torch.float64))
    (error,) = term.accumulate(torch.from_numpy(other)[None], None, 1.0, range(1))
    layers = [relative(a, b) for a, b in zip(descriptor.split(found), descriptor.split(target), strict=True)]
    assert float(error) == pytest.approx(float(np.sqrt(np.mean(np.square(layers)))), rel=1e-10)
    (none,) = term.accumulate(torch.from_numpy(image)[None], None, 1.0, range(1))
    assert float(none) < 1e-12


def test_every_slice_may_have_a_target_of_its_own(vgg: Vgg19) -> None:
    descriptor = GramMatrices(vgg, FEW, torch.float64)
    stack = images(4, 8, 8)
    targets = np.stack([descriptor.describe(image, True) for image in stack])
    term = descriptor.term({"gram": targets}, 1.0, SliceGrid((8, 8), torch.float64))
    errors = term.accumulate(torch.from_numpy(stack[1:3]), None, 1.0, range(1, 3))
    assert errors.max() < 1e-12
    assert term.accumulate(torch.from_numpy(stack[1:3]), None, 1.0, range(3)[:2]).min() > 1e-3


@pytest.mark.parametrize("layout", ["rows", "columns", "slices fastest"])
def test_the_same_bits_whatever_the_batch(vgg: Vgg19, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = GramMatrices(vgg, ["relu2_2", "relu3_4", "relu4_1"])
    grid = SliceGrid((32, 32))
    target = descriptor.describe(images(1, 40, 40)[0], False)[None]
    slices = torch.from_numpy(images(11, 32, 32)).to(torch.float32)
    if layout == "columns":
        slices = slices.mT.contiguous().mT
    elif layout == "slices fastest":
        slices = slices.permute(1, 2, 0).contiguous().permute(2, 0, 1)

    def evaluate(term: GramTerm, size: int) -> tuple[Tensor, Tensor]:
        gradient = torch.zeros_like(slices)
        errors = []
        for start in range(0, len(slices), size):
            stop = min(start + size, len(slices))
            part = gradient[start:stop]
            errors.append(term.accumulate(slices[start:stop], part, 0.1, range(start, stop)))
        return torch.cat(errors), gradient

    whole = evaluate(descriptor.term({"gram": target}, 1.0, grid), 11)
    for size in (1, 2, 5):
        found = evaluate(descriptor.term({"gram": target}, 1.0, grid), size)
        assert torch.equal(found[0], whole[0]) and torch.equal(found[1], whole[1]), size
    monkeypatch.setattr(gram, "BATCH_PIXELS", 3 * 32 * 32)  # batches of three, three, three and two
    found = evaluate(descriptor.term({"gram": target}, 1.0, grid), 11)
    assert torch.equal(found[0], whole[0]) and torch.equal(found[1], whole[1])


def test_moving_a_slice_by_what_pooling_takes_together_changes_nothing(vgg: Vgg19) -> None:
    descriptor = GramMatrices(vgg, FEW, torch.float64)
    image = images(1, 16, 12)[0]
    moved = np.roll(image, (4, -8), (0, 1))
    assert relative(descriptor.describe(moved, True), descriptor.describe(image, True)) < 1e-12


def test_an_image_that_is_not_periodic_has_no_seam(vgg: Vgg19) -> None:
    """A ramp jumps where it is wrapped around; its mirror image does not."""
    descriptor = GramMatrices(vgg, ["relu1_2"], torch.float64)
    ramp = np.tile(np.linspace(0.0, 1.0, 65)[:64], (64, 1))
    inner = Network(vgg._weights, ["relu1_2"], torch.float64)
    *_, (_, maps) = inner.run(torch.from_numpy(ramp)[None])
    pixels = maps[0, 2:-2, 2:-2].flatten(0, 1).numpy()
    expected = (pixels.T @ pixels / len(pixels)).ravel()
    assert relative(descriptor.describe(ramp, False), expected) < 1e-12
    assert relative(descriptor.describe(ramp, True), expected) > 1e-3


def test_micrographs_of_few_pixels(vgg: Vgg19) -> None:
    assert np.isfinite(GramMatrices(vgg, ["relu3_1"]).describe(images(1, 4, 9)[0], False)).all()
    with pytest.raises(
        InputError, match=r"expected a micrograph of at least 4 pixels a side for relu3_1, found 3x9"
    ):
        GramMatrices(vgg, ["relu3_1"]).describe(images(1, 3, 9)[0], False)


def test_small_slices_do_without_deep_layers() -> None:
    assert usable_layers(ALL, (64, 64)) == tuple(ALL)
    assert usable_layers(ALL, (64, 63)) == tuple(ALL[:4])
    assert usable_layers(ALL, (32, 48)) == tuple(ALL[:4])
    assert usable_layers(ALL, (8, 8)) == ("relu1_2", "relu2_2")


def test_configuration_knows_the_layers() -> None:
    assert tuple(BY_NAME) == VGG_LAYERS


@pytest.mark.slow
def test_memory_is_what_the_documentation_says(root: Path) -> None:
    """In a process of its own, since what is freed elsewhere would hide what is used here."""
    import subprocess
    import sys

    code = """
import sys, torch
sys.path.insert(0, "tests")
from memory import resident
from matrix import random_weights
from test_gram import ALL, images
from mcrdist.descriptors.base import SliceGrid
from mcrdist.descriptors.gram import GramMatrices, Vgg19
torch.set_num_threads(1)
descriptor = GramMatrices(Vgg19(random_weights()), ALL)
target = descriptor.describe(images(1, 64, 64)[0], True)[None]
slices = torch.rand(1, 640, 640)
term = descriptor.term({"gram": target}, 1.0, SliceGrid((640, 640)))
before = resident()
term.accumulate(slices, torch.zeros_like(slices), 1.0, range(1))
print((resident("VmHWM") - before) / 640**2)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 1000.0 < float(done.stdout) < 2500.0


# ------------------------------------------------------------------------------------------- the configuration


@pytest.fixture
def own_file(weights: dict[str, Tensor], tmp_path: Path) -> Path:
    from safetensors.torch import save_file

    path = tmp_path / "vgg.safetensors"
    save_file(weights, path)
    return path


def view(side: int, finest: bool = True) -> View:
    return View((side, side), [np.eye(side)], True, 8, finest)


def settings(**gram: object) -> DescriptorConfig:
    mapping = {"micrograph": "a.png", "volume": {"size": 64}, "descriptors": {"gram": gram}}
    return from_mapping(mapping).descriptors


def test_chosen_by_the_configuration(own_file: Path) -> None:
    config = settings(weight=0.5, every=4, weights=str(own_file))
    (chosen,) = [c for c in select(config, view(16)).single if c.descriptor.name == "gram"]
    assert chosen.every == 4
    assert chosen.weight == 0.5 * GramMatrices.balance
    assert isinstance(chosen.descriptor, GramMatrices)
    assert chosen.descriptor.names == ["relu1_2", "relu2_2", "relu3_4"]
    with pytest.raises(InputError, match=r"^descriptors\.gram\.weights: expected the weights of VGG-19 in "):
        select(settings(weight=0.5, weights=f"{own_file}x"), view(16))


def test_slices_too_small_for_all_layers(own_file: Path) -> None:
    config = settings(weight=1, weights=str(own_file), layers=["relu5_4"])
    with pytest.raises(
        InputError, match=r"^descriptors\.gram\.layers: expected a layer .* 32x32, found relu5_4; "
    ):
        select(config, view(32))
    assert all(c.descriptor.name != "gram" for c in select(config, view(32, finest=False)).single)


def test_the_network_joins_when_the_correlations_have_settled(own_file: Path, tmp_path: Path) -> None:
    gram = {"weight": 1.0, "weights": str(own_file), "layers": ["relu1_2"]}
    run = mcrdist.reconstruct(
        micrograph="synthetic:discs",
        volume={"size": 12},
        descriptors={"gram": gram},
        optimizer={"iterations": 6},
        run={"dir": str(tmp_path / "run"), "report": False},
    )
    stages = list(dict.fromkeys(line["stage"] for line in run.metrics))
    assert stages == ["prepare", "relax", "binarize", "flip"]
    prepared = [line for line in run.metrics if line["stage"] == "prepare"]
    relaxed = [line for line in run.metrics if line["stage"] == "relax"]
    without = [line for line in run.metrics if line["stage"] in ("prepare", "binarize")]
    assert all("gram" not in line["errors"] and "s2" in line["errors"] for line in without)
    assert all("gram" in line["errors"] for line in run.metrics if line not in without)
    assert prepared[-1]["loss"] < prepared[0]["loss"] and relaxed[-1]["loss"] < relaxed[0]["loss"]
    # It goes on from where they were.
    assert relaxed[0]["errors"]["s2"] == pytest.approx(prepared[-1]["errors"]["s2"], rel=1e-6)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("alone", [False, True], ids=["with S2", "alone"])
def test_voxels_are_flipped_by_what_sees_all_slices(
    every: int, alone: bool, own_file: Path, tmp_path: Path
) -> None:
    """Unless nothing else says what the structure is: then by what sees a part of them."""
    run = mcrdist.reconstruct(
        micrograph="synthetic:discs",
        volume={"size": 12},
        descriptors={
            "s2": {"weight": 0.0 if alone else 1.0},
            "gram": {"weight": 1.0, "weights": str(own_file), "layers": ["relu1_2"], "every": every},
        },
        levels={"count": 1},
        optimizer={"iterations": 3, "binarize_iterations": 2, "flip_rounds": 3},
        output={"threshold": "exact"},
        run={"dir": str(tmp_path / "run"), "report": False},
    )
    flipped = [line for line in run.metrics if line["stage"] == "flip"]
    assert flipped
    assert {"gram" in line["errors"] for line in flipped} == {alone or every == 1}
    assert all("gram" in errors for errors in run.summary["errors"]["rounded"].values())


def test_a_run_that_is_asked_to_end_does_not_measure_them(own_file: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "micrograph": "synthetic:discs",
        "volume": {"size": 12},
        "descriptors": {"gram": {"weight": 1.0, "weights": str(own_file), "layers": ["relu1_2"]}},
        "levels": {"count": 1},
        "optimizer": {"iterations": 3, "binarize_iterations": 2, "flip_rounds": 3},
        "run": {"dir": str(tmp_path / "run")},
    }
    with pytest.MonkeyPatch.context() as patch:
        Stop(patch, at=6)
        first = mcrdist.reconstruct(**settings)
    assert first.summary["status"] == "interrupted"
    assert all(
        "s2" in errors and "gram" not in errors for errors in first.summary["errors"]["rounded"].values()
    )
    whole = mcrdist.reconstruct(**settings, resume=True)
    assert whole.summary["status"] == "complete" and whole.report is not None
    assert all("gram" in errors for errors in whole.summary["errors"]["rounded"].values())


@pytest.mark.parametrize("mode", ["match", "minimize"])
def test_the_variation_alone_prepares_nothing(mode: str, own_file: Path, tmp_path: Path) -> None:
    """Minimised without a word on the structure, it would leave an even grey, which no gradient leads out of."""
    gram = {"weight": 1.0, "weights": str(own_file), "layers": ["relu1_2"]}
    run = mcrdist.reconstruct(
        micrograph="synthetic:discs",
        volume={"size": 12},
        descriptors={"s2": {"weight": 0.0}, "variation": {"mode": mode}, "gram": gram},
        initial="noise",
        levels={"count": 1},
        optimizer={"iterations": 6},
        run={"dir": str(tmp_path / "run"), "report": False},
    )
    assert "prepare" not in {line["stage"] for line in run.metrics}
    assert all("gram" in line["errors"] for line in run.metrics)
