"""mcrdist: trustworthy 3-D microstructures from 2-D micrographs, from a laptop to a cluster.

>>> import mcrdist
>>> run = mcrdist.reconstruct("volume.size=64", micrograph="sem.tif", run={"dir": "out"})  # doctest: +SKIP
>>> run.phase.shape  # doctest: +SKIP
(64, 64, 64)
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mcrdist.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from mcrdist.analyze import Analysis
    from mcrdist.descriptors.differentiable import DifferentiableDescriptor as Descriptor
    from mcrdist.plan import Plan
    from mcrdist.store.run import Run

__version__ = "0.1.0"
__all__ = [
    "Descriptor",
    "InputError",
    "__version__",
    "analyze",
    "characterize",
    "doctor",
    "export",
    "open",
    "plan",
    "reconstruct",
    "report",
    "sweep",
    "verify",
    "weights",
]


# Imports are made inside: `mcrdist --help` and a mistyped key need not wait for torch to load.


def reconstruct(*overrides: str, **settings: Any) -> Run:
    """Make a volume whose every plane looks statistically like the micrograph.

    Parameters
    ----------
    *overrides : str
        As on the command line: ``"volume.size=128"``, ``"+experiment=quick"``.
    **settings
        The same as nested mappings, with the names of ``conf/reconstruct.yaml``: ``volume={"size": 128}``,
        ``seed=1``. They win over `overrides`. ``micrograph`` may also be a path, or an array of shape (H, W).

    Returns
    -------
    Run
        The run directory: ``.phase``, ``.field``, ``.summary``, ``.metrics``, ``.report``.

    Raises
    ------
    InputError
        For settings or images that do not work; the message says what to do.
    """
    from mcrdist.commands.resume import settings as resolved
    from mcrdist.config import from_mapping
    from mcrdist.reconstruct import reconstruct as conduct

    return conduct(from_mapping(resolved(overrides, settings)))


def sweep(*overrides: str, **settings: Any) -> list[Run]:
    """Make a volume for every combination of values: ``mcrdist.sweep("seed=0,1,2,3", run={"dir": "out"}, …)``.

    Takes what :func:`reconstruct` takes; `overrides` may have several values, as on the command line with ``-m``.
    Beside the run directories, ``run.dir`` has ``sweep.json`` and ``report.html`` with the scatter of the ensemble.
    With ``resume=True``, and the values or without them, the sweep in ``run.dir`` goes on.

    Returns
    -------
    list of Run
        In the order of the values, the last key's running fastest; fewer if the sweep was interrupted.
    """
    from mcrdist.commands.multirun import jobs
    from mcrdist.sweep import sweep as conduct

    return conduct(*jobs(overrides, settings))


def characterize(*overrides: str, **settings: Any) -> Path:
    """Write the statistics of a micrograph and a picture of them; return the directory.

    Takes what :func:`reconstruct` takes, with the names of ``conf/characterize.yaml``.
    """
    from mcrdist.characterize import characterize as conduct
    from mcrdist.commands.compose import mapping
    from mcrdist.config import characterize_from_mapping

    return conduct(characterize_from_mapping(mapping("characterize", overrides, settings)))


def plan(*overrides: str, **settings: Any) -> Plan:
    """Return what a run would need: memory a rank, bytes over the network, time by a roofline, disk.

    Takes the settings of ``conf/plan.yaml``: ``mcrdist.plan("volume.size=2048", "ranks=64", "device=h100")`` or
    ``mcrdist.plan(volume={"size": 2048}, ranks=64)``. ``str()`` of the result is the table that `mcrdist plan` prints.
    """
    from mcrdist.commands.compose import mapping
    from mcrdist.config import plan_from_mapping
    from mcrdist.plan import plan as make

    return make(plan_from_mapping(mapping("plan", overrides, settings)))


def analyze(*overrides: str, **settings: Any) -> Analysis:
    """Measure a volume, ``mcrdist.analyze("run.dir=out")``; return the table, which is written beside it too.

    Takes ``run={"dir": …}`` or ``volume={"path": …}``, or the same as on the command line; see ``conf/analyze.yaml``.
    """
    from mcrdist.analyze import analyze as conduct
    from mcrdist.commands.compose import mapping
    from mcrdist.config import analyze_from_mapping

    return conduct(analyze_from_mapping(mapping("analyze", overrides, settings)))


def report(*overrides: str, **settings: Any) -> Path:
    """Make the report of a run again, or compare several in one page; return the page.

    ``mcrdist.report(run={"dir": "out"}, report={"figures": "pdf"})`` saves every figure too,
    ``mcrdist.report(run={"dir": ["a", "b"]})`` puts runs side by side. Takes the same as on the command line as well;
    see ``conf/report.yaml``.
    """
    from mcrdist.commands.compose import mapping
    from mcrdist.config import report_from_mapping
    from mcrdist.reporting import report as conduct

    return conduct(report_from_mapping(mapping("report", overrides, settings)))


def export(*overrides: str, **settings: Any) -> list[Path]:
    """Write a volume as ``mcrdist.export("run.dir=out", format="vti")`` and return the files.

    Takes ``run={"dir": …}`` or ``volume={"path": …}``, ``format=…`` and ``output={"path": …}``, or the same as on the
    command line; see ``conf/export.yaml``.
    """
    from mcrdist.commands.compose import mapping
    from mcrdist.config import export_from_mapping
    from mcrdist.export import export as conduct

    return conduct(export_from_mapping(mapping("export", overrides, settings)))


def open(path: str | os.PathLike[str]) -> Run:
    """Return the results in the run directory `path`."""
    from pathlib import Path

    from mcrdist.store.run import Run

    return Run.open(Path(path))


def weights(*overrides: str, **settings: Any) -> Path:
    """Get the network that Gram matrices need, unless it is there; return where it is kept.

    Takes ``weights={"source": …}``, or the same as on the command line; see ``conf/weights.yaml``.
    """
    from mcrdist.commands.compose import mapping
    from mcrdist.config import weights_from_mapping
    from mcrdist.weights import fetch

    return fetch(weights_from_mapping(mapping("weights", overrides, settings))).path


def verify(path: str | os.PathLike[str]) -> list[str]:
    """Read everything in the run directory `path`; return what is broken, a line each, or nothing."""
    from pathlib import Path

    from mcrdist.store.verify import verify as look

    return look(Path(path).expanduser().absolute()).problems


def doctor() -> bool:
    """Print what the machine and the installation offer; return whether everything works."""
    from mcrdist.doctor import main

    return main()


def __getattr__(name: str) -> Any:
    if name == "Descriptor":
        from mcrdist.descriptors.differentiable import DifferentiableDescriptor

        return DifferentiableDescriptor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Package(ModuleType):
    """Keeps ``mcrdist.reconstruct`` the function when the module of the same name is imported.

    Importing a submodule sets it as an attribute of its package, which would hide the function; the module
    stays reachable by ``from mcrdist.reconstruct import …``.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and callable(self.__dict__.get(name))):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
