"""Who owns which planes and slices of a volume, and how slices come together and gradients go home."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcrdist.parallel import shared
from mcrdist.parallel.comm import Comm, Pending
from mcrdist.parallel.threads import Workers

Work = Callable[[int, list[Tensor], list[Tensor] | None], None]

# Dimensions that make slices (S, H, W) of a volume (Z, Y, X), by the axis they are normal to.
_SLICES = ((0, 1, 2), (1, 0, 2), (2, 0, 1))


def partition(n: int, size: int) -> list[tuple[int, int]]:
    """Cut ``range(n)`` into `size` near-equal pieces (start, stop), the longer ones first.

    Pieces are empty, at the end, when there are fewer items than pieces.
    """
    short, longer = divmod(n, size)
    starts = [rank * short + min(rank, longer) for rank in range(size + 1)]
    return list(pairwise(starts))


class Slab:
    """This rank's z-planes of a volume that all ranks hold together.

    Parameters
    ----------
    shape : (nz, ny, nx)
        Voxels of the whole volume. There may be fewer planes than ranks: some slabs are empty then.
    comm : Comm
        The ranks.
    workers : Workers
        The threads of this rank.
    dtype : torch.dtype
        Of the tensors that the slab makes.

    Attributes
    ----------
    start, stop, planes : int
        The slab is ``volume[start:stop]``, with ``planes == stop - start``.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        comm: Comm,
        workers: Workers,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.shape, self.comm, self.workers, self.dtype = shape, comm, workers, dtype
        self.owners = [[range(*piece) for piece in partition(n, comm.size)] for n in shape]
        own = self.owners[0][comm.rank]
        self.start, self.stop, self.planes = own.start, own.stop, len(own)
        self._scratch: dict[str, Tensor] = {}

    @property
    def local_shape(self) -> tuple[int, int, int]:
        """Shape (planes, ny, nx) of this rank's tensors."""
        return self.planes, self.shape[1], self.shape[2]

    def empty(self) -> Tensor:
        """Return an uninitialised local tensor (planes, ny, nx)."""
        return torch.empty(self.local_shape, dtype=self.dtype, device=self.comm.device)

    def zeros(self) -> Tensor:
        """Return a local tensor (planes, ny, nx) of zeros."""
        return torch.zeros(self.local_shape, dtype=self.dtype, device=self.comm.device)

    def room(self, like: Tensor) -> Tensor:
        """Return an uninitialised tensor as `like` (planes, ...), contiguous, that others see if they can. Collective.

        See `visit` for what that is good for.
        """
        whole = shared.allocate(self.comm, self.owners[0], like.shape[1:], like.dtype)
        if whole is None:
            return torch.empty_like(like, memory_format=torch.contiguous_format)
        return whole[self.start : self.stop]

    def seen(self, local: Tensor) -> Tensor:
        """Return `local` (planes, ...), or a copy of it that the other ranks see if they can. Collective."""
        if not self.comm.shared_memory or shared.whole(local, self.owned(0), self.shape[0]) is not None:
            return local
        room = self.room(local)
        return room.copy_(local) if self.comm.shared_memory else local

    def scratch(self, name: str, like: Tensor) -> Tensor:
        """Return a `room` that is the same one each time, for values that nobody needs at the next call. Collective.

        Where the ranks do not see each other's memory it is a new one, which is gone when it is not needed.
        """
        if not self.comm.shared_memory:
            return self.room(like)
        if name not in self._scratch or self._scratch[name].shape != like.shape:
            self._scratch[name] = self.room(like)
        return self._scratch[name]

    def load(self, read: Callable[[int, int], NDArray[Any]]) -> Tensor:
        """Return a local tensor of what ``read(start, stop)`` gives: planes (stop - start, ny, nx)."""
        local = self.empty()
        if self.planes:
            local.copy_(
                torch.from_numpy(np.array(read(self.start, self.stop), order="C"))
            )  # what is read may be read-only
        return local

    def owned(self, axis: int) -> range:
        """Return the slices normal to `axis` (0: z, 1: y, 2: x) that this rank evaluates."""
        return self.owners[axis][self.comm.rank]

    def gather_rows(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rows (nz, k) of all planes from those (planes, k) of each rank's. Collective."""
        return self.gather_slices([(0, rows)])[0]

    def gather_slices(self, parts: Sequence[tuple[int, NDArray[np.float64]]]) -> list[NDArray[np.float64]]:
        """Return rows of numbers for all slices from those that each rank has evaluated, in one message. Collective.

        Parameters
        ----------
        parts : sequence of (axis, float64 array (owned slices, k))
            A row for each slice normal to the axis that this rank owns; k is the same for all.

        Returns
        -------
        list of float64 array (slices, k)
            For each part, the rows of all ranks in the order of the slices.
        """
        counts = [[len(own) for own in self.owners[axis]] for axis, _ in parts]
        a_rank = np.sum(counts, axis=0)
        rows = self.comm.gather_rows(np.concatenate([own for _, own in parts]), a_rank.tolist())
        by_rank = np.split(rows, np.cumsum(a_rank)[:-1])
        pieces = [
            np.split(own, np.cumsum([one[rank] for one in counts])[:-1]) for rank, own in enumerate(by_rank)
        ]
        return [np.concatenate(of_part) for of_part in zip(*pieces, strict=True)]

    def visit(
        self,
        axis: int,
        fields: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        work: Work,
        width: int = 16,
    ) -> None:
        """Show `work` this rank's slices normal to `axis`, and bring home what it adds to the gradients.

        Collective. Alone, or along z, or where all `fields` and `gradients` are of `room`, which others see, `work`
        sees the fields themselves, the planes of other ranks too. Otherwise the ranks go in rounds of at
        most `width` slices each; while one round is computed the next one's slices are on their way here and
        the last one's gradients on their way home. A rank holds at most about ``6 * width`` slices of every field
        besides `fields` and `gradients`, and sends each value of a field, and of a gradient, that belongs elsewhere
        exactly once. As many bytes are counted in `Comm.bytes_sent` where they pass through shared memory.

        Parameters
        ----------
        axis : int
            0: slices (y, x); 1: slices (z, x); 2: slices (z, y).
        fields : sequence of tensor (planes, ny, nx)
            Contiguous; the channels that are looked at together.
        gradients : sequence of tensor (planes, ny, nx) or None
            Added to in place, one for each field.
        work : callable (first, slices, gradients) -> None
            `slices`, one (S, H, W) for each field, are the global slices ``first, ..., first + S - 1``, strided
            views; `gradients` is None or views of the same shapes and layouts, to be added into in place. It is not
            called without slices. For a gradient that is bit for bit the same on any number of ranks, `work` adds
            once to each voxel, and a finished number: not with ``add_(..., alpha=...)``, whose product and
            sum may be rounded together.
        width : int
            Slices a rank and round. All ranks give the same.
        """
        order = _SLICES[axis]
        if axis == 0 or self.comm.size == 1:
            if len(self.owned(axis)):
                below = None if gradients is None else [gradient.permute(order) for gradient in gradients]
                work(self.owned(axis).start, [field.permute(order) for field in fields], below)
            return
        if self._in_place(axis, fields, gradients, work):
            return
        rounds = self._rounds(axis, width)
        shape = fields[0].shape
        arriving = [self.gather(field, axis, rounds[0]) for field in fields]
        home: tuple[Sequence[range], list[Pending]] | None = None
        for index, cuts in enumerate(rounds):
            slices = [self.whole(pending.wait(), axis, cuts, shape) for pending in arriving]
            if index + 1 < len(rounds):
                arriving = [self.gather(field, axis, rounds[index + 1]) for field in fields]
            own = cuts[self.comm.rank]
            contributions = None if gradients is None else [torch.zeros_like(part) for part in slices]
            if len(own):
                below = None if contributions is None else [part.permute(order) for part in contributions]
                work(own.start, [part.permute(order) for part in slices], below)
            if gradients is not None and contributions is not None:
                if home is not None:
                    self._add(gradients, axis, *home)
                home = cuts, [self.scatter(part, axis, cuts, shape) for part in contributions]
        if gradients is not None and home is not None:
            self._add(gradients, axis, *home)

    def _in_place(
        self, axis: int, fields: Sequence[Tensor], gradients: Sequence[Tensor] | None, work: Work
    ) -> bool:
        """Let `work` see the volumes where they lie, if all ranks have them in their memory; return whether so."""
        parts = [*fields, *(gradients or ())]
        wholes = [shared.whole(part, self.owned(0), self.shape[0]) for part in parts]
        own, nz = self.owned(axis), self.shape[0]
        slices = [
            whole.narrow(axis, own.start, len(own)).permute(_SLICES[axis])
            for whole in wholes
            if whole is not None
        ]
        if len(slices) < len(parts):
            return False
        self.comm.barrier()  # every rank has done with its planes what it had to do
        if len(own):
            below = None if gradients is None else slices[len(fields) :]
            work(own.start, slices[: len(fields)], below)
        self.comm.barrier()
        row = self.shape[3 - axis] * slices[0].element_size()  # what a plane and a slice have in common
        away, home = self.planes * (self.shape[axis] - len(own)), (nz - self.planes) * len(own)
        self.comm.bytes_sent += row * (len(fields) * away + (len(parts) - len(fields)) * home)
        return True

    def _rounds(self, axis: int, width: int) -> list[list[range]]:
        """Cut every rank's slices into rounds: for each round, the slices that each rank takes.

        The cuts are at multiples of `width`, so that blocks of slices that belong together stay so.
        """
        first = [own.start // width for own in self.owners[axis]]
        count = max(-(-own.stop // width) - k for own, k in zip(self.owners[axis], first, strict=True))
        return [
            [
                _common(own, range((k + j) * width, (k + j + 1) * width))
                for own, k in zip(self.owners[axis], first, strict=True)
            ]
            for j in range(max(1, count))
        ]

    def _counts(self, axis: int, cuts: Sequence[range], shape: Sequence[int]) -> tuple[list[int], list[int]]:
        """Elements that go to each rank when slices are gathered, and that come from each."""
        row = int(np.prod(shape[1:], dtype=np.int64)) // shape[axis]  # elements of a plane in one slice
        own = len(cuts[self.comm.rank])
        return (
            [self.planes * len(cut) * row for cut in cuts],
            [len(planes) * own * row for planes in self.owners[0]],
        )

    def _pieces(self, flat: Tensor, axis: int, cuts: Sequence[range], shape: Sequence[int]) -> list[Tensor]:
        """View a flat buffer as this rank's planes of each rank's slices."""
        counts, _ = self._counts(axis, cuts, shape)
        parts = flat.split_with_sizes(counts)
        return [
            part.view(self.planes, *shape[1:axis], len(cut), *shape[axis + 1 :])
            for part, cut in zip(parts, cuts, strict=True)
        ]

    def gather(self, field: Tensor, axis: int, cuts: Sequence[range]) -> Pending:
        """Start to bring together, on each rank, the slices of `axis` that `cuts` gives it.

        Parameters
        ----------
        field : tensor (planes, ny, nx, ...)
            May have further dimensions, and other lengths than the slab has along x.
        axis : int
            1 or 2.
        cuts : sequence of range
            For each rank, the slices it receives. See `whole` for what becomes of them.
        """
        send, receive = self._counts(axis, cuts, field.shape)
        if self.comm.size == 1:
            return self.comm.exchange(field, send, receive)
        packed = field.new_empty(sum(send))
        pieces = self._pieces(packed, axis, cuts, field.shape)

        def pack(rank: int) -> None:
            pieces[rank].copy_(field.narrow(axis, cuts[rank].start, len(cuts[rank])))

        self.workers.map(pack, range(self.comm.size))
        return self.comm.exchange(packed, send, receive)

    def whole(self, flat: Tensor, axis: int, cuts: Sequence[range], shape: Sequence[int]) -> Tensor:
        """View what `gather` brought as a part of the volume: (nz, own slices, nx, ...) or (nz, ny, own)."""
        own = len(cuts[self.comm.rank])
        # Planes are whole in each rank's part and parts come by rank, so they follow one another in z.
        return flat.view(self.shape[0], *shape[1:axis], own, *shape[axis + 1 :])

    def scatter(self, part: Tensor, axis: int, cuts: Sequence[range], shape: Sequence[int]) -> Pending:
        """Start to send a contiguous `part`, laid out as by `whole`, back to where the planes are."""
        send, receive = self._counts(axis, cuts, shape)
        return self.comm.exchange(part, receive, send)

    def returned(
        self, pending: Pending, axis: int, cuts: Sequence[range], shape: Sequence[int]
    ) -> list[Tensor]:
        """Wait for `scatter`; return this rank's planes of each rank's slices."""
        return self._pieces(pending.wait(), axis, cuts, shape)

    def _add(
        self, gradients: Sequence[Tensor], axis: int, cuts: Sequence[range], pendings: Sequence[Pending]
    ) -> None:
        for gradient, pending in zip(gradients, pendings, strict=True):
            pieces = self.returned(pending, axis, cuts, gradient.shape)

            def add(rank: int, gradient: Tensor = gradient, pieces: list[Tensor] = pieces) -> None:
                gradient.narrow(axis, cuts[rank].start, len(cuts[rank])).add_(pieces[rank])

            self.workers.map(add, range(self.comm.size))

    def blocks(self, field: Tensor, depth: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Bring z-blocks of `depth` planes together on their writers: block k on rank ``k % size``.

        Collective: every rank must come to the end of the iteration. So keep an error of the loop's body
        until then, and let the ranks agree on it.

        Parameters
        ----------
        field : tensor (planes, ny, nx)
            Contiguous, of any dtype.
        depth : int
            Planes a block; the last block may have fewer.

        Yields
        ------
        z0 : int
            First plane of a block that this rank writes.
        block : ndarray (planes of the block, ny, nx)
            Alone on a CPU a view of `field`, otherwise a buffer of its own. One is held at a time.
        """
        nz, size, rank = self.shape[0], self.comm.size, self.comm.rank
        plane = field.shape[1] * field.shape[2]
        for first in range(0, nz, depth * size):
            blocks = [
                range(min(nz, first + depth * k), min(nz, first + depth * (k + 1))) for k in range(size)
            ]
            send = [plane * _shared(self.owners[0][rank], block) for block in blocks]
            receive = [plane * _shared(planes, blocks[rank]) for planes in self.owners[0]]
            # The blocks of a round follow one another, so what is sent is a piece of the slab as it stands.
            low = min(max(first, self.start), self.stop) - self.start
            sent = field[low : low + sum(send) // plane]
            block = self.comm.exchange(sent, send, receive).wait()
            if len(blocks[rank]):
                yield blocks[rank].start, block.view(-1, *field.shape[1:]).cpu().numpy()


def _common(a: range, b: range) -> range:
    start = min(max(a.start, b.start), a.stop)
    return range(start, max(start, min(a.stop, b.stop)))


def _shared(a: range, b: range) -> int:
    return len(_common(a, b))
