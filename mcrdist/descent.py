"""The minimiser that the configuration names, on objectives that look at other slices as it goes on.

A costly descriptor sees a part of the slices at a time. L-BFGS needs one function for its line search and its
curvature, so it works in bursts of a few iterations, the objective turning in between; Adam needs no function that
stays, and the objective turns in every iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from mcrdist.config import OptimizerConfig
from mcrdist.errors import InputError
from mcrdist.objective import Objective
from mcrdist.optimize import adam, lbfgsb, scipy_lbfgsb
from mcrdist.optimize.minimizer import Callback, Function, Minimizer, Options, Result, State
from mcrdist.optimize.products import Map, Products

#: Optimisers that hold the whole field in one process.
ALONE = ("scipy", "yeong_torquato")


def check_ranks(name: str, ranks: int) -> InputError | None:
    """What is wrong with this many processes for the optimiser `name`, if anything."""
    if name not in ALONE or ranks == 1:
        return None
    return InputError(
        f"optimizer.name: expected lbfgsb or adam with several processes, found {name} with {ranks}; it works on the "
        "whole volume in one: start one process, without torchrun"
    )
