"""The variation matched, minimised and prescribed: gradients, flips, multipliers, and what a run makes of them."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mcrdist import synthetic
from mcrdist.config import from_mapping
from mcrdist.descriptors.base import SliceGrid
from mcrdist.descriptors.correlation import LagWindow, TwoPointTerm, two_point
from mcrdist.descriptors.pooled import Pooled, averaged
from mcrdist.descriptors.variation import Mode, Variation, VariationTerm
from mcrdist.directions import ORTHOGONAL
from mcrdist.errors import InputError
from mcrdist.look import Held
from mcrdist.multigrid import Level
from mcrdist.objective import Evaluation
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers
from mcrdist.phases import Phases
from mcrdist.solver.grid import Grid
from mcrdist.solver.multipliers import MET, Multipliers
from mcrdist.store.run import Run
from mcrdist.targets import load_targets
from mcrdist.targets.measure import measure

SHAPE = (3, 9, 8)
GRID = SliceGrid(SHAPE[1:], torch.float64)
AT = range(SHAPE[0])
MODES: list[Mode] = ["match", "minimize", "constrain"]


def term(mode: Mode, smoothing: float) -> VariationTerm:
    found = VariationTerm(np.array([0.3]), 0.7, smoothing, GRID, mode)
    if mode == "constrain":
        found.multipliers = np.array([0.4, -0.2, 0.1])
    return found


def riding(mode: Mode) -> TwoPointTerm:
    window = LagWindow(GRID.shape, 3, GRID.dtype, GRID.device)
    target = two_point(np.random.default_rng(2).random((1, 12, 12)), 3, True)
    return TwoPointTerm(target, np.array([0.5]), 0.0, window, [term(mode, math.inf)])


def loss(of: VariationTerm | TwoPointTerm, slices: Tensor) -> float:
    errors = of.accumulate(slices, None, 0.25, AT).numpy().reshape(SHAPE[0], -1)
    return 0.25 * float(sum(part.loss(errors[:, i]).sum() for i, part in enumerate(of.parts)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["smooth", "squared", "riding"])
def test_gradients_are_those_of_finite_differences(mode: Mode, kind: str) -> None:
    of = riding(mode) if kind == "riding" else term(mode, 0.3 if kind == "smooth" else math.inf)
    slices = torch.from_numpy(np.random.default_rng(0).random(SHAPE))
    gradient = torch.zeros_like(slices)
    of.accumulate(slices, gradient, 0.25, AT)
    direction = torch.from_numpy(np.random.default_rng(1).standard_normal(SHAPE))
    step = 1e-6
    change = (loss(of, slices + step * direction) - loss(of, slices - step * direction)) / (2.0 * step)
    assert float((gradient * direction).sum()) == pytest.approx(change, rel=1e-7)


@pytest.mark.parametrize("of", [term("minimize", math.inf), riding("minimize")], ids=["own", "riding"])
def test_a_linear_loss_knows_what_a_flip_does(of: VariationTerm | TwoPointTerm) -> None:
    slices = torch.from_numpy((np.random.default_rng(3).random(SHAPE) < 0.5).astype(float))
    gradient = torch.zeros_like(slices)
    errors = of.accumulate(slices, gradient, 0.25, AT).numpy().reshape(SHAPE[0], -1)
    constant = of.parts[-1].flip_constant(errors[:, -1], SHAPE[1:], 0.25)
    flipped = slices.clone()
    flipped[1, 4, 5] = 1.0 - flipped[1, 4, 5]
    predicted = float(gradient[1, 4, 5] * (1.0 - 2.0 * slices[1, 4, 5])) + constant[1]
    assert predicted == pytest.approx(loss(of, flipped) - loss(of, slices), abs=1e-12)


def test_minimised_is_the_variation_itself() -> None:
    """Eq. 7: λ V, relative to the micrograph's, and no misfit."""
    of = term("minimize", 0.0)
    checkers = torch.from_numpy(np.indices(SHAPE).sum(0) % 2).double()[:, :8]
    errors = of.accumulate(checkers, None, 1.0, AT).numpy()
    np.testing.assert_allclose(of.loss(errors), 0.7 * 2.0 / 0.3)
    assert not of.misfit(errors).any()


@pytest.mark.parametrize("mode", ["match", "minimize"])
def test_averages_of_slices_have_the_loss_and_the_misfit_of_the_mode(mode: Mode) -> None:
    """What is there when the targets are met, of a variation that is minimised, is no misfit there either."""
    descriptor = Variation(mode=mode)
    image = synthetic.ThresholdedGaussian(length=3.0).draw((16, 16), np.random.default_rng(0)).astype(float)
    pooled = Pooled(descriptor, 2)
    targets = {"variation@2": pooled.describe(image, True)[None]}
    averages = pooled.term(targets, 0.7, SliceGrid((16, 16), torch.float64))
    own = descriptor.term({"variation": targets["variation@2"]}, 0.7, SliceGrid((8, 8), torch.float64))
    errors = np.array([0.5, -0.2, 0.0])
    np.testing.assert_array_equal(averages.loss(errors), own.loss(errors))
    np.testing.assert_array_equal(averages.misfit(errors), own.misfit(errors))
    assert averages.misfit(errors).any() == (mode == "match")


def test_a_constraint_has_one_resolution() -> None:
    def settings(**variation: Any) -> dict[str, Any]:
        image = np.eye(16, dtype=np.uint8)
        return {"micrograph": image, "volume": {"size": 16}, "descriptors": {"variation": variation}}

    with pytest.raises(
        InputError, match=r"^descriptors\.variation\.pooled: expected \[\] .*mode=match$"
    ) as caught:
        from_mapping(settings(mode="constrain", pooled=[2]))
    assert "\n" not in str(caught.value)
    from_mapping(settings(mode="constrain", pooled=[2], weight=0.0))
    from_mapping(settings(mode="minimize", pooled=[2]))


def test_multipliers_learn_from_the_errors() -> None:
    asked = SimpleNamespace(held={ORTHOGONAL[0]: Held(((term("constrain", 0.3),),))})
    other = SimpleNamespace(held={ORTHOGONAL[0]: Held(((term("match", 0.3),),))})
    evaluation = Evaluation(0.0, 0.0, {"z": {"variation": np.array([[0.5], [0.1], [-0.2]])}})
    held = Multipliers()
    assert held.wanted(asked)
    assert held.update(asked, evaluation)
    fresh = term("constrain", 0.3)
    held.hand("z", [[fresh]])
    np.testing.assert_allclose(fresh.multipliers, [0.4 + 0.7, -0.2 + 0.14, 0.1 - 0.28])
    nearly = Evaluation(0.0, 0.0, {"z": {"variation": np.full((3, 1), 0.5 * MET)}})
    assert not held.update(asked, nearly)
    assert not Multipliers().wanted(other)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_micrograph_is_its_own_target_on_every_level(mode: Mode, factor: int) -> None:
    """Averaged it has grey steps, which count in the target as they count in the volume."""
    side = 64 // factor
    image = synthetic.ThresholdedGaussian(length=6.0, fraction=0.4).draw((64, 64), np.random.default_rng(1))
    config = from_mapping(
        {
            "micrograph": image,
            "volume": {"shape": [64, 64]},
            "target": {"lags": 6, "periodic": True},
            "descriptors": {"variation": {"mode": mode, "pooled": [] if mode == "constrain" else [2]}},
        }
    )
    targets = load_targets(config.micrograph, config.target)
    found = measure(targets, config.descriptors, ORTHOGONAL[:1], (1, side, side), factor)
    comm, workers = Comm.start("cpu"), Workers(1)
    slab = Slab((1, side, side), comm, workers, torch.float64)
    grid = Grid(
        Level(0, slab.shape, factor), slab, Phases((1,), workers), ORTHOGONAL[:1],
        found.targets, found.selections, comm, workers,
    )  # fmt: skip
    # On the finest level flips and reports smooth otherwise, which is of no consequence on two phases.
    for smoothing in [None, math.inf, 0.0] if factor == 1 else [None]:
        field = torch.from_numpy(averaged(image.astype(float), factor))[None]
        for name, errors in grid.objective(smoothing=smoothing)(field, None).errors["z"].items():
            assert abs(float(errors[0, 0])) < 1e-12, (name, smoothing)


def conduct(directory: Path, mode: str, weight: float, size: int = 16) -> Run:
    from mcrdist.reconstruct import reconstruct

    image = synthetic.ThresholdedGaussian(length=4.0, fraction=0.4).draw((256, 256), np.random.default_rng(1))
    mapping = {
        "micrograph": {"image": image},
        "volume": {"size": size},
        "target": {"lags": 6},
        "descriptors": {"variation": {"mode": mode, "weight": weight}},
        "optimizer": {"iterations": 40},
        "runtime": {"threads": 1, "device": "cpu"},
        "run": {"dir": str(directory / f"{mode}-{weight}"), "report": False},
    }
    return reconstruct(from_mapping(mapping))


def excess(run: Run) -> float:
    """The variation of the rounded volume over the wanted one, minus 1, over all directions."""
    volume = run.phase.astype(float)
    steps = [np.abs(volume - np.roll(volume, 1, axis)).mean() for axis in range(3)]
    return float(2.0 * sum(steps) / sum(float(run.targets[f"{axis}/variation"]) for axis in "zyx") - 1.0)


@pytest.mark.slow
def test_what_a_run_makes_of_each_mode(tmp_path: Path) -> None:
    matched = {weight: excess(conduct(tmp_path, "match", weight)) for weight in (0.01, 100.0)}
    assert matched[0.01] > matched[100.0] + 0.05  # a weight to tune
    assert excess(conduct(tmp_path, "minimize", 3.0)) < -0.1
    constrained = [conduct(tmp_path, "constrain", weight, size=24) for weight in (0.01, 100.0)]
    assert abs(excess(constrained[0])) < 0.01  # in 16³ voxels the last batch of flips alone is worth more
    assert np.array_equal(constrained[0].phase, constrained[1].phase)  # none
