"""Paths along a bond of a molecule: what hangs on its second atom moves away rigidly."""

import numpy as np
from numpy.typing import NDArray

from trip_mm.elements import symbols_of
from trip_mm.errors import ConfigError, UnsupportedSystemError
from trip_mm.geometry.molecule import Molecule
from trip_mm.surfaces.path import RigidPath
from trip_mm.training.sampling_geometry import fragment_of


def parse_atoms(text: str, count: int = 2) -> tuple[int, ...]:
    """Reads atom indices from a text such as `0,1`.

    Raises:
        ConfigError: not that many whole numbers.
    """
    parts = text.split(",")
    if len(parts) != count or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"{text!r}: write {count} atom indices, counted from 0, as 0,1")
    return tuple(int(part) for part in parts)


def bond_path(
    molecule: Molecule, bond: tuple[int, int], distances: NDArray[np.float64]
) -> RigidPath:
    """Returns the rigid stretch of a bond.

    Args:
        molecule: its geometry is kept on either side of the bond.
        bond: atom indices; the second moves, with what hangs on it.
        distances: ascending, A.

    Raises:
        UnsupportedSystemError: no such bond, or it is part of a ring.
    """
    fixed, moved = bond
    where = f"{molecule.name}, bond {fixed},{moved}"
    if (min(bond), max(bond)) not in molecule.bonds:
        symbols = symbols_of(molecule.atomic_numbers)
        known = ", ".join(f"{i},{j} ({symbols[i]}-{symbols[j]})" for i, j in molecule.bonds[:12])
        raise UnsupportedSystemError(f"{where}: these atoms are not bonded; bonds are {known}")
    fragment = fragment_of(molecule.bonds, fixed, moved)
    if fragment is None:
        raise UnsupportedSystemError(f"{where}: is part of a ring; choose another")
    axis = molecule.positions[moved] - molecule.positions[fixed]
    length = float(np.linalg.norm(axis))
    direction = np.zeros_like(molecule.positions)
    direction[fragment] = axis / length
    symbols = symbols_of(molecule.atomic_numbers[[fixed, moved]])
    return RigidPath(
        f"{molecule.name} ({molecule.formula})",
        f"{symbols[0]}{fixed}-{symbols[1]}{moved} distance",
        molecule,
        direction,
        length,
        distances,
        length,
    )
