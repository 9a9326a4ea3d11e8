"""The field that the first level starts from: noise, or random fields with the targets' two-point correlation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from mcrdist import gaussian
from mcrdist.conditioning.known import Given
from mcrdist.directions import AXES
from mcrdist.gaussian import Wish
from mcrdist.multigrid import Level
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.random import noise
from mcrdist.parallel.slab import Slab
from mcrdist.phases import Phases
from mcrdist.targets import Interpolation, Targets

#: The noise behind the far end of a graded material, apart from those of the variables.
FAR_END = 1000
#: Standard deviation of the noise that starts a level, in grey values.
NOISE = 0.1


@dataclass(frozen=True)
class Start:
    """Makes the first field of a level; every rank its planes, the same for any number of ranks.

    Attributes
    ----------
    level, slab
        Its grid, and who owns which planes.
    phases : Phases
        What the field's variables mean.
    axes : sequence of "z", "y", "x"
        Those whose planes have targets.
    comm : Comm
    seed : int
    given : Given, optional
        Voxels that are known: a spectral start, unless it is graded or grey, goes over into them.
    """

    level: Level
    slab: Slab
    phases: Phases
    axes: Sequence[str]
    comm: Comm
    seed: int
    given: Given | None = None

    def noise(self, targets: Targets) -> Tensor:
        """Slightly noisy fields at the volume fractions."""
        return self.phases.stack([self._noise(targets, k) for k in range(self.phases.variables)])

    def spectral(self, targets: Targets) -> Tensor:
        """Random fields whose planes come near the targets in S2, cut at the volume fractions."""
        fields = [self._spectral(targets, k) for k in range(self.phases.variables)]
        return self.phases.stack([field.to(self.slab.dtype) for field in fields])

    def _noise(self, targets: Targets, variable: int) -> Tensor:
        fraction = _mean_fraction(self._wishes(targets, variable, {axis: 1 for axis in self.axes}))
        field = noise(self.slab, self.seed, self.level.number, stream=variable)
        return field.mul_(NOISE).add_(fraction).clamp_(0.0, 1.0)

    @property
    def _grey(self) -> bool:
        """Whether the start shall be grey as averaged micrographs are."""
        return self.level.factor > 1 and self.phases.variables == 1

    def _wishes(self, targets: Targets, variable: int, lags: Mapping[str, int]) -> dict[str, Wish]:
        return {axis: targets.wish(axis, variable, self.level.factor, n) for axis, n in lags.items()}

    def _fit(self, targets: Targets, variable: int) -> tuple[dict[str, Wish], NDArray[np.float64]]:
        """What the planes of each axis are wanted to have, and the filter that gives it to white noise."""
        shape = self.level.shape
        lags = {axis: gaussian.box_lags(shape, AXES.index(axis)) for axis in self.axes}
        wishes = self._wishes(targets, variable, lags)
        return wishes, self.comm.first(lambda: gaussian.fit_kernel(wishes, shape, self._grey))

    def _spectral(self, targets: Targets, variable: int) -> Tensor:
        if isinstance(targets, Interpolation) and targets.along is not None:
            return self._graded(targets, AXES.index(targets.along), variable)
        wishes, kernel = self._fit(targets, variable)
        return gaussian.start(
            self.slab,
            self.comm,
            wishes,
            kernel,
            self.seed,
            self.level.number,
            grey=self._grey,
            stream=variable,
            known=self._known(variable),
        )

    def _known(self, variable: int) -> tuple[Tensor, Tensor] | None:
        """Where a variable is known, and where it is known to be 1."""
        if self.given is None:
            return None
        inside = torch.zeros_like(self.given.mask)
        inside[self.given.mask] = self.given.values[variable] > 0.5
        return self.given.mask, inside

    def _graded(self, targets: Interpolation, axis: int, variable: int) -> Tensor:
        """√(1 − t) g₀ + √t g₁ of a field for either end, cut at every plane's own fraction.

        The two are independent, so a plane of constant t has the covariance (1 − t) C₀ + t C₁ and unit variance.
        """
        t = targets.profile(self.level.shape[axis])
        fields, fractions, variances = [], [], []
        for end, stream in zip(targets.ends, (variable, FAR_END + variable), strict=True):
            wishes, kernel = self._fit(end, variable)
            fields.append(gaussian.gaussian_field(self.slab, kernel, self.seed, self.level.number, stream))
            fractions.append(_mean_fraction(wishes))
            variances.append(gaussian.variance(wishes))
        field = fields[0].mul_(self._along(axis, np.sqrt(1.0 - t)))
        field.add_(fields[1].mul_(self._along(axis, np.sqrt(t))))
        fraction = (1.0 - t) * fractions[0] + t * fractions[1]
        if self._grey:
            deviation = np.sqrt((1.0 - t) * variances[0] + t * variances[1])
            field.mul_(self._along(axis, deviation)).add_(self._along(axis, fraction))
            return field.clamp_(0.0, 1.0)
        field.add_(self._along(axis, ndtri(fraction)))
        return gaussian.softened(field, float(fraction.mean()), self.slab, self.comm)

    def _along(self, axis: int, values: NDArray[np.float64]) -> Tensor:
        """Values of the planes normal to an axis, for this rank's part of a field."""
        own = values[self.slab.start : self.slab.stop] if axis == 0 else values
        return torch.as_tensor(own, device=self.comm.device).view([-1 if i == axis else 1 for i in range(3)])


def _mean_fraction(wishes: Mapping[str, Wish]) -> float:
    return float(np.mean([wish.fraction for wish in wishes.values()]))
