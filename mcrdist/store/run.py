"""The run directory: who may write what into it, and what a user gets back from it.

RUN/  config.yaml  environment.json  metrics.jsonl  summary.json  report.html  targets.npz  volume.zarr/
      checksums.json  checkpoint/  and, at times, lock and REQUEUE
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
import yaml
from numpy.typing import NDArray

from mcrdist.errors import InputError, first_of
from mcrdist.npzfile import load_npz
from mcrdist.store import disk
from mcrdist.store.checksums import CHECKSUMS, checksum
from mcrdist.store.lock import LOCK, check
from mcrdist.store.place import write_atomically, writing
from mcrdist.store.volume import Volume

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
REPORT = "report.html"
TARGETS = "targets.npz"
VOLUME = "volume.zarr"
#: Left by a run that was asked to end and saved itself: whoever finds it may start it again with resume=true.
REQUEUE = "REQUEUE"
ANALYSIS = "analysis"
FIGURES = "figures"
#: In the directory that holds the run directories of a sweep.
SWEEP = "sweep.json"

#: What a kill leaves half written, by the names that `write_atomically` gives; and the word of a process that lost
#: another, as `mcrdist.parallel.meeting` calls it.
_WRITTEN = (CONFIG, ENVIRONMENT, TARGETS, SUMMARY, REPORT, CHECKSUMS, REQUEUE, SWEEP)
_HALF_WRITTEN = re.compile(
    rf"\.((?:{'|'.join(map(re.escape, _WRITTEN))})\.\d+|[0-9a-f]{{32}}\.lost)\.tmp", re.ASCII
)

_PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "zarr",
    "numcodecs",
    "hydra-core",
    "scikit-image",
    "tifffile",
    "pillow",
)


def environment(**more: Any) -> dict[str, Any]:
    """Versions and hardware that a figure may depend on; `more` is added as it is.

    Names of hosts and users stay out: reports are handed around.
    """
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    from mcrdist import __version__

    return {
        "mcrdist": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": versions,
        **more,
    }


def finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null says "no figure" to every reader."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class MetricsWriter:
    """Appends one JSON line an iteration and hands it to the operating system at once.

    A run that is killed keeps every line but, perhaps, the last; readers skip a torn last line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            self._file: TextIO = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record; floats keep their full precision.

        Raises
        ------
        InputError
            The disk is full.
        """
        with writing(self.path):
            self._file.write(json.dumps(finite(record), separators=(",", ":")) + "\n")
            self._file.flush()

    def sync(self) -> tuple[int, str]:
        """Wait until all lines are on the disk; the bytes that they have, and their checksum."""
        with writing(self.path):
            self._file.flush()
            disk.sync(self._file.buffer)
        return self.path.stat().st_size, checksum(self.path)

    def close(self) -> None:
        """Close the file; may be called twice."""
        with writing(self.path):
            self._file.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RunDirectory:
    """A run directory being written, by rank 0.

    Attributes
    ----------
    path : Path
        The directory, absolute, so that it survives a change of working directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls, path: str | Path, config: Mapping[str, Any], environment: Mapping[str, Any]
    ) -> RunDirectory:
        """Make the directory with ``config.yaml`` and ``environment.json``.

        Parameters
        ----------
        path
            Absent, or an empty directory.
        config
            Plain data, as `mcrdist.config.to_mapping` gives it.
        environment
            As `environment` gives it.

        Raises
        ------
        InputError
            There is something at `path`, or it cannot be written to. Nothing is overwritten.
        """
        path = cls.claim(path)
        run = cls(path)
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        write_atomically(path / CONFIG, text.encode())
        run._write_json(ENVIRONMENT, environment)
        return run

    @classmethod
    def claim(cls, path: str | Path) -> Path:
        """Make the directory where there is none yet; it must be empty.

        Raises
        ------
        InputError
            As for `create`.
        """
        path = cls.free(path)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    @staticmethod
    def free(path: str | Path) -> Path:
        """See to it that a run may be made at `path`; touches nothing.

        Raises
        ------
        InputError
            There is something, or another job is at work there.
        """
        path = Path(path).expanduser().absolute()
        with writing(path):
            if path.exists() and not path.is_dir():
                raise InputError(f"run.dir: expected a directory, found the file {path}; choose another name")
            if path.is_dir():
                check(path)
            if path.is_dir() and not all(_harmless(entry.name) for entry in path.iterdir()):
                raise InputError(
                    f"run.dir: expected a new or empty directory, found {path} with files in it; "
                    "choose another name or move it away"
                )
        return path

    @property
    def volume(self) -> Path:
        """Where the volume belongs."""
        return self.path / VOLUME

    @property
    def targets(self) -> Path:
        """Where the targets belong."""
        return self.path / TARGETS

    def metrics(self) -> MetricsWriter:
        """A writer that appends to ``metrics.jsonl``."""
        return MetricsWriter(self.path / METRICS)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json`` in one piece; figures that are not finite become null."""
        self._write_json(SUMMARY, summary)

    def _write_json(self, name: str, data: Mapping[str, Any]) -> None:
        text = json.dumps(finite(data), indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.path / name, text.encode())


def _harmless(name: str) -> bool:
    """Whether a file of this name may lie in an empty directory: a lock, or what a kill left half written."""
    return name == LOCK or is_half_written(name)


def ask_for_another_turn(path: Path) -> None:
    """Leave the marker that says of a run, or of a sweep: saved, and not finished."""
    write_atomically(path / REQUEUE, f"mcrdist reconstruct run.dir={path} resume=true\n".encode())


def is_sweep(path: Path) -> bool:
    """Whether a directory is that of a sweep."""
    return (path / SWEEP).is_file()


def is_half_written(name: str) -> bool:
    """Whether a file in a run directory is one of ours that a kill has left before it had its name."""
    return _HALF_WRITTEN.fullmatch(name) is not None


class Run:
    """A run directory as its user sees it: complete, interrupted, or still being written.

    Attributes
    ----------
    path : Path
        The run directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a run directory.

        Raises
        ------
        InputError
            `path` is no run directory.
        """
        path = Path(path).expanduser().absolute()
        if not path.is_dir():
            raise InputError(
                f"{path}: expected a run directory, found {'a file' if path.exists() else 'nothing'}"
            )
        if not (path / CONFIG).is_file():
            found = f"no {CONFIG} in it"
            if is_sweep(path):
                runs = sorted(one.parent.name for one in path.glob(f"*/{CONFIG}"))
                found = f"a sweep; name one of its runs: {first_of(runs)}"
            raise InputError(f"{path}: expected a run directory, found {found}")
        return cls(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @cached_property
    def volume(self) -> Volume:
        """The volume on disk, with its levels, voxel size and unit; read from it what fits in memory."""
        return Volume.open(self.path / VOLUME)

    @cached_property
    def phase(self) -> NDArray[np.uint8]:
        """Labels (nz, ny, nx) uint8 in memory; 255 where an interrupted run wrote none."""
        return self.volume.read(self.volume.phase())

    @cached_property
    def field(self) -> NDArray[np.float32]:
        """Relaxed field (nz, ny, nx) float32 in memory; NaN where an interrupted run wrote none."""
        return self.volume.read(self.volume.field())

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration as plain data."""
        try:
            data = yaml.safe_load((self.path / CONFIG).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(
                f"{self.path / CONFIG}: expected YAML ({' '.join(str(error).split())})"
            ) from error
        return data if isinstance(data, dict) else {}

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions and hardware; empty where the file is absent."""
        return self._json(ENVIRONMENT)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What came of the run; only ``{"status": "interrupted"}`` if it was killed before it could say."""
        return self._json(SUMMARY) or {"status": "interrupted"}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One dict an iteration, as far as the run has come."""
        path = self.path / METRICS
        if not path.is_file():
            return []
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        records = []
        for number, line in enumerate(lines, 1):
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                if number == len(lines):  # torn by a kill
                    break
                raise InputError(f"{path}:{number}: expected a JSON record ({error})") from error
        return records

    @cached_property
    def targets(self) -> dict[str, NDArray[Any]]:
        """The arrays of ``targets.npz`` by name ("z/s2", ...); empty where the file is absent."""
        path = self.path / TARGETS
        return load_npz(path) if path.is_file() else {}

    @property
    def report(self) -> Path | None:
        """Where ``report.html`` lies, or None."""
        path = self.path / REPORT
        return path if path.is_file() else None

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not path.is_file():
            return {}
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: expected JSON ({error})") from error
        return data if isinstance(data, dict) else {}
