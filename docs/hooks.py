"""What MkDocs does beside its own: equations become MathML, and the notebooks pages, both while the site is built.

A page then needs no script for its mathematics, and a reader no network.
"""

from __future__ import annotations

import html
import re
import unicodedata
from pathlib import Path
from typing import Any

import latex2mathml.converter
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
#: As pymdownx.arithmatex leaves equations, in a line of text and between paragraphs.
_INLINE = re.compile(r'<span class="arithmatex">\\\((.+?)\\\)</span>', re.DOTALL)
#: Letters whose form is an attribute, which browsers do not heed, instead of a character of its own.
_LETTER = re.compile(r'<mi mathvariant="(bold|script)">([A-Za-z])</mi>')
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.+?)\\\]\s*</div>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every notebook, with its pictures beside it."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text, pictures = _page(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def _page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by name."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["language_info"] = {"name": "python"}  # which the exporter colours code by
    resources: dict[str, Any] = {"unique_key": path.stem, "output_files_dir": path.stem}
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources)
    # Links that are right in the repository, where the documents lie beside the notebooks.
    return text.replace("](../docs/", "](../"), resources["outputs"]


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the equations of a page into MathML."""
    content = _BLOCK.sub(lambda found: _mathml(found[1], "block"), content)
    return _INLINE.sub(lambda found: _mathml(found[1], "inline"), content)


def _mathml(equation: str, display: str) -> str:
    found = latex2mathml.converter.convert(html.unescape(equation), display=display)
    return _LETTER.sub(lambda letter: f"<mi>{_character(letter[1], letter[2])}</mi>", found)


def _character(form: str, letter: str) -> str:
    """The character that is bold, or script, by itself."""
    name = f"{form} {'capital' if letter.isupper() else 'small'} {letter}".upper()
    try:
        return unicodedata.lookup(f"MATHEMATICAL {name}")
    except KeyError:  # those that were there before the others, as the script L
        return unicodedata.lookup(name)
