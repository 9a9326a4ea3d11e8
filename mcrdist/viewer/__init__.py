"""A volume in a browser: slices in three directions and surfaces, from a server that only this machine reaches."""

from mcrdist.viewer.server import Viewer

__all__ = ["Viewer"]
