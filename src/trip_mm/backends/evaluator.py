"""The one evaluator behind every OpenMM force: positions in nm to the energy in kJ/mol.

The only place of the force backends where units change. Energies are float64 throughout; the
network runs in the dtype of its potential, and positions reach it in float64.
"""

import torch
from torch import Tensor

from trip_mm.edge_padding import DEFAULT_SLACK
from trip_mm.model.kernels.devices import announce_plain_form, has_kernels
from trip_mm.potential import TripPotential
from trip_mm.units import EV_TO_KJ_PER_MOL, NM_TO_ANGSTROM


class OpenMMEvaluator(torch.nn.Module):
    """Energy of an OpenMM system, or of some of its particles, under a potential; scriptable.

    Attributes:
        potential: the potential, its parameters frozen.
        compiled: its twin with the compiled kernels, the same parameters; computes on CPUs; the
            potential itself if that has reduced precision, for which there are no such kernels.
        on_cuda: its twin that computes on CUDA devices: compiled where Triton is installed.
        atomic_numbers: atomic numbers of the particles seen by the potential, int64 [n_atoms].
        ml_atoms: indices of these particles, int64 [n_atoms]; empty if they are all particles.
        ev_to_kj_per_mol: unit of energy, times the sign and weight that the energy enters with.
    """

    atomic_numbers: Tensor
    ml_atoms: Tensor

    def __init__(
        self,
        potential: TripPotential,
        atomic_numbers: Tensor,
        ml_atoms: Tensor | None = None,
        *,
        cuda_edge_slack: float | None = DEFAULT_SLACK,
        scale: float = 1.0,
    ) -> None:
        """Sets up the evaluator.

        Args:
            potential: the potential.
            atomic_numbers: of the particles seen by it, [n_atoms].
            ml_atoms: indices of these particles; None for all.
            cuda_edge_slack: of the edge lists of constant length on CUDA devices, see
                `edge_padding`; None for edge lists as they are found.
            scale: factor of the energy; -1 takes it away.

        Raises:
            ConfigError: the slack is negative or not finite.
        """
        super().__init__()
        self.potential = potential
        reduced = potential.reduced_precision != ""
        self.compiled = potential if reduced else potential.with_kernels()
        on_cuda = self.compiled if has_kernels("cuda") else potential
        if torch.cuda.is_available() and not has_kernels("cuda"):
            announce_plain_form()
        self.on_cuda = on_cuda if cuda_edge_slack is None else on_cuda.with_padding(cuda_edge_slack)
        self.selects = ml_atoms is not None
        self.nm_to_angstrom = NM_TO_ANGSTROM
        self.ev_to_kj_per_mol = scale * EV_TO_KJ_PER_MOL
        none = torch.zeros(0, dtype=torch.int64)
        self.register_buffer("atomic_numbers", atomic_numbers.to(torch.int64))
        self.register_buffer("ml_atoms", none if ml_atoms is None else ml_atoms.to(torch.int64))

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> Tensor:
        """Potential energy of one configuration.

        Args:
            positions: nm, [n_particles, 3], any floating dtype.
            box_vectors: rows are the periodic box vectors, nm, [3, 3]; None for open boundaries.

        Returns:
            Energy times the scale, kJ/mol, float64 scalar, differentiable with respect to the
            positions.
        """
        if self.selects:
            positions = positions.index_select(0, self.ml_atoms)
        cell: Tensor | None = None
        if box_vectors is not None:
            cell = box_vectors.to(torch.float64) * self.nm_to_angstrom
        positions = positions.to(torch.float64) * self.nm_to_angstrom
        if positions.is_cuda:
            energy = self.on_cuda(positions, self.atomic_numbers, cell)
        else:
            energy = self.compiled(positions, self.atomic_numbers, cell)
        total: Tensor = energy * self.ev_to_kj_per_mol
        return total


def energy_and_forces(
    evaluator: torch.nn.Module, positions: Tensor, box_vectors: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Energy and forces of one configuration.

    Args:
        evaluator: an `OpenMMEvaluator`, eager or scripted.
        positions: nm, [n_particles, 3].
        box_vectors: nm, [3, 3]; None for open boundaries.

    Returns:
        Energy, kJ/mol, float64 scalar; forces, kJ/mol/nm, [n_particles, 3], dtype of positions.
    """
    positions = positions.detach().clone().requires_grad_(True)
    energy = evaluator(positions, box_vectors)
    (gradient,) = torch.autograd.grad(energy, positions)
    return energy.detach(), -gradient
