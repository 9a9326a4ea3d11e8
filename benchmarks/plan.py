"""What large volumes need: `mcrdist plan` for 512³ to 4096³ on as few ranks as hold them.

    python benchmarks/plan.py [--sizes 512 1024 2048 4096] [key=value ...]

Counted, not measured; further arguments are settings of `mcrdist plan`. Prints one JSON line a volume and machine.
"""

from __future__ import annotations

import argparse
import json

import mcrdist
from mcrdist.sizing.footprint import disk

#: What a rank has.
MACHINES = {"32 GB of a CPU's": "cpu", "80 GB of an A100 or H100": "h100"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("overrides", nargs="*", help="settings, key=value")
    arguments = parser.parse_args()
    for size in arguments.sizes:
        for machine, device in MACHINES.items():
            memory = "".join(machine.split()[:2])
            settings = [f"volume.size={size}", f"device={device}", f"hardware.memory={memory}"]
            settings += arguments.overrides
            alone = mcrdist.plan(*settings)
            ranks = alone.ranks_needed
            facts: dict[str, object] = {"benchmark": "plan", "size": size, "machine": machine, "ranks": ranks}
            if ranks is not None:
                found = mcrdist.plan(*settings, f"ranks={ranks}")
                left = disk(found.work)
                facts |= {
                    "memory": found.memory,
                    "sent": found.sent,
                    "fft_flop": alone.fft_flops,
                    "volume": left.phase + left.field,
                    "checkpoint": left.checkpoint,
                }
            print(json.dumps(facts))


if __name__ == "__main__":
    main()
