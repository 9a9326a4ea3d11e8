"""From overrides to a nested mapping, with Hydra; the only module that knows Hydra.

Hydra composes; it does not run anything, so its directories, logging and tracebacks stay out of the way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcrdist.config import keys, verify
from mcrdist.errors import InputError

_PACKAGE = Path(__file__).resolve().parents[1]
_QUOTES = "'\""


def conf_dir() -> Path:
    """Return where the YAML files are: inside the package of a wheel, beside it in a source tree."""
    inside, beside = _PACKAGE / "conf", _PACKAGE.parent / "conf"
    return inside if inside.is_dir() else beside


def experiments() -> list[str]:
    """Return the names that ``+experiment=NAME`` takes."""
    return sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))


def compose(verb: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the settings of ``conf/VERB.yaml`` with `overrides`, resolved, as plain data.

    Raises
    ------
    InputError
        For an override that cannot be read. Keys that do not exist and values of the wrong kind are kept: the
        configuration knows more about them than Hydra does.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    prepared = [_prepare(verb, override) for override in overrides]
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = hydra.compose(config_name=verb, overrides=prepared)
        mapping = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_sentence(error)) from None
    assert isinstance(mapping, dict)
    return {str(key): value for key, value in mapping.items()}


def mapping(verb: str, overrides: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return composed `overrides` with `settings` on top of them."""
    return _merge(compose(verb, overrides), settings) if overrides else dict(settings)


def as_yaml(verb: str, overrides: Sequence[str]) -> str:
    """Return the composed settings as YAML, keys and values checked as far as each can be alone."""
    from omegaconf import OmegaConf

    composed = compose(verb, overrides)
    verify(verb, composed)
    return OmegaConf.to_yaml(OmegaConf.create(composed)).rstrip()


def _prepare(verb: str, override: str) -> str:
    """Return `override` as Hydra should see it.

    * Text (paths, names) is taken as it was typed: file names have spaces, commas and leading zeros. Where several
      are accepted, commas between brackets make a list: ``[a.tif,b.tif]``.
    * Any key may be set, so that our own message about an unknown one is heard, with its suggestion.
    * ``experiment=quick`` works as ``+experiment=quick`` does.
    """
    sign, key, value = split(override)
    if is_list(verb, key, value):
        value = _quoted_list(value)
    elif is_text(verb, key) and value != "null" and value.lstrip()[0] not in _QUOTES:
        value = quoted(value)
    prepared = f"{sign}{key}={value}"
    if parsed(prepared, override).is_sweep_override():
        raise InputError(
            f"{override}: expected one value, found several; add -m for a run of each, or write a list as "
            f"{key}=[1,2]"
        )
    is_group = key == "experiment"
    if is_group and value not in experiments():
        raise InputError(
            f"{override}: expected {key}=NAME with one of {', '.join(experiments())}, found {value}"
        )
    if sign:
        return prepared
    return f"+{prepared}" if is_group else f"++{prepared}"


def is_text(verb: str, key: str) -> bool:
    """Return whether `key` holds text that is taken as it is typed."""
    check = keys(verb).get(key)
    return check is not None and check.literal


def is_list(verb: str, key: str, value: str) -> bool:
    """Return whether `value` is typed as a list of texts, which `key` accepts too."""
    check = keys(verb).get(key)
    return check is not None and check.listed and bool(re.fullmatch(r"\s*\[.*,.*\]\s*", value, re.DOTALL))


def parsed(prepared: str, override: str) -> Any:
    """Return Hydra's reading of an override; messages show it as it was typed, `override`."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(prepared)
    except HydraException as error:
        key = split(override)[1]
        raise InputError(
            f"{override}: expected key=value, found what cannot be read as one "
            f"({_sentence(error, first=True)}); "
            f"put quotes around text: {key}=\"'…'\""
        ) from None


def split(override: str) -> tuple[str, str, str]:
    """Return sign ("", "+" or "++"), key and value of an override."""
    if override.startswith("~"):
        key = override[1:].partition("=")[0]
        raise InputError(f"{override}: expected key=value, found a deletion; {key}=null resets a setting")
    match = re.fullmatch(r"(\+\+|\+)?([A-Za-z_][\w./@-]*)=(.*)", override, flags=re.DOTALL)
    if match is None:
        raise InputError(f"{override}: expected key=value, e.g. volume.size=128")
    sign, key, value = match.groups()
    if key.split(".")[0].split("/")[0] == "hydra":
        raise InputError(
            f"{override}: expected a setting of mcrdist, found one of Hydra's, which plays no part here"
        )
    if not value.strip():
        raise InputError(f"{override}: expected a value after =, found nothing; {key}=null resets it")
    return sign or "", key, value


def quoted(text: str) -> str:
    """Return `text` as a quoted string of Hydra's grammar, where backslashes matter before a quote only."""
    escaped = re.sub(r"(\\*)'", lambda match: match[1] * 2 + r"\'", text)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{chr(92) * trailing}'"


def _quoted_list(text: str) -> str:
    """Return "[a, 'b, c']" as a list of quoted strings; items in quotes keep their commas."""
    items = re.findall(r"\s*('[^']*'|\"[^\"]*\"|[^,]*)\s*(?:,|$)", text.strip()[1:-1])
    stripped = [item.strip() for item in items if item.strip()]
    return f"[{','.join(item if item[0] in _QUOTES else quoted(item) for item in stripped)}]"


def _sentence(error: Exception, first: bool = False) -> str:
    """Return a library's message on one line, without the advice that belongs to other programs."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [
        line
        for line in lines
        if "https://" not in line and "full_key:" not in line and "object_type" not in line
    ]
    return (kept[0] if first else " ".join(kept)) if kept else type(error).__name__


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with `above` laid over it, mapping by mapping."""
    merged = dict(below)
    for key, value in above.items():
        lower = merged.get(key)
        if isinstance(lower, Mapping) and not isinstance(value, Mapping) and value is not None:
            # `micrograph="sem.tif"` in Python, where the file has a mapping: only the image changes.
            value = _image_or_path(value) if key == "micrograph" else value
        both = isinstance(lower, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(lower, value) if both else value  # type: ignore[arg-type]
    return merged


def _image_or_path(value: object) -> dict[str, object]:
    first = value[0] if isinstance(value, list | tuple) and value else value
    return {"image": value, "path": None} if hasattr(first, "__array__") else {"path": value}
