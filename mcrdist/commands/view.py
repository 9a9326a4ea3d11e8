"""``mcrdist view``: a volume in a browser, served to this machine alone."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from mcrdist.commands.compose import compose
from mcrdist.commands.terminal import say
from mcrdist.config import view_from_mapping


def run(overrides: Sequence[str]) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit status."""
    config = view_from_mapping(compose("view", overrides))
    from mcrdist.viewer import Viewer

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Viewer(config) as viewer:
        try:
            say(f"view   {viewer.url}  (Ctrl-C ends it)")
            if viewer.zarr is not None:
                say(f"napari: napari --plugin napari-ome-zarr {viewer.zarr}")
            viewer.serve()
        except KeyboardInterrupt:
            say("view   ended")
    return 0
