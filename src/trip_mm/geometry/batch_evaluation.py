"""Energies and forces of many molecules in one call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import EvaluationError, UnsupportedSystemError
from trip_mm.geometry.molecule import Molecule
from trip_mm.geometry.potentials import EnergyFunction, PotentialSpec, bind

MAX_ATOMS_PER_CALL = 4096
"""More atoms are evaluated in several calls, which bounds the memory of one."""


@dataclass(frozen=True)
class Evaluation:
    """Energy and forces of one system, or why there are none.

    Attributes:
        energy: eV; nan after an error.
        forces: eV/A, `[n_atoms, 3]`.
        error: empty if there is none.
    """

    energy: float
    forces: NDArray[np.float64]
    error: str = ""


BatchEvaluator = Callable[[Sequence[Molecule]], list[Evaluation]]
"""Molecules at their positions to one evaluation for each, in the same order."""


def bind_batch(spec: PotentialSpec, molecules: Sequence[Molecule]) -> BatchEvaluator:
    """Prepares a potential for many molecules at once.

    TrIP evaluates all systems in one call; other potentials one after the other.

    Args:
        spec: the potential.
        molecules: one of each that will be evaluated; positions do not matter.

    Raises:
        TripError: as `bind`, for the first molecule that the potential cannot know.
    """
    if spec.kind == "trip":
        return _trip_batch(spec, molecules)
    return _one_by_one(spec, molecules)


def _trip_batch(spec: PotentialSpec, molecules: Sequence[Molecule]) -> BatchEvaluator:
    import torch

    from trip_mm.checkpoint import load_potential

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # As in `bind`: relaxation compares energies of 1e-6 eV between steps.
    potential = load_potential(spec.name, device, "float64").requires_grad_(False)
    if device == "cpu":
        potential = potential.with_kernels()
    for molecule in molecules:
        if molecule.charge != 0:
            raise UnsupportedSystemError(
                f"{molecule.name}: net charge {molecule.charge:+d}, and TrIP knows no charge; use "
                "a neutral form or another potential"
            )
        potential.check_elements(torch.as_tensor(molecule.atomic_numbers, device=device))

    def call(systems: Sequence[Molecule]) -> list[Evaluation]:
        sizes = [system.n_atoms for system in systems]
        positions = np.concatenate([system.positions for system in systems])
        numbers = np.concatenate([system.atomic_numbers for system in systems])
        energies, forces = potential.energy_and_forces_batch(
            torch.as_tensor(positions, device=device),
            torch.as_tensor(numbers, device=device),
            torch.as_tensor(np.repeat(np.arange(len(systems)), sizes), device=device),
            len(systems),
        )
        parts = np.split(forces.cpu().numpy(), np.cumsum(sizes)[:-1])
        return [
            _judged(float(energy), part, spec)
            for energy, part in zip(energies.cpu(), parts, strict=True)
        ]

    def evaluate(systems: Sequence[Molecule]) -> list[Evaluation]:
        return [found for part in _chunks(systems) for found in call(part)]

    return evaluate


def _chunks(systems: Sequence[Molecule]) -> list[list[Molecule]]:
    """Splits systems into parts of at most MAX_ATOMS_PER_CALL atoms, or of one system."""
    parts: list[list[Molecule]] = []
    n_atoms = 0
    for system in systems:
        if not parts or n_atoms + system.n_atoms > MAX_ATOMS_PER_CALL:
            parts.append([])
            n_atoms = 0
        parts[-1].append(system)
        n_atoms += system.n_atoms
    return parts


def _judged(energy: float, forces: NDArray[np.float64], spec: PotentialSpec) -> Evaluation:
    if np.isfinite(energy) and np.isfinite(forces).all():
        return Evaluation(energy, forces)
    return Evaluation(np.nan, forces, f"{spec.label}: energy or forces are not finite")


def _one_by_one(spec: PotentialSpec, molecules: Sequence[Molecule]) -> BatchEvaluator:
    bound: dict[object, EnergyFunction] = {
        _identity(molecule): bind(spec, molecule) for molecule in molecules
    }

    def evaluate(systems: Sequence[Molecule]) -> list[Evaluation]:
        found = []
        for system in systems:
            try:
                found.append(Evaluation(*bound[_identity(system)](system.positions)))
            except EvaluationError as error:
                found.append(Evaluation(np.nan, np.zeros_like(system.positions), str(error)))
        return found

    return evaluate


def _identity(molecule: Molecule) -> object:
    numbers = molecule.atomic_numbers.tobytes()
    return numbers, molecule.bonds, molecule.charge, molecule.n_unpaired, molecule.name
