"""Paths of two rigid molecules pulled apart along the line through their centres."""

import numpy as np
from numpy.typing import NDArray

from trip_mm.elements import symbols_of
from trip_mm.errors import ConfigError
from trip_mm.geometry.molecule import Molecule
from trip_mm.surfaces.path import RigidPath

# An atom this close to the centre of its molecule points nowhere, A.
_CENTRAL = 0.1


def dimer_path(
    first: Molecule, second: Molecule, contact: tuple[int, int], distances: NDArray[np.float64]
) -> RigidPath:
    """Returns two molecules that face each other with one atom each, moved apart.

    The first molecule is turned so that its contact atom points along x as seen from its centre,
    the second so that its contact atom points back; both contact atoms lie on the x axis. An atom
    at the centre of its molecule leaves the molecule as it came.

    Args:
        first: stays.
        second: moves.
        contact: an atom of the first and one of the second, each counted from 0.
        distances: between the contact atoms, ascending, A.

    Raises:
        ConfigError: a contact atom that does not exist.
    """
    for index, molecule, which in zip(contact, (first, second), ("first", "second"), strict=True):
        if index >= molecule.n_atoms:
            raise ConfigError(
                f"contact atom {index} of the {which} molecule: {molecule.name} has atoms 0 to "
                f"{molecule.n_atoms - 1}"
            )
    near = _facing(first, contact[0], np.array([1.0, 0.0, 0.0]))
    far = _facing(second, contact[1], np.array([-1.0, 0.0, 0.0]))
    start = float(distances[-1])
    positions = np.concatenate([near, far + np.array([start, 0.0, 0.0])])
    direction = np.zeros_like(positions)
    direction[first.n_atoms :, 0] = 1.0
    bonds = first.bonds + tuple((i + first.n_atoms, j + first.n_atoms) for i, j in second.bonds)
    numbers = np.concatenate([first.atomic_numbers, second.atomic_numbers])
    together = Molecule(
        numbers,
        positions,
        bonds,
        first.charge + second.charge,
        first.n_unpaired + second.n_unpaired,
        f"{first.formula} + {second.formula}",
    )
    atoms = (contact[0], contact[1] + first.n_atoms)
    ends = [f"{s}{i}" for s, i in zip(symbols_of(numbers[list(atoms)]), atoms, strict=True)]
    quantity = "...".join(ends) + " distance"
    return RigidPath(together.name, quantity, together, direction, start, distances, start)


def _facing(molecule: Molecule, atom: int, target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turns a molecule so that an atom points along a unit vector, and puts the atom at 0."""
    own = molecule.positions[atom] - molecule.positions.mean(axis=0)
    length = float(np.linalg.norm(own))
    shifted: NDArray[np.float64] = molecule.positions - molecule.positions[atom]
    if length < _CENTRAL:
        return shifted
    return shifted @ _rotation(own / length, target).T


def _rotation(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the shortest rotation of one unit vector onto another."""
    cosine = float(source @ target)
    if cosine < -1.0 + 1e-9:
        other = np.eye(3)[int(np.abs(source).argmin())]
        axis = np.cross(source, other)
        axis /= np.linalg.norm(axis)
        return 2.0 * np.outer(axis, axis) - np.eye(3)
    x, y, z = np.cross(source, target)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + cross + cross @ cross / (1.0 + cosine))
