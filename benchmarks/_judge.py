"""The judge: a program that shares no code with this one looks at a rounded volume; no benchmark itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Lags that it looks at.
LAGS = 16


def ask(
    judge: Path, volume: Path, image: Path, periodic: bool, others: Mapping[str, Path] | None = None
) -> dict[str, Any]:
    """All that it says of a volume, against the micrograph of all planes, or of all but those of `others` by axis."""
    command = [sys.executable, str(judge), str(volume), str(image), "--lags", str(LAGS)]
    for axis, path in (others or {}).items():
        command += [f"--{axis}", str(path)]
    done = subprocess.run(
        [*command, *(["--periodic"] * periodic)], check=True, capture_output=True, text=True
    )
    content: dict[str, Any] = json.loads(done.stdout)
    return content
