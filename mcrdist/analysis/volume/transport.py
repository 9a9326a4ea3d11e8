"""Effective diffusivity of a phase along an axis, by TauFactor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mcrdist.analysis.volume.kernels import relax
from mcrdist.extras import library

#: Sweeps after which the solver looks at the flux.
_LOOK = 100


@dataclass(frozen=True)
class Diffusivity:
    """What a phase lets through along an axis.

    Attributes
    ----------
    value : float
        D_eff / D_0: the steady flux over that of the bare medium between the same two faces. 1 for a volume that is
        all phase, 0 without a way through.
    converged : bool
        Whether the flux became the same through all planes within the iterations.
    """

    value: float
    converged: bool = True


def diffusivity(
    phase: NDArray[np.bool_],
    axis: int,
    voxel_size: Sequence[float],
    iterations: int = 10000,
    convergence: float = 0.01,
) -> Diffusivity:
    """Solve ∇·(D ∇c) = 0, D = D_0 in the phase and 0 outside, with c fixed on the two faces normal to an axis.

    Nothing flows through the other four faces, those of a periodic volume included: so the parts of a volume and the
    whole are cut out alike, and can be compared.

    Parameters
    ----------
    phase : (nz, ny, nx) bool
    axis : int
        0, 1, 2 for z, y, x.
    voxel_size : (z, y, x)
        Only their ratios matter.
    iterations : int
        At most, and at least 200, since the flux is looked at after every hundred and has to stay the same; each
        updates half the voxels, as on a chessboard.
    convergence : float
        Largest difference of the flux between planes that is accepted, relative to the largest flux.

    Returns
    -------
    Diffusivity

    Raises
    ------
    InputError
        TauFactor is not installed.
    """
    order = (axis, *(other for other in range(3) if other != axis))
    through = _through(phase.transpose(order))
    if not through.any():
        return Diffusivity(0.0)
    if through.all():
        return Diffusivity(1.0)
    import torch  # not at the top: who analyses without transport needs none of it

    theirs: Any = library("taufactor", "transport.enabled=true", "analysis").AnisotropicSolver
    torch.set_num_threads(1)  # a task has one thread, as everywhere

    device = "cuda" if torch.cuda.is_available() else "cpu"

    class Solver(theirs):  # type: ignore[misc]
        """TauFactor 1.2 with two corrections, and with sweeps that a CPU makes in one pass instead of ten."""

        converged: bool

        def vertical_flux(self) -> Any:
            # Theirs takes more than eight neighbours for a sign of an obstacle, which has infinitely many: but where
            # voxels are not cubes, neighbours are weighted, and it loses the flux through whatever has more.
            flux = self.field[:, 2:-1, 1:-1, 1:-1] - self.field[:, 1:-2, 1:-1, 1:-1]
            free = torch.isfinite(self.factor)
            return flux.mul_(free[:, :-1] & free[:, 1:])

        def _end_simulation(self, *ignored: Any) -> None:
            pass  # theirs prints how it ended, whatever it is told

        def _init_chequerboard(self, omega: float) -> Any:
            if device == "cuda":
                return super()._init_chequerboard(omega)
            self.omega = omega
            return None

        def solve(self, iter_limit: int, verbose: bool, conv_crit: float) -> None:
            if device == "cuda":
                super().solve(iter_limit, verbose, conv_crit)
                return
            field, inverse = self.field[0].numpy(), (1 / self.factor[0]).numpy()  # 1/∞ = 0 outside the phase
            weights, omega = np.array([1, self.Ky, self.Kz], np.float32), np.float32(self.omega)
            while not self.converged and self.iter < iter_limit:
                relax(field, inverse, weights, omega, self.iter, _LOOK)
                self.iter += _LOOK
                self.converged = self.check_convergence(verbose, conv_crit, 1)

    sides = tuple(float(voxel_size[k]) for k in order)
    solver = Solver(through.astype(np.uint8), sides, device=device)
    solver.solve(iter_limit=iterations, verbose=False, conv_crit=convergence)
    return Diffusivity(float(solver.D_rel[0]), bool(solver.converged))


def _through(phase: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The clusters that reach from the first plane to the last one; nothing flows through the others."""
    labels, count = ndimage.label(phase)
    crossing = np.zeros(count + 1, bool)
    crossing[np.intersect1d(labels[0], labels[-1])] = True
    crossing[0] = False
    return np.asarray(crossing[labels])
