"""Terms of the loss: gradients against finite differences, errors by definition, bits that depend on nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from terms import (
    CPU,
    fraction_term,
    greyness_term,
    laid_out,
    random,
    riding,
    s2_term,
    target_of,
    variation_term,
)
from torch import Tensor

from mcrdist.descriptors.base import Term
from mcrdist.descriptors.correlation import LagWindow, TwoPointTerm, two_point
from mcrdist.descriptors.variation import variation

TERMS: dict[str, Callable[[tuple[int, int]], Term]] = {
    "s2": lambda shape: s2_term(shape, 2),
    "s2, half the side": lambda shape: s2_term(shape, min(shape) // 2),
    "variation": lambda shape: variation_term(0.5, 0.7, 0.0),
    "variation, smoothed": lambda shape: variation_term(0.5, 0.7, 0.5),
    "variation, hardly smoothed": lambda shape: variation_term(0.5, 0.7, 0.01),
    "variation, squared": lambda shape: variation_term(0.5, 0.7, math.inf),
    "volume fraction": lambda shape: fraction_term(0.3, 0.7),
    "greyness": lambda shape: greyness_term(0.3, 0.7),
    "riding on s2": lambda shape: riding(s2_term(shape, 2)),
}


def all_of(slices: Tensor) -> range:
    return range(len(slices))


@pytest.mark.parametrize("layout", [0, 1, 2])
@pytest.mark.parametrize("shape", [(6, 6), (5, 7)])
@pytest.mark.parametrize("name", TERMS)
def test_gradient_is_that_of_finite_differences(name: str, shape: tuple[int, int], layout: int) -> None:
    term = TERMS[name](shape)
    slices = random(3, *shape)  # no two neighbours are within 1e-5 of one another: the kink of |d| is far
    share = 0.25

    def loss(values: NDArray[np.float64]) -> float:
        errors = term.accumulate(laid_out(values, layout), None, share, range(3)).view(3, -1).numpy().T
        return share * sum(
            float(part.loss(error).sum()) for part, error in zip(term.parts, errors, strict=True)
        )

    before = random(3, *shape, seed=5)
    gradient = laid_out(before, layout).clone()
    view = laid_out(slices, layout)
    term.accumulate(view, gradient, share, all_of(view))
    np.testing.assert_array_equal(view.numpy(), slices)  # the field is left alone
    step = 1e-6
    for index in np.random.default_rng(1).permutation(slices.size)[:25]:
        wanted = 0.0
        for sign in (1, -1):
            moved = slices.copy()
            moved.flat[index] += sign * step
            wanted += sign * loss(moved) / (2 * step)
        found = float(gradient.numpy().ravel()[index] - before.flat[index])  # it is added to
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-8), index


@pytest.mark.parametrize("name", TERMS)
def test_the_error_does_not_depend_on_the_gradient_being_wanted(name: str) -> None:
    slices = torch.from_numpy(random(3, 6, 8))
    term = TERMS[name]((6, 8))
    assert torch.equal(
        term.accumulate(slices, None, 0.1, range(3)),
        term.accumulate(slices, torch.zeros_like(slices), 0.1, range(3)),
    )


def test_errors_are_those_of_the_definition() -> None:
    slices = random(4, 8, 9)
    term = s2_term((8, 9), 4)
    found = term.accumulate(torch.from_numpy(slices), None, 1.0, range(len(slices))).numpy()
    off = two_point(slices, 4, True) - term.targets.of(range(1))[0].numpy()
    np.testing.assert_allclose(found * term.scale, np.sqrt((off**2).sum((1, 2))), rtol=1e-12)
    assert term.norm == pytest.approx(np.linalg.norm(term.targets.of(range(1))[0].numpy()))
    exact = (
        variation_term(0.4, 1.0, 0.0)
        .accumulate(torch.from_numpy(slices), None, 1.0, range(len(slices)))
        .numpy()
    )
    np.testing.assert_allclose(exact, variation(slices, True) / 0.4 - 1.0, rtol=1e-12)
    fraction = fraction_term(0.8).accumulate(torch.from_numpy(slices), None, 1.0, range(len(slices))).numpy()
    np.testing.assert_allclose(fraction, (slices.mean((1, 2)) - 0.8) / 0.2, rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, math.inf])
def test_smoothing_does_not_show_on_two_phases(smoothing: float) -> None:
    slices = (random(3, 8, 9) < 0.4).astype(float)
    found = variation_term(0.3, 1.0, smoothing).accumulate(
        torch.from_numpy(slices), None, 1.0, range(len(slices))
    )
    np.testing.assert_allclose(found.numpy(), variation(slices, True) / 0.3 - 1.0, rtol=1e-12)


def test_greyness_is_nothing_on_two_phases() -> None:
    slices = torch.from_numpy((random(3, 8, 9) < 0.4).astype(float))
    assert torch.all(greyness_term(0.4, 1.0).accumulate(slices, None, 1.0, all_of(slices)) == 0)
    mixed = torch.full((1, 8, 9), 0.4, dtype=torch.float64)
    assert float(greyness_term(0.4, 1.0).accumulate(mixed, None, 1.0, range(1))[0]) == pytest.approx(1.0)


def test_flip_of_a_voxel_changes_the_loss_as_told() -> None:
    """Exactly, but for the square of the change of V, which is known too."""
    slices = (random(1, 7, 9, seed=3) < 0.4).astype(float)
    term, share, pixels = variation_term(0.6, 0.7, math.inf), 0.25, 63

    def evaluate(values: NDArray[np.float64]) -> float:
        error = term.accumulate(torch.from_numpy(values), None, share, range(len(values))).numpy()
        return share * float(term.loss(error)[0])

    gradient = torch.zeros(1, 7, 9, dtype=torch.float64)
    error = term.accumulate(torch.from_numpy(slices), gradient, share, range(1)).numpy()
    constant = term.flip_constant(error, (7, 9), share)
    assert constant.shape == (1,)
    for index in range(pixels):
        flipped = slices.copy()
        flipped.flat[index] = 1.0 - flipped.flat[index]
        step = float(variation(flipped, True)[0] - variation(slices, True)[0])
        told = float(gradient.numpy().flat[index]) * (1.0 - 2.0 * slices.flat[index]) + float(constant[0])
        square = term.weight * share * (step / term.scale) ** 2
        assert evaluate(flipped) - evaluate(slices) == pytest.approx(told + square, abs=1e-14)


@pytest.mark.parametrize("term", [fraction_term(0.3), s2_term((6, 6), 2)], ids=lambda t: t.name)
def test_other_terms_have_no_constant(term: Term) -> None:
    assert np.all(term.flip_constant(np.ones(3), (6, 6), 0.1) == 0)


def test_errors_are_the_same_whichever_phase_is_called_1() -> None:
    rng = np.random.default_rng(0)
    image = (rng.random((12, 12)) < 0.1).astype(float)
    # The same number of voxels, elsewhere.
    slices = rng.permutation(image.ravel()).reshape(1, 12, 12)
    window = LagWindow((12, 12), 4, torch.float64, CPU)
    found = []
    for this, stack in ((image, slices), (1 - image, 1 - slices)):
        term = TwoPointTerm(two_point(this[None], 4, True), target_of(this.mean()), 1.0, window)
        found.append(
            (term.scale, float(term.accumulate(torch.from_numpy(stack), None, 1.0, range(len(stack)))[0]))
        )
        assert term.scale <= term.norm
    assert found[0] == pytest.approx(found[1], rel=1e-10)
    assert fraction_term(0.1).scale == pytest.approx(fraction_term(0.9).scale)


@pytest.mark.parametrize(
    ("shape", "lags"), [((31, 29), 8), ((13, 8), 3), ((17, 12), 6), ((16, 16), 8), ((12, 33), 5)]
)
@pytest.mark.parametrize("layout", [0, 1, 2])
def test_bits_do_not_depend_on_how_many_slices_come_at_once(
    shape: tuple[int, int], lags: int, layout: int
) -> None:
    """Ranks and threads hold different numbers of slices, and must find the same errors and gradients.

    Slices normal to x come in lanes of constant number, as the objective gives them; those normal to y with
    as many others between their rows as the rank received.
    """
    lanes, count = 16, 23
    slices = torch.from_numpy(random(count, *shape).astype(np.float32))
    terms: list[Term] = [
        s2_term(shape, lags, torch.float32),
        variation_term(0.5, 1.0, 0.5),
        variation_term(0.5, 1.0, math.inf),
        variation_term(0.5, 1.0, 0.0),
        fraction_term(0.3),
        greyness_term(0.3, 0.5),
        riding(s2_term(shape, lags, torch.float32)),
    ]

    def evaluate(start: int, stop: int) -> tuple[Tensor, Tensor]:
        part = slices[start:stop]
        if layout == 2:
            buffer = torch.zeros(*shape, lanes)
            buffer[..., : len(part)] = part.permute(1, 2, 0)
            view = buffer.permute(2, 0, 1)
        elif layout == 1:
            view = part.permute(1, 0, 2).contiguous().permute(1, 0, 2)
        else:
            view = part.clone()
        gradient = torch.zeros_like(view)
        errors = torch.column_stack([term.accumulate(view, gradient, 0.01, all_of(view)) for term in terms])
        return errors[: len(part)], gradient[: len(part)].contiguous()

    def in_pieces(size: int) -> tuple[Tensor, Tensor]:
        parts = [evaluate(start, min(start + size, count)) for start in range(0, count, size)]
        return torch.cat([errors for errors, _ in parts]), torch.cat([gradient for _, gradient in parts])

    errors, gradient = in_pieces(lanes)
    for size in (1, 2, 3, 5, 7, 8, 11, *(() if layout == 2 else (23,))):
        again, gradient_again = in_pieces(size)
        names = [part.name for term in terms for part in term.parts]
        for name, one, other in zip(names, errors.T, again.T, strict=True):
            assert torch.equal(one, other), (name, size)
        assert torch.equal(gradient, gradient_again), size


@pytest.mark.parametrize("layout", [0, 1, 2])
@pytest.mark.parametrize("shape", [(8, 9), (12, 12)])
def test_what_rides_on_s2_is_what_it_is_alone(shape: tuple[int, int], layout: int) -> None:
    rng = np.random.default_rng(4)
    slices = torch.from_numpy(rng.random((3, *shape))).movedim(0, layout).contiguous().movedim(layout, 0)
    together = riding(s2_term(shape, 3))
    apart = [s2_term(shape, 3), *together.riders]
    ours, theirs = torch.zeros_like(slices), torch.zeros_like(slices)
    errors = together.accumulate(slices, ours, 0.01, range(3))
    separate = [term.accumulate(slices, theirs, 0.01, range(3)) for term in apart]
    assert [part.name for part in together.parts] == ["s2", "variation", "volume_fraction", "greyness"]
    torch.testing.assert_close(errors, torch.stack(separate, dim=1), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-16)
    torch.testing.assert_close(errors, together.accumulate(slices, None, 0.01, range(3)), rtol=0, atol=0)


@pytest.mark.parametrize("grey", [0.5, 0.01, 0.0])
def test_what_rides_on_s2_in_single_precision_has_six_digits(grey: float) -> None:
    """Also the greyness of slices that have hardly any, which is a difference."""
    rng = np.random.default_rng(6)
    values = (rng.random((4, 96, 96)) < 0.3).astype(np.float32)
    values[rng.random(values.shape) < grey] = 0.5
    slices = torch.from_numpy(values)
    together = riding(s2_term((96, 96), 16, torch.float32))
    ours, theirs = torch.zeros_like(slices), torch.zeros(slices.shape, dtype=torch.float64)
    errors = together.accumulate(slices, ours, 0.01, range(4))[:, 1:]
    exact = [term.accumulate(slices.double(), theirs, 0.01, range(4)) for term in together.riders]
    torch.testing.assert_close(errors, torch.stack(exact, dim=1), rtol=1e-6, atol=3e-6)
    s2_term((96, 96), 16).accumulate(slices.double(), theirs, 0.01, range(4))
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-6 * float(theirs.abs().max()))
