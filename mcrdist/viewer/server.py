"""The viewer's server: bound to the loopback address, and deaf to requests that were meant for another host."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from plotly.offline import get_plotlyjs

from mcrdist.config import ViewConfig
from mcrdist.errors import InputError
from mcrdist.store.omezarr import is_zarr
from mcrdist.viewer.scene import Scene

_HOST = "127.0.0.1"
_SLICE = re.compile(r"/slice/([zyx])/(\d{1,9})\.png")
_STORE = "/volume.zarr/"


class Viewer:
    """Serves one volume; a context manager that gives the port back.

    Attributes
    ----------
    url : str
        Of the page.
    zarr : Path or None
        The OME-Zarr image on disk, where the volume is one; it is served below ``/volume.zarr/`` too.

    Raises
    ------
    InputError
        No such volume, or the port is taken.
    """

    def __init__(self, config: ViewConfig) -> None:
        scene = Scene(config.volume)
        path = scene.source.path.resolve()
        self.zarr: Path | None = None
        if is_zarr(path):
            ours = path / config.volume.image
            self.zarr = ours if scene.source.ours and ours.is_dir() else path
        store = path if self.zarr is not None else None
        handler = type("Handler", (_Handler,), {"scene": scene, "store": store})
        try:
            self._server = ThreadingHTTPServer((_HOST, config.port), handler)
        except OSError as error:
            raise InputError(
                f"port: expected one that is free, found {config.port} ({error.strerror}); leave it out to take any"
            ) from None
        self._server.daemon_threads = True
        self.url = f"http://{_HOST}:{self._server.server_address[1]}/"

    def serve(self) -> None:
        """Answer requests until KeyboardInterrupt, or `close` from another thread."""
        self._server.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()

    def __enter__(self) -> Viewer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    scene: Scene
    store: Path | None
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        try:
            self._answer()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the page was closed, or wants another slice by now
        except InputError as error:
            self._send(str(error).encode(), "text/plain; charset=utf-8", HTTPStatus.INTERNAL_SERVER_ERROR)

    def _answer(self) -> None:
        # A page elsewhere may have its own name lead to this address; what it asks for is not answered.
        if (self.headers.get("Host") or "").rsplit(":", 1)[0] not in (_HOST, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        path = unquote(urlsplit(self.path).path)
        if path == "/":
            page = files("mcrdist.viewer").joinpath("page.html").read_text(encoding="utf-8")
            facts = json.dumps(self.scene.facts()).replace("<", "\\u003c")
            self._send(page.replace("{{FACTS}}", facts).encode(), "text/html; charset=utf-8")
        elif path == "/plotly.js":
            self._send(get_plotlyjs().encode(), "text/javascript; charset=utf-8")
        elif path == "/surfaces.json":
            self._send(self.scene.surfaces, "application/json")
        elif match := _SLICE.fullmatch(path):
            self._send(self.scene.slice(match[1], int(match[2])), "image/png")
        elif path.startswith(_STORE) and self.store is not None:
            self._file(self.store, path.removeprefix(_STORE))
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _file(self, root: Path, name: str) -> None:
        """A file of the Zarr store, and none outside it."""
        found = (root / name).resolve()
        if not found.is_relative_to(root) or not found.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self._send(
            found.read_bytes(), "application/json" if found.suffix == ".json" else "application/octet-stream"
        )

    def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=60" if kind == "image/png" else "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a slider asks for hundreds of slices."""
