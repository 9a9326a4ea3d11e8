"""Settings that would do nothing beside the others: refused by name, so that nobody waits for their effect.

Values that say what happens anyway pass: the defaults, one level, no flips.
"""

from __future__ import annotations

from mcrdist.config.schema import show
from mcrdist.config.sections import (
    ConditioningConfig,
    InitialConfig,
    LevelsConfig,
    OptimizerConfig,
    OutputConfig,
)
from mcrdist.errors import InputError


def check_idle(
    initial: InitialConfig,
    method: str,
    levels: LevelsConfig,
    conditioning: ConditioningConfig,
    optimizer: OptimizerConfig,
    output: OutputConfig,
) -> None:
    """Raise InputError for the first setting that the others leave nothing to do."""
    if conditioning.path is None:
        check_place(conditioning, "conditioning.path=null")
    if method == "gaussian":
        remedy = "method=descriptors"
        _check_levels(levels, "method=gaussian, which makes the finest level alone", remedy)
        _check_output(output, "method=gaussian, whose field is cut as it is", remedy)
    if optimizer.name == "yeong_torquato":
        beside, remedy = "optimizer.name=yeong_torquato", "optimizer.name=lbfgsb"
        _check_levels(levels, f"{beside}, which works on the finest level alone", remedy)
        _check_output(output, f"{beside}, which has no grey voxels", remedy)
        _check_flips(optimizer, f"{beside}, which swaps voxels", remedy)
    if initial.kind == "file":
        _check_levels(levels, "initial=file, a field of the finest level", "initial=spectral")
    if not optimizer.iterations:
        beside = "optimizer.iterations=0, where the start is rounded as it is"
        _check_flips(optimizer, beside, "optimizer.iterations=1")
    if output.denoise:
        _check_flips(optimizer, "output.denoise, after which no voxels are flipped", "output.denoise=0")


def check_place(config: ConditioningConfig, beside: str) -> None:
    """Raise InputError for a setting of where a known plane lies; `beside` says why there is no plane."""
    for key, usual in (("axis", "z"), ("index", 0), ("crop", None)):
        found = getattr(config, key)
        if found != usual:
            _refuse(
                f"conditioning.{key}", usual, beside, found, "conditioning.path=sem.tif, the image of a plane"
            )


def _check_levels(config: LevelsConfig, beside: str, remedy: str) -> None:
    if config.count not in (None, 1):
        _refuse("levels.count", "1 or null", beside, config.count, remedy)
    if config.coarsest is not None:
        _refuse("levels.coarsest", None, beside, config.coarsest, remedy)


def _check_output(config: OutputConfig, beside: str, remedy: str) -> None:
    if config.threshold != "auto":
        _refuse("output.threshold", "auto", beside, config.threshold, remedy)
    if config.denoise:
        _refuse("output.denoise", 0, beside, config.denoise, remedy)


def _check_flips(config: OptimizerConfig, beside: str, remedy: str) -> None:
    if config.flip_rounds:
        _refuse("optimizer.flip_rounds", "0 or null", beside, config.flip_rounds, remedy)


def _refuse(key: str, expected: object, beside: str, found: object, remedy: str) -> None:
    wanted = "null" if expected is None else expected
    shown = found if isinstance(found, str) else show(list(found) if isinstance(found, tuple) else found)
    raise InputError(f"{key}: expected {wanted} with {beside}, found {shown}; leave it out, or set {remedy}")
