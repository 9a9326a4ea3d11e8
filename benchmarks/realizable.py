"""How near a volume can come to a micrograph's S2 in the mean over its planes, whatever its voxels are.

    python benchmarks/realizable.py [--size 48] [--lags 16] [--periodic] [--only NAME ...] [--data DIRECTORY]

The mean of S2 over all planes of one normal, of a periodic volume, is a plane of the correlation in space, S2(0, y, x)
say, and the transform of that is a power spectrum: nowhere negative. Planes normal to z, y and x have one such
correlation in common, and share an axis in pairs. So a micrograph that is given for all three directions asks for more
than any volume has: its rows and its columns differ by chance, and correlations of planes alone need not fit together
to a spectrum. What is nearest, in the sense of least squares over the three directions, is a convex problem, solved
here by projected gradients (FISTA) on the spectrum. A mean of distances is no smaller than the distance of the mean:
E(S2) of Eq. 10, the mean over planes, of relaxed and of rounded volumes is at least `bound`, which holds however the
three directions share the error; `nearest` is what they have when it is spread by least squares. Both are
found to about a hundredth of themselves, and may come out a little lower with a larger `--size`.

Prints one JSON line a micrograph. With `--periodic`, its S2 is that of runs with `target.periodic=true`.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from quality import NAMES, ROOT
from torch import Tensor

from mcrdist.descriptors.correlation import TwoPointCorrelation
from mcrdist.imagefile import read

#: Steps without gain after which the nearest is found.
PATIENCE, GAIN = 200, 1e-4


class Planes:
    """The windows of S2 in space that the planes of three normals see."""

    def __init__(self, size: int, lags: int) -> None:
        self.size = size
        rows = torch.arange(-lags, lags + 1) % size
        columns = torch.arange(lags + 1)
        self._at = rows[:, None].expand(-1, lags + 1), columns[None, :].expand(2 * lags + 1, -1)

    def of(self, correlation: Tensor) -> Tensor:
        """(3, 2 L + 1, L + 1) of a correlation (n, n, n)."""
        return torch.stack([correlation.select(axis, 0)[self._at] for axis in range(3)])

    def back(self, windows: Tensor) -> Tensor:
        """The adjoint of `of`."""
        found = windows.new_zeros((self.size,) * 3)
        for axis, window in enumerate(windows):
            plane = window.new_zeros(self.size, self.size)
            plane.index_put_(self._at, window, accumulate=True)
            found.select(axis, 0).add_(plane)
        return found


def nearest(target: Tensor, size: int, fraction: float, most: int = 5000) -> Tensor:
    """Distances (3,) between a target (2 L + 1, L + 1) and the nearest correlation in space, by least squares."""
    planes = Planes(size, target.shape[1] - 1)
    spectrum = torch.zeros((size,) * 3, dtype=torch.float64)
    spectrum[0, 0, 0] = fraction**2 * size**1.5  # what it tends to at long range, and all of the lags have
    ahead, momentum = spectrum.clone(), 1.0
    best, since = math.inf, 0
    for _ in range(most):
        difference = planes.of(_transform(ahead)) - target
        # No lag is seen by more than three planes: steps of a third.
        stepped = (ahead - _transform(planes.back(difference)) / 3).clamp_(min=0)
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = stepped + (momentum - 1) / following * (stepped - spectrum)
        spectrum, momentum = stepped, following
        distance = float(difference.norm())
        since = 0 if distance < best * (1 - GAIN) else since + 1
        best = min(best, distance)
        if since > PATIENCE:
            break
    return torch.linalg.vector_norm(planes.of(_transform(spectrum)) - target, dim=(1, 2))


def _transform(values: Tensor) -> Tensor:
    """Of a real, even function: real, even and its own inverse."""
    return torch.fft.fftn(values, norm="ortho").real


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=48, help="of the periodic volume, in voxels")
    parser.add_argument("--lags", type=int, default=16)
    parser.add_argument(
        "--periodic", action="store_true", help="pairs may cross the border of the micrograph"
    )
    parser.add_argument("--only", nargs="+", default=NAMES)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "micrographs")
    arguments = parser.parse_args()
    for name in arguments.only:
        image = read(next(arguments.data.glob(f"{name}.*"))).array
        phase = (image == image.max()).astype(float)
        s2 = torch.from_numpy(TwoPointCorrelation(arguments.lags).describe(phase, arguments.periodic))
        found = nearest(s2, arguments.size, float(phase.mean())) / s2.norm()
        facts = {
            "benchmark": "realizable",
            "micrograph": name,
            "size": arguments.size,
            "lags": arguments.lags,
            "periodic": arguments.periodic,
            "nearest": round(float(found.mean()), 5),
            "directions": {axis: round(float(one), 5) for axis, one in zip("zyx", found, strict=True)},
            "bound": round(float(found.norm()) / 3, 5),
        }
        print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
