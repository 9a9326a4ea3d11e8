"""The documentation site: it builds without a warning, has what its menu says, and fetches nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from chromium import needs_chromium, visit

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a link that leads nowhere, or a docstring that cannot be read, is an error."""
    target = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def menu() -> list[str]:
    """The pages that mkdocs.yml lists."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    return re.findall(r"([\w/]+)\.md$", text.split("\nnav:")[1].split("\n\n")[0], flags=re.MULTILINE)


def test_parts_of_readme_are_marked_and_used() -> None:
    """Text that both have is included, so it must be there, once, with a beginning and an end."""
    started = re.findall(r"^<!-- --8<-- \[start:(\w+)\] -->$", README, flags=re.MULTILINE)
    ended = re.findall(r"^<!-- --8<-- \[end:(\w+)\] -->$", README, flags=re.MULTILINE)
    pages = "\n".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    used = re.findall(r'^--8<-- "README\.md:(\w+)"$', pages, flags=re.MULTILINE)
    assert started == ended
    assert sorted(used) == sorted(started)


def test_shared_parts_link_by_reference() -> None:
    """A path in an included part would be right in one place and wrong in the other."""
    for part in re.findall(r"\[start:\w+\] -->\n(.*?)<!-- --8<-- \[end:", README, flags=re.DOTALL):
        assert not re.findall(r"\]\((?!https?:)[^)]+\)", part)


def test_menu_has_every_page() -> None:
    notebooks = [f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert sorted(menu()) == sorted([path.stem for path in DOCS.glob("*.md")] + notebooks)


@pytest.mark.slow
@pytest.mark.unmeasured
def test_pages(site: Path) -> None:
    for name in menu():
        page = (site / f"{name}.html").read_text(encoding="utf-8")
        assert "--8&lt;--" not in page
        # Scripts, styles, fonts and pictures are the site's own: it reads without a network.
        assert not re.findall(r'<(?:script|img)[^>]*\ssrc="?(?:https?:)?//', page)
        assert not re.findall(r'<link[^>]*rel="?(?:stylesheet|preconnect)[^>]*href="?(?:https?:)?//', page)
    assert not list(site.rglob("*.py"))
    notebook = (site / "notebooks" / "first_reconstruction.html").read_text(encoding="utf-8")
    assert '<span class="kn">import</span>' in notebook, "code without colours"


@pytest.mark.slow
@pytest.mark.unmeasured
def test_mathematics(site: Path) -> None:
    for name in ("how_it_works", "notebooks/figures_of_the_paper"):
        page = (site / f"{name}.html").read_text(encoding="utf-8")
        assert page.count("<math") >= 8
        assert "arithmatex" not in page
        assert 'mathvariant="bold' not in page
        assert "\N{SCRIPT CAPITAL L}" in page
        assert not re.findall(r"<m(?:i|o|text)>\\", page), "a command that was not understood"


@pytest.mark.slow
@pytest.mark.unmeasured
def test_docstrings(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    assert "----------" not in page, "a section of a numpy docstring was not recognised"
    assert ":func:" not in page
    assert re.search(r"<td>\s*<code>\*overrides</code>", page), "no table of parameters"
    for title in ("Parameters:", "Returns:", "Raises:", "Attributes:"):
        assert title in page
    for name in ("reconstruct", "characterize", "analyze", "report", "export", "plan", "sweep", "verify"):
        assert f'id="mcrdist.functions.{name}"' in page


@pytest.mark.slow
@pytest.mark.unmeasured
@needs_chromium
@pytest.mark.parametrize("name", ["index", "how_it_works", "notebooks/first_reconstruction", "api"])
def test_in_a_browser(site: Path, name: str) -> None:
    page = visit(site / f"{name}.html")
    assert not [line for line in page.console if "Uncaught" in line]
    assert "md-content" in page.dom
