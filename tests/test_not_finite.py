"""Numbers that are not finite end a run with a line that says where they came from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from interrupted import OFTEN, conduct, few, same
from matrix import random_weights
from safetensors.torch import save_file

from mcrdist.descriptors.gram import GramTerm
from mcrdist.errors import InputError
from mcrdist.objective import Objective
from mcrdist.store.run import Run
from mcrdist.store.verify import verify

pytestmark = pytest.mark.usefixtures("quick_disk")


@pytest.mark.parametrize("after", [0, 5])
def test_nan_is_named(after: int, tmp_path: Path) -> None:
    from mcrdist.descriptors.correlation import TwoPointTerm

    def recorded() -> int:
        path = tmp_path / "run" / "metrics.jsonl"
        return len(path.read_text().splitlines()) if path.is_file() else -1

    def spoil(errors: Any, slices: Any, at: Any) -> None:
        if 7 in at and slices.shape[1:] == (10, 12) and recorded() > after:
            errors[list(at).index(7)] = float("nan")

    evaluate, accumulate = TwoPointTerm.evaluate, TwoPointTerm.accumulate

    def evaluating(term: Any, slices: Any, share: float, at: Any) -> Any:
        errors, gradient = evaluate(term, slices, share, at)
        spoil(errors, slices, at)
        return errors, gradient

    def accumulating(term: Any, slices: Any, gradient: Any, share: float, at: Any) -> Any:
        errors = accumulate(term, slices, gradient, share, at)
        spoil(errors, slices, at)
        return errors

    patch = pytest.MonkeyPatch()
    patch.setattr(TwoPointTerm, "evaluate", evaluating)
    patch.setattr(TwoPointTerm, "accumulate", accumulating)
    more = {
        "volume": {"shape": [10, 11, 12]},
        "checkpoint": OFTEN,
    }  # planes normal to y alone have this shape
    try:
        with pytest.raises(InputError) as caught:
            conduct(tmp_path / "run", **more)
    finally:
        patch.undo()
    told = str(caught.value)
    assert told.startswith("descriptors: level 0 (10x11x12), relax, iteration ") and "\n" not in told
    assert "found nan from s2 of slice 7 normal to y" in told
    run = Run.open(tmp_path / "run")
    assert run.summary["status"] == "interrupted" and not run.volume.complete
    found = conduct(tmp_path / "run", resume=True, **more)
    same(found, conduct(tmp_path / "whole", **more))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network with random weights."""
    path = tmp_path_factory.mktemp("weights") / "vgg.safetensors"
    save_file(random_weights(), path)
    return str(path)


@pytest.mark.parametrize("spoilt", ["error", "gradient"])
def test_of_a_descriptor_that_looks_at_some_slices(
    spoilt: str, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Level, iteration as the records count it, descriptor, slice and direction; not the slices it left out."""
    accumulate = GramTerm.accumulate
    place, seen = tmp_path / "run", []

    def accumulating(term: Any, slices: Any, gradient: Any, share: float, at: range) -> Any:
        errors = accumulate(term, slices, gradient, share, at)
        recorded = place / "metrics.jsonl"
        lines = [json.loads(line) for line in recorded.read_text().splitlines()] if recorded.is_file() else []
        late = sum(line["stage"] == "relax" for line in lines) > 4
        if late and slices.shape[1:] == (12, 14) and 5 in at and gradient is not None:
            seen.append(at)
            place_in = list(at).index(5)
            if spoilt == "error":
                errors[place_in] = float("nan")
            gradient[place_in, 3, 4] = float("nan")
        return errors

    monkeypatch.setattr(GramTerm, "accumulate", accumulating)
    gram = {"weight": 1.0, "weights": weights, "layers": ["relu1_1"], "every": 3}
    with pytest.raises(InputError) as caught:
        conduct(
            place,
            volume={"shape": [12, 13, 14]},  # planes normal to y alone have the shape of the spoilt ones
            descriptors={"gram": gram},
            optimizer=few(iterations=30, rotate=1),
            checkpoint=OFTEN,
        )
    assert seen and all(at.step == 3 for at in seen)
    run = Run.open(place)
    iteration = run.metrics[-1]["iteration"] + 1
    told = str(caught.value)
    where = f"descriptors: level 0 (12x13x14), relax, iteration {iteration}: expected finite numbers, found "
    what = "nan from gram of slice 5" if spoilt == "error" else "a gradient of slice 5"
    assert told.startswith(f"{where}{what} normal to y; ") and "\n" not in told
    assert verify(place).problems == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["lbfgsb", "adam", "scipy"])
def test_a_gradient_that_is_not_finite_is_never_kept(
    name: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, more = tmp_path / "run", {"optimizer": few(name=name), "checkpoint": OFTEN}
    call = Objective.__call__

    def calling(objective: Objective, field: Any, gradient: Any) -> Any:
        found = call(objective, field, gradient)
        recorded = place / "metrics.jsonl"
        if gradient is not None and recorded.is_file() and len(recorded.read_text().splitlines()) > 3:
            gradient[2, 3, 4] = value
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "__call__", calling)
        with pytest.raises(InputError, match=r"level 0 \(12x12x12\), relax, iteration 4: expected finite"):
            conduct(place, **more)
    found = conduct(place, resume=True, **more)
    assert found.summary["status"] == "complete"
    if name != "scipy":
        same(found, conduct(tmp_path / "whole", **more))


def test_flips_that_all_fail_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call, constants = Objective.__call__, Objective.flip_constants
    flipping: list[Objective] = []

    def noting(objective: Objective, evaluation: Any) -> Any:
        flipping.append(objective)  # the start is evaluated
        return constants(objective, evaluation)

    def calling(objective: Objective, field: Any, gradient: Any) -> Any:
        found = call(objective, field, gradient)
        if any(objective is one for one in flipping):
            objective.broken = "nan from s2 of slice 3 normal to x"
            return replace(found, loss=float("nan"))
        return found

    monkeypatch.setattr(Objective, "flip_constants", noting)
    monkeypatch.setattr(Objective, "__call__", calling)
    with pytest.raises(InputError, match=r"flip, iteration \d+: .*nan from s2 of slice 3 normal to x"):
        conduct(tmp_path / "run")
