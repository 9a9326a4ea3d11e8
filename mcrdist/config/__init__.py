"""The configuration: typed, frozen, validated before anything is opened; it knows no Hydra.

Every setting is declared once, as a dataclass field in :mod:`.sections` or :mod:`.micrograph`, with what it
accepts and its default; ``conf/*.yaml`` repeats the defaults with an explanation each, and a test keeps the
two the same. Nested mappings come in through :func:`from_mapping` and :func:`characterize_from_mapping`,
from the command line, from YAML or from Python, and go out through :func:`to_mapping`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mcrdist.config.annealing import check_annealing
from mcrdist.config.checkpoint import CheckpointConfig
from mcrdist.config.descriptors import DescriptorConfig, descriptors_from_mapping
from mcrdist.config.idle import check_idle
from mcrdist.config.interpolate import INTERPOLATE, InterpolateConfig, build_interpolate
from mcrdist.config.kinds import boolean, choice, integer, text
from mcrdist.config.micrograph import AXES, MICROGRAPH, MicrographConfig, MicrographSource, require_images
from mcrdist.config.plan import PLAN, PlanConfig, plan_from_mapping
from mcrdist.config.report import REPORT, ReportConfig, report_from_mapping
from mcrdist.config.schema import Check, Section, checks_of, dotted, section, setting, show
from mcrdist.config.sections import (
    MINIMUM_SIZE,
    VOLUME,
    ConditioningConfig,
    DirectoryConfig,
    InitialConfig,
    LevelsConfig,
    MemoryConfig,
    OptimizerConfig,
    OutputConfig,
    RunConfig,
    RuntimeConfig,
    TargetConfig,
    VolumeConfig,
    WeightsConfig,
)
from mcrdist.config.volumes import (
    ANALYZE,
    EXPORT,
    FORMATS,
    VIEW,
    AnalyzeConfig,
    DaskConfig,
    ExportConfig,
    MiddleConfig,
    PartsConfig,
    TransportConfig,
    ViewConfig,
    VolumeSourceConfig,
)
from mcrdist.errors import InputError

__all__ = [
    "AXES",
    "FORMATS",
    "AnalyzeConfig",
    "CharacterizeConfig",
    "CheckpointConfig",
    "ConditioningConfig",
    "DaskConfig",
    "DescriptorConfig",
    "DirectoryConfig",
    "ExportConfig",
    "InitialConfig",
    "InterpolateConfig",
    "LevelsConfig",
    "MemoryConfig",
    "MicrographConfig",
    "MicrographSource",
    "MiddleConfig",
    "OptimizerConfig",
    "OutputConfig",
    "PartsConfig",
    "PlanConfig",
    "ReconstructConfig",
    "ReportConfig",
    "RunConfig",
    "RuntimeConfig",
    "TargetConfig",
    "TransportConfig",
    "ViewConfig",
    "VolumeConfig",
    "VolumeSourceConfig",
    "WeightsConfig",
    "analyze_from_mapping",
    "characterize_from_mapping",
    "descriptors_from_mapping",
    "export_from_mapping",
    "from_mapping",
    "keys",
    "plan_from_mapping",
    "report_from_mapping",
    "to_mapping",
    "verify",
    "verify_from_mapping",
    "view_from_mapping",
    "weights_from_mapping",
]


@dataclass(frozen=True)
class CharacterizeConfig:
    """What `mcrdist characterize` needs: the micrograph and how to describe it."""

    micrograph: MicrographConfig
    target: TargetConfig = setting(section(TargetConfig), TargetConfig())
    descriptors: DescriptorConfig = setting(section(DescriptorConfig), DescriptorConfig())
    run: DirectoryConfig = setting(section(DirectoryConfig), DirectoryConfig())


@dataclass(frozen=True)
class ReconstructConfig:
    """What `mcrdist reconstruct` needs."""

    micrograph: MicrographConfig
    volume: VolumeConfig
    target: TargetConfig = setting(section(TargetConfig), TargetConfig())
    descriptors: DescriptorConfig = setting(section(DescriptorConfig), DescriptorConfig())
    levels: LevelsConfig = setting(section(LevelsConfig), LevelsConfig())
    interpolate: InterpolateConfig = InterpolateConfig()
    initial: InitialConfig = InitialConfig()
    conditioning: ConditioningConfig = setting(section(ConditioningConfig), ConditioningConfig())
    method: Literal["descriptors", "gaussian"] = setting(choice("descriptors", "gaussian"), "descriptors")
    optimizer: OptimizerConfig = setting(section(OptimizerConfig), OptimizerConfig())
    output: OutputConfig = setting(section(OutputConfig), OutputConfig())
    runtime: RuntimeConfig = setting(section(RuntimeConfig), RuntimeConfig())
    memory: MemoryConfig = setting(section(MemoryConfig), MemoryConfig())
    run: RunConfig = setting(section(RunConfig), RunConfig())
    checkpoint: CheckpointConfig = setting(section(CheckpointConfig), CheckpointConfig())
    resume: bool = setting(boolean(), False)
    seed: int = setting(integer(0, 2**63 - 1, example="0"), 0)


# `initial=noise` reads better than `initial.kind=noise`, so that section lies flat among its neighbours.
_INITIAL: dict[str, Check | Section] = {
    "initial": choice("spectral", "noise", "file"),
    "initial_path": text("the path of a field", optional=True, example="start.npy"),
}


def _check_together(given: dict[str, Any], shape: tuple[int, int, int] | None) -> None:
    """Check what one section cannot know of another."""
    descriptors: DescriptorConfig = given.get("descriptors", DescriptorConfig())
    telling = {name: w for name, w in descriptors.weights.items() if name != "volume_fraction"}
    if not any(telling.values()) and not descriptors.extra:
        names = ", ".join(f"descriptors.{name}.weight" for name in telling)
        raise InputError(f"descriptors: expected a weight above 0, found 0 for all; set one of {names}")
    if shape is None:
        return
    smallest = min(shape if shape[0] > 1 else shape[1:])
    lags = given.get("target", TargetConfig()).lags
    if lags is not None and lags > smallest // 2:
        raise InputError(
            f"target.lags: expected an integer of at most {smallest // 2} (half the smallest side of the "
            f"volume), found {lags}; take a smaller window or a larger volume"
        )
    known: ConditioningConfig = given.get("conditioning", ConditioningConfig())
    if known.path is not None and shape[0] == 1:
        raise InputError(
            f"conditioning.path: expected nothing (null) for a single plane, all of which would be known, found "
            f"{show(known.path)}; make a volume of {MINIMUM_SIZE} planes or more"
        )
    planes = shape[AXES.index(known.axis)]
    if known.index >= planes:
        raise InputError(
            f"conditioning.index: expected an integer of at most {planes - 1} (the last plane along "
            f"{known.axis}), found {known.index}; e.g. conditioning.index={planes // 2}"
        )
    coarsest = given.get("levels", LevelsConfig()).coarsest
    if coarsest is not None and coarsest > smallest:
        raise InputError(
            f"levels.coarsest: expected an integer of at most {smallest} (the smallest side of the volume), "
            f"found {coarsest}; e.g. levels.coarsest={max(4, smallest // 4)}"
        )


def _build_reconstruct(given: dict[str, Any], key: str) -> ReconstructConfig:
    """Build the whole configuration from checked sections."""
    initial = InitialConfig(given.pop("initial", InitialConfig.kind), given.pop("initial_path", None))
    if initial.kind == "file" and initial.path is None:
        raise InputError(
            "initial_path: expected the path of a field, found nothing (null); initial=file needs one, e.g. "
            "initial_path=start.npy"
        )
    if initial.kind != "file" and initial.path is not None:
        raise InputError(
            f"initial_path: expected null with initial={initial.kind}, found {show(initial.path)}; "
            "use initial=file"
        )
    # Read here when absent, so that the message about a missing image or size is theirs.
    micrograph = _micrograph(given)
    interpolate = build_interpolate(given.pop("interpolate", {}), "interpolate", micrograph)
    volume = given.pop("volume", None) or VOLUME(None, "volume")
    check_idle(
        initial,
        given.get("method", "descriptors"),
        given.get("levels", LevelsConfig()),
        given.get("conditioning", ConditioningConfig()),
        given.get("optimizer", OptimizerConfig()),
        given.get("output", OutputConfig()),
    )
    _check_together(given, volume.shape)
    if given.get("optimizer", OptimizerConfig()).name == "yeong_torquato":
        check_annealing(given.get("descriptors", DescriptorConfig()), given.get("target", TargetConfig()))
    if interpolate.along is not None and volume.shape[0] == 1:
        raise InputError(
            f"interpolate.along: expected null for a single plane, found {interpolate.along}; make a volume of "
            f"{MINIMUM_SIZE} planes or more"
        )
    return ReconstructConfig(
        micrograph=micrograph, volume=volume, interpolate=interpolate, initial=initial, **given
    )


def _micrograph(given: dict[str, Any]) -> MicrographConfig:
    """Take the micrographs out of `given`: there must be some, unless a file of targets replaces them."""
    micrograph: MicrographConfig = given.pop("micrograph", None) or MICROGRAPH(None, "micrograph")
    path = given.get("target", TargetConfig()).path
    if path is None:
        require_images(micrograph, "micrograph")
    elif micrograph != MicrographConfig() or micrograph.image is not None:
        unused = [f.name for f in dataclasses.fields(MicrographConfig) if f.compare]
        name = next((n for n in unused if getattr(micrograph, n) != getattr(MicrographConfig(), n)), "path")
        raise InputError(
            f"micrograph.{name}: expected its default with target.path={show(path)}, which takes the micrograph's "
            f"place, found another value; give one of the two"
        )
    return micrograph


def _build_characterize(given: dict[str, Any], key: str) -> CharacterizeConfig:
    micrograph = _micrograph(given)
    _check_together(given, None)
    return CharacterizeConfig(micrograph=micrograph, **given)


_RECONSTRUCT = Section(
    {"micrograph": MICROGRAPH, "volume": VOLUME, "interpolate": INTERPOLATE}
    | _INITIAL
    | checks_of(ReconstructConfig),
    _build_reconstruct,
)
_CHARACTERIZE = Section({"micrograph": MICROGRAPH} | checks_of(CharacterizeConfig), _build_characterize)
_WEIGHTS = Section(
    {"weights": section(WeightsConfig)}, lambda given, key: given.get("weights", WeightsConfig())
)

_VERIFY = Section(
    {"run": Section(checks_of(DirectoryConfig), lambda given, key: given.get("dir"))},
    lambda given, key: given.get("run"),
)
_VERBS = {
    "reconstruct": _RECONSTRUCT,
    "characterize": _CHARACTERIZE,
    "weights": _WEIGHTS,
    "verify": _VERIFY,
    "plan": PLAN,
    "export": EXPORT,
    "view": VIEW,
    "analyze": ANALYZE,
    "report": REPORT,
}


def _validated(verb: str, mapping: Mapping[str, Any]) -> Any:
    """What the settings of a command make; a mistyped key is told before a missing one."""
    verify(verb, mapping)
    return _VERBS[verb](mapping, "")


def from_mapping(mapping: Mapping[str, Any]) -> ReconstructConfig:
    """Return the validated configuration of a reconstruction.

    Parameters
    ----------
    mapping : mapping
        Nested, with the keys of ``conf/reconstruct.yaml``; absent keys keep their defaults. ``micrograph``
        (and ``micrograph.z``, ``.y``, ``.x``) may also be a path, or from Python an array of shape (H, W).

    Raises
    ------
    InputError
        For an unknown key, a value of the wrong kind or outside its range, or settings that contradict each
        other: everything that can be known without opening a file.
    """
    config: ReconstructConfig = _validated("reconstruct", mapping)
    return config


def characterize_from_mapping(mapping: Mapping[str, Any]) -> CharacterizeConfig:
    """Return the validated configuration of a characterisation; see :func:`from_mapping`."""
    config: CharacterizeConfig = _validated("characterize", mapping)
    return config


def weights_from_mapping(mapping: Mapping[str, Any]) -> WeightsConfig:
    """Return the validated configuration of `mcrdist weights`; see :func:`from_mapping`."""
    config: WeightsConfig = _WEIGHTS(mapping, "")
    return config


def verify_from_mapping(mapping: Mapping[str, Any]) -> Path:
    """Return the run directory that `mcrdist verify` is to look at; see :func:`from_mapping`."""
    where: str | None = _validated("verify", mapping)
    if where is None:
        raise InputError("run.dir: expected the directory of a run, found nothing (null); e.g. run.dir=out")
    return Path(where).expanduser().absolute()


def export_from_mapping(mapping: Mapping[str, Any]) -> ExportConfig:
    """Return the validated configuration of an export; see :func:`from_mapping`."""
    config: ExportConfig = _validated("export", mapping)
    return config


def analyze_from_mapping(mapping: Mapping[str, Any]) -> AnalyzeConfig:
    """Return the validated configuration of an analysis; see :func:`from_mapping`."""
    config: AnalyzeConfig = _validated("analyze", mapping)
    return config


def view_from_mapping(mapping: Mapping[str, Any]) -> ViewConfig:
    """Return the validated configuration of the viewer; see :func:`from_mapping`."""
    config: ViewConfig = _validated("view", mapping)
    return config


def keys(verb: str) -> dict[str, Check]:
    """Return every dotted key of a command's configuration, with its check."""
    return dotted(_VERBS[verb].checks)


def verify(verb: str, mapping: Mapping[str, Any]) -> None:
    """Raise InputError for an unknown key or a bad value in `mapping`, but not for one that is missing."""
    _VERBS[verb].verify(mapping, "")


def to_mapping(config: ReconstructConfig | CharacterizeConfig) -> dict[str, Any]:
    """Return `config` as plain data that YAML and JSON can write and :func:`from_mapping` reads again.

    An image given as an array is recorded as ``path: <array 64x64 uint8>``: what it held is in the targets.
    """
    mapping: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, InitialConfig):
            mapping |= {"initial": value.kind, "initial_path": value.path}
        else:
            mapping[field.name] = _plain(value)
    return mapping


def _plain(value: Any) -> Any:
    """Return nested dicts and lists for nested dataclasses and tuples."""
    if dataclasses.is_dataclass(value):
        plain = {
            f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name != "image"
        }
        if isinstance(value, MicrographSource) and value.image is not None:
            names = [_array_name(one.image) for one in value.each]
            plain["path"] = names if isinstance(value.image, tuple) else names[0]
        return plain
    return list(value) if isinstance(value, tuple) else value


def _array_name(image: Any) -> str:
    return f"<array {'x'.join(map(str, image.shape))} {image.dtype}>"
