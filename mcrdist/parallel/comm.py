"""What ranks say to one another; the only module that knows torch.distributed.

Alone, a rank needs no process group: every method has its meaning for one rank and costs nothing.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from mcrdist.errors import InputError, LostRankError
from mcrdist.parallel import meeting

Device = Literal["auto", "cpu", "cuda"]
_Object = TypeVar("_Object")

# gloo and NCCL count the elements of a call in 32 bits.
_MOST_ELEMENTS = 2**31 - 1
# The disk is as full for the ranks that have not met its end yet.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# Set on an error that all ranks raise: it may be caught, and a later one may be a rank's alone.
_AGREED = "mcrdist_agreed"
# What libraries say of a peer that does not come, or has gone.
_LATE = ("timed out", "timeout", "not met")
_SIGNS = (*_LATE, "connect", "peer", "socket", "broken pipe")
# The share of the time-out, and the most seconds, that a rank which waited in vain gives the others to say the same;
# and the seconds where a connection broke, which others notice soon.
_PATIENCE, _MOST_PATIENCE, _BROKEN = 0.05, 30.0, 3.0


class Pending:
    """An exchange under way. The buffer that is being sent must not change before ``wait`` returns."""

    def __init__(
        self, sent: Tensor, received: Tensor, work: Any, waiting: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._buffers, self._work, self._waiting = (sent, received), work, waiting

    def wait(self) -> Tensor:
        """Return the flat tensor of what all ranks sent here, in the order of the ranks."""
        if self._work is not None:
            with self._waiting():
                self._work.wait()
            self._work = None
            self._buffers = (self._buffers[1], self._buffers[1])  # what was sent can be freed
        return self._buffers[1]


class Comm:
    """A rank among its peers.

    Attributes
    ----------
    rank, size : int
        This rank, and the number of ranks.
    local_rank, local_size : int
        The same among the ranks on this machine.
    device : torch.device
        Where this rank's tensors live.
    shared_memory : bool
        Whether ranks that are all on this machine may read and write each other's fields where they lie.
    bytes_sent : int
        Bytes of fields that this rank has sent to other ranks in `exchange`, or that passed to them through memory
        that they share.
    task : str
        What the ranks are at work on, for the message when one of them is lost.
    board : Path or None
        A directory that all ranks see, where the first to notice that leaves word: one line is enough.
    """

    def __init__(self, rank: int, size: int, local_rank: int, local_size: int, device: torch.device) -> None:
        self.rank, self.size = rank, size
        self.local_rank, self.local_size = local_rank, local_size
        self.device = device
        self.shared_memory = False
        self.bytes_sent = 0
        self.task = "the start"
        self.board: Path | None = None
        self._timeout = 0.0
        self._meeting: tuple[meeting.Store, str] | None = None

    @classmethod
    def start(cls, device: Device = "auto", timeout: float = 1800.0, *, shared_memory: bool = True) -> Comm:
        """Join the ranks that torchrun started, or be the only one.

        Parameters
        ----------
        device : {"auto", "cpu", "cuda"}
            ``auto`` takes CUDA where every rank of this machine can have a device of its own.
        timeout : float
            Seconds that a rank waits for the others before it gives up with a LostRankError.
        shared_memory : bool
            Let ranks on CPUs of one machine share the memory of their fields, where the system can.

        Raises
        ------
        InputError
            ``cuda`` on a machine with fewer devices than ranks.
        LostRankError
            Not all ranks came.
        """
        rank, size = _environment("RANK", 0), _environment("WORLD_SIZE", 1)
        local_rank, local_size = _environment("LOCAL_RANK", 0), _environment("LOCAL_WORLD_SIZE", 1)
        place = _place(device, local_rank, local_size)
        if place.type == "cuda":
            torch.cuda.set_device(place)
            # TF32 keeps ten bits, too few for a gradient.
            torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
        comm = cls(rank, size, local_rank, local_size, place)
        if size > 1:
            comm._join(timeout)
            comm.shared_memory = shared_memory and place.type == "cpu" and sys.platform == "linux"
        return comm

    def _join(self, timeout: float) -> None:
        """Meet the ranks of this attempt, and connect with them."""
        self._timeout = timeout
        cuda = self.device.type == "cuda"
        with self._waiting("the meeting of all processes"):
            store = _store(os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT"), timeout)
            store.set_timeout(timedelta(seconds=timeout))
            name = meeting.meet(store, self.rank, self.size, timeout)
            dist.init_process_group(
                backend="nccl" if cuda else "gloo",
                store=dist.PrefixStore(name, store),  # type: ignore[attr-defined]
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=timeout),
                device_id=self.device if cuda else None,
            )
        self._meeting = store, name

    def close(self) -> None:
        """Leave the other ranks; harmless when called again."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Leaving in order waits for exchanges under way, and after an error the others may never take part.
        # But when all ranks raise because they agreed to, they leave in order too: a process that ends
        # without may be aborted by its library's threads, with another exit status than the error's.
        if kind is None or _is_agreed(error):
            self.close()

    @contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        """Say of a library's error in what all ranks do together which it was, and who is missing."""
        try:
            yield
        except (RuntimeError, TimeoutError) as error:
            reason = " ".join(str(error).split())
            if not isinstance(error, dist.DistError) and not any(sign in reason.lower() for sign in _SIGNS):
                raise
            raise self._lost(what, reason) from error

    def _lost(self, what: str, reason: str) -> LostRankError:
        late = any(sign in reason.lower() for sign in _LATE)
        patience = min(_PATIENCE * self._timeout, _MOST_PATIENCE) if late else 0.0
        silent = self._silent(max(_BROKEN, patience))
        missing = f"; missing: rank {', '.join(map(str, silent))}" if silent else ""
        happened = f"waited {self._timeout:g} s in vain for" if late else "lost a connection in"
        return LostRankError(
            f"rank {self.rank} of {self.size}: {self.task}: {happened} {what}{missing}; see what that process and "
            f"its machine did, and go on with resume=true ({reason})",
            spoken_for=silent is None or not self._has_the_word(),
        )

    def _has_the_word(self) -> bool:
        return (
            self.board is None or self._meeting is None or meeting.has_the_word(self.board, self._meeting[1])
        )

    def _silent(self, patience: float) -> list[int] | None:
        """Which ranks do not say that they wait in vain too; None where a lower one says so."""
        found: list[list[int] | None] = []
        if self._meeting is not None:
            store, name = self._meeting

            def ask() -> None:
                with suppress(RuntimeError):  # the store is gone with the process that had it
                    found.append(meeting.absent(store, name, self.rank, self.size, patience))

            # A store whose process hangs answers nothing, and does not let go.
            asking = threading.Thread(target=ask, daemon=True)
            asking.start()
            asking.join(patience + _BROKEN)
        if found:
            return found[0]
        ours = "TORCHELASTIC_RUN_ID" not in os.environ and self.rank != 0
        return [0] if self._meeting is not None and ours else []

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size == 1:
            return
        # A word from each to each: every rank notices itself which one is gone, as it may not in a sum.
        word = torch.zeros(self.size, dtype=torch.uint8, device=self.device)
        with self._waiting(f"all_to_all of {_described(word)}"):
            dist.all_to_all_single(torch.empty_like(word), word)

    def broadcast(self, value: _Object, source: int = 0) -> _Object:
        """Return the `value` of rank `source`: a small object that can be pickled."""
        if self.size == 1:
            return value
        box = [value if self.rank == source else None]
        with self._waiting(f"broadcast of an object from rank {source}"):
            dist.broadcast_object_list(box, src=source)
        return box[0]  # type: ignore[return-value]

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true on any rank."""
        return bool(self.sum_integers(np.array([flag], dtype=np.int64))[0])

    def sum_integers(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the exact sum over the ranks of an int64 array, the same on all of them."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.int64, device=self.device)
        with self._waiting(f"all_reduce of {_described(total)}"):
            dist.all_reduce(total)
        return total.cpu().numpy()

    def gather_rows(
        self, rows: NDArray[np.float64], counts: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """Return the rows of all ranks, rank after rank, on every rank.

        Parameters
        ----------
        rows : float64 array (n_local, k)
            `n_local` may differ between the ranks and be 0; `k` is the same everywhere.
        counts : sequence of int, optional
            `n_local` of every rank, by rank. Where it is not known, it takes a message more.

        Returns
        -------
        float64 array (n_total, k)
            Not summed, and never reduced by a library: the caller sums in an order that does not depend on
            the number of ranks.
        """
        assert rows.ndim == 2 and rows.dtype == np.float64, (rows.shape, rows.dtype)
        if self.size == 1:
            return rows
        if counts is None:
            own = np.zeros(self.size, dtype=np.int64)
            own[self.rank] = len(rows)
            counts = self.sum_integers(own).tolist()
        assert len(rows) == counts[self.rank], (len(rows), counts)
        padded = torch.zeros(max(counts), rows.shape[1], dtype=torch.float64)
        padded[: len(rows)] = torch.from_numpy(rows)
        padded = padded.to(self.device)
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        with self._waiting(f"all_gather of {_described(padded)}"):
            dist.all_gather(parts, padded)
        return np.concatenate([part[:count].cpu().numpy() for part, count in zip(parts, counts, strict=True)])

    def gather(self, value: _Object) -> list[_Object]:
        """Return the `value` of every rank, by rank, on all of them: small objects that can be pickled."""
        if self.size == 1:
            return [value]
        told: list[Any] = [None] * self.size
        with self._waiting("all_gather of objects"):
            dist.all_gather_object(told, value)
        return told

    def exchange(self, packed: Tensor, send: Sequence[int], receive: Sequence[int]) -> Pending:
        """Start to send every rank its part of a buffer, and to receive one part from each.

        Parameters
        ----------
        packed : contiguous tensor
            The parts for rank 0, 1, ... one after the other. It must not change before the exchange is over.
        send, receive : sequence of int
            Elements for, and from, each rank; 0 is allowed. All ranks take part in the same order.

        Returns
        -------
        Pending
            Its ``wait`` gives the received elements, flat, by rank. Alone, that is `packed` itself.
        """
        flat = packed.view(-1)
        assert sum(send) == flat.numel() and len(send) == len(receive) == self.size, (send, packed.shape)
        if self.size == 1:
            return Pending(flat, flat, None, nullcontext)
        assert max(sum(send), sum(receive)) <= _MOST_ELEMENTS, "exchange in smaller pieces"
        received = flat.new_empty(sum(receive))
        waiting = functools.partial(self._waiting, f"all_to_all of {_described(flat)}")
        with waiting():
            work = dist.all_to_all_single(received, flat, list(receive), list(send), async_op=True)
        self.bytes_sent += (sum(send) - send[self.rank]) * flat.element_size()
        return Pending(flat, received, work, waiting)

    def first(self, work: Callable[[], _Object]) -> _Object:
        """Let the first rank do the work; all ranks get its result, or raise its error as `agree` does."""
        result: Any = None
        error: BaseException | None = None
        if self.rank == 0:
            try:
                result = work()
            except Exception as problem:
                error = problem
        self.agree(error)
        return self.broadcast(result)  # type: ignore[no-any-return]

    def agree(self, error: BaseException | None) -> None:
        """Return when no rank has an error, else raise on all of them. Every rank must call this.

        Raises
        ------
        InputError, OSError
            When the lowest failing rank has an InputError or a full disk: the same on every rank.
        BaseException
            Any other error: a failing rank raises its own, the rest a RuntimeError that names the lowest
            failing rank.
        """
        if self.size == 1:
            if error is not None:
                raise error
            return
        if not self.any(error is not None):
            return
        told = self.gather(_words(error))
        rank, (kind, words) = next((r, said) for r, said in enumerate(told) if said is not None)
        if error is not None and (rank == self.rank or kind == "other"):
            raise _agreed(error)
        if kind == "input":
            raise _agreed(InputError(*words)) from error
        if kind == "disk":
            raise _agreed(OSError(*words)) from error
        raise _agreed(RuntimeError(f"rank {rank} failed: {words[0]}"))


def _agreed(error: BaseException) -> BaseException:
    """Mark an error that every rank is about to raise: all are here."""
    setattr(error, _AGREED, True)
    return error


def _is_agreed(error: BaseException | None) -> bool:
    """Whether all ranks raise this error, or raised the one in whose course it came up."""
    while error is not None and not getattr(error, _AGREED, False):
        error = error.__cause__ or error.__context__
    return error is not None


def _words(error: BaseException | None) -> tuple[str, tuple[Any, ...]] | None:
    """Describe an error to other ranks: its kind, and the arguments to make it again with."""
    if error is None:
        return None
    if isinstance(error, InputError):
        return "input", (str(error),)
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return "disk", (error.errno, error.strerror, error.filename)
    return "other", (f"{type(error).__name__}: {error}",)


def _described(tensor: Tensor) -> str:
    """Shape, dtype and size of what is sent, for messages."""
    shape = "x".join(map(str, tensor.shape))
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{shape} {dtype} ({tensor.numel() * tensor.element_size()} bytes)"


@functools.cache
def _store(address: str | None, port: str | None, timeout: float) -> Any:
    """Where ranks leave word for one another: the launcher's, or one that the first rank has as long as it lives.

    The arguments, but the last, are read from the environment; they stand here for the cache to tell stores apart.
    """
    del address, port
    store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
    return store


def _environment(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


def _place(device: Device, local_rank: int, local_size: int) -> torch.device:
    found = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    if device == "cuda" and found < local_size:
        raise InputError(
            f"runtime.device: expected a CUDA device for each of {local_size} ranks on this machine, "
            f"found {found}; start {found} ranks or use runtime.device=cpu"
            if found
            else "runtime.device: expected a CUDA device, found none; use runtime.device=cpu"
        )
    return torch.device("cuda", local_rank) if 0 < local_size <= found else torch.device("cpu")
