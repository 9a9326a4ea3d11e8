"""The spectrum whose planes come nearest to the correlations that are wanted of them.

The mean of S2 over all planes of one normal, of a periodic volume, is a plane of the correlation in space, S2(0, y, x)
say; and that is the transform of a power spectrum, nowhere negative, summed along k_z. Planes normal to z, y and x have
one spectrum in common, and share an axis in pairs. So three micrographs may ask for what no volume has, and even one
does that is given for all three directions: its rows and its columns differ by chance. What comes nearest is a convex
problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.optimize
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Box = tuple[int, int, int]

#: Iterations of the fit; more change the start by less than its own scatter.
FIT_ITERATIONS = 60
#: And what it takes to find the distance of the nearest spectrum to some hundredths of itself.
NEAREST_ITERATIONS = 100
#: Lags on which that is looked for, at most, and voxels a side of the periodic box: it takes seconds.
NEAREST_LAGS, NEAREST_SIDE = 16, 48


class Planes:
    """What the planes normal to some axes of a periodic box (mz, my, mx) have, each on its window of lags."""

    def __init__(self, wanted: Mapping[int, Floats], box: Box) -> None:
        self._wanted, self._box = wanted, box
        self._scales = {axis: float(np.linalg.norm(values)) or 1.0 for axis, values in wanted.items()}

    def residuals(self, spectrum: Floats) -> dict[int, Floats]:
        """By axis (2L+1, L+1): what the planes have too much, over the length of what is wanted."""
        found = {}
        for axis, values in self._wanted.items():
            projected = spectrum.sum(axis)
            have = scipy.fft.ifft2(projected).real * (projected.size / np.prod(self._box))
            found[axis] = (have[_window(values)] - values) / self._scales[axis]
        return found

    def misfit(self, spectrum: Floats) -> tuple[float, Floats]:
        """The sum of the residuals' squares, and its gradient (mz, my, mx)."""
        total, gradient = 0.0, np.zeros(self._box)
        unit = 1.0 / np.prod(self._box)
        for axis, residual in self.residuals(spectrum).items():
            total += float(np.sum(residual**2))
            spread = np.zeros([n for i, n in enumerate(self._box) if i != axis])
            spread[_window(residual)] = residual * (2.0 * unit / self._scales[axis])
            gradient += np.expand_dims(scipy.fft.fft2(spread).real, axis)
        return total, gradient


def _window(values: Floats) -> tuple[NDArray[np.intp], ...]:
    """Where the lags (2L+1, L+1) are in a periodic plane."""
    lags = values.shape[1] - 1
    return np.ix_(np.arange(-lags, lags + 1), np.arange(lags + 1))


def fit_spectrum(
    wanted: Mapping[int, Floats], box: Box, start: Floats | None = None, iterations: int = FIT_ITERATIONS
) -> Floats:
    """The non-negative spectrum on a periodic box whose planes come nearest to the wanted correlations.

    Parameters
    ----------
    wanted : mapping of axis to array (2L+1, L+1)
        S2, or the covariance, in the planes normal to z, y and x (0, 1, 2), each on its own window. Each counts by its
        distance over its length.
    box : tuple of int
        Periodic box (mz, my, mx), of at least 2 L + 1 voxels a side.
    start : array (mz, my, mx), optional
        Where to begin; else with white noise.
    iterations : int
        At most so many.

    Returns
    -------
    array (mz, my, mx)
        Mean square of the Fourier coefficients of a field of the box over its number of voxels; even in k.
    """
    planes, size = Planes(wanted, box), int(np.prod(box))

    def objective(variables: Floats) -> tuple[float, Floats]:
        total, gradient = planes.misfit(variables.reshape(box))
        return 1e4 * total, 1e4 * gradient.ravel()  # SciPy's tolerances are absolute

    result = scipy.optimize.minimize(
        objective,
        np.ones(size) if start is None else start.ravel(),
        jac=True,
        method="L-BFGS-B",
        bounds=scipy.optimize.Bounds(np.zeros(size), np.full(size, np.inf)),
        options={"maxiter": iterations},
    )
    spectrum = result.x.reshape(box)
    mirrored = np.roll(spectrum[::-1, ::-1, ::-1], 1, axis=(0, 1, 2))
    return np.asarray((spectrum + mirrored) / 2.0)


@dataclass(frozen=True)
class Nearest:
    """How near a periodic volume can come to the S2 that its planes are wanted to have, whatever its voxels are.

    Attributes
    ----------
    errors : mapping of axis to float
        Of the nearest correlation in space, by least squares: ‖S2 − S2_des‖ / ‖S2_des‖ of each direction.
    lags : int
        On lags up to this.
    """

    errors: Mapping[int, float]
    lags: int

    @property
    def mean(self) -> float:
        """Over the directions."""
        return float(np.mean(list(self.errors.values())))

    @property
    def bound(self) -> float:
        """What the mean over the directions of E(S2), Eq. 10, is at least, however they share the error.

        No mean over planes of distances is smaller than the distance of the planes' mean; the errors of any volume are
        together, by their squares, no smaller than those that are the smallest by their squares; and a sum is no
        smaller than the root of the sum of squares.
        """
        errors = list(self.errors.values())
        return float(np.linalg.norm(errors)) / len(errors)


def nearest(
    wanted: Mapping[int, Floats], side: int = NEAREST_SIDE, iterations: int = NEAREST_ITERATIONS
) -> Nearest:
    """How near a periodic volume can come to the S2 (2L+1, L+1) wanted of the planes normal to axes 0, 1, 2.

    Parameters
    ----------
    wanted : mapping of axis to array (2L+1, L+1)
        S2 of images; lags beyond `NEAREST_LAGS` are not looked at.
    side : int
        Of the periodic volume, in voxels. What is nearest in larger ones may be some per cent of itself nearer.
    iterations : int
        At most so many; the distances are found from above.
    """
    lags = min(NEAREST_LAGS, *(values.shape[1] - 1 for values in wanted.values()))
    inner = {axis: _inner(values, lags) for axis, values in wanted.items()}
    # Uncorrelated pixels around their mean: that of the squares is S2(0), and what all lags have is near the least S2.
    start = np.full((side,) * 3, np.mean([values[lags, 0] - values.min() for values in inner.values()]))
    start[0, 0, 0] += side**3 * np.mean([values.min() for values in inner.values()])
    spectrum = fit_spectrum(inner, (side,) * 3, start, iterations)
    residuals = Planes(inner, (side,) * 3).residuals(spectrum)
    return Nearest({axis: float(np.linalg.norm(one)) for axis, one in residuals.items()}, lags)


def _inner(values: Floats, lags: int) -> Floats:
    """The window of fewer lags."""
    there = values.shape[1] - 1
    return values[there - lags : there + lags + 1, : lags + 1]
