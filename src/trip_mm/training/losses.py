"""Loss functions on energies and forces: per-size balanced (default) or the thesis's.

Both are built on the pseudo-Huber function of TrIP thesis Eq. 22,

    h(x) = delta^2 (sqrt(1 + (x / delta)^2) - 1),

a parabola for small errors and a straight line of slope delta for large ones:

    loss = w_E mean_systems h_E(energy error) + w_F mean_atoms h_F(|force error vector|).

They differ in what an error is. `default`: energies in eV divided by sqrt(n_atoms), forces in
eV/A; a cluster of a hundred atoms then weighs as much as a small molecule. `thesis` (Eq. 23):
energies and forces divided by one standard deviation of total energies.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class LossSettings:
    """Weights and shapes of the loss.

    Attributes:
        per_sqrt_atom: energy errors are divided by sqrt(n_atoms) of their system.
        scale: every error is divided by this many eV (eV/A) first; 1 leaves them in eV.
        energy_weight: w_E.
        force_weight: w_F.
        energy_delta: delta of the energy term, in units of the scaled error.
        force_delta: delta of the force term, in units of the scaled error.
    """

    per_sqrt_atom: bool
    scale: float
    energy_weight: float
    force_weight: float
    energy_delta: float
    force_delta: float


class LossTerms(NamedTuple):
    """The weighted sum and its two unweighted terms, scalars."""

    total: Tensor
    energy: Tensor
    force: Tensor


def pseudo_huber(errors: Tensor, delta: float) -> Tensor:
    """Returns delta^2 (sqrt(1 + (errors / delta)^2) - 1), elementwise (TrIP thesis Eq. 22)."""
    return pseudo_huber_of_square(errors * errors, delta)


def pseudo_huber_of_square(squares: Tensor, delta: float) -> Tensor:
    """Pseudo-Huber function of an error given by its square.

    The length of a vector has no derivative at zero; its square has. The difference
    sqrt(1 + s) - 1 is taken as s / (sqrt(1 + s) + 1), which loses no digits for small s.
    """
    scaled = squares / delta**2
    return delta**2 * scaled / (torch.sqrt(1.0 + scaled) + 1.0)


def energy_force_loss(
    energy_errors: Tensor, force_errors: Tensor, n_atoms: Tensor, settings: LossSettings
) -> LossTerms:
    """Computes the loss of one minibatch.

    Args:
        energy_errors: predicted minus labelled energies, eV, `[n_systems]`.
        force_errors: predicted minus labelled forces, eV/A, `[n_atoms_total, 3]`.
        n_atoms: number of atoms of each system, `[n_systems]`.
        settings: weights and shapes.

    Returns:
        Total loss and its two terms, in the dtype of `force_errors`.
    """
    energy_errors = energy_errors / settings.scale
    if settings.per_sqrt_atom:
        energy_errors = energy_errors / torch.sqrt(n_atoms.to(energy_errors.dtype))
    squares = (force_errors / settings.scale).square().sum(dim=-1)  # [n_atoms_total]
    energy = pseudo_huber(energy_errors, settings.energy_delta).mean().to(force_errors.dtype)
    force = pseudo_huber_of_square(squares, settings.force_delta).mean()
    total = settings.energy_weight * energy + settings.force_weight * force
    return LossTerms(total, energy, force)
