"""The volume that a task looks at, on its worker."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from mcrdist.config import VolumeSourceConfig
from mcrdist.errors import InputError
from mcrdist.store.source import Source, open_source


def opened(config: VolumeSourceConfig) -> Source:
    """Open it once a worker: a recipe travels there, no voxels.

    Workers may live longer than a volume: what was written anew under the same name is opened anew.
    """
    path = Path(config.path or config.run or "").expanduser().absolute()
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"{config.key}.path: expected a volume, found nothing at {path} any more") from error
    return _opened(config, str(path), (state.st_ino, state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=8)
def _opened(config: VolumeSourceConfig, path: str, state: tuple[int, ...]) -> Source:
    return open_source(config)
