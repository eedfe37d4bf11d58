"""Energies and forces of a batch, and the gradient of a loss on forces by the weights.

Two ways to the same gradient of L(E, F), F = -dE/dx:

- `double_backward_loss` keeps the graph of the forces and lets autograd differentiate twice.
- `central_difference_loss` returns a surrogate whose gradient is that of L. With
  g = dL/dF held constant, dL/dtheta = dL/dE dE/dtheta - d/dtheta (g . dE/dx), and the
  directional derivative is a difference of two energies displaced along g, system by system:

      g . dE/dx = (E(x + h g) - E(x - h g)) / (2 h) + O(h^2).

  Only first derivatives of the network are taken, at about half the time.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from trip_mm.training.conformations import Batch
from trip_mm.training.losses import LossSettings, LossTerms, energy_force_loss

AtomicEnergies = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""A `TripModel`: atomic numbers, senders, receivers, edge vectors (A) -> atomic energies (eV)."""

LARGEST_DISPLACEMENT = 0.002
"""A; of any atom in a central difference: fourth-order error against float32 rounding."""


class GradientLoss(NamedTuple):
    """What to differentiate by the weights, and the loss itself for the log."""

    differentiable: Tensor
    terms: LossTerms


def interaction_energies(model: AtomicEnergies, batch: Batch, positions: Tensor) -> Tensor:
    """Sums the atomic energies of each system in float64, without self energies.

    Args:
        model: the network.
        batch: numbers and edges.
        positions: A, `[n_atoms, 3]`, in place of those of the batch.

    Returns:
        Energies in eV, `[n_systems]` float64.
    """
    edge_vectors = positions.index_select(0, batch.receivers) - positions.index_select(
        0, batch.senders
    )
    atomic_energies = model(batch.atomic_numbers, batch.senders, batch.receivers, edge_vectors)
    energies = torch.zeros(len(batch.n_atoms), dtype=torch.float64, device=positions.device)
    return energies.index_add(0, batch.system_idx, atomic_energies.to(torch.float64))


def energies_and_forces(
    model: AtomicEnergies, batch: Batch, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """Computes interaction energies and forces of a batch.

    Args:
        model: the network.
        batch: the systems.
        create_graph: keep the graph, so that the forces can be differentiated by the weights.

    Returns:
        Energies in eV, `[n_systems]` float64, and forces in eV/A, `[n_atoms, 3]`.
    """
    with torch.set_grad_enabled(True):
        positions = batch.positions.detach().requires_grad_(True)
        energies = interaction_energies(model, batch, positions)
        (gradient,) = torch.autograd.grad(
            energies.sum(), positions, create_graph=create_graph, materialize_grads=True
        )
    return (energies if create_graph else energies.detach()), -gradient


def double_backward_loss(
    model: AtomicEnergies, batch: Batch, settings: LossSettings
) -> GradientLoss:
    """Computes the loss with the graph of the forces attached."""
    energies, forces = energies_and_forces(model, batch, create_graph=True)
    terms = energy_force_loss(
        energies - batch.energies, forces - batch.forces, batch.n_atoms, settings
    )
    return GradientLoss(terms.total, terms)


def central_difference_loss(
    model: AtomicEnergies, batch: Batch, settings: LossSettings
) -> GradientLoss:
    """Computes the loss, and a surrogate with the same gradient by the weights."""
    energies, forces = energies_and_forces(model, batch, create_graph=False)
    energies.requires_grad_(True)
    forces.requires_grad_(True)
    terms = energy_force_loss(
        energies - batch.energies, forces - batch.forces, batch.n_atoms, settings
    )
    by_energy, by_force = torch.autograd.grad(terms.total, (energies, forces))
    step, scale = _displacements(by_force, batch)
    n_systems, n_atoms = len(batch.n_atoms), len(batch.positions)
    doubled = Batch(
        batch.atomic_numbers.repeat(2),
        torch.cat([batch.positions + step, batch.positions - step]),
        torch.cat([batch.system_idx, batch.system_idx + n_systems]),
        torch.cat([batch.senders, batch.senders + n_atoms]),
        torch.cat([batch.receivers, batch.receivers + n_atoms]),
        batch.n_atoms.repeat(2),
        batch.energies.repeat(2),
        batch.forces.repeat(2, 1),
        batch.class_idx.repeat(2),
    )
    forward, backward = interaction_energies(model, doubled, doubled.positions).chunk(2)
    surrogate = 0.5 * by_energy * (forward + backward) - (forward - backward) / scale
    detached = LossTerms(terms.total.detach(), terms.energy.detach(), terms.force.detach())
    return GradientLoss(surrogate.sum(), detached)


def _displacements(by_force: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns h g, A, `[n_atoms, 3]`, and 2 h of each system, `[n_systems]` float64."""
    lengths = torch.linalg.norm(by_force, dim=-1)
    largest = torch.zeros(len(batch.n_atoms), dtype=lengths.dtype, device=lengths.device)
    largest = largest.scatter_reduce(0, batch.system_idx, lengths, "amax")
    step_sizes = LARGEST_DISPLACEMENT / largest.clamp(min=torch.finfo(lengths.dtype).tiny * 1e6)
    step = step_sizes.index_select(0, batch.system_idx).unsqueeze(-1) * by_force
    return step, 2.0 * step_sizes.to(torch.float64)
