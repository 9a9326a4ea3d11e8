"""Execute the notebooks: NAME.py, their source, becomes NAME.ipynb with its results.

    python notebooks/make.py [NAME ...]

Both are kept in the repository: the source is what one edits and reviews, the other what one reads. Pictures differ in
their bytes from one run to the next; all else of a notebook is the same for the same results.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
#: In the order in which they are best read.
NAMES = (
    "first_reconstruction",
    "anisotropic_and_multiphase",
    "choosing_descriptors",
    "how_large_is_large_enough",
    "figures_of_the_paper",
)


def execute(name: str, size: int | None = None, timeout: int = 600) -> NotebookNode:
    """Run a notebook and return it with its results.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    size : int, optional
        Voxels along an edge; by default each notebook's own.
    timeout : int
        Seconds that a cell may take.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell raised an exception.
    """
    notebook = jupytext.read(HERE / f"{name}.py")
    environment = os.environ | ({} if size is None else {"MCRDIST_NOTEBOOK_SIZE": str(size)})
    with tempfile.TemporaryDirectory(prefix="mcrdist-") as private:
        # Sockets of this user's in place of ports.
        connection = {"connection_file": f"{private}/kernel.json", "transport": "ipc"}
        client = NotebookClient(
            notebook,
            timeout=timeout,
            record_timing=False,
            resources={"metadata": {"path": str(HERE)}},
            config=Config(KernelManager=connection),
        )
        client.execute(env=environment)
    for number, cell in enumerate(notebook.cells, 1):
        cell["id"] = f"cell-{number:02}"  # drawn at random otherwise, anew each time
        cell.get("metadata", {}).clear()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    names = parser.parse_args().names
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"expected some of {', '.join(NAMES)}, found {', '.join(unknown)}")
    for name in names:
        began = time.perf_counter()
        notebook = execute(name)
        nbformat.write(notebook, HERE / f"{name}.ipynb")
        kilobytes = (HERE / f"{name}.ipynb").stat().st_size / 1e3
        print(f"{name}: {time.perf_counter() - began:.0f} s, {kilobytes:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
