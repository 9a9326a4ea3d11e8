"""The volume that a task looks at, on its worker."""

from __future__ import annotations

from functools import lru_cache

from mcrdist.config import VolumeSourceConfig
from mcrdist.store.source import Source, open_source


@lru_cache(maxsize=8)
def opened(config: VolumeSourceConfig) -> Source:
    """Open it once a worker: a recipe travels there, no voxels."""
    return open_source(config)
