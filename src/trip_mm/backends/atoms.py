"""Which particles of an OpenMM system a potential acts on, and whether it can.

Everything that can be refused is refused here, before a force exists: particle counts, indices,
elements, virtual sites, the size of the periodic box.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from trip_mm.elements import symbols_of
from trip_mm.errors import ConfigError, UnsupportedElementError, UnsupportedSystemError
from trip_mm.neighbors import check_cell
from trip_mm.units import NM_TO_ANGSTROM


@dataclass(frozen=True)
class AtomSelection:
    """The particles that a potential acts on.

    Attributes:
        atomic_numbers: one for each selected particle.
        indices: their indices in the System; None if they are all particles, in order.
        periodic: whether the box is periodic.
    """

    atomic_numbers: tuple[int, ...]
    indices: tuple[int, ...] | None
    periodic: bool


def _checked_indices(ml_atoms: Sequence[int], n_particles: int) -> tuple[int, ...]:
    """Checks indices of particles: at least one, in range, none twice."""
    indices = tuple(int(i) for i in ml_atoms)
    if not indices:
        raise ConfigError("ml_atoms is empty: name at least one atom, or None for all of them")
    for i in indices:
        if not 0 <= i < n_particles:
            raise ConfigError(
                f"ml_atoms: index {i} is out of range; the System has {n_particles} particles, "
                f"0 to {n_particles - 1}"
            )
    seen: set[int] = set()
    for i in indices:
        if i in seen:
            raise ConfigError(f"ml_atoms: index {i} is given twice; give each atom once")
        seen.add(i)
    return indices


def _name(atom: app.topology.Atom) -> str:
    """How an error message names an atom."""
    residue = atom.residue
    return f"atom {atom.index} ({atom.name} of residue {residue.name} {residue.id})"


def _atomic_number(atom: app.topology.Atom, supported_elements: Collection[int]) -> int:
    """Atomic number of an atom that the potential knows."""
    if atom.element is None:
        raise UnsupportedSystemError(
            f"{_name(atom)} is a virtual site or extra particle without an element: the potential "
            "acts on atoms only; use a three-site water model, or leave it out of ml_atoms"
        )
    number = int(atom.element.atomic_number)
    if number not in supported_elements:
        known = ", ".join(symbols_of(sorted(supported_elements)))
        raise UnsupportedElementError(
            f"{_name(atom)} is {atom.element.symbol}, but the potential knows only {known}; "
            "remove the atom, or choose a potential that was trained on it"
        )
    return number


def _box_vectors(system: openmm.System, topology: app.Topology) -> NDArray[np.float64] | None:
    """Box vectors in nm, [3, 3], of the topology or else of a periodic System; None if open."""
    vectors = topology.getPeriodicBoxVectors()
    if vectors is None:
        if not system.usesPeriodicBoundaryConditions():
            return None
        return _nm(system.getDefaultPeriodicBoxVectors())
    box = _nm(vectors)
    never_set = _nm(openmm.System().getDefaultPeriodicBoxVectors())
    own = _nm(system.getDefaultPeriodicBoxVectors())
    if np.array_equal(own, never_set) and not np.allclose(box, never_set):
        edges = " x ".join(f"{edge:.3f}" for edge in np.linalg.norm(box, axis=1))
        raise ConfigError(
            f"the topology has a box of {edges} nm, but that of the System was never set and is "
            "the 2 nm cube of OpenMM; call "
            "system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors()) first"
        )
    return box


def _nm(vectors: Iterable[unit.Quantity]) -> NDArray[np.float64]:
    """Lattice vectors as plain numbers; a Topology has one quantity, a System a list of three."""
    return np.array([list(vector.value_in_unit(unit.nanometer)) for vector in vectors])


def select_atoms(
    system: openmm.System,
    topology: app.Topology,
    ml_atoms: Sequence[int] | None,
    supported_elements: Collection[int],
    cutoff: float,
) -> AtomSelection:
    """Finds out what a potential acts on, and refuses what it cannot.

    Args:
        system: the System that is to hold the force.
        topology: the topology of its particles.
        ml_atoms: indices of the particles to act on; None for all.
        supported_elements: atomic numbers that the potential knows.
        cutoff: interaction range of the potential, A.

    Returns:
        The selected particles.

    Raises:
        ConfigError: `ml_atoms` is empty, out of range or names an atom twice; the topology has a
            box and that of the System was never set.
        UnsupportedSystemError: System and topology differ in size, or a particle is no atom.
        UnsupportedElementError: an element that the potential does not know.
        CellTooSmallError: the periodic box is too small for the cutoff.
    """
    n_particles = system.getNumParticles()
    if n_particles != topology.getNumAtoms():
        raise UnsupportedSystemError(
            f"the System has {n_particles} particles and the topology {topology.getNumAtoms()} "
            "atoms; pass the topology from which the System was made"
        )
    if n_particles == 0:
        raise UnsupportedSystemError("the System has no particles: there is nothing to simulate")
    atoms = list(topology.atoms())
    indices = None if ml_atoms is None else _checked_indices(ml_atoms, n_particles)
    selected = atoms if indices is None else [atoms[i] for i in indices]
    atomic_numbers = tuple(_atomic_number(atom, supported_elements) for atom in selected)
    box_vectors = _box_vectors(system, topology)
    if box_vectors is not None:
        check_cell(box_vectors * NM_TO_ANGSTROM, cutoff)
    return AtomSelection(atomic_numbers, indices, box_vectors is not None)
