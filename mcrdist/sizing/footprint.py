"""What a run holds: every buffer of a rank by name, in each stage, and what the run leaves on disk.

The only place where memory is counted; `mcrdist plan` prints it and `memory.budget` keeps to it. A buffer is
named after the code that makes it, so whoever changes that code finds its line here. The sizes are those of the
rank that holds most (the first), in bytes; v stands for the voxels of its slab.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

from mcrdist.gaussian import BOX
from mcrdist.look import LANES
from mcrdist.objective import BATCH_VOXELS
from mcrdist.parallel.slab import partition

MIB = 2**20
#: Resident memory of a process that has loaded the program and its libraries (CPU build of torch 2.14) but no volume.
LIBRARIES = 656 * MIB
#: What a CUDA context with its libraries takes of a device: an estimate, nothing was measured on GPUs.
CONTEXT = 1024 * MIB
#: Making the report: the plotting libraries, and pictures of a few planes. Measured.
REPORT = 130 * MIB
#: The spectral fit, bytes a voxel of its box: SciPy's L-BFGS-B has 25 vectors of float64, and some are ours. Measured.
FIT = 440
#: Compiling the passes of L-BFGS (numba and LLVM): 122 MiB the first time, 50 where they are kept from an earlier run.
COMPILER = 90 * MIB
#: Arrays below 32 MiB that were freed are not given back to the system by glibc, so some of the start stays. Measured.
KEPT = 64 * MIB
#: Voxels of a volume above which the history is kept in half precision.
HALF_HISTORY = 2**22


def history_itemsize(itemsize: int, wanted: str | None, voxels: int) -> int:
    """Bytes of a number in the history, where a field's has `itemsize`: half where memory counts, or it is `wanted`.

    Parameters
    ----------
    wanted : "float32", "bfloat16" or None
        ``optimizer.history_dtype``.
    voxels : int
        Of the whole volume.
    """
    if itemsize != 4 or wanted == "float32":
        return itemsize
    return 2 if wanted == "bfloat16" or voxels > HALF_HISTORY else itemsize


def largest(n: int, ranks: int) -> int:
    """Items of the first rank, which has most of `n` (see `partition`)."""
    return -(-n // ranks)


@dataclass(frozen=True)
class Work:
    """A run, as far as its memory depends on it.

    Attributes
    ----------
    shape : (nz, ny, nx)
    ranks : int
    threads : int
        Of each rank.
    lanes : int or None
        Blocks of `LANES` slices that a rank works on, and exchanges, at a time; None: one a thread.
    lags : int
        L of the window of S2.
    phases : int
        Channels: 1 (a phase against the rest), or all of three or more.
    optimizer : str
        ``optimizer.name``.
    history : int
        Pairs of L-BFGS.
    itemsize, history_itemsize : int
        Bytes of a number of the field, and of one in the history.
    halving : bool
        The history may be kept in half precision to save memory.
    start : str
        ``initial``: spectral, noise, file.
    diagonals, exact : bool
        ``target.diagonals``; ``output.threshold=exact``.
    report : bool
        ``run.report``.
    cuda : bool
        Fields live on a device; the start is made by the host.
    shared : bool
        The ranks look at each other's planes in memory; none keeps slices of others.
    libraries : int
        Resident memory of a process before it holds any volume.
    """

    shape: tuple[int, int, int]
    ranks: int = 1
    threads: int = 1
    lanes: int | None = None
    lags: int = 32
    phases: int = 1
    optimizer: str = "lbfgsb"
    history: int = 4
    itemsize: int = 4
    history_itemsize: int = 4
    halving: bool = False
    start: str = "spectral"
    diagonals: bool = False
    exact: bool = False
    report: bool = True
    cuda: bool = False
    shared: bool = False
    libraries: int = LIBRARIES

    @property
    def slab(self) -> int:
        """v, voxels of the largest slab."""
        return largest(self.shape[0], self.ranks) * self.shape[1] * self.shape[2]

    @property
    def variables(self) -> int:
        """Variables of a voxel."""
        return max(1, self.phases - 1)

    @property
    def together(self) -> int:
        """Blocks of slices that are under way at a time."""
        return min(self.lanes or self.threads, self.threads)


@dataclass(frozen=True)
class Buffer:
    """Some memory of a rank.

    Attributes
    ----------
    name : str
        For people.
    code : str
        Where it is made.
    bytes : int
    host : bool
        It lies in the host's memory even where the fields are on a device.
    """

    name: str
    code: str
    bytes: int
    host: bool = False


def base(work: Work) -> list[Buffer]:
    """The process itself."""
    found = [Buffer("process and libraries", "measured", work.libraries, host=True)]
    if work.cuda:
        found.append(Buffer("CUDA context", "estimate", CONTEXT))
    return found


def fit(work: Work) -> list[Buffer]:
    """Fitting the spectrum of the first field, on the first rank."""
    if work.start != "spectral":
        return []
    box = prod(min(BOX, n) for n in work.shape)
    return [Buffer("fit of the spectrum", "spectrum.fit_spectrum", FIT * box, host=True)]


def start(work: Work) -> list[Buffer]:
    """Making the first field: a filtered random field, in place (gaussian.py, parallel/fft3.py)."""
    nz, ny, nx = work.shape
    v, held = work.slab, work.itemsize * work.slab
    if work.start == "noise":
        return [Buffer("field", "start.py", held * work.variables)]
    if work.start == "file":
        return [Buffer("field and what was read", "initial.py", 3 * held * work.phases)]
    rows = largest(ny, work.ranks)
    planes, modes = v // (ny * nx), (nx // 2 + 1) * 2 * work.itemsize
    found = [
        Buffer("white noise, then the field", "gaussian.gaussian_field", held),
        Buffer("its spectrum", "fft3.filter: local", planes * ny * modes, host=True),
    ]
    if work.ranks > 1:
        found += [
            Buffer("rows of the spectrum", "fft3.filter: part", nz * rows * modes),
            Buffer("rows sent back", "fft3.filter: home", planes * ny * modes),
        ]
    if work.cuda:
        found.append(Buffer("copy of the noise", "fft3.filter: real", held, host=True))
    if work.variables > 1:
        found.append(Buffer("variables before", "start.py", held * (work.variables - 1)))
    return found


def relax(work: Work) -> list[Buffer]:
    """An iteration of the minimiser with its evaluation: relaxing, and driving to two phases."""
    one = work.slab * work.itemsize * work.variables
    found = [Buffer("field", "level.py: field", one), Buffer("gradient", "level.py: _gradient", one)]
    if work.optimizer == "lbfgsb":
        row = work.slab * work.history_itemsize * work.variables
        found += [
            Buffer("history: gradient", "history.py: rows[0]", row),
            Buffer(f"history: {work.history} pairs", "history.py: rows[1:]", 2 * work.history * row),
            Buffer("trial point", "lbfgsb.py: trial", one),
        ]
    elif work.optimizer == "adam":
        found.append(Buffer("moments", "adam.py: mean, square", 2 * one))
    elif work.optimizer == "scipy":
        # SciPy's: 2 m n + 5 n doubles, beside bounds, the point and the gradient, converted.
        vectors = 8 * work.slab * work.variables * (2 * work.history + 5 + 6)
        found.append(Buffer("SciPy's L-BFGS-B", "scipy_lbfgsb.py", vectors))
    return found + evaluation(work)


def flip(work: Work) -> list[Buffer]:
    """Rounding, and flipping voxels of the rounded field."""
    v = work.slab
    one = v * work.itemsize * work.variables
    found = [
        Buffer("field", "level.py: field", one),
        Buffer("rounded field", "level.py: rounded", one),
        Buffer("gradient", "level.py: _gradient", one),
        Buffer("gains", "flips.py: gain", one),
        Buffer(
            "candidates",
            "flips.py: 58 bytes, four a flip, of 0.4 % of the voxels",
            v * work.variables,
        ),
    ]
    if work.exact:
        found.append(Buffer("who may flip", "rounding.py: settle", 4 * v))
    return found + evaluation(work)


def evaluation(work: Work) -> list[Buffer]:
    """What a loss and its gradient take beside the field (objective.py, slab.py, descriptors)."""
    v, b = work.slab, work.itemsize
    found = []
    if work.phases > 1:
        found += [
            Buffer("channels", "phases.channels", v * b * work.phases),
            Buffer("their gradients", "objective._slopes", v * b * work.phases),
        ]
    if work.diagonals:
        found += [
            Buffer("sheared volume", "directions.sheared", v * b * work.phases),
            Buffer("its gradient", "objective._visit: own", 2 * v * b * work.phases),
        ]
    if work.ranks > 1 and work.shape[0] > 1 and not work.shared:
        found.append(Buffer("transposes", "slab.visit", _transposes(work)))
    found.append(Buffer("batches of slices", "look.py, correlation.py", work.together * _batch(work)))
    return found


def _transposes(work: Work) -> int:
    """Six times the slices of a round: those here, the next ones packed and arriving, and as many of gradients."""
    most = 0
    for axis in (1, 2):
        own = largest(work.shape[axis], work.ranks)
        slice_ = prod(work.shape) // work.shape[axis]
        most = max(most, min(own, LANES * work.together) * slice_)
    return 6 * most * work.itemsize * work.phases


def _batch(work: Work) -> int:
    """What a thread holds of its slices: the spectrum, its powers or filters, the gradient, padding."""
    nz, ny, nx = work.shape
    z_planes, x_planes = max(ny * nx, min(BATCH_VOXELS, work.slab)), LANES * nz * ny
    copies = 6 if work.cuda else 4  # cuFFT wants slices contiguous, and work space
    return max(z_planes, x_planes if nz > 1 else 0) * work.itemsize * copies * work.phases


def write(work: Work) -> list[Buffer]:
    """Writing the volume and its summary."""
    one = work.slab * work.itemsize * work.variables
    return [
        Buffer("relaxed and rounded field", "reconstruct.py: outcome", 2 * one),
        Buffer("gradient", "level.py: _gradient", one),
        Buffer("labels", "phases.label", work.slab),
        *evaluation(work),
    ]


def report(work: Work) -> list[Buffer]:
    """Making the report, on the first rank; it reads a few planes."""
    return [Buffer("report", "measured", REPORT, host=True)] if work.report else []


STAGES: dict[str, Callable[[Work], list[Buffer]]] = {
    "fit": fit,
    "start": start,
    "relax": relax,
    "flip": flip,
    "write": write,
    "report": report,
}


def buffers(work: Work, stage: str) -> list[Buffer]:
    """Everything that a rank holds in a stage."""
    kept = [] if stage in ("fit", "start") else _kept(work)
    return base(work) + STAGES[stage](work) + kept


def _kept(work: Work) -> list[Buffer]:
    """What stays of what was done before."""
    freed = min(4 * work.itemsize * work.slab, KEPT)
    found = [Buffer("freed, not given back", "measured", freed, host=True)]
    if work.optimizer == "lbfgsb" and not work.cuda:
        found.append(Buffer("compiler and kernels", "optimize/kernels.py", COMPILER, host=True))
    return found


def total(found: list[Buffer], host: bool | None = None) -> int:
    """Bytes of all, or of those in the host's memory (True) or on the device (False)."""
    return sum(one.bytes for one in found if host is None or one.host == host)


def peak(work: Work) -> tuple[str, int]:
    """The stage in which a rank holds most, where its fields live, and how much that is.

    On a CPU, all that it holds; with `cuda`, what it holds on the device.
    """
    place = False if work.cuda else None
    sizes = {stage: total(buffers(work, stage), place) for stage in STAGES}
    worst = max(sizes, key=lambda stage: sizes[stage])
    return worst, sizes[worst]


def fewest_ranks(work: Work, room: int) -> int | None:
    """The smallest number of ranks of which each holds at most `room` bytes; None: not even a plane each.

    From two ranks on, more of them hold no more each, so that bisection finds it; a single one sends nothing, and may
    hold less than each of two.
    """

    def enough(ranks: int) -> bool:
        return peak(replace(work, ranks=ranks))[1] <= room

    if enough(1):
        return 1
    several = range(2, work.shape[0] + 1)
    found = bisect_left(several, True, key=enough)
    return several[found] if found < len(several) else None


def sent(work: Work, rank: int | None = None) -> int:
    """Bytes that a rank, or all of them together, send to others in an evaluation with gradient.

    Slices normal to y and to x are brought together once, and their gradients brought home once: for equal
    slabs 4 V (P − 1)/P values in all.
    """
    if work.shape[0] == 1:
        return 0
    ranks = range(work.ranks) if rank is None else [rank]
    per_axis = []
    planes = [len(range(*piece)) for piece in partition(work.shape[0], work.ranks)]
    for axis in (1, 2):
        own = [len(range(*piece)) for piece in partition(work.shape[axis], work.ranks)]
        row = prod(work.shape) // work.shape[0] // work.shape[axis]
        away = sum(planes[r] * (work.shape[axis] - own[r]) for r in ranks) * row  # slices of others
        home = sum((work.shape[0] - planes[r]) * own[r] for r in ranks) * row  # gradients of others
        per_axis.append(away + home)
    diagonal = 2 * per_axis[0] + 4 * per_axis[1] if work.diagonals else 0
    return (sum(per_axis) + diagonal) * work.itemsize * work.phases


@dataclass(frozen=True)
class Disk:
    """Bytes on disk, uncompressed: labels with their pyramid, the field, one checkpoint."""

    phase: int
    field: int
    checkpoint: int


def disk(work: Work) -> Disk:
    """What a run with one level leaves, and what a checkpoint has: the field, and the minimiser's memory of it."""
    voxels = prod(work.shape)
    rows = 3 * work.itemsize if work.optimizer == "adam" else 0
    if work.optimizer == "lbfgsb":
        rows = (2 * work.history + 1) * work.history_itemsize
    return Disk(
        phase=voxels * 8 // 7,
        field=4 * voxels * work.phases,
        checkpoint=voxels * work.variables * (work.itemsize + rows),
    )
