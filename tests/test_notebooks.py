"""The notebooks: every one runs, and what the repository has of its results belongs to its source."""

from __future__ import annotations

import importlib.util
import re
import socket
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import jupytext
import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
#: One number for all: small, and large enough for every built-in structure.
SIZE = 16
#: What tells whose machine it was: paths from the root of a disk, in the file system or as an address.
ABSOLUTE = re.compile(
    r"(?<![\w./:-])/(?:home|root|tmp|work|usr|opt|var|Users|private)/|file://|[A-Z]:\\Users"
)


@lru_cache(maxsize=1)
def make() -> ModuleType:
    """The script that executes them."""
    specification = importlib.util.spec_from_file_location("notebooks_make", FOLDER / "make.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


NAMES = make().NAMES


def texts(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Kind and source of every cell."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def check_outputs(notebook: NotebookNode) -> None:
    """Nothing on standard error, no exception, and nothing of the machine that it ran on."""
    for output in outputs(notebook):
        assert output.output_type != "error", output.traceback
        assert output.get("name") != "stderr", output.text
        said = output.get("text", "") + "".join(
            value for kind, value in output.get("data", {}).items() if kind.startswith("text/")
        )
        assert not ABSOLUTE.search(said), said
        assert socket.gethostname() not in said.split(), said


def pictures(notebook: NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def test_every_notebook_is_a_pair() -> None:
    sources = {
        path.stem for path in FOLDER.glob("*.py") if path.read_text(encoding="utf-8").startswith("# ---\n")
    }
    assert sources == set(NAMES) == {path.stem for path in FOLDER.glob("*.ipynb")}


@pytest.mark.parametrize("name", NAMES)
def test_the_pair_has_one_text(name: str) -> None:
    source = jupytext.read(FOLDER / f"{name}.py")
    rendered = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert texts(source) == texts(rendered), f"make notebooks: {name}.ipynb is not what {name}.py says"


@pytest.mark.parametrize("name", NAMES)
def test_rendered_results(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < 600_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "cells were not executed from the first to the last"
    check_outputs(notebook)
    assert pictures(notebook) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_reads_as_a_tutorial(name: str) -> None:
    """One title; text before every other cell of code; equations of the paper by number."""
    cells = texts(jupytext.read(FOLDER / f"{name}.py"))
    prose = "\n".join(source for kind, source in cells if kind == "markdown")
    assert re.match(r"# \w", cells[0][1])
    assert len(re.findall(r"^# ", prose, flags=re.MULTILINE)) == 1
    assert "Seibert" in prose
    assert re.search(r"Eq\. \d", prose)
    assert "*What to look at:*" in prose
    code = [kind for kind, _ in cells].count("code")
    assert len(cells) - code >= code / 2


def test_readme_lists_the_notebooks() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"\(notebooks/(\w+)\.ipynb\)", readme)
    assert list(dict.fromkeys(listed)) == list(NAMES)


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("name", NAMES)
def test_executes(name: str) -> None:
    notebook = make().execute(name, size=SIZE, timeout=240)
    check_outputs(notebook)
    rendered = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert [cell["id"] for cell in notebook.cells] == [cell["id"] for cell in rendered.cells]
    assert pictures(notebook) == pictures(rendered)


def test_a_path_in_an_output_is_noticed() -> None:
    """The check itself can fail."""
    cell = nbformat.v4.new_code_cell(
        "", outputs=[nbformat.v4.new_output("stream", name="stdout", text="in /root/x\n")]
    )
    with pytest.raises(AssertionError):
        check_outputs(nbformat.v4.new_notebook(cells=[cell]))
    cell.outputs[0].text = "voxels/s and 1/um, S2(r)/S2(0)\n"
    check_outputs(nbformat.v4.new_notebook(cells=[cell]))
