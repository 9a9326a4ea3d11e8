"""A page in headless Chromium: what its scripts made of it, what they complained about, how it looks."""

from __future__ import annotations

import html.parser
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")

_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
    "--virtual-time-budget=20000",
]


@dataclass
class Page:
    """The document after its scripts ran, the marks on its root element, and the console's lines."""

    dom: str
    marks: dict[str, str | None]
    console: list[str]

    @property
    def sources(self) -> list[str]:
        """What the pictures of the page show, whoever put them there."""
        return _Pictures.of(self.dom)

    def attributes(self, id_: str) -> dict[str, str | None]:
        """Attributes of the element with this id."""
        return _Elements.of(self.dom)[id_]


class _Elements(html.parser.HTMLParser):
    @classmethod
    def of(cls, dom: str) -> dict[str, dict[str, str | None]]:
        parser = cls()
        parser.found = {}
        parser.feed(dom)
        return parser.found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.found[known.get("id") or tag] = known


class _Pictures(html.parser.HTMLParser):
    @classmethod
    def of(cls, dom: str) -> list[str]:
        parser = cls()
        parser.found = []
        parser.feed(dom)
        return parser.found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.found.append(dict(attrs).get("src") or "")


def address(page: Path | str) -> str:
    """Of a file, or of what a server has."""
    return page if isinstance(page, str) else page.as_uri()


def visit(page: Path | str, fragment: str = "", *more: str) -> Page:
    """Load a page, let its scripts run to rest, and take it down again."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [PROGRAM, *_OPTIONS, f"--user-data-dir={profile}", *more, "--dump-dom"]
        done = subprocess.run(
            [*command, address(page) + fragment], capture_output=True, text=True, timeout=150, check=True
        )
    lines = re.findall(r"CONSOLE[:(].*", done.stderr)
    # Advice about speed, from the browser to the authors of plotly.
    console = [line for line in lines if "willReadFrequently" not in line and "ReadPixels" not in line]
    return Page(done.stdout, _Elements.of(done.stdout)["html"], console)


def screenshot(page: Path | str, picture: Path, width: int, height: int) -> None:
    """A picture of the upper part of a page."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        size = [f"--screenshot={picture}", f"--window-size={width},{height}"]
        command = [PROGRAM, *_OPTIONS, f"--user-data-dir={profile}", *size, address(page)]
        subprocess.run(command, capture_output=True, timeout=150, check=True)
