"""What a run leaves that was killed while it got ready: known by name, so that nothing else is taken for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from mcrdist.errors import InputError
from mcrdist.store.checksums import CHECKSUMS
from mcrdist.store.lock import LOCK
from mcrdist.store.place import writing
from mcrdist.store.run import CONFIG, ENVIRONMENT, SUMMARY, TARGETS, VOLUME, Run, is_half_written

#: In the order in which they are removed. While the settings are there, who comes again knows what the rest is.
_FILES = (ENVIRONMENT, TARGETS, SUMMARY, CONFIG)


def tidy(run: Path) -> None:
    """Remove what a kill left half written: our own files, and those of the library that writes the volume."""
    with writing(run):
        for path in (*_half_written(run), *(run / VOLUME).rglob("*.partial")):
            path.unlink(missing_ok=True)


def clear(run: Path) -> None:
    """Remove what a run makes before it seals its checksums, and nothing else.

    Raises
    ------
    InputError
        There is more: work of a run whose checksums are lost, or files of somebody else. All of it stays.
    """
    with writing(run):
        found = next(_more(run), None)
        if found is None and Run.open(run).summary.get("status") != "interrupted":
            found = f"a {SUMMARY} that does not say interrupted"
        if found is not None:
            raise InputError(
                f"run.dir: expected a run to go on with in {run}, found no {CHECKSUMS} but {found}; restore "
                f"{CHECKSUMS} from a copy, or choose another run.dir"
            )
        tidy(run)
        if (run / VOLUME).exists():
            shutil.rmtree(run / VOLUME)
        for name in _FILES:
            (run / name).unlink(missing_ok=True)


def _more(run: Path) -> Iterator[str]:
    """What a run has not made before its checksums are sealed; a link is none of its files."""
    for path in sorted(run.iterdir()):
        if path.name == VOLUME and path.is_dir() and not path.is_symlink():
            # Metadata alone: a chunk is work that was done, of a volume that may be complete.
            yield from (str(one.relative_to(run)) for one in sorted(path.rglob("*")) if not _metadata(one))
            continue
        known = path.name in (*_FILES, LOCK) or is_half_written(path.name)
        if not known or path.is_symlink() or not path.is_file():
            yield path.name


def _metadata(path: Path) -> bool:
    if path.is_symlink():
        return False
    return path.is_dir() or path.name == "zarr.json" or path.name.endswith(".partial")


def _half_written(run: Path) -> list[Path]:
    return [path for path in run.glob(".*.tmp") if is_half_written(path.name)]
