"""What this process holds in memory, and has held at most; on Linux."""

from __future__ import annotations

import re
from pathlib import Path


def resident(what: str = "VmRSS") -> int:
    """Bytes now, or at most since the process began (VmHWM).

    `resource.getrusage` would tell the peak of the process that started this one, where that is higher.
    """
    found = re.search(what + r":\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
