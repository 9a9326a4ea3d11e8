"""Figures in words."""

from __future__ import annotations

from typing import Any

import fake_run  # noqa: F401 (stands in for the descriptors)
import pytest

from mcrdist.analysis import words


@pytest.mark.parametrize(
    ("function", "value", "said"),
    [
        (words.number, 0.36042, "0.360"),
        (words.number, 0, "0"),
        (words.number, 12345.6, "12346"),
        (words.number, 3.2e-7, "3.20·10⁻⁷"),
        (words.number, None, "–"),  # noqa: RUF001
        (words.number, float("nan"), "–"),  # noqa: RUF001
        (words.percent, 0.0083, "0.83 %"),
        (words.percent, 0.2081, "20.8 %"),
        (words.percent, 1e-7, "< 0.001 %"),
        (words.percent, 0.0, "0 %"),
        (words.duration, 3.21, "3.2 s"),
        (words.duration, 59.7, "1 min 0 s"),
        (words.duration, 7510, "2 h 5 min"),
        (words.memory, 1.5 * 2**30, "1.5 GiB"),
        (words.memory, 2**20, "1 MiB"),
        (words.shape, [8, 8, 8], "8³"),
        (words.shape, (8, 9, 10), "8 × 9 × 10"),  # noqa: RUF001
        (words.shape, None, "–"),  # noqa: RUF001
    ],
)
def test_figures(function: Any, value: Any, said: str) -> None:
    assert function(value).replace("\u00a0", " ") == said
