"""Ranks and slabs: the same numbers, in the same places, on any number of ranks, whatever the sizes."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from ranks import RankError
from torch import Tensor

from mcrdist.errors import InputError
from mcrdist.optimize.history import History
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.fft3 import SlabFFT
from mcrdist.parallel.random import noise, plane_noise
from mcrdist.parallel.slab import Slab, partition
from mcrdist.parallel.threads import Workers, configure

# Primes; even sizes; fewer planes than ranks; fewer rows than ranks; planes of more than one block.
SHAPES = [(7, 5, 11), (12, 6, 18), (2, 7, 3), (5, 2, 13), (3, 101, 97)]
WIDTH = 2
RunRanks = Callable[..., list[Any]]


def volume(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape)


def slices_of(array: Any, axis: int) -> Any:
    """Slices (S, H, W) of a volume, the rows and columns being the other axes in the order z, y, x."""
    return np.moveaxis(array, axis, 0)


def contribution(first: int, slices: Tensor) -> Tensor:
    """A function of a slice, its number and all its pixels that tells rows from columns."""
    numbers = torch.arange(first, first + len(slices), dtype=slices.dtype).view(-1, 1, 1)
    return slices.cumsum(2) * (numbers + 1) - slices.cumsum(1)


def ranks_at_work(threads: int, shapes: list[tuple[int, int, int]], shared: bool) -> dict[str, Any]:
    """Everything that a rank computes, for the tests below to compare."""
    out: dict[str, Any] = {}
    with Comm.start("cpu", timeout=60, shared_memory=shared) as comm:
        workers = configure(threads)
        for shape in shapes:
            out[str(shape)] = _one_shape(comm, workers, shape)
        out["rows"] = comm.gather_rows(np.arange(3.0 * comm.rank).reshape(comm.rank, 3) + 10 * comm.rank)
        out["no rows"] = comm.gather_rows(np.empty((0, 3)))
        out["sum"] = comm.sum_integers(np.array([2**62 - 1 if comm.rank == 0 else 1, -comm.rank]))
        out["any"] = comm.any(comm.rank == comm.size - 1), comm.any(False)
        out["said"] = comm.broadcast({"rank": comm.rank}, comm.size - 1)
        out["errors"] = _agreements(comm)
        comm.barrier()
        out["shared memory"] = comm.shared_memory
        workers.close()
    return out


def _one_shape(comm: Comm, workers: Workers, shape: tuple[int, int, int]) -> dict[str, Any]:
    whole = volume(shape)
    out: dict[str, Any] = {}
    slab = Slab(shape, comm, workers, torch.float32)
    field = slab.seen(slab.load(lambda start, stop: whole[start:stop]))
    gradient = slab.room(field).zero_()
    numbers = [(axis, np.array([[100.0 * axis + k, -k] for k in slab.owned(axis)])) for axis in (0, 2, 1)]
    out["numbers"] = slab.gather_slices([(axis, own.reshape(-1, 2)) for axis, own in numbers])
    out["planes"] = slab.gather_rows(np.array(range(slab.start, slab.stop), float)[:, None])
    values: list[list[tuple[int, np.ndarray]]] = [[], [], []]
    sent = comm.bytes_sent
    for axis in range(3):

        def work(first: int, fields: list[Tensor], gradients: list[Tensor] | None, axis: int = axis) -> None:
            assert gradients is not None
            (slices,), (below,) = fields, gradients
            assert below.stride() == slices.stride()
            assert slices.dim() == 3 and len(slices) > 0
            values[axis].extend((first + i, s.clone().numpy()) for i, s in enumerate(slices))
            below.add_(contribution(first, slices))

        slab.visit(axis, [field], [gradient], work, width=WIDTH)
    out["values"], out["gradient"] = values, (slab.start, gradient.numpy())
    out["sent"] = comm.bytes_sent - sent

    seen: list[int] = []
    sent = comm.bytes_sent
    slab.visit(2, [field], None, lambda first, slices, below: seen.append(len(slices[0])), width=WIDTH)
    out["seen"], out["sent without gradient"] = sum(seen), comm.bytes_sent - sent

    labels = (field > 0).to(torch.uint8)
    out["blocks"] = [(z, block.copy()) for z, block in slab.blocks(field, 2)]
    out["labels"] = [(z, block.copy()) for z, block in slab.blocks(labels, 3)]

    out["learnt"] = [_learn(slab, dtype) for dtype in (torch.float32, torch.bfloat16)]
    out["noise"] = noise(slab, 3, 1, "uniform", stream=4).numpy()

    for dtype in (torch.float32, torch.float64):
        filtered = SlabFFT(slab).filter(field.to(dtype), lambda ys: transfer(shape)[:, ys.start : ys.stop])
        assert filtered.dtype == dtype
        out[f"filtered {dtype}"] = filtered.numpy()
    return out


def _learn(slab: Slab, dtype: torch.dtype) -> list[Any]:
    """What an optimiser makes of a few steps: its products, the direction, and the slope along it."""
    points = [noise(slab, 1, 0, "uniform", stream=k) for k in range(4)]
    history = History(points[0], 2, dtype, slab.comm.gather_rows, slab.workers.map)
    history.begin(points[0], points[0] - 0.5)
    for last, x in pairwise(points):
        history.learn(x, last, x - 0.5 + 0.1 * (x - last) ** 2)
    coefficients = history.coefficients()
    assert coefficients is not None
    slope = history.move(points[-1], coefficients, 0.5, points[0])
    return [
        history._whole,
        history._free,
        history.projected_gradient,
        history.largest_free,
        coefficients,
        slope,
    ]


def transfer(shape: tuple[int, int, int]) -> np.ndarray:
    """Some Hermitian, complex transfer function: a blur and a shift."""
    z, y = (np.fft.fftfreq(n)[(slice(None),) + (None,) * k] for n, k in zip(shape[:2], (2, 1), strict=True))
    x = np.fft.rfftfreq(shape[2])
    return np.exp(-3 * (z**2 + 2 * y**2 + x**2)) * np.exp(-2j * np.pi * (z * (z > -0.5) + x * (x < 0.5)))


def _agreements(comm: Comm) -> list[tuple[str, str]]:
    """What every rank is told when some of them have an error."""
    last = comm.rank == comm.size - 1
    raised = []
    for error in (
        None,
        InputError(f"rank {comm.rank} is not pleased") if last or comm.rank == 1 else None,
        OSError(errno.ENOSPC, "No space left on device", "volume.zarr") if last else None,
        KeyError("own") if last else None,
    ):
        try:
            comm.agree(error)
            raised.append(("nothing", ""))
        except Exception as told:
            raised.append((type(told).__name__, str(told)))
    return raised


@pytest.fixture(scope="module", params=[True, False], ids=["shared memory", "sockets"])
def everywhere(request: pytest.FixtureRequest, run_ranks: RunRanks) -> dict[int, list[dict[str, Any]]]:
    """What each rank of 1, 2 and 3 computed, with 1, 3 and 2 threads."""
    found = {
        size: run_ranks(ranks_at_work, size, threads, SHAPES, request.param)
        for size, threads in ((1, 1), (2, 3), (3, 2))
    }
    if sys.platform == "linux":
        assert all(rank["shared memory"] == request.param for size in (2, 3) for rank in found[size])
    return found


def assemble(ranks: list[dict[str, Any]], shape: tuple[int, int, int], name: str) -> np.ndarray:
    return np.concatenate([rank[str(shape)][name] for rank in ranks])


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_slice_is_seen_once_and_its_gradient_comes_home(everywhere: Any, shape: Any, size: int) -> None:
    field = torch.from_numpy(volume(shape)).float()
    expected = torch.zeros_like(field)
    for axis in range(3):
        found = [pair for rank in everywhere[size] for pair in rank[str(shape)]["values"][axis]]
        assert [number for number, _ in found] == list(range(shape[axis]))
        np.testing.assert_array_equal([values for _, values in found], slices_of(field.numpy(), axis))
        for number in range(shape[axis]):  # the plain loop
            expected.select(axis, number).add_(contribution(number, field.select(axis, number)[None])[0])
    parts = [rank[str(shape)]["gradient"] for rank in everywhere[size]]
    assert [start for start, _ in parts] == [start for start, _ in partition(shape[0], size)]
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), expected.numpy())


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_rank_has_the_numbers_of_all_slices(everywhere: Any, shape: Any, size: int) -> None:
    for rank in everywhere[size]:
        for axis, found in zip((0, 2, 1), rank[str(shape)]["numbers"], strict=True):
            assert found.tolist() == [[100 * axis + k, -k] for k in range(shape[axis])]
        assert rank[str(shape)]["planes"][:, 0].tolist() == list(range(shape[0]))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_value_travels_that_need_not(everywhere: Any, shape: Any, size: int) -> None:
    voxels = int(np.prod(shape))
    planes = [stop - start for start, stop in partition(shape[0], size)]
    stays = {
        axis: sum(p * (b - a) for p, (a, b) in zip(planes, partition(shape[axis], size), strict=True))
        * (voxels // shape[0] // shape[axis])
        for axis in (1, 2)
    }
    moves = 2 * (2 * voxels - stays[1] - stays[2])
    sent = sum(rank[str(shape)]["sent"] for rank in everywhere[size])
    assert sent == moves * 4
    if all(n % size == 0 for n in shape):
        assert sent == 4 * voxels * (size - 1) // size * 4  # as the design promises
    assert sum(rank[str(shape)]["sent without gradient"] for rank in everywhere[size]) == (
        4 * (voxels - stays[2])
    )
    assert sum(rank[str(shape)]["seen"] for rank in everywhere[size]) == shape[2]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_have_one_writer_each(everywhere: Any, shape: Any, size: int) -> None:
    field = volume(shape).astype(np.float32)
    for name, depth, expected in (("blocks", 2, field), ("labels", 3, (field > 0).astype(np.uint8))):
        written = np.full_like(expected, 99)
        starts = []
        for index, rank in enumerate(everywhere[size]):
            for z0, block in rank[str(shape)][name]:
                assert z0 // depth % size == index and block.dtype == expected.dtype
                written[z0 : z0 + len(block)] = block
                starts.append(z0)
        assert sorted(starts) == list(range(0, shape[0], depth))
        np.testing.assert_array_equal(written, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_optimiser_and_noise_know_neither_ranks_nor_threads(everywhere: Any, shape: Any) -> None:
    alone = everywhere[1][0][str(shape)]
    for size in (2, 3):
        for rank in everywhere[size]:
            for found, expected in zip(rank[str(shape)]["learnt"], alone["learnt"], strict=True):
                for one, other in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(assemble(everywhere[size], shape, "noise"), alone["noise"])


@pytest.mark.parametrize("shape", SHAPES)
def test_filtering_is_that_of_the_whole_volume(everywhere: Any, shape: Any) -> None:
    field = volume(shape).astype(np.float32)
    expected = scipy.fft.irfftn(scipy.fft.rfftn(field.astype(np.float64)) * transfer(shape), s=shape)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        alone = assemble(everywhere[1], shape, f"filtered {dtype}")
        assert np.abs(alone - expected).max() < tolerance
        for size in (2, 3):
            np.testing.assert_array_equal(assemble(everywhere[size], shape, f"filtered {dtype}"), alone)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_what_ranks_say_to_one_another(everywhere: Any, size: int) -> None:
    rows = np.concatenate([np.arange(3.0 * r).reshape(r, 3) + 10 * r for r in range(size)])
    for rank in everywhere[size]:
        np.testing.assert_array_equal(rank["rows"], rows)
        assert rank["no rows"].shape == (0, 3)
        assert rank["sum"].tolist() == [2**62 - 1 + size - 1, -sum(range(size))]
        assert rank["any"] == (True, False)
        assert rank["said"] == {"rank": size - 1}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_an_error_of_one_rank_is_everybodys(everywhere: Any, size: int) -> None:
    for index, rank in enumerate(everywhere[size]):
        nothing, mistake, disk, other = rank["errors"]
        assert nothing == ("nothing", "")
        assert mistake == ("InputError", f"rank {min(1, size - 1)} is not pleased")
        assert disk == ("OSError", "[Errno 28] No space left on device: 'volume.zarr'")
        if index == size - 1:
            assert other == ("KeyError", "'own'")
        else:
            assert other == ("RuntimeError", f"rank {size - 1} failed: KeyError: 'own'")


def _wait_in_vain(seconds: float) -> float:
    with Comm.start("cpu", timeout=seconds) as comm:
        if comm.rank == 1:
            time.sleep(60)
        comm.barrier()
    return seconds


def _leave_in_the_middle() -> None:
    with Comm.start("cpu", timeout=60) as comm:
        buffer = torch.ones(2_000_000)
        if comm.rank == 1:
            comm.exchange(buffer, [1_000_000] * 2, [1_000_000] * 2)
            raise InputError("only here")
        comm.gather_rows(np.ones((1, 1)))


def _leave_after_an_agreement(left: Path) -> bool:
    """One rank leaves with an error of its own and an exchange under way, after one that all have dealt with."""
    try:
        with Comm.start("cpu", timeout=60) as comm:
            with suppress(InputError):
                comm.agree(InputError("everybody's") if comm.rank == 1 else None)
            if comm.rank == 1:
                comm.exchange(torch.ones(4), [2, 2], [2, 2])
                raise KeyError("only here")
            until = time.monotonic() + 15
            while not left.exists() and time.monotonic() < until:
                time.sleep(0.05)
    except KeyError:
        left.touch()
    return left.exists()


def _leave_together() -> bool:
    """All raise the same, and something goes wrong on one of them on its way out."""
    comm = Comm.start("cpu", timeout=60)
    with suppress(InputError, KeyError), comm:
        try:
            comm.agree(InputError("everybody's") if comm.rank == 1 else None)
        finally:
            if comm.rank == 0:
                raise KeyError("while it cleans up")
    return torch.distributed.is_initialized()


def test_errors_that_are_agreed_on_let_ranks_leave_in_order_and_no_others(
    run_ranks: RunRanks, tmp_path: Path
) -> None:
    assert run_ranks(_leave_after_an_agreement, 2, tmp_path / "left") == [True, True]
    assert run_ranks(_leave_together, 2) == [False, False]


def test_a_rank_that_hangs_or_leaves_does_not_hold_the_others(run_ranks: RunRanks) -> None:
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"[Tt]imed out"):
        run_ranks(_wait_in_vain, 2, 2.0)
    with pytest.raises((InputError, RuntimeError, RankError), match=r"only here|closed"):
        run_ranks(_leave_in_the_middle, 2)
    assert time.monotonic() - start < 55  # of the minute that the rank sleeps


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"runtime\.device.*use runtime\.device=cpu"):
        Comm.start("cuda")
    assert Comm.start("auto").device == torch.device("cpu")


@pytest.mark.parametrize("size", [1, 2, 5, 9])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9])
def test_partition_is_whole_and_even(n: int, size: int) -> None:
    pieces = partition(n, size)
    assert [i for start, stop in pieces for i in range(start, stop)] == list(range(n))
    lengths = [stop - start for start, stop in pieces]
    assert len(pieces) == size and max(lengths) - min(lengths) <= 1
    assert lengths == sorted(lengths, reverse=True)


def test_alone_slices_are_views(monkeypatch: pytest.MonkeyPatch) -> None:
    slab = Slab((4, 5, 6), Comm(0, 1, 0, 1, torch.device("cpu")), Workers(1))
    field, gradient = slab.zeros(), slab.zeros()
    for axis in range(3):
        calls: list[tuple[int, int, int]] = []

        def work(
            first: int, fields: list[Tensor], gradients: list[Tensor] | None, calls: Any = calls
        ) -> None:
            assert gradients is not None
            (slices,), (below,) = fields, gradients
            calls.append((len(slices), slices.data_ptr(), below.data_ptr()))

        slab.visit(axis, [field], [gradient], work, width=1)
        assert calls == [((4, 5, 6)[axis], field.data_ptr(), gradient.data_ptr())]
    assert [block.ctypes.data for _, block in slab.blocks(field, 4)] == [field.data_ptr()]


def test_noise_differs_between_planes_levels_seeds_and_streams() -> None:
    drawn = [plane_noise(*key[:3], (8, 9), stream=key[3]) for key in np.eye(4, dtype=int).tolist()]
    assert len({values.tobytes() for values in drawn}) == 4
    many = plane_noise(0, 0, 0, (200, 200))
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02
    uniform = plane_noise(0, 0, 0, (200, 200), "uniform")
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.01


def test_workers_keep_order_pass_errors_on_and_may_be_nested() -> None:
    workers = Workers(2)
    running: list[int] = []

    def job(item: int) -> int:
        time.sleep(0.01 * (5 - item))
        running.append(item)
        if item == 1:
            raise InputError("one")
        return item

    assert workers.map(lambda item: workers.map(lambda k: k * item, range(3)), range(4)) == [
        [0, item, 2 * item] for item in range(4)
    ]
    with pytest.raises(InputError, match="one"):
        workers.map(job, range(5))
    finished = len(running)
    time.sleep(0.1)
    assert len(running) == finished  # nobody is still at work
    workers.close()
