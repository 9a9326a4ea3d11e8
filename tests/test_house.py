"""What the documents say against what the program has, and what is written twice against itself."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import mcrdist

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(ROOT.glob("*.md"))


def readme_settings() -> dict[str, str]:
    """Key and default of every row of the table of settings."""
    section = README.split("\n## Settings\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \| `(.+?)` \|", section, flags=re.MULTILINE))


def flat(mapping: dict, prefix: str = "") -> dict[str, object]:
    """Dotted keys of a nested mapping."""
    found: dict[str, object] = {}
    for key, value in mapping.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def test_readme_lists_every_setting_with_its_default() -> None:
    path = ROOT / "conf" / "reconstruct.yaml"
    composed = flat(yaml.safe_load(path.read_text(encoding="utf-8")))
    directions = {f"micrograph.{axis}" for axis in "zyx"}  # one row of the table for all of their keys
    expected = {key: value for key, value in composed.items() if key not in directions | {"defaults"}}
    listed = readme_settings()
    assert list(listed) == list(expected)
    for key, default in listed.items():
        value = yaml.safe_load(default)
        # YAML 1.1 reads 1e-5, without a point, as text.
        value = float(value) if isinstance(expected[key], float) else value
        assert value == expected[key], key


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    references = re.findall(r"^\[\w+\]: (\S+)$", text, flags=re.MULTILINE)
    for target in re.findall(r"\]\(([^)]+)\)", text) + references:
        if target.startswith("#"):
            headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
            assert target[1:] in {heading.lower().replace(" ", "-") for heading in headings}
        else:
            assert (ROOT / target).is_file(), target


def test_files_named_in_readme_exist() -> None:
    for name in re.findall(r"(?:launch|notebooks)/[\w.]+\.\w+", README):
        assert (ROOT / name).is_file(), name


def test_built_in_structures_are_named_in_readme() -> None:
    from mcrdist.synthetic import NAMES

    for name in NAMES:
        assert f"`{name}`" in README or f"`synthetic:{name}`" in README


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == mcrdist.__version__ == citation["version"]
    assert project["license"] == citation["license"] == "Apache-2.0"
    assert f"## {mcrdist.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_memory_of_the_largest_preset_is_what_was_measured() -> None:
    preset = (ROOT / "conf" / "experiment" / "fig10.yaml").read_text(encoding="utf-8")
    told = re.search(r"Some ([\d.]+) GB", preset)
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").split("\n## Fig. 10")[1]
    measured = re.search(r"^\| 512³ \|.* ([\d.]+) GB \|$", results, flags=re.MULTILINE)
    assert told is not None and measured is not None
    assert abs(float(told[1]) / float(measured[1]) - 1) < 0.1


def test_modules_are_short() -> None:
    lengths = sorted(
        len(path.read_text(encoding="utf-8").splitlines()) for path in ROOT.glob("mcrdist/**/*.py")
    )
    assert lengths[-1] <= 450
    assert lengths[len(lengths) // 2] < 200


def test_what_layers_write_for_themselves_agrees() -> None:
    """Modules that do without others, which are slow to load, repeat a small table."""
    from mcrdist import directions, imagefile
    from mcrdist.analysis import material
    from mcrdist.config import micrograph
    from mcrdist.store import metadata

    assert micrograph.AXES == directions.AXES == metadata.AXES == material.AXES
    assert set(micrograph.UNITS) == set(imagefile.MICROMETRES)
    for unit, micrometres in imagefile.MICROMETRES.items():
        assert metadata.METRES[metadata.UNITS[unit]] == pytest.approx(1e-6 * micrometres)
