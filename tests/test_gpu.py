"""Devices do not mix: every piece, and whole runs, on a GPU that is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from matrix import CASES, JOINT, Case, JointCase, random_weights
from pretended import GPU, Pretended, PretendedGPU
from safetensors.torch import save_file
from test_descriptor_matrix import by_name, random, targets_of, three_phases
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from wanted import blobs
from wanted import targets_of as targets_between

import mcrdist
from mcrdist.descriptors.base import SliceGrid, Term
from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.descriptors.patches import PatchDistributions
from mcrdist.descriptors.projections import PatchKind
from mcrdist.descriptors.variation import Variation
from mcrdist.descriptors.volume_fraction import GreynessTerm, VolumeFraction
from mcrdist.gaussian import gaussian_field
from mcrdist.multigrid import Level, perturb, upsample
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.halo import fetch
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.phases import Phases
from mcrdist.start import Start
from mcrdist.store.run import Run
from mcrdist.targets import Interpolation

PATCHES = Case("patches", PatchDistributions([PatchKind(2), PatchKind(2, 2)], 2, redraw=True), lambda *_: 0)
SMOOTH = Case("variation, rounded", Variation(0.1), lambda *_: 0)


def on_the_gpu() -> Comm:
    return Comm(0, 1, 0, 1, GPU)


_Found = TypeVar("_Found")


def made(work: Callable[[], _Found]) -> _Found:
    """What is measured on images, which are no tensors of a GPU, and have numbers."""
    with unset_fake_temporarily():
        return work()


@pytest.fixture
def fake() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def slices(layout: int) -> Tensor:
    """(3, 8, 10), with any of the dimensions the fastest one."""
    order = ((0, 1, 2), (1, 0, 2), (1, 2, 0))[layout]
    sides = [(3, 8, 10)[dimension] for dimension in order]
    return torch.rand(sides, device=GPU).permute([order.index(dimension) for dimension in range(3)])


def evaluated(term: Term, layout: int) -> None:
    for round in range(2):
        term.redraw(round)
        errors, gradient = term.evaluate(slices(layout), 0.3, range(3))
        assert errors.device == gradient.device == GPU
        assert len(errors) == 3 and gradient.shape == (3, 8, 10)
        assert term.accumulate(slices(layout), None, 0.3, range(3)).device == GPU


@pytest.mark.parametrize("layout", [0, 1, 2])
@pytest.mark.parametrize("case", [*CASES, PATCHES, SMOOTH], ids=by_name)
def test_terms_stay_on_their_device(fake: None, case: Case, layout: int) -> None:
    targets = made(lambda: targets_of(case, [random(8, 10)] * 3, True))
    evaluated(case.descriptor.term(targets, 0.7, SliceGrid((8, 10), device=GPU)), layout)


@pytest.mark.parametrize("layout", [0, 1, 2])
def test_what_rides_on_s2_stays_there_too(fake: None, layout: int) -> None:
    image, grid = random(8, 10), SliceGrid((8, 10), device=GPU)
    two, variation = TwoPointCorrelation(3), Variation(math.inf, "constrain")
    targets = {
        "s2": two.describe(image, True)[None],
        "variation": variation.describe(image, True)[None],
        "volume_fraction": np.array([image.mean()]),
    }
    term, steps = two.term(targets, 1.0, grid), variation.term(targets, 1.0, grid)
    steps.multipliers = np.array([0.1, 0.2, 0.3])
    greyness = GreynessTerm(0.4, 1.0, grid)
    evaluated(greyness, layout)
    term.riders = (steps, VolumeFraction().term(targets, 1.0, grid), greyness)
    evaluated(term, layout)


@pytest.mark.parametrize("case", JOINT, ids=by_name)
def test_terms_of_all_phases_stay_on_their_device(fake: None, case: JointCase) -> None:
    target = case.descriptor.describe(three_phases((8, 10)), True)[None]
    term = case.descriptor.term({case.descriptor.name: target}, 0.7, SliceGrid((8, 10), device=GPU))
    channels, gradients = ([slices(0) for _ in range(3)] for _ in range(2))
    assert term.accumulate(channels, gradients, 0.3, range(3)).device == GPU


def test_finer_fields_stay_on_their_device(fake: None) -> None:
    comm, workers = on_the_gpu(), Workers(1)
    coarse, fine = (Slab(shape, comm, workers) for shape in ((4, 5, 6), (8, 10, 12)))
    field = coarse.zeros()
    assert fetch(field, coarse, [np.array([3, 0, 0])]).device == GPU
    finer = perturb(upsample(field, coarse, fine), fine, 0, 1)
    assert finer.device == GPU and finer.shape == (8, 10, 12)


@pytest.mark.parametrize("along", ["z", "y", "x"])
@pytest.mark.parametrize("factor", [1, 2])
def test_graded_starts_stay_on_their_device(along: str, factor: int) -> None:
    targets = targets_between(blobs(), {"micrograph": blobs(seed=2, fraction=0.5), "along": along})
    assert isinstance(targets, Interpolation)
    shape, found = (8, 10, 12), []
    for comm in (Comm.start("cpu"), on_the_gpu()):
        with PretendedGPU():
            slab = Slab(shape, comm, Workers(1))
            start = Start(Level(0, shape, factor), slab, Phases((1,), Workers(1)), "zyx", comm, 0)
            field = start.spectral(targets)
            assert field.device == comm.device
            found.append(field.cpu().numpy())
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)


def test_random_fields_of_one_gpu_are_filtered() -> None:
    """Their transforms are the CPU's work, between two copies."""
    kernel = np.zeros((4, 4, 4))
    kernel[:2, 0, 0] = 1.0, 0.5
    kernel[-1, 0, 0] = 0.5
    found = []
    for comm in (Comm.start("cpu"), on_the_gpu()):
        with PretendedGPU():
            field = gaussian_field(Slab((12, 10, 9), comm, Workers(1)), kernel, 0, 0)
            assert field.device == comm.device
            found.append(field.cpu().numpy())
    np.testing.assert_array_equal(found[1], found[0])


def test_a_pretended_gpu_does_not_mix_with_the_cpu() -> None:
    with PretendedGPU():
        there, here = torch.ones(2, 3, device="cuda"), torch.ones(2, 3)
        assert isinstance(there, Pretended) and not isinstance(here, Pretended)
        for mixed in (
            lambda: there + here,
            lambda: here.index_select(0, torch.zeros(1, dtype=torch.int64, device="cuda")),
            lambda: here[torch.zeros(1, dtype=torch.int64, device="cuda")],
            lambda: torch.mul(there, 2.0, out=here),
        ):
            with pytest.raises(RuntimeError, match="one device"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        there[1] = 5.0
        there[:, 0].copy_(here[:, 0])
        here.copy_(there)
        assert here.tolist() == [[1.0, 1.0, 1.0], [1.0, 5.0, 5.0]]
        assert float(there[torch.tensor([1])].sum()) == 11.0
        assert here.to(there).device == GPU and there.cpu().device.type == "cpu"


IMAGES = [blobs((64, 64), seed=seed, fraction=fraction) for seed, fraction in ((1, 0.4), (2, 0.5))]
RUNS: dict[str, dict[str, Any]] = {
    "levels, all of one phase": {
        "initial": "noise",
        "levels": {"count": 2, "coarsest": 6},
        "descriptors": {
            "s2": {"pooled": [2]},
            "s3": {"weight": 1, "lags": 2},
            "lineal_path": {"weight": 1, "every": 2},
            "patches": {"weight": 1, "sizes": [3], "redraw": True},
        },
    },
    "three phases": {
        "micrograph": {"image": (IMAGES[0] * (1 + IMAGES[1])).astype(np.uint8)},
        "initial": "noise",
        "levels": {"count": 2, "coarsest": 6},
        "descriptors": {"cross_correlation": {"weight": 1}},
    },
    "diagonals, a network": {
        "target": {"diagonals": True},
        "descriptors": {
            "gram": {"weight": 1, "layers": ["relu1_2"], "every": 4, "weights": "vgg.safetensors"}
        },
    },
    "graded": {"interpolate": {"micrograph": IMAGES[1], "along": "z"}},
    "denoised": {"output": {"denoise": 0.2}, "optimizer": {"flip_rounds": None}},
    "constraint": {"descriptors": {"variation": {"mode": "constrain"}}},
    "known": {"conditioning": {"path": "plane.npy", "axis": "y"}, "output": {"threshold": "exact"}},
    "a plane": {"volume": {"shape": [12, 12]}, "optimizer": {"name": "adam"}},
    "double precision, little memory": {
        "runtime": {"dtype": "float64"},
        "optimizer": {"history_dtype": "bfloat16"},
        "checkpoint": {"history": False},
    },
    "scipy": {"optimizer": {"name": "scipy"}},
    "swaps": {
        "optimizer": {"name": "yeong_torquato", "binarize_iterations": 25, "flip_rounds": None},
    },
}


def merged(some: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Nested settings: those of `more` where both have one."""
    both = {
        key: merged(some[key], value) if isinstance(value, dict) and key in some else value
        for key, value in more.items()
    }
    return some | both


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_a_gpu_is_that_on_the_cpu(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for rounding: the transforms are another library's."""
    save_file(random_weights(), tmp_path / "vgg.safetensors")
    np.save(tmp_path / "plane.npy", IMAGES[0][:12, :12])
    settings = merged(
        {
            "micrograph": {"image": IMAGES[0]},
            "volume": {} if "volume" in RUNS[name] else {"size": 12},
            "optimizer": {"iterations": 3, "binarize_iterations": 1, "flip_rounds": 2},
            "runtime": {"threads": 1},
        },
        RUNS[name],
    )
    monkeypatch.chdir(tmp_path)

    def reconstructed(where: str) -> Run:
        return mcrdist.reconstruct(**settings, run={"dir": tmp_path / where, "report": False})

    plain = reconstructed("cpu")
    monkeypatch.setattr(Comm, "start", classmethod(lambda cls, *_, **__: on_the_gpu()))
    with PretendedGPU():
        found = reconstructed("gpu")
    assert found.summary["status"] == plain.summary["status"] == "complete"
    for direction, errors in plain.summary["errors"]["relaxed"].items():
        for kind, error in errors.items():
            assert found.summary["errors"]["relaxed"][direction][kind] == pytest.approx(
                error, rel=1e-3, abs=1e-6
            )
    assert (found.phase != plain.phase).mean() < 0.01
