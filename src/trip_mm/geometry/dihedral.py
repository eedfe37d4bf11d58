"""Dihedral angles in degrees: measured, set, wrapped."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import UnsupportedSystemError
from trip_mm.geometry.molecule import Molecule

LINEAR_ABOVE_DEG = 170.0
"""A bond angle beyond this leaves the dihedral undefined."""


def wrapped(angle_deg: float) -> float:
    """Returns an angle in (-180, 180]."""
    return 180.0 - (180.0 - angle_deg) % 360.0


def dihedral_angle(positions: NDArray[np.float64], atoms: Sequence[int]) -> float:
    """Returns the dihedral angle of four atoms in degrees, IUPAC sign, in (-180, 180]."""
    a, b, c, d = positions[list(atoms)]
    axis = (c - b) / np.linalg.norm(c - b)
    before, after = np.cross(b - a, axis), np.cross(axis, d - c)
    angle = np.arctan2(np.dot(np.cross(before, after), axis), np.dot(before, after))
    return wrapped(float(np.degrees(angle)))


def turning_atoms(molecule: Molecule, atoms: Sequence[int]) -> list[int]:
    """Returns the atoms on the far side of the central bond, which turn with the fourth atom.

    Raises:
        UnsupportedSystemError: the central bond is in a ring, or there is no such bond.
    """
    _, b, c, _ = atoms
    if (min(b, c), max(b, c)) not in molecule.bonds:
        raise UnsupportedSystemError(
            f"dihedral {','.join(map(str, atoms))}: atoms {b} and {c} are not bonded; name four "
            "atoms along a chain (counted from 0)"
        )
    neighbors: dict[int, list[int]] = {}
    for i, j in molecule.bonds:
        neighbors.setdefault(i, []).append(j)
        neighbors.setdefault(j, []).append(i)
    reached, front = {c}, [c]
    while front:
        here = front.pop()
        for other in neighbors[here]:
            if (here, other) != (c, b) and other not in reached:
                reached.add(other)
                front.append(other)
    if b in reached:
        raise UnsupportedSystemError(
            f"dihedral {','.join(map(str, atoms))}: the bond {b}-{c} is part of a ring and cannot "
            "turn freely; choose another"
        )
    return sorted(reached - {c})


def check_dihedral(molecule: Molecule, atoms: Sequence[int]) -> tuple[int, int, int, int]:
    """Refuses dihedrals that cannot be turned.

    Raises:
        UnsupportedSystemError: atoms that are not bonded in a chain, a central bond in a ring, or
            a bond angle close to 180 degrees.
    """
    a, b, c, d = (int(atom) for atom in atoms)
    for i, j in ((a, b), (c, d)):
        if (min(i, j), max(i, j)) not in molecule.bonds:
            raise UnsupportedSystemError(
                f"dihedral {a},{b},{c},{d}: atoms {i} and {j} are not bonded; name four atoms "
                "along a chain (counted from 0)"
            )
    turning_atoms(molecule, (a, b, c, d))
    for i, j, k in ((a, b, c), (b, c, d)):
        one, two = (molecule.positions[end] - molecule.positions[j] for end in (i, k))
        cosine = one @ two / (np.linalg.norm(one) * np.linalg.norm(two))
        angle = float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
        if angle > LINEAR_ABOVE_DEG:
            raise UnsupportedSystemError(
                f"dihedral {a},{b},{c},{d}: the angle {i}-{j}-{k} is {angle:.0f} degrees, so the "
                "dihedral is undefined; choose atoms that are not in line"
            )
    return a, b, c, d


def set_dihedral(molecule: Molecule, atoms: Sequence[int], angle_deg: float) -> NDArray[np.float64]:
    """Turns one side of the molecule about the central bond to a dihedral angle.

    Returns:
        Positions in A, `[n_atoms, 3]`.

    Raises:
        UnsupportedSystemError: as `turning_atoms`.
    """
    positions = molecule.positions.copy()
    turning = turning_atoms(molecule, atoms)
    _, b, c, _ = atoms
    axis = (positions[c] - positions[b]) / np.linalg.norm(positions[c] - positions[b])
    angle = np.radians(angle_deg - dihedral_angle(positions, atoms))
    arms = positions[turning] - positions[c]
    # Rodrigues' rotation about the bond.
    positions[turning] = (
        positions[c]
        + arms * np.cos(angle)
        + np.cross(axis, arms) * np.sin(angle)
        + np.outer(arms @ axis, axis) * (1.0 - np.cos(angle))
    )
    return positions
