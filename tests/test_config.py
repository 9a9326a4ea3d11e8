"""The configuration: what it accepts, what it says about the rest, and its agreement with conf/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mcrdist.config import (
    analyze_from_mapping,
    characterize_from_mapping,
    export_from_mapping,
    from_mapping,
    keys,
    to_mapping,
    verify,
    view_from_mapping,
)
from mcrdist.errors import InputError

CONF = Path(__file__).parents[1] / "conf"
SMALL: dict[str, Any] = {"micrograph": {"path": "a.png"}, "volume": {"size": 64}}


def with_(dotted: str, value: object) -> dict[str, Any]:
    """Return a configuration that works but for one key."""
    mapping = json.loads(json.dumps(SMALL))
    *sections, name = dotted.split(".")
    inner = mapping
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[name] = value
    return mapping


def test_cube_and_shape() -> None:
    assert from_mapping(SMALL).volume.shape == (64, 64, 64)
    shaped = from_mapping({"micrograph": "a.png", "volume": {"shape": [96, 128, 160]}})
    assert shaped.volume.shape == (96, 128, 160)


def test_settings_arrive_with_their_types() -> None:
    config = from_mapping(
        with_("optimizer", {"iterations": 1e2, "relative_decrease": 0})
        | {"seed": np.int64(3), "initial": "noise"}
    )
    assert config.optimizer.iterations == 100
    assert isinstance(config.optimizer.iterations, int)
    assert isinstance(config.optimizer.relative_decrease, float)
    assert config.seed == 3
    assert config.initial.kind == "noise"
    weights = from_mapping(with_("descriptors.variation.weight", 0)).descriptors.weights
    assert {name for name, weight in weights.items() if weight} == {"s2", "volume_fraction"}


def test_two_sides_make_a_plane() -> None:
    for shape in ([32, 48], (1, 32, 48)):
        config = from_mapping({"micrograph": "a.png", "volume": {"shape": shape}, "target": {"lags": 16}})
        assert config.volume.shape == (1, 32, 48)


def test_a_direction_takes_what_it_does_not_set_from_the_common_micrograph() -> None:
    mapping = with_(
        "micrograph", {"path": "a.png", "phase": 2, "threshold": 90, "z": {"path": "b.png"}, "y": "c.png"}
    )
    micrograph = from_mapping(mapping).micrograph
    assert micrograph.source("z").path == "b.png"
    assert micrograph.source("z").phase == 2
    assert micrograph.source("z").segmentation == "threshold"
    assert micrograph.source("y").path == "c.png"
    assert micrograph.source("x").path == "a.png"
    assert micrograph.x is None
    mapping["micrograph"]["z"]["segmentation"] = "otsu"
    assert from_mapping(mapping).micrograph.source("z").threshold is None


def test_classes_choose_their_segmentation() -> None:
    common = from_mapping(with_("micrograph", {"path": "a.png", "classes": 3})).micrograph
    assert (common.segmentation, common.classes) == ("multi-otsu", 3)
    few = from_mapping(with_("micrograph", {"path": "a.png", "segmentation": "multi-otsu"})).micrograph
    assert (few.segmentation, few.classes) == ("multi-otsu", 2)


@pytest.mark.parametrize(
    ("common", "own", "expected"),
    [
        ({"classes": 3}, {"path": "b"}, ("multi-otsu", None, 3)),
        ({"classes": 3}, {"classes": 4}, ("multi-otsu", None, 4)),
        ({"classes": 3}, {"classes": 2}, ("multi-otsu", None, 2)),
        ({"classes": 3}, {"segmentation": "otsu"}, ("otsu", None, 2)),
        ({"classes": 3}, {"threshold": 90}, ("threshold", 90.0, 2)),
        ({"classes": 3}, {"threshold": 90, "segmentation": "threshold"}, ("threshold", 90.0, 2)),
        ({"threshold": 90}, {"classes": 3}, ("multi-otsu", None, 3)),
        ({"threshold": 90}, {"segmentation": "labels"}, ("labels", None, 2)),
        ({"segmentation": "labels"}, {"classes": 3}, ("multi-otsu", None, 3)),
    ],
)
def test_what_belongs_to_another_segmentation_is_left_behind(
    common: dict[str, Any], own: dict[str, Any], expected: tuple[str, float | None, int]
) -> None:
    near = {"path": "a.png", **common}
    found = from_mapping(with_("micrograph", {**near, "z": own})).micrograph.source("z")
    assert (found.segmentation, found.threshold, found.classes) == expected
    far = with_("micrograph", near) | {"interpolate": {"micrograph": {"path": "c.png"} | own}}
    end = from_mapping(far).interpolate.micrograph
    assert end is not None and (end.segmentation, end.threshold, end.classes) == expected


def test_three_directions_need_no_common_micrograph() -> None:
    mapping = with_("micrograph", {"z": {"path": "z"}, "y": {"path": "y"}, "x": {"path": "x"}})
    micrograph = from_mapping(mapping).micrograph
    assert [micrograph.source(axis).path for axis in "zyx"] == ["z", "y", "x"]


def test_arrays_from_python() -> None:
    image = np.eye(16)
    config = from_mapping(with_("micrograph", {"path": "a.png"}) | {"micrograph": image})
    assert config.micrograph.source("y").image is image
    assert to_mapping(config)["micrograph"]["path"] == "<array 16x16 float64>"
    mixed = from_mapping({"micrograph": {"path": "a.png", "z": image}, "volume": {"size": 8}}).micrograph
    assert mixed.source("z").path is None
    assert mixed.source("x").image is None


BAD = [
    ("volume.size", -1, "volume.size: expected an integer of at least 8, found -1; e.g. volume.size=128"),
    ("volume.size", 0, "found 0"),
    ("volume.size", 7, "found 7"),
    ("volume.size", 64.5, "found 64.5"),
    ("volume.size", "abc", "found 'abc'"),
    ("volume.size", True, "found true"),
    ("volume.size", None, "volume.size: expected an integer of at least 8, found nothing (null)"),
    ("volume.size", [64], "found [64]"),
    ("volume.shape", [8, 8, 8], "volume: expected size or shape, found both"),
    ("volume", 64, "volume: expected a mapping with the keys size, shape, found 64; e.g. volume.size="),
    (
        "volume",
        {"shape": [64]},
        "volume.shape: expected 3 integers of at least 8, or 2 for a single plane, found [64]",
    ),
    ("volume", {"shape": [64, 7]}, "volume.shape"),
    ("volume", {"shape": [2, 64, 64]}, "volume.shape"),
    ("volume", {"shape": [64, 64, 7]}, "volume.shape"),
    ("volume", {"shape": "646464"}, "volume.shape"),
    ("volume.sise", 3, "volume.sise: unknown key; did you mean volume.size?"),
    ("size", 3, "size: unknown key; did you mean volume.size?"),
    ("volumes", 3, "did you mean volume?"),
    ("zzz", 3, "zzz: unknown key; the top level has micrograph, volume"),
    ("descriptors.s2.wight", 3, "did you mean descriptors.s2.weight?"),
    ("descriptors", {"s2": {"weight": 0}, "variation": {"weight": 0}}, "found 0 for all"),
    ("descriptors.s2.weight", -1, "a number of at least 0"),
    ("descriptors.s2.weight", float("nan"), "found nan"),
    ("descriptors.s2.weight", "1", "found '1'"),
    ("optimizer.name", "sgd", "expected lbfgsb, scipy, adam or yeong_torquato, found 'sgd'"),
    ("optimizer.iterations", -1, "optimizer.iterations"),
    ("runtime.timeout", 0, "a number above 0"),
    ("runtime.device", "gpu", "auto, cpu or cuda"),
    ("run.dir", 1, "run.dir: expected the path of a directory, found 1"),
    ("run.dir", "", "run.dir"),
    ("run.report", "yes", "true or false"),
    ("initial", "file", "initial_path: expected the path of a field"),
    ("initial_path", "a.npy", "use initial=file"),
    ("seed", -1, "seed"),
    ("target.lags", 33, "target.lags: expected an integer of at most 32"),
    ("levels.coarsest", 65, "levels.coarsest: expected an integer of at most 64"),
    ("micrograph.path", None, "micrograph.path: expected an image"),
    ("micrograph", {"z": {"path": "a"}}, "micrograph.y.path: expected an image for direction y"),
    ("micrograph.segmentation", "threshold", "micrograph.threshold=128"),
    ("micrograph", {"path": "a", "segmentation": "otsu", "threshold": 3}, "segmentation=threshold"),
    (
        "micrograph",
        {"path": "a", "segmentation": "otsu", "classes": 3},
        "micrograph.classes: expected 2 with micrograph.segmentation=otsu, found 3; use "
        "micrograph.segmentation=multi-otsu",
    ),
    ("micrograph.z", {"segmentation": "labels", "classes": 3}, "micrograph.z.classes: expected 2 with"),
    ("micrograph", {"path": "a", "threshold": 9, "classes": 3}, "multi-otsu and micrograph.threshold=null"),
    ("micrograph.crop", [0, 7, 0, 64], "micrograph.crop"),
    ("micrograph.crop", [9, 0, 0, 64], "micrograph.crop"),
    ("micrograph.crop", [0, 64], "4 integers"),
    ("micrograph.z", {"pth": "a"}, "micrograph.z.pth: unknown key; did you mean micrograph.z.path?"),
    ("micrograph.z", {"crop": [0, 1, 0, 1]}, "micrograph.z.crop"),
    ("micrograph.pixel_size", 0, "a number above 0"),
    ("micrograph.unit", "furlong", "um"),
    ("micrograph.image", "a", "expected an array"),
]


@pytest.mark.parametrize(("dotted", "value", "message"), BAD, ids=[f"{key}={value}" for key, value, _ in BAD])
def test_bad_settings_are_told_in_one_line(dotted: str, value: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        from_mapping(with_(dotted, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


FROM_FILE = {"initial": "file", "initial_path": "a.npy"}
GAUSSIAN = {"method": "gaussian"}
SWAPS = {"optimizer": {"name": "yeong_torquato"}}
IDLE: list[tuple[dict[str, Any], str, object, str]] = [
    (
        FROM_FILE,
        "levels.count",
        3,
        "expected 1 or null with initial=file, a field of the finest level, found 3; leave it out, or set "
        "initial=spectral",
    ),
    (FROM_FILE, "levels.coarsest", 8, "expected null with initial=file"),
    (GAUSSIAN, "levels.count", 2, "expected 1 or null with method=gaussian"),
    (GAUSSIAN, "levels.coarsest", 8, "expected null with method=gaussian"),
    (GAUSSIAN, "output.threshold", 0.4, "expected auto with method=gaussian"),
    (GAUSSIAN, "output.denoise", 0.2, "expected 0 with method=gaussian"),
    (SWAPS, "levels.count", 2, "expected 1 or null with optimizer.name=yeong_torquato"),
    (SWAPS, "levels.coarsest", 8, "expected null with optimizer.name=yeong_torquato"),
    (
        SWAPS,
        "output.threshold",
        "exact",
        "expected auto with optimizer.name=yeong_torquato, which has no grey voxels, found exact; leave it out, or "
        "set optimizer.name=lbfgsb",
    ),
    (SWAPS, "output.denoise", 0.2, "expected 0 with optimizer.name=yeong_torquato"),
    (SWAPS, "optimizer.flip_rounds", 5, "expected 0 or null with optimizer.name=yeong_torquato"),
    (
        {"optimizer": {"iterations": 0}},
        "optimizer.flip_rounds",
        5,
        "expected 0 or null with optimizer.iterations=0",
    ),
    ({"output": {"denoise": 0.2}}, "optimizer.flip_rounds", 5, "expected 0 or null with output.denoise"),
    ({}, "conditioning.axis", "y", "expected z with conditioning.path=null, found y; leave it out, or set"),
    ({}, "conditioning.index", 3, "expected 0 with conditioning.path=null, found 3"),
    (
        {},
        "conditioning.crop",
        [0, 64, 0, 64],
        "expected null with conditioning.path=null, found [0, 64, 0, 64]",
    ),
]


@pytest.mark.parametrize(
    ("beside", "key", "value", "message"),
    IDLE,
    ids=[f"{key}={value} {list(of)}" for of, key, value, _ in IDLE],
)
def test_settings_that_would_do_nothing_are_refused(
    beside: dict[str, Any], key: str, value: object, message: str
) -> None:
    section, name = key.split(".")
    asked = SMALL | beside | {section: {**beside.get(section, {}), name: value}}
    with pytest.raises(InputError) as caught:
        from_mapping(asked)
    assert str(caught.value).startswith(f"{key}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "beside",
    [FROM_FILE, GAUSSIAN, SWAPS | {"optimizer": {"name": "yeong_torquato", "flip_rounds": 0}}],
    ids=["file", "gaussian", "swaps"],
)
def test_settings_that_say_what_happens_anyway_pass(beside: dict[str, Any]) -> None:
    assert from_mapping(SMALL | beside | {"levels": {"count": 1}}).levels.count == 1


@pytest.mark.parametrize("mapping", [3, [], "volume.size=3"])
def test_what_is_not_a_mapping(mapping: Any) -> None:
    with pytest.raises(InputError, match="expected a mapping"):
        from_mapping(mapping)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists), st.data())
def test_any_value_is_accepted_or_named(value: object, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(keys("reconstruct"))))
    mapping: dict[str, Any] = {"micrograph": {"path": "a.png"}, "volume": {"size": 64}}
    inner = mapping
    for section in key.split(".")[:-1]:
        inner = inner.setdefault(section, {})
    inner[key.split(".")[-1]] = value
    try:
        config = from_mapping(mapping)
    except InputError as error:
        assert "\n" not in str(error)
        assert key.split(".")[0] in str(error)
    else:
        assert from_mapping(to_mapping(config)) == config


@pytest.mark.parametrize(
    "mapping",
    [
        SMALL,
        with_("initial", "noise"),
        with_("initial", "file") | {"initial_path": "x.npy"},
        with_("micrograph", {"path": "a", "crop": [0, 9, 0, 9], "z": {"threshold": 3}}),
        with_("micrograph", {"path": "a", "classes": 3, "z": {"segmentation": "auto", "classes": 2}}),
    ],
)
def test_a_round_trip_changes_nothing(mapping: dict[str, Any]) -> None:
    config = from_mapping(mapping)
    plain = yaml.safe_load(yaml.safe_dump(to_mapping(config)))
    assert from_mapping(json.loads(json.dumps(plain))) == config


def test_yaml_and_dataclasses_have_the_same_keys_and_defaults() -> None:
    written = yaml.safe_load((CONF / "reconstruct.yaml").read_text(encoding="utf-8"))
    written["micrograph"]["path"], written["volume"]["size"] = "a.png", 64
    assert from_mapping(written) == from_mapping(SMALL)
    assert _leaves(written) == {key for key in keys("reconstruct") if not key.startswith(_DIRECTIONS)}

    written = yaml.safe_load((CONF / "characterize.yaml").read_text(encoding="utf-8"))
    written["micrograph"]["path"] = "a.png"
    assert characterize_from_mapping(written) == characterize_from_mapping({"micrograph": "a.png"})
    # What the solver alone needs is not asked for here.
    assert _leaves(written) == {key for key in keys("characterize") if not key.startswith(_DIRECTIONS)}


@pytest.mark.parametrize("key", ["levels.count", "levels.coarsest", "run.report"])
def test_characterize_has_no_keys_of_the_solver(key: str) -> None:
    """It describes the finest level alone, and writes a picture, no report."""
    section, name = key.split(".")
    with pytest.raises(InputError, match=f"^{section}.*: unknown key"):
        characterize_from_mapping({"micrograph": "a.png", section: {name: None}})


def test_settings_of_finished_volumes_are_the_same_in_yaml() -> None:
    for verb, read in (
        ("export", export_from_mapping),
        ("view", view_from_mapping),
        ("analyze", analyze_from_mapping),
    ):
        written = yaml.safe_load((CONF / f"{verb}.yaml").read_text(encoding="utf-8"))
        assert _leaves(written) == set(keys(verb))
        form = {"format": "tiff"} if verb == "export" else {}
        written = written | form
        written["volume"]["path"] = "a.tif"
        assert read(written) == read({"volume": {"path": "a.tif"}} | form)


# The keys of a micrograph again: written as null, and explained once.
_DIRECTIONS = ("micrograph.z.", "micrograph.y.", "micrograph.x.", "interpolate.micrograph.")


def _leaves(mapping: dict[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in mapping.items():
        if isinstance(value, dict):
            found |= _leaves(value, f"{prefix}{key}.")
        elif f"{prefix}{key}." not in _DIRECTIONS:
            found.add(prefix + key)
    return found


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_experiments_have_known_keys(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# @package _global_\n")
    verify("reconstruct", yaml.safe_load(text))
