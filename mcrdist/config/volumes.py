"""The settings of what reads a finished volume: which one, and where its export goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mcrdist.config.kinds import boolean, choice, integer, number, some_integers, text
from mcrdist.config.micrograph import UNITS
from mcrdist.config.schema import INVALID, Check, Section, checks_of, section, setting, show
from mcrdist.errors import InputError

#: By name, what a volume can be written as.
FORMATS = ("tiff", "npy", "raw", "vti", "hdf5", "stl", "ply", "abaqus", "vtu", "gmsh")


def _voxel_size(value: object) -> object:
    """One length for all axes, or one each for z, y, x; kept as three."""
    one = number(above=0)
    items = list(value) if isinstance(value, list | tuple) else [value] * 3
    sizes = tuple(one.convert(item) for item in items)
    return INVALID if len(sizes) != 3 or INVALID in sizes else sizes


@dataclass(frozen=True)
class VolumeSourceConfig:
    """A volume that is there: of a run, or any other file.

    Attributes
    ----------
    run : str or None
        A run directory (the key `run.dir`); either this or `path`.
    path : str or None
        An OME-Zarr image, a TIFF stack or an npy file.
    box : two triples of int, or None
        Corner and edges (z, y, x) in voxels: a part of the volume, taken for one by itself, which is not periodic.
    key : str
        The section of the settings, for messages.
    """

    run: str | None = None
    box: tuple[tuple[int, int, int], tuple[int, int, int]] | None = None
    key: str = "volume"
    path: str | None = setting(
        text("the path of an OME-Zarr image, a TIFF stack or an npy file", optional=True, example="ct.tif"),
        None,
    )
    image: Literal["phase", "field"] = setting(choice("phase", "field"), "phase")
    level: int = setting(integer(0, 31), 0)
    phase: int | None = setting(integer(0, 255, optional=True, example="1"), None)
    voxel_size: tuple[float, float, float] | None = setting(
        Check("a number above 0, or 3 of them (z, y, x)", _voxel_size, optional=True, example="0.25"), None
    )
    unit: str | None = setting(choice(*UNITS, optional=True, example="um"), None)


@dataclass(frozen=True)
class ExportConfig:
    """What `mcrdist export` needs."""

    volume: VolumeSourceConfig
    format: str
    path: str | None = None
    smoothing: float = 0.6


@dataclass(frozen=True)
class ViewConfig:
    """What `mcrdist view` needs; port 0 is any that is free."""

    volume: VolumeSourceConfig
    port: int = 0


@dataclass(frozen=True)
class DaskConfig:
    """Where an analysis runs: at a scheduler's address, or on workers of this machine."""

    scheduler: str | None = setting(
        text("the address of a scheduler", optional=True, example="tcp://node1:8786"), None
    )
    workers: int | None = setting(integer(1, 4096, optional=True, example="4"), None)
    processes: bool = setting(boolean(), False)


@dataclass(frozen=True)
class MiddleConfig:
    """A box in the middle of the volume, for what is too costly for the whole of it."""

    edge: int | None = setting(integer(4, optional=True, example="128"), 128)
    thickness: bool = setting(boolean(), True)


@dataclass(frozen=True)
class TransportConfig:
    """Effective diffusivity and tortuosity factor by TauFactor."""

    enabled: bool = setting(boolean(), True)
    iterations: int = setting(integer(200), 10000)
    convergence: float = setting(number(maximum=0.5, above=0), 0.01)


@dataclass(frozen=True)
class PartsConfig:
    """Cubes cut out of the volume, whose scatter tells whether it is representative."""

    edges: tuple[int, ...] | None = setting(some_integers(4, optional=True, example="[16,32,64]"), None)
    samples: int = setting(integer(4, 4096), 8)


@dataclass(frozen=True)
class TruthConfig:
    """A true volume to stand beside the one that is measured, and how many boxes of each are measured at most."""

    path: str | None = setting(
        text("the path of an OME-Zarr image, a TIFF stack or an npy file", optional=True, example="ct.tif"),
        None,
    )
    level: int = setting(integer(0, 31), 0)
    phase: int | None = setting(integer(0, 255, optional=True, example="1"), None)
    voxel_size: tuple[float, float, float] | None = setting(
        Check("a number above 0, or 3 of them (z, y, x)", _voxel_size, optional=True, example="0.25"), None
    )
    unit: str | None = setting(choice(*UNITS, optional=True, example="um"), None)
    samples: int = setting(integer(1, 4096), 8)

    @property
    def volume(self) -> VolumeSourceConfig:
        """The volume."""
        return VolumeSourceConfig(
            path=self.path, level=self.level, voxel_size=self.voxel_size, unit=self.unit, key="truth"
        )


@dataclass(frozen=True)
class AnalyzeConfig:
    """What `mcrdist analyze` needs."""

    volume: VolumeSourceConfig
    truth: TruthConfig = TruthConfig()
    dask: DaskConfig = DaskConfig()
    middle: MiddleConfig = MiddleConfig()
    transport: TransportConfig = TransportConfig()
    parts: PartsConfig = PartsConfig()
    lags: int | None = None
    dir: str | None = None


_RUN = Section(
    {"dir": text("the path of a run directory", optional=True, example="out")}, lambda given, key: given
)
_OUTPUT = Section(
    {
        "path": text("the path of a new file", optional=True, example="volume.vti"),
        "smoothing": number(0, 10, example="0.6"),
    },
    lambda given, key: given,
)


def volume_section() -> Section:
    """Return the section of the volume to read; its keys are those of `VolumeSourceConfig` that are settings."""
    return Section(checks_of(VolumeSourceConfig), lambda given, key: given)


def source_of(given: dict[str, Any], verb: str) -> VolumeSourceConfig:
    """Take `run` and `volume` out of checked settings and return the volume they name.

    Raises
    ------
    InputError
        They name none, or two.
    """
    run = (given.pop("run", None) or {}).get("dir")
    volume = given.pop("volume", None) or {}
    path = volume.get("path")
    if run is None and path is None:
        raise InputError(
            f"run.dir: expected a run directory, found nothing (null); e.g. mcrdist {verb} run.dir=out, or "
            "volume.path=ct.tif"
        )
    if run is not None and path is not None:
        raise InputError(
            f"volume.path: expected null with run.dir={show(run)}, found {show(path)}; give one of the two"
        )
    if run is None and volume.get("image", "phase") == "field":
        raise InputError("volume.image: expected phase without run.dir, found field; only runs have a field")
    return VolumeSourceConfig(run=run, **volume)


def _build_export(given: dict[str, Any], key: str) -> ExportConfig:
    volume = source_of(given, "export")
    if given.get("format") is None:
        raise InputError(
            f"format: expected one of {', '.join(FORMATS)}, found nothing (null); e.g. format=tiff"
        )
    return ExportConfig(volume, given["format"], **given.get("output", {}))


EXPORT = Section(
    {
        "run": _RUN,
        "volume": volume_section(),
        "format": choice(*FORMATS, optional=True, example="tiff"),
        "output": _OUTPUT,
    },
    _build_export,
)

VIEW = Section(
    {
        "run": _RUN,
        "volume": volume_section(),
        "port": integer(0, 65535, example="8080"),
    },
    lambda given, key: ViewConfig(source_of(given, "view"), **given),
)


def _build_analyze(given: dict[str, Any], key: str) -> AnalyzeConfig:
    volume = source_of(given, "analyze")
    if volume.image != "phase":
        raise InputError(
            "volume.image: expected phase, found field; labels are analysed, not the relaxed field"
        )
    output = given.get("output", {})
    truth = given.get("truth", TruthConfig())
    if truth.path is None and truth != TruthConfig():
        raise InputError("truth.path: expected a volume, found nothing (null); e.g. truth.path=ct.tif")
    return AnalyzeConfig(
        volume,
        truth,
        given.get("dask", DaskConfig()),
        given.get("middle", MiddleConfig()),
        given.get("transport", TransportConfig()),
        given.get("parts", PartsConfig()),
        given.get("lags"),
        output.get("dir"),
    )


ANALYZE = Section(
    {
        "run": _RUN,
        "volume": volume_section(),
        "truth": section(TruthConfig),
        "lags": integer(1, optional=True, example="32"),
        "dask": section(DaskConfig),
        "middle": section(MiddleConfig),
        "transport": section(TransportConfig),
        "parts": section(PartsConfig),
        "output": Section(
            {"dir": text("the path of a new directory", optional=True, example="analysis")},
            lambda given, key: given,
        ),
    },
    _build_analyze,
)
