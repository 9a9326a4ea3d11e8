"""How all figures are drawn: one style, colours and marks that everyone can tell apart, as a part of a page or a file.

Drawn with matplotlib's objects and without pyplot, so nothing here touches a display or global state.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mcrdist.store.place import write_atomically, writing

WANTED, GOT, SECOND = "#222222", "#0072b2", "#d55e00"  # Okabe and Ito's blue and vermilion
#: One after the other for curves of any number, each with a mark of its own, by which grey print tells them apart.
CURVES = (GOT, SECOND, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
#: What is below zero is violet and dark, what is above orange and light: the sign shows in grey print too.
SIGNED = LinearSegmentedColormap.from_list("signed", ["#200c48", "#6b5b94", "#a9a7a9", "#e6b066", "#fff3cf"])
#: Endings of files that a figure can be saved as: both vector formats.
FORMATS = ("svg", "pdf")
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, and knows subscripts
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.titlesize": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "mcrdist",
    # Letters as outlines, and as TrueType that comes along: no reader needs to have the font.
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "path.simplify": True,
    "image.interpolation": "nearest",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of all figures within the ``with`` block."""
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


def pen(number: int, points: int = 0, marks: int = 7) -> dict[str, Any]:
    """Colour and mark of the curve of that number, as options of ``plot``.

    Parameters
    ----------
    number : int
    points : int
        Of the curve; about `marks` of them are marked, those of other curves at other places.
    """
    step = max(1, points // marks)
    return {
        "color": CURVES[number % len(CURVES)],
        "marker": MARKS[number % len(MARKS)],
        "markevery": (number * step // 3 % step, step) if points else 1,
        "ms": 4.4,
        "mew": 0,
    }


class Picture:
    """A figure of a page. As text it is an SVG data URI; it can be saved as a file, too.

    Attributes
    ----------
    name : str
        For the file, without its ending.
    figure : Figure
    """

    def __init__(self, figure: Figure, name: str) -> None:
        self.figure, self.name = figure, name
        self._files: dict[
            str, bytes
        ] = {}  # by ending: a page and a file want the same, and it takes a second

    def __str__(self) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(self.content("svg")).decode()

    def content(self, ending: str) -> bytes:
        """The figure as a file of one of `FORMATS`; the same figure makes the same bytes."""
        if ending not in self._files:
            self._files[ending] = self._drawn(ending)
        return self._files[ending]

    def _drawn(self, ending: str) -> bytes:
        buffer = io.BytesIO()
        known = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}[ending]
        with style():
            self.figure.savefig(
                buffer, format=ending, metadata=known, dpi=150, bbox_inches="tight", pad_inches=0.04
            )
        return buffer.getvalue()


def svg(figure: Figure, name: str = "") -> Picture:
    """A figure of a page, by a name that is found from its place where there is none."""
    return Picture(figure, name)


def pictures(content: Any, place: str = "") -> Iterator[tuple[str, Picture]]:
    """All pictures in the content of a page, with their names."""
    if isinstance(content, Picture):
        yield content.name or place, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from pictures(value, f"{place}-{key}".lstrip("-"))
    elif isinstance(content, Sequence) and not isinstance(content, str | bytes):
        for number, value in enumerate(content, 1):
            yield from pictures(value, f"{place}-{number}".lstrip("-"))


def save(content: Any, directory: Path, ending: str) -> list[Path]:
    """Save all pictures in the content of a page as files of one of `FORMATS`; return them.

    Raises
    ------
    InputError
        The directory cannot be written to.
    """
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    saved = []
    for name, picture in pictures(content):
        path = directory / f"{re.sub(r'[^0-9A-Za-z+-]+', '_', name)}.{ending}"
        write_atomically(path, picture.content(ending))
        saved.append(path)
    return saved
