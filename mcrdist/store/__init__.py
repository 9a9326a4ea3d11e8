"""What a run leaves on disk: the run directory and the OME-Zarr volume in it."""

from mcrdist.store.run import MetricsWriter, Run, RunDirectory
from mcrdist.store.volume import Volume, VolumeWriter

__all__ = ["MetricsWriter", "Run", "RunDirectory", "Volume", "VolumeWriter"]
