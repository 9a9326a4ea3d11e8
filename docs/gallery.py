"""Draw the middle slices of finished runs, a row a run; single planes side by side.

    python docs/gallery.py out.png RUN [RUN ...] [--titles TITLE ...] [--side 2.2]

For the gallery: what a micrograph looks like after reconstruction with other descriptors. Voxels stay squares.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import mcrdist

AXES = ("z", "y", "x")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--titles", nargs="+", default=None)
    parser.add_argument("--side", type=float, default=2.2, help="of a slice, in inches")
    arguments = parser.parse_args()
    titles = arguments.titles or [path.name for path in arguments.runs]
    if len(titles) != len(arguments.runs):
        parser.error(f"--titles: expected one a run ({len(arguments.runs)}), found {len(titles)}")
    volumes = [mcrdist.open(path).phase for path in arguments.runs]
    columns = 1 if all(len(volume) == 1 for volume in volumes) else len(AXES)
    shape = (len(volumes), columns) if columns > 1 else (1, len(volumes))
    figure, places = plt.subplots(
        *shape, figsize=(shape[1] * arguments.side, shape[0] * (arguments.side + 0.2)), squeeze=False
    )
    for volume, title, row in zip(volumes, titles, places.reshape(len(volumes), columns), strict=True):
        for axis, place in enumerate(row):
            place.imshow(np.take(volume, volume.shape[axis] // 2, axis), cmap="gray", interpolation="nearest")
            place.set_title(title if columns == 1 else f"{title}, normal to {AXES[axis]}", fontsize=8)
            place.axis("off")
    figure.tight_layout()
    figure.savefig(arguments.picture, dpi=110)


if __name__ == "__main__":
    main()
