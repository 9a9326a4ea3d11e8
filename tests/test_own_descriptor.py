"""Descriptors of the user's own: the example of the document, and what is said of classes that do not fit."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

import mcrdist
from mcrdist.config import DescriptorConfig
from mcrdist.config.schema import section
from mcrdist.descriptors.base import SliceGrid
from mcrdist.errors import InputError
from mcrdist.extension import load
from mcrdist.selection import select
from mcrdist.trial import try_out
from mcrdist.view import View

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = re.search(r"```python\n(.*?)```", (ROOT / "docs/your_own_descriptor.md").read_text("utf-8"), re.S)[
    1
]
SHAPES = [(12, 16), (8, 8)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def extra(*names: str) -> DescriptorConfig:
    return DescriptorConfig(extra=names)


# ------------------------------------------------------------------------------------ the document's example


def reconstruct(directory: Path, out: str, weight: str, ranks: int) -> subprocess.CompletedProcess[str]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"] if ranks == 2 else []
    settings = [
        "micrograph.path=micrograph.npy",
        "volume.size=16",
        "target.lags=6",
        f"descriptors.extra=[mine:Quads*{weight}]",
        f"run.dir={out}",
        "optimizer.iterations=20",
        "run.report=false",
        "runtime.threads=1",
    ]
    command = [sys.executable, "-m", *launcher, "mcrdist", "reconstruct", *settings]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def test_the_documents_example_is_short() -> None:
    assert len(EXAMPLE.splitlines()) <= 25


@pytest.mark.slow
def test_the_documents_example_runs_and_helps(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(EXAMPLE)
    noise = np.random.default_rng(0).standard_normal((64, 64))
    image = ndimage.gaussian_filter(noise, 1.0, mode="wrap") > 0.07
    np.save(tmp_path / "micrograph.npy", image.astype(np.uint8))
    for out, weight, ranks in (("without", "0", 1), ("one", "1", 1), ("two", "1", 2)):
        done = reconstruct(tmp_path, out, weight, ranks)
        assert done.returncode == 0, done.stderr
        assert "\nquads " in done.stdout

    def quads(out: str) -> float:
        rounded = json.loads((tmp_path / out / "summary.json").read_text())["errors"]["rounded"]
        return float(np.mean([errors["quads"] for errors in rounded.values()]))

    assert quads("one") < 0.6 * quads("without")
    alone, shared = mcrdist.open(tmp_path / "one"), mcrdist.open(tmp_path / "two")
    assert [r["loss"] for r in alone.metrics] == [r["loss"] for r in shared.metrics]
    np.testing.assert_array_equal(alone.phase, shared.phase)


def test_the_documents_example_counts_patterns(here: Path) -> None:
    (here / "mine.py").write_text(EXAMPLE)
    (found,) = load(extra("mine:Quads*0.5"))
    image = np.random.default_rng(1).integers(0, 2, (7, 9)).astype(float)
    counts = np.zeros(16)
    for row in range(7):
        for column in range(9):
            bits = [image[(row + i) % 7, (column + j) % 9] for i in (0, 1) for j in (0, 1)]
            counts[int("".join(str(int(bit)) for bit in bits), 2)] += 1
    np.testing.assert_allclose(found.descriptor.describe(image, False), counts / 63, atol=1e-15)
    assert (found.weight, found.source) == (0.5, "mine:Quads")


# ----------------------------------------------------------------------------------------- what a class may be


class Mean:
    """As little as will do."""

    name = "mean_grey"
    balance = 3.0

    def measure(self, slices: Tensor) -> Tensor:
        return slices.mean((1, 2))


class Inherited(mcrdist.Descriptor):
    name = "inherited"

    def measure(self, slices: Tensor) -> Tensor:
        return slices.square().mean((1, 2))

    def describe(self, image: Any, periodic: bool) -> Any:
        return np.asarray(0.25 if periodic else 0.75)


class OwnDescribe(Mean):
    def describe(self, image: Any, periodic: bool) -> Any:
        return float(image[:-1, :-1].mean())


def test_weight_and_balance_multiply() -> None:
    config = extra(f"{__name__}:Mean*0.5", f"{__name__}:Inherited")
    mean, inherited = select(config, View((12, 16), [np.eye(12, 16)], True, 3, True)).single[-2:]
    assert (mean.descriptor.name, mean.weight) == ("mean_grey", 1.5)
    assert (inherited.descriptor.name, inherited.weight) == ("inherited", 1.0)
    assert inherited.descriptor.describe(np.ones((8, 8)), True) == 0.25


def test_describe_of_a_plain_class_is_used() -> None:
    (found,) = load(extra(f"{__name__}:OwnDescribe"))
    image = np.eye(8)
    image[-1, -1] = 0.0
    assert found.descriptor.describe(image, False) == pytest.approx(7 / 49)


def test_measure_sees_each_slice_alone_at_a_cache_line() -> None:
    (found,) = load(extra(f"{__name__}:Inherited"))
    seen: list[tuple[tuple[int, ...], int, bool]] = []

    def measure(slices: Tensor) -> Tensor:
        seen.append((tuple(slices.shape), slices.data_ptr() % 64, slices.is_contiguous()))
        return slices.square().mean((1, 2))

    found.descriptor.measure = measure  # type: ignore[attr-defined]
    targets = {"inherited": np.array([0.5]), "volume_fraction": np.array([0.5])}
    term = found.descriptor.term(targets, 2.0, SliceGrid((7, 9), torch.float64))
    stack = torch.rand(7, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    slices = stack.permute(2, 0, 1)[1:]
    errors, gradient = term.evaluate(slices, 0.25, range(1, 4))
    assert seen == [((1, 7, 9), 0, True)] * 3
    expected = (slices.square().mean((1, 2)) - 0.5) / 0.5
    torch.testing.assert_close(errors, expected.abs())
    # d/dx of share · weight · ((mean x² − ½) / ½)²
    torch.testing.assert_close(gradient, 0.25 * 2.0 * 2.0 * expected[:, None, None] / 0.5 * 2.0 * slices / 63)


def test_every_fitting_class_passes_the_trial() -> None:
    try_out(extra(f"{__name__}:Mean", f"{__name__}:Inherited*0"), SHAPES, torch.float32)
    try_out(extra(), SHAPES, torch.float32)


def test_from_python_the_class_itself_will_do() -> None:
    config = section(DescriptorConfig)({"extra": [Mean]}, "descriptors")
    assert config.extra == (f"{__name__}:Mean",)


def test_an_entry_point_is_found_by_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "installed.py").write_text("import torch\n" + EXAMPLE)
    info = here / "installed-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mcrdist.descriptors]\nquads = installed:Quads\n")
    monkeypatch.syspath_prepend(here)
    (found,) = load(extra("quads*2"))
    assert (found.descriptor.name, found.weight) == ("quads", 2.0)
    with pytest.raises(InputError, match=r"an installed descriptor \(.*quads.*\), found qads"):
        load(extra("qads"))


# --------------------------------------------------------------------------------------- and what it may not be

BAD = """
import torch

class Base:
    name = "own"
    def measure(self, slices): return slices.mean((1, 2))

class Nameless:
    def measure(self, slices): return slices.mean((1, 2))

class Nothing:
    name = "own"

class Taken(Base): name = "s2"
class Greyness(Base): name = "greyness"
class Pooled(Base): name = "own@2"
class Arguments(Base):
    def __init__(self, size): self.size = size
class Number(Base):
    def measure(self, slices): return 1.0
class OneForAll(Base):
    def measure(self, slices): return slices.mean()
class Rows(Base):
    def measure(self, slices): return slices.mean(2)
class Wrong(Base):
    def measure(self, slices): return slices @ slices
class Whole(Base):
    def measure(self, slices): return (slices > 0.5).sum((1, 2))
class Cut(Base):
    def measure(self, slices): return slices.detach().mean((1, 2))
class NotFinite(Base):
    def measure(self, slices): return (slices.mean((1, 2)) - 2).log()
class Steep(Base):
    def measure(self, slices): return (slices - slices).sum((1, 2)).sqrt()
class Single(Base):
    def measure(self, slices): return slices.mean((1, 2)) @ torch.ones(len(slices), len(slices))
class Text(Base):
    def describe(self, image, periodic): return "much"
"""

UNFIT = [
    ("bad:", "expected module:Class"),
    ("absent:Class", "found no absent.py in"),
    ("bad:Absent", "expected a class in bad, found no Absent there; it has Base"),
    ("broken:Class", "cannot be imported: ZeroDivisionError: division by zero (broken.py, line 3)"),
    ("wanting:Class", "cannot be imported: ModuleNotFoundError: No module named 'not_there'"),
    ("bad:Base*much", "expected a weight of at least 0 after *, found 'much'"),
    ("bad:Base*-1", "expected a weight of at least 0"),
    ("bad:Nameless", "found no name"),
    ("bad:Nothing", "found no measure"),
    ("bad:Taken", "found 's2', which is taken"),
    ("bad:Greyness", "found 'greyness', which is taken"),
    ("bad:Pooled", "letters, digits and underscores, found 'own@2'"),
    ("bad:Arguments", "cannot be made without arguments: TypeError"),
    ("bad:Number", "expected measure to return a tensor, found float"),
    ("bad:OneForAll", "expected measure to return one row a slice, (2, …), found shape ()"),
    ("bad:Rows", "shape does not depend on the slice's"),
    ("bad:Wrong", "cannot measure slices: RuntimeError"),
    ("bad:Whole", "differentiable by torch, found torch.int64 without a gradient"),
    ("bad:Cut", "differentiable by torch, found torch.float32 without a gradient"),
    ("bad:NotFinite", "finite numbers, found NaN"),
    ("bad:Steep", "expected a finite derivative of measure, found NaN"),
    ("bad:Single", "cannot describe an image: RuntimeError"),
    ("bad:Text", "cannot describe an image: ValueError"),
]


@pytest.mark.parametrize(("entry", "message"), UNFIT, ids=[entry for entry, _ in UNFIT])
def test_what_does_not_fit_is_told_in_one_line(here: Path, entry: str, message: str) -> None:
    (here / "bad.py").write_text(BAD)
    (here / "broken.py").write_text("import math\n\n1 / 0\n")
    (here / "wanting.py").write_text("import not_there\n")
    with pytest.raises(InputError) as raised:
        try_out(extra(entry), SHAPES, torch.float32)
    assert message in str(raised.value)
    assert str(raised.value).startswith("descriptors.extra: ")
    assert str(here) not in sys.path


def test_two_of_one_name_do_not_fit() -> None:
    with pytest.raises(InputError, match="'mean_grey', which is taken"):
        load(extra(f"{__name__}:Mean", f"{__name__}:OwnDescribe"))


def test_nothing_is_written_for_a_class_that_does_not_fit(here: Path) -> None:
    with pytest.raises(InputError, match="found no absent"):
        mcrdist.reconstruct(
            micrograph=np.eye(16, dtype=np.uint8),
            volume={"size": 8},
            descriptors={"extra": ["absent:Class"]},
            run={"dir": "out"},
        )
    assert not (here / "out").exists()
