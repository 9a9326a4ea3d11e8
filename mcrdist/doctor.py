"""What the machine and the installation offer, and whether two processes can work together on it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import psutil

from mcrdist import __version__
from mcrdist.errors import InputError

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "numba",
    "zarr",
    "numcodecs",
    "hydra-core",
    "pyyaml",
    "scikit-image",
    "tifffile",
    "pillow",
    "matplotlib",
    "plotly",
    "jinja2",
    "tqdm",
    "psutil",
    "threadpoolctl",
    "safetensors",
    "platformdirs",
)
#: By extra of the package, what it brings, and what wants it.
EXTRAS = {
    "analysis": (("dask", "distributed", "edt", "taufactor"), "analyze"),
    "export": (("h5py", "meshio"), "export to HDF5 and meshes"),
}
SELF_TEST = "mcrdist.parallel.selftest"
SELF_TEST_SECONDS = 120

_GIB = 2**30
# A 128³ run needs a few hundred megabytes of memory, and less of disk.
_MEMORY_WARNING, _DISK_WARNING = 1 * _GIB, 1 * _GIB
_FFT_WARNING = 20e-3  # seconds for 512x512 forward and back; a laptop of 2020 takes 3 ms

#: "-": absent, and needed by a part of the program only.
Mark = Literal["ok", "warn", "fail", "-"]


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    name: str
    mark: Mark
    detail: str


def examine() -> Iterator[Finding]:
    """Yield the findings one after the other, so that they can be shown as they come."""
    yield Finding("mcrdist", "ok", __version__)
    yield Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield Finding("system", "ok", platform.platform())
    yield from _packages()
    yield from _extras()
    yield _guard("weights of VGG-19", _weights)
    yield _guard("processor", _processor)
    yield _guard("devices", _devices)
    yield _guard("memory", _memory)
    yield _guard("disk here", lambda: _disk("disk here", os.getcwd()))
    yield _guard("disk for temporary files", lambda: _disk("disk for temporary files", tempfile.gettempdir()))
    yield _guard("fft", _fft)
    yield _guard("two processes", _two_processes)


def main(say: Callable[[str], object] = print) -> bool:
    """Print the table; return whether nothing failed."""
    marks = []
    for finding in examine():
        marks.append(finding.mark)
        say(f"{finding.mark:<5} {finding.name:<25} {finding.detail}".rstrip())
    failed, warned = marks.count("fail"), marks.count("warn")
    verdict = f"{failed} failed" if failed else "ready to use"
    say(f"\n{verdict}" + (f", {warned} to look at" if warned else ""))
    return not failed


def _guard(name: str, check: Callable[[], Finding]) -> Finding:
    """Report a check that raises as failed: the table must go on when something is broken."""
    try:
        return check()
    except Exception as error:
        return Finding(name, "fail", f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")


def _packages() -> Iterator[Finding]:
    for package in PACKAGES:
        try:
            yield Finding(package, "ok", importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(package, "fail", f"not installed; pip install {package}")


def _extras() -> Iterator[Finding]:
    for extra, (packages, purpose) in EXTRAS.items():
        for package in packages:
            try:
                yield Finding(package, "ok", importlib.metadata.version(package))
            except importlib.metadata.PackageNotFoundError:
                remedy = f"pip install 'mcrdist[{extra}]'"
                yield Finding(package, "-", f"not installed; for {purpose}: {remedy}")


def _weights() -> Finding:
    """Whether the network that Gram matrices need is where it is looked for."""
    from mcrdist.weightfile import cached, load

    name, path = "weights of VGG-19", cached()
    if not path.is_file():
        return Finding(name, "-", f"not there; for Gram matrices: mcrdist weights (80 MB, to {path})")
    try:
        load(None)
    except InputError as error:
        return Finding(name, "warn", str(error))
    return Finding(name, "ok", str(path))


def _processor() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or usable
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    name = platform.processor() or platform.machine()
    return Finding(
        "processor", "ok", f"{name}, {usable} usable of {physical} cores{load}, OMP_NUM_THREADS {threads}"
    )


def _devices() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("devices", "ok", "cpu (no CUDA device)")
    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append(f"cuda:{index} {name} {free / _GIB:.1f} of {total / _GIB:.1f} GiB free")
    return Finding("devices", "ok", f"cpu, {', '.join(found)}; CUDA {torch.version.cuda}")


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    mark: Mark = "ok" if memory.available >= _MEMORY_WARNING else "warn"
    return Finding("memory", mark, f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free")


def _disk(name: str, path: str) -> Finding:
    usage = shutil.disk_usage(path)
    detail = f"{usage.free / _GIB:.1f} of {usage.total / _GIB:.1f} GiB free in {path}"
    if not os.access(path, os.W_OK):
        return Finding(name, "warn", f"{detail}, not writable; choose run.dir elsewhere")
    return Finding(name, "ok" if usage.free >= _DISK_WARNING else "warn", detail)


def _fft() -> Finding:
    """Time what a slice costs, and check that the transform comes back to where it started."""
    import numpy as np
    import scipy.fft

    plane = np.random.default_rng(0).random((512, 512), dtype=np.float32)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        back = scipy.fft.irfft2(scipy.fft.rfft2(plane), s=plane.shape)
        seconds.append(time.perf_counter() - start)
    error = float(np.abs(back - plane).max())
    best = min(seconds)
    detail = f"{best * 1e3:.1f} ms for 512x512 forward and back, error {error:.0e}"
    if back.dtype != np.float32 or error > 1e-5:
        return Finding("fft", "fail", f"{detail}; expected float32 and at most 1e-05")
    return Finding("fft", "ok" if best < _FFT_WARNING else "warn", detail)


def _two_processes() -> Finding:
    """Start two ranks with gloo as torchrun does, and let them exchange a field and a sum."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # Without the launcher's own variables the test is the same when the doctor runs under a launcher.
    inherited = {k: v for k, v in os.environ.items() if k not in _LAUNCHER_VARIABLES}
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [*command, "-m", SELF_TEST],
            capture_output=True,
            text=True,
            timeout=SELF_TEST_SECONDS,
            env=inherited | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(
            "two processes", "fail", f"no answer within {SELF_TEST_SECONDS} s; is a firewall in the way?"
        )
    seconds = time.perf_counter() - start
    if done.returncode:
        return Finding("two processes", "fail", _reason(done.stderr) or f"exit status {done.returncode}")
    said = done.stdout.strip().splitlines()
    detail = said[-1] if said else "gloo, 2 ranks"
    return Finding("two processes", "ok", f"{detail} ({seconds:.1f} s with start-up)")


_LAUNCHER_VARIABLES = frozenset(
    ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"]
)


def _reason(stderr: str) -> str:
    """Return the line of a worker's error output that says what went wrong."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line and "ChildFailedError" not in line]
    return (told or lines or [""])[0][:160]
