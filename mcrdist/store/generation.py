"""One checkpoint on disk: a directory of z-blocks with a manifest that names and checksums them.

``RUN/checkpoint/00000012/`` has a file for every 16 planes, whoever wrote them, so that any number of processes reads
them again, and ``manifest.json``, written last. A directory gets its name when everything in it is on the disk; before,
its name starts with a dot. A block has its planes of every field, one row after the other, as bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from mcrdist.store import disk

FORMAT = 1
DEPTH = 16  # planes of a block
KEPT = 2
MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 2**28  # bytes; what is larger is none
_PIECE = 2**22


class Damaged(Exception):
    """A generation that must not be used; says which file, and what is wrong with it."""


@dataclass(frozen=True)
class Layout:
    """How a field lies in the blocks: `rows` of `plane` bytes (height, width) a z-plane, of a torch `dtype`."""

    name: str
    dtype: str
    rows: int
    plane: tuple[int, int]

    @property
    def bytes(self) -> int:
        """Of one plane of all rows."""
        return self.rows * self.plane[0] * self.plane[1]


def block_name(start: int) -> str:
    """The file of the block whose first plane is `start`."""
    return f"z{start:06d}.bin"


class BlockWriter:
    """Writes blocks piece by piece and checksums them on the way; each process writes its own blocks."""

    def __init__(self, path: Path) -> None:
        self._path, self._stack = path, ExitStack()
        self._open: dict[int, tuple[BinaryIO, Any]] = {}

    def append(self, start: int, data: NDArray[np.uint8]) -> None:
        """Add to the block whose first plane is `start`."""
        if start not in self._open:
            opened: BinaryIO = open(self._path / block_name(start), "xb")  # noqa: SIM115 (closed by the stack)
            self._open[start] = self._stack.enter_context(opened), hashlib.sha256()
        file, digest = self._open[start]
        view = memoryview(np.ascontiguousarray(data).data).cast("B")
        disk.write(file, view)
        digest.update(view)

    def finish(self) -> dict[str, str]:
        """Wait until all blocks are on the disk; their checksums by file name."""
        for file, _ in self._open.values():
            disk.sync(file)
        return {block_name(start): digest.hexdigest() for start, (_, digest) in self._open.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # of blocks that are not finished, which nobody will read
            self._stack.close()


class Generation:
    """A checkpoint that can be read.

    Attributes
    ----------
    path : Path
    planes : int
        Of the volume.
    fields : mapping of name to Layout
    numbers : mapping
        Plain data that was kept with the fields.
    """

    def __init__(self, path: Path, body: Mapping[str, Any]) -> None:
        self.path = path
        self.planes: int = body["planes"]
        self.fields = {
            entry["name"]: Layout(**{**entry, "plane": tuple(entry["plane"])}) for entry in body["fields"]
        }
        self.numbers: dict[str, Any] = body["numbers"]
        self._checksums: dict[str, str] = body["blocks"]

    @classmethod
    def open(cls, path: Path) -> Generation:
        """Read the manifest.

        Raises
        ------
        Damaged
            It is not what was written.
        """
        place = path / MANIFEST
        try:
            if place.stat().st_size > _LARGEST_MANIFEST:
                raise Damaged(f"{place}: expected a manifest, found a file of {place.stat().st_size} bytes")
            head, _, text = _open(place).read().partition(b"\n")
            if head.decode("ascii", "replace") != _checksum(text):
                raise Damaged(f"{place}: expected the checksum of its text, found another")
            body = json.loads(text)
            if body["format"] != FORMAT:
                raise Damaged(
                    f"{place}: expected format {FORMAT}, found {body['format']}; another version wrote it"
                )
            found = cls(path, body)
            sizes = [found.planes, *(n for f in found.fields.values() for n in (f.rows, *f.plane))]
            wrong = len(sizes) != 1 + 3 * len(body["fields"])
            if wrong or not all(isinstance(n, int) and n >= 1 for n in sizes):
                raise Damaged(f"{place}: expected fields of positive sizes, found {sizes}")
            expected = (block_name(start) for start in found.starts)
            if len(found._checksums) != len(found.starts) or not all(n in found._checksums for n in expected):
                raise Damaged(f"{place}: expected a checksum of every block, found others")
            return found
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Damaged(f"{place}: expected a manifest ({type(error).__name__}: {error})") from error

    @property
    def starts(self) -> range:
        """First planes of the blocks."""
        return range(0, self.planes, DEPTH)

    def check(self, start: int) -> None:
        """Read a block and compare its length and checksum.

        Raises
        ------
        Damaged
            It is not what was written.
        """
        place = self.path / block_name(start)
        wanted = self._bytes(start)
        try:
            with _open(place) as file:
                size = os.fstat(file.fileno()).st_size
                if size != wanted:
                    raise Damaged(f"{place}: expected {wanted} bytes, found {size}")
                digest = hashlib.sha256()
                while piece := file.read(_PIECE):
                    digest.update(piece)
        except OSError as error:
            raise Damaged(f"{place}: expected a block ({error.strerror or error})") from error
        if digest.hexdigest() != self._checksums[place.name]:
            raise Damaged(f"{place}: expected the checksum of the manifest, found another")

    def read(self, name: str, start: int, stop: int) -> NDArray[np.uint8]:
        """Planes start, …, stop - 1 of a field as bytes: (rows, planes, height, width)."""
        layout = self.fields[name]
        out = np.empty((layout.rows, stop - start, *layout.plane), np.uint8)
        plane = layout.plane[0] * layout.plane[1]
        before = sum(other.bytes for other in self._until(name))
        for first in range(start - start % DEPTH, stop, DEPTH):
            last = min(first + DEPTH, self.planes)
            low, high = max(first, start), min(last, stop)
            with _open(self.path / block_name(first)) as file:
                for row in range(layout.rows):
                    file.seek((before + row * plane) * (last - first) + (low - first) * plane)
                    into = out[row, low - start : high - start]
                    if file.readinto(into.data) != into.nbytes:
                        raise Damaged(f"{file.name}: shorter than its manifest says")
        return out

    def _until(self, name: str) -> Iterator[Layout]:
        for layout in self.fields.values():
            if layout.name == name:
                return
            yield layout

    def _bytes(self, start: int) -> int:
        planes = min(DEPTH, self.planes - start)
        return planes * sum(layout.bytes for layout in self.fields.values())


class Generations:
    """The checkpoints of a run, in ``RUN/checkpoint``; one process makes and removes them.

    Parameters
    ----------
    path : Path
        The directory, which need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def list(self) -> list[Path]:
        """The finished ones, newest first."""
        if not self.path.is_dir():
            return []
        found = [p for p in self.path.iterdir() if p.name.isdecimal() and p.is_dir() and not p.is_symlink()]
        return sorted(found, key=lambda path: int(path.name), reverse=True)

    def begin(self) -> Path:
        """Make the directory of the next one, under the name that says it is not finished."""
        self.path.mkdir(exist_ok=True)
        self.tidy()
        existing = self.list()
        number = int(existing[0].name) + 1 if existing else 1
        partial = self.path / f".{number:08d}.partial"
        partial.mkdir()
        return partial

    def commit(
        self,
        partial: Path,
        planes: int,
        fields: Sequence[Layout],
        blocks: Mapping[str, str],
        numbers: Mapping[str, Any],
    ) -> Path:
        """Write the manifest, give the directory its name, and remove what is older than the last two."""
        body = {
            "format": FORMAT,
            "planes": planes,
            "fields": [asdict(layout) for layout in fields],
            "blocks": dict(blocks),
            "numbers": dict(numbers),
        }
        text = json.dumps(body, separators=(",", ":")).encode()
        with open(partial / MANIFEST, "xb") as file:
            disk.write(file, f"{_checksum(text)}\n".encode() + text)
            disk.sync(file)
        disk.sync_directory(partial)
        path = self.path / partial.name.removeprefix(".").removesuffix(".partial")
        disk.rename(partial, path)
        for old in self.list()[KEPT:]:
            self._remove(old)
        return path

    def tidy(self) -> None:
        """Remove what was begun and never finished."""
        if self.path.is_dir():
            for path in self.path.glob(".*"):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _remove(self, path: Path) -> None:
        # Under another name first, so that what is half removed is never taken for a damaged generation.
        gone = self.path / f".{path.name}.old"
        disk.rename(path, gone)
        shutil.rmtree(gone, ignore_errors=True)


def _checksum(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _open(path: Path) -> BufferedReader:
    """Open a file of our own for reading; a link in its place, or a pipe, is not ours."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    file = open(handle, "rb")  # noqa: SIM115 (closed by the caller)
    if not os.path.isfile(handle):
        file.close()
        raise OSError(f"{path} is no file")
    return file
