"""``mcrdist export``: a volume in the format of another program."""

from __future__ import annotations

from collections.abc import Sequence

from mcrdist.commands.compose import compose
from mcrdist.commands.terminal import say
from mcrdist.config import export_from_mapping


def run(overrides: Sequence[str]) -> int:
    """Export and say where the files are; return the exit status."""
    config = export_from_mapping(compose("export", overrides))
    from mcrdist.export import export

    for path in export(config):
        say(f"export {path}")
    return 0
