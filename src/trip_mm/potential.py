"""The potential: positions to energy, forces and virial; batches of systems; self energies."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trip_mm.edge_padding import DEFAULT_SLACK, EdgePadding, NoPadding
from trip_mm.elements import MAX_ATOMIC_NUMBER, SYMBOLS
from trip_mm.errors import ConfigError, UnsupportedElementError
from trip_mm.model.kernels.devices import announce_plain_form, has_kernels
from trip_mm.model.reduced import ReducedPrecision, check_available, reduced_model
from trip_mm.model.trip import TripConfig, TripModel
from trip_mm.neighbors import VerletList, batched_neighbor_list, check_cell

DEFAULT_SKIN = 1.0
"""Verlet skin in A."""


class TripPotential(nn.Module):
    """TrIP with neighbour search, self energies and gradients.

    E = sum_u [interaction energy of the network + self energy of the element] (thesis 4.1).
    The network runs in the model's dtype; edge vectors are formed in the dtype of the positions
    and energies are summed in float64.

    Attributes:
        config: hyper-parameters of the network.
        model: the network.
        padding: `NoPadding`, or `EdgePadding` for `forward` with edge lists of constant length.
        cutoff: interaction range, A.
        self_energies: float64 `[101]`, eV, by atomic number.
        supported_elements: atomic numbers that the model knows.
        name: registered name or file stem, for provenance; empty for a new model.
        path: checkpoint file behind the potential; empty for a new model.
        sha256: digest of that file; empty for a new model.
        metadata: what the checkpoint says of data, training and accuracy.
        reduced_precision: `tf32` or `bf16` for a twin of `with_precision`, else empty.
    """

    __jit_unused_properties__ = ("dtype", "device")

    def __init__(self, model: TripModel, skin: float = DEFAULT_SKIN) -> None:
        super().__init__()
        self.config = model.config
        self.model = model
        self.cutoff = float(model.config.cutoff)
        self.neighbors = VerletList(self.cutoff, skin)
        self.padding: nn.Module = NoPadding()
        self.register_buffer(
            "self_energies", torch.zeros(MAX_ATOMIC_NUMBER + 1, dtype=torch.float64)
        )
        self.self_energies: Tensor
        self.supported_elements = tuple(int(number) for number in model.config.elements)
        self.name = ""
        self.path = ""
        self.sha256 = ""
        self.metadata = dict[str, Any]()  # torch.jit takes exception to an annotation here
        self.reduced_precision = ""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TripPotential":
        """Keeps self energies and statistics in float64 whatever dtype the network takes."""
        exact = {
            (module, name): getattr(module, name).detach().clone()
            for module, name in (
                (self, "self_energies"),
                (self.model, "energy_scale"),
                (self.model, "binding_energies"),
            )
        }
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for (module, name), value in exact.items():
            device = getattr(module, name).device
            setattr(module, name, value.to(device))
        return self

    @torch.jit.unused
    def with_kernels(self) -> "TripPotential":
        """Returns a twin that computes with the compiled kernels and shares all parameters.

        Same numbers, many times faster; see `model.fused`. On a CUDA device without Triton it
        is the potential itself, and the log says so once.

        Raises:
            ConfigError: the potential is neither on a CPU nor on a CUDA device, or of reduced
                precision.
        """
        from trip_mm.model.fused import fused_model  # importing numba takes a second

        if self.reduced_precision:
            raise ConfigError(
                f"there are no compiled kernels for {self.reduced_precision}; use the potential "
                "itself"
            )
        device_type = self.device.type
        if device_type == "cuda" and not has_kernels(device_type):
            announce_plain_form()
            return self
        if not has_kernels(device_type):
            raise ConfigError(
                f"the compiled kernels run on CPUs and CUDA devices, not on {self.device}"
            )
        return self._twin(fused_model(self.model))

    @torch.jit.unused
    def with_padding(self, slack: float = DEFAULT_SLACK) -> "TripPotential":
        """Returns a twin whose network sees edge lists of constant length; shares all parameters.

        Energies and forces of one system are the same; see `edge_padding`.

        Args:
            slack: edges beyond those found, as a share of them, when a capacity is chosen.

        Raises:
            ConfigError: the slack is negative or not finite.
        """
        twin = self._twin(self.model, self.reduced_precision)
        twin.padding = EdgePadding(self.cutoff, slack)
        return twin

    @torch.jit.unused
    def with_precision(self, precision: ReducedPrecision) -> "TripPotential":
        """Returns a twin whose blocks multiply matrices in reduced precision; shares parameters.

        The twin is not checked: see `trip_mm.precision`.

        Args:
            precision: `tf32` or `bf16`.

        Raises:
            ConfigError: another name, a potential in float64, or with compiled kernels.
            BackendError: `tf32` where torch finds no GPU that has it.
        """
        check_available(precision)
        if self.dtype != torch.float32:
            raise ConfigError(f"{precision} reduces float32, and this potential is in {self.dtype}")
        return self._twin(reduced_model(self.model, precision), precision)

    @torch.jit.unused
    def _twin(self, model: TripModel, reduced_precision: str = "") -> "TripPotential":
        """Returns a potential of the same name, statistics and padding with another network."""
        twin = TripPotential(model, self.neighbors.skin)
        twin.padding = copy.deepcopy(self.padding)
        twin.self_energies = self.self_energies
        twin.name, twin.path, twin.sha256 = self.name, self.path, self.sha256
        twin.metadata = self.metadata
        twin.reduced_precision = reduced_precision
        return twin

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the network."""
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.model.parameters()).device

    def set_energy_statistics(
        self,
        self_energies: Mapping[int, float],
        binding_energies: Mapping[int, float],
        energy_scale: float,
    ) -> None:
        """Sets what regression over a data set gives.

        Args:
            self_energies: eV by atomic number; with `lone_atoms="exact"` those of isolated atoms.
            binding_energies: mean binding energy of an atom of each element, eV.
            energy_scale: unit of the readout, eV.

        Raises:
            ConfigError: an element of the model has no value.
        """
        for label, values in (("self", self_energies), ("binding", binding_energies)):
            missing = [SYMBOLS[n] for n in self.supported_elements if n not in values]
            if missing:
                raise ConfigError(f"no {label} energy for {', '.join(missing)}")
        for row, number in enumerate(self.supported_elements):
            self.self_energies[number] = self_energies[number]
            self.model.binding_energies[row] = binding_energies[number]
        self.model.energy_scale.fill_(energy_scale)

    def forward(
        self, positions: Tensor, atomic_numbers: Tensor, cell: Tensor | None = None
    ) -> Tensor:
        """Computes the total energy.

        Args:
            positions: `[n_atoms, 3]`, A.
            atomic_numbers: int64 `[n_atoms]`.
            cell: rows are lattice vectors `[3, 3]`, A; None for open boundaries.

        Returns:
            float64 scalar, eV.
        """
        senders, receivers, shifts = self.neighbors(positions.detach(), cell)
        edge_vectors = positions.index_select(0, receivers) - positions.index_select(0, senders)
        if cell is not None:
            edge_vectors = edge_vectors + shifts.to(cell.dtype) @ cell
        weight = self.model.embedding.weight
        numbers, senders, receivers, edge_vectors = self.padding(
            atomic_numbers, senders, receivers, edge_vectors.to(weight.dtype)
        )
        energies: Tensor = self.model(numbers, senders, receivers, edge_vectors)
        own = self.self_energies.index_select(0, atomic_numbers)
        return energies[: positions.shape[0]].to(torch.float64).sum() + own.sum()

    @overload
    def energy_and_forces(
        self,
        positions: NDArray[np.floating[Any]],
        atomic_numbers: NDArray[np.integer[Any]],
        cell: NDArray[np.floating[Any]] | None = None,
    ) -> tuple[float, NDArray[np.float64]]: ...

    @overload
    def energy_and_forces(
        self, positions: Tensor, atomic_numbers: Tensor, cell: Tensor | None = None
    ) -> tuple[Tensor, Tensor]: ...

    @torch.jit.unused
    def energy_and_forces(
        self, positions: Any, atomic_numbers: Any, cell: Any = None
    ) -> tuple[Any, Any]:
        """Computes energy and forces of one system: numpy in, numpy out; torch in, torch out.

        Args:
            positions: `[n_atoms, 3]`, A.
            atomic_numbers: `[n_atoms]`.
            cell: `[3, 3]`, A, rows are lattice vectors; None for open boundaries.

        Returns:
            energy in eV (float, or a float64 scalar tensor) and forces `[n_atoms, 3]`, eV/A,
            in float64 for numpy and in the dtype of `positions` for torch.

        Raises:
            ConfigError: shapes do not fit, or positions carry a unit.
            UnsupportedElementError: an element that the model has never seen.
            CellTooSmallError: a cell whose shortest height is less than twice the cutoff.
        """
        if hasattr(positions, "value_in_unit") or hasattr(cell, "value_in_unit"):
            raise ConfigError("quantities of OpenMM; give plain A: x.value_in_unit(unit.angstrom)")
        if isinstance(positions, Tensor):
            return self._energy_and_forces(positions, torch.as_tensor(atomic_numbers), cell)
        device = self.device
        energy, forces = self._energy_and_forces(
            torch.as_tensor(np.asarray(positions, dtype=np.float64), device=device),
            torch.as_tensor(np.asarray(atomic_numbers, dtype=np.int64), device=device),
            None
            if cell is None
            else torch.as_tensor(np.asarray(cell, dtype=np.float64)).to(device),
        )
        return float(energy), forces.cpu().numpy()

    @torch.jit.unused
    def _energy_and_forces(
        self, positions: Tensor, atomic_numbers: Tensor, cell: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Checks shapes, elements and cell, then differentiates the energy."""
        if positions.ndim != 2 or positions.shape[1] != 3:
            raise ConfigError(f"positions have shape {tuple(positions.shape)}, not [n_atoms, 3]")
        if atomic_numbers.shape != positions.shape[:1]:
            raise ConfigError(
                f"{positions.shape[0]} positions but {atomic_numbers.numel()} atomic numbers"
            )
        self.check_elements(atomic_numbers)
        if cell is not None:
            check_cell(cell, self.cutoff)
        leaf = positions.detach().requires_grad_(True)
        with torch.enable_grad():
            energy = self(leaf, atomic_numbers.to(torch.int64), cell)
            (gradient,) = torch.autograd.grad(energy, leaf, allow_unused=True)
        forces = torch.zeros_like(leaf) if gradient is None else -gradient
        return energy.detach(), forces.detach()

    @torch.jit.unused
    def check_elements(self, atomic_numbers: Tensor) -> None:
        """Refuses elements that the model has never seen.

        Args:
            atomic_numbers: `[n_atoms]`.

        Raises:
            UnsupportedElementError: names the first such atom and its element.
        """
        known = torch.tensor(self.supported_elements, device=atomic_numbers.device)
        unknown = ~torch.isin(atomic_numbers, known)
        if bool(unknown.any()):
            index = int(unknown.nonzero()[0, 0])
            number = int(atomic_numbers[index])
            symbol = SYMBOLS[number] if 0 < number <= MAX_ATOMIC_NUMBER else f"Z={number}"
            names = ", ".join(SYMBOLS[n] for n in self.supported_elements)
            raise UnsupportedElementError(
                f"atom {index} is {symbol}, but the model knows only {names}"
            )

    @torch.jit.unused
    def energy_and_forces_batch(
        self,
        positions: Tensor,
        atomic_numbers: Tensor,
        system_idx: Tensor,
        n_systems: int,
        cells: Tensor | None = None,
        create_graph: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Computes energies and forces of many systems at once.

        Args:
            positions: `[n_atoms, 3]`, A.
            atomic_numbers: `[n_atoms]`.
            system_idx: system of each atom, ascending, `[n_atoms]`.
            n_systems: number of systems.
            cells: `[n_systems, 3, 3]`, A, or None for open boundaries.
            create_graph: keep the graph, to differentiate forces for training.

        Returns:
            energies float64 `[n_systems]`, eV, and forces `[n_atoms, 3]`, eV/A.
        """
        edges = batched_neighbor_list(positions.detach(), system_idx, cells, self.cutoff)
        return self.energy_and_forces_edges(
            positions, atomic_numbers, system_idx, n_systems, edges, cells, create_graph
        )

    @torch.jit.unused
    def energy_and_forces_edges(
        self,
        positions: Tensor,
        atomic_numbers: Tensor,
        system_idx: Tensor,
        n_systems: int,
        edges: tuple[Tensor, Tensor, Tensor],
        cells: Tensor | None = None,
        create_graph: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """As `energy_and_forces_batch`, from edges (senders, receivers, shifts) found before."""
        senders, receivers, shifts = edges
        with torch.enable_grad():
            leaf = positions if positions.requires_grad else positions.detach().requires_grad_(True)
            edge_vectors = leaf.index_select(0, receivers) - leaf.index_select(0, senders)
            if cells is not None:
                cell = cells.index_select(0, system_idx.index_select(0, senders))
                edge_vectors = edge_vectors + torch.einsum("ei,eij->ej", shifts, cell)
            atomic = self.model(atomic_numbers, senders, receivers, edge_vectors.to(self.dtype))
            own = self.self_energies.index_select(0, atomic_numbers)
            energies = torch.zeros(n_systems, dtype=torch.float64, device=leaf.device).index_add(
                0, system_idx, atomic.to(torch.float64) + own
            )
            (gradient,) = torch.autograd.grad(
                energies.sum(), leaf, create_graph=create_graph, allow_unused=True
            )
        forces = torch.zeros_like(leaf) if gradient is None else -gradient
        if not create_graph:
            energies = energies.detach()
        return energies, forces

    @torch.jit.unused
    def energy_forces_virial(
        self, positions: Tensor, atomic_numbers: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Computes energy, forces and virial of a periodic system.

        The virial is -dE/d(strain) at zero strain, symmetric; stress = -virial / volume.

        Args:
            positions: `[n_atoms, 3]`, A.
            atomic_numbers: `[n_atoms]`.
            cell: `[3, 3]`, A.

        Returns:
            energy in eV, forces `[n_atoms, 3]` in eV/A, virial `[3, 3]` in eV.
        """
        strain = torch.zeros(3, 3, dtype=positions.dtype, device=positions.device)
        strain.requires_grad_(True)
        leaf = positions.detach().requires_grad_(True)
        with torch.enable_grad():
            deform = torch.eye(3, dtype=leaf.dtype, device=leaf.device) + 0.5 * (strain + strain.T)
            senders, receivers, shifts = self.neighbors(leaf.detach(), cell)
            strained = leaf @ deform
            edge_vectors = strained.index_select(0, receivers) - strained.index_select(0, senders)
            edge_vectors = edge_vectors + shifts.to(cell.dtype) @ (cell @ deform)
            atomic = self.model(atomic_numbers, senders, receivers, edge_vectors.to(self.dtype))
            own = self.self_energies.index_select(0, atomic_numbers)
            energy = (atomic.to(torch.float64) + own).sum()
            d_positions, d_strain = torch.autograd.grad(energy, (leaf, strain))
        return energy.detach(), -d_positions, -d_strain


def new_model(config: TripConfig, seed: int) -> TripModel:
    """Builds a network with random weights in float32, leaving the global generator untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TripModel(config)
