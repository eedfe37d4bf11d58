"""Second derivatives of the energy with respect to positions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import ConfigError, EvaluationError
from trip_mm.geometry.molecule import Molecule
from trip_mm.geometry.potentials import EnergyFunction, PotentialSpec, bind

HessianFunction = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Positions in A `[n_atoms, 3]` to the Hessian in eV/A^2 `[3 n_atoms, 3 n_atoms]`."""

DIFFERENCE_STEP = 0.005
"""Displacement of central differences, A."""


@dataclass(frozen=True)
class BoundHessian:
    """A Hessian prepared for one molecule.

    Attributes:
        evaluate: the function.
        origin: how it is computed, for tables: `analytic` or `central differences`.
    """

    evaluate: HessianFunction
    origin: str


def bind_hessian(spec: PotentialSpec, molecule: Molecule, method: str = "auto") -> BoundHessian:
    """Prepares the Hessian of a potential for one molecule.

    Args:
        spec: the potential.
        molecule: composition and charge; its positions do not matter.
        method: `analytic`, `differences`, or `auto`, which is analytic for TrIP and central
            differences of forces for all others.

    Raises:
        ConfigError: an unknown method, or analytic for a potential that only gives forces.
        TripError: as `bind`.
    """
    if method not in ("auto", "analytic", "differences"):
        raise ConfigError(f"Hessian {method!r} is unknown; use auto, analytic or differences")
    if method == "analytic" and spec.kind != "trip":
        raise ConfigError(f"{spec.label} has no analytic Hessian here; use differences")
    energy_function = bind(spec, molecule)  # refuses what the potential cannot know
    if method == "differences" or spec.kind != "trip":
        return BoundHessian(
            lambda positions: hessian_by_differences(energy_function, positions),
            "central differences",
        )
    return BoundHessian(_analytic_trip(spec, molecule), "analytic")


def hessian_by_differences(
    energy_function: EnergyFunction, positions: NDArray[np.float64], step: float = DIFFERENCE_STEP
) -> NDArray[np.float64]:
    """Computes H_ij = -[F_j(x_i + h) - F_j(x_i - h)] / (2 h), symmetrised.

    Args:
        energy_function: the potential bound to the molecule.
        positions: A, `[n_atoms, 3]`.
        step: h, A.

    Returns:
        eV/A^2, `[3 n_atoms, 3 n_atoms]`.

    Raises:
        EvaluationError: the potential fails at a displaced geometry.
    """
    n = positions.size
    hessian = np.zeros((n, n))
    for i in range(n):
        shift = np.zeros_like(positions)
        shift.flat[i] = step
        ahead, behind = (energy_function(positions + sign * shift)[1] for sign in (1, -1))
        hessian[i] = -(ahead - behind).ravel() / (2.0 * step)
    symmetric: NDArray[np.float64] = 0.5 * (hessian + hessian.T)
    return symmetric


def _analytic_trip(spec: PotentialSpec, molecule: Molecule) -> HessianFunction:
    """Differentiates the forces of the plain network row by row in float64."""
    import torch

    from trip_mm.checkpoint import load_potential

    potential = load_potential(spec.name, dtype="float64").requires_grad_(False)
    atomic_numbers = torch.as_tensor(molecule.atomic_numbers)
    system_idx = torch.zeros_like(atomic_numbers)

    def evaluate(positions: NDArray[np.float64]) -> NDArray[np.float64]:
        leaf = torch.tensor(positions, dtype=torch.float64, requires_grad=True)
        _, forces = potential.energy_and_forces_batch(
            leaf, atomic_numbers, system_idx, 1, create_graph=True
        )
        rows = [
            torch.autograd.grad(-component, leaf, retain_graph=True)[0].reshape(-1)
            for component in forces.reshape(-1)
        ]
        hessian = torch.stack(rows).numpy()
        if not np.isfinite(hessian).all():
            raise EvaluationError(f"{spec.label}: the Hessian is not finite")
        symmetric: NDArray[np.float64] = 0.5 * (hessian + hessian.T)
        return symmetric

    return evaluate
