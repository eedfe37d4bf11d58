"""Primitive internal coordinates of many geometries of one molecule at once.

Bond lengths in A, bond angles, dihedral angles and out-of-plane angles in radians. A bond angle
near 180 degrees, whose derivative has no limit, is replaced by two linear bends, the components of
u_ba + u_bc along two fixed axes; dihedral angles reach across such chains (Bakken and Helgaker,
J. Chem. Phys. 117, 9160 (2002)).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from trip_mm.geometry.molecule import Molecule

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

LINEAR_ABOVE_DEG = 165.0
"""A bond angle beyond this at the start is described by linear bends."""
SINGULAR_ABOVE_DEG = 176.0
"""A bond angle that grows beyond this needs new coordinates."""


@dataclass(frozen=True)
class Primitives:
    """Which internal coordinates a molecule has; rows in the order bonds, angles, bends, dihedrals.

    Attributes:
        n_atoms: number of atoms.
        bonds: `[n_bonds, 2]`.
        angles: vertex in the middle, `[n_angles, 3]`.
        bends: vertex in the middle, two rows each, `[n_bends, 3]`.
        dihedrals: chains of four atoms; out-of-plane angles are dihedrals that start at the
            central atom, `[n_dihedrals, 4]`.
    """

    n_atoms: int
    bonds: Indices
    angles: Indices
    bends: Indices
    dihedrals: Indices

    @property
    def n_rows(self) -> int:
        """Number of coordinates."""
        return len(self.bonds) + len(self.angles) + 2 * len(self.bends) + len(self.dihedrals)

    @property
    def first_dihedral(self) -> int:
        """Row of the first dihedral angle."""
        return self.n_rows - len(self.dihedrals)

    @property
    def n_internal(self) -> int:
        """Degrees of freedom without translations and rotations."""
        if self.n_atoms == 1:
            return 0
        straight = len(self.angles) == 0 and len(self.dihedrals) == 0
        return 3 * self.n_atoms - (5 if straight else 6)

    def row_of(self, atoms: tuple[int, ...]) -> int:
        """Returns the row of a dihedral angle, forwards or backwards."""
        for chain in (atoms, atoms[::-1]):
            found = np.flatnonzero((self.dihedrals == np.array(chain)).all(axis=1))
            if len(found):
                return self.first_dihedral + int(found[0])
        raise KeyError(atoms)

    def same_as(self, other: "Primitives") -> bool:
        """Whether both name the same coordinates."""
        mine = (self.bonds, self.angles, self.bends, self.dihedrals)
        theirs = (other.bonds, other.angles, other.bends, other.dihedrals)
        return all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))

    def bend_axes(self, positions: Floats) -> Floats:
        """Returns two axes across each linear bend.

        Args:
            positions: A, `[n_systems, n_atoms, 3]`.

        Returns:
            `[n_systems, n_bends, 2, 3]`, orthonormal.
        """
        along = positions[:, self.bends[:, 2]] - positions[:, self.bends[:, 0]]
        along = along / np.linalg.norm(along, axis=-1, keepdims=True)
        helper = np.eye(3)[np.abs(along).argmin(axis=-1)]
        one = np.cross(along, helper)
        one = one / np.linalg.norm(one, axis=-1, keepdims=True)
        axes: Floats = np.stack([one, np.cross(along, one)], axis=2)
        return axes

    def values(self, positions: Floats, axes: Floats) -> Floats:
        """Computes all coordinates.

        Args:
            positions: A, `[n_systems, n_atoms, 3]`.
            axes: from `bend_axes`, `[n_systems, n_bends, 2, 3]`.

        Returns:
            A and radians, `[n_systems, n_rows]`.
        """
        n_systems = len(positions)
        lengths = np.linalg.norm(_arms(positions, self.bonds, 1, 0), axis=-1)
        u, _, v, _ = _angle_arms(positions, self.angles)
        angles = np.arccos(np.clip((u * v).sum(axis=-1), -1.0, 1.0))
        u, _, v, _ = _angle_arms(positions, self.bends)
        bends = np.einsum("sbi,sbki->sbk", u + v, axes).reshape(n_systems, -1)
        _, G, _, A, B = _dihedral_arms(positions, self.dihedrals)
        length = np.linalg.norm(G, axis=-1)
        sines = (np.cross(B, A) * G).sum(axis=-1) / length
        dihedrals = np.arctan2(sines, (A * B).sum(axis=-1))
        return np.concatenate([lengths, angles, bends, dihedrals], axis=1)

    def difference(self, values: Floats, reference: Floats) -> Floats:
        """Returns `values - reference` with dihedral angles in [-pi, pi), `[n_systems, n_rows]`."""
        change = values - reference
        turns = change[:, self.first_dihedral :]
        change[:, self.first_dihedral :] = (turns + np.pi) % (2.0 * np.pi) - np.pi
        return change

    def wilson(self, positions: Floats, axes: Floats) -> Floats:
        """Computes the derivatives of all coordinates (Wilson's B matrix).

        Args:
            positions: A, `[n_systems, n_atoms, 3]`.
            axes: from `bend_axes`, `[n_systems, n_bends, 2, 3]`.

        Returns:
            `[n_systems, n_rows, 3 n_atoms]`.
        """
        n_systems = len(positions)
        matrix = np.zeros((n_systems, self.n_rows, self.n_atoms, 3))
        row = np.arange(len(self.bonds))
        arms = _arms(positions, self.bonds, 1, 0)
        u = arms / np.linalg.norm(arms, axis=-1, keepdims=True)
        matrix[:, row, self.bonds[:, 0]] = -u
        matrix[:, row, self.bonds[:, 1]] = u
        row = np.arange(len(self.angles)) + len(self.bonds)
        _scatter(matrix, row, self.angles, _angle_derivatives(positions, self.angles))
        for component in range(2):
            row = len(self.bonds) + len(self.angles) + 2 * np.arange(len(self.bends)) + component
            found = _bend_derivatives(positions, self.bends, axes[:, :, component])
            _scatter(matrix, row, self.bends, found)
        row = np.arange(len(self.dihedrals)) + self.first_dihedral
        _scatter(matrix, row, self.dihedrals, _dihedral_derivatives(positions, self.dihedrals))
        return matrix.reshape(n_systems, self.n_rows, 3 * self.n_atoms)

    def is_singular(self, positions: Floats) -> NDArray[np.bool_]:
        """Whether a bond angle has become so straight that its derivative is lost."""
        u, _, v, _ = _angle_arms(positions, self.angles)
        cosines = (u * v).sum(axis=-1)
        limit = np.cos(np.radians(SINGULAR_ABOVE_DEG))
        singular: NDArray[np.bool_] = (cosines < limit).any(axis=1)
        return singular


def _arms(positions: Floats, atoms: Indices, to: int, origin: int) -> Floats:
    return positions[:, atoms[:, to]] - positions[:, atoms[:, origin]]


def _angle_arms(positions: Floats, atoms: Indices) -> tuple[Floats, Floats, Floats, Floats]:
    """Unit vectors from the vertex to both ends, each followed by its length."""
    u, v = _arms(positions, atoms, 0, 1), _arms(positions, atoms, 2, 1)
    r, s = (np.linalg.norm(w, axis=-1, keepdims=True) for w in (u, v))
    return u / r, r, v / s, s


def _dihedral_arms(
    positions: Floats, atoms: Indices
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """F, G, H, A = F x G, B = H x G of Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996)."""
    F, G, H = (_arms(positions, atoms, *ends) for ends in ((0, 1), (1, 2), (3, 2)))
    return F, G, H, np.cross(F, G), np.cross(H, G)


def _angle_derivatives(positions: Floats, atoms: Indices) -> list[Floats]:
    u, r, v, s = _angle_arms(positions, atoms)
    cosine = (u * v).sum(axis=-1, keepdims=True)
    sine = np.sqrt(np.maximum(1.0 - cosine * cosine, 1e-12))
    first = (cosine * u - v) / (r * sine)
    last = (cosine * v - u) / (s * sine)
    return [first, -first - last, last]


def _bend_derivatives(positions: Floats, atoms: Indices, axis: Floats) -> list[Floats]:
    u, r, v, s = _angle_arms(positions, atoms)
    first = (axis - (axis * u).sum(axis=-1, keepdims=True) * u) / r
    last = (axis - (axis * v).sum(axis=-1, keepdims=True) * v) / s
    return [first, -first - last, last]


def _dihedral_derivatives(positions: Floats, atoms: Indices) -> list[Floats]:
    """Eq. 27 of Blondel and Karplus, which has no singularity at 0 and 180 degrees."""
    F, G, H, A, B = _dihedral_arms(positions, atoms)
    length = np.linalg.norm(G, axis=-1, keepdims=True)
    A = A / np.square(A).sum(axis=-1, keepdims=True)
    B = B / np.square(B).sum(axis=-1, keepdims=True)
    along_a = (F * G).sum(axis=-1, keepdims=True) / length * A
    along_b = (H * G).sum(axis=-1, keepdims=True) / length * B
    inner = along_a - along_b
    return [-length * A, length * A + inner, -length * B - inner, length * B]


def _scatter(matrix: Floats, row: Indices, atoms: Indices, parts: list[Floats]) -> None:
    for place, part in enumerate(parts):
        matrix[:, row, atoms[:, place]] = part


def primitives_of(molecule: Molecule, also: tuple[int, int, int, int] | None = None) -> Primitives:
    """Chooses the internal coordinates of a molecule from its bonds and its geometry.

    Args:
        molecule: connected by its bonds.
        also: a dihedral angle that must be among them.
    """
    neighbors: list[list[int]] = [[] for _ in range(molecule.n_atoms)]
    for i, j in molecule.bonds:
        neighbors[i].append(j)
        neighbors[j].append(i)
    triples = [(a, b, c) for b in range(molecule.n_atoms) for a, c in combinations(neighbors[b], 2)]
    straight = {triple for triple in triples if _angle_deg(molecule, triple) > LINEAR_ABOVE_DEG}
    chains = _chains(molecule, neighbors, straight)
    if also is not None and also not in chains and also[::-1] not in chains:
        chains.append(also)
    for center, ends in enumerate(neighbors):
        if len(ends) == 3 and not any((a, center, c) in straight for a, c in combinations(ends, 2)):
            chains += [(center, ends[k], ends[k - 1], ends[k - 2]) for k in range(3)]
    return Primitives(
        molecule.n_atoms,
        _table(list(molecule.bonds), 2),
        _table([triple for triple in triples if triple not in straight], 3),
        _table(sorted(straight), 3),
        _table(chains, 4),
    )


def _chains(
    molecule: Molecule, neighbors: list[list[int]], straight: set[tuple[int, int, int]]
) -> list[tuple[int, int, int, int]]:
    """Dihedral angles about every bond; a straight chain of atoms turns like one bond."""

    def linear(a: int, b: int, c: int) -> bool:
        return (min(a, c), b, max(a, c)) in straight or (max(a, c), b, min(a, c)) in straight

    found = []
    for start in range(molecule.n_atoms):
        for second in neighbors[start]:
            before, end = start, second
            while len(neighbors[end]) == 2:
                onward = next(other for other in neighbors[end] if other != before)
                if not linear(before, end, onward) or onward == start:
                    break
                before, end = end, onward
            if start > end:
                continue  # found from the other side
            for a in neighbors[start]:
                for d in neighbors[end]:
                    if a == second or d == before or len({a, start, end, d}) < 4:
                        continue
                    if linear(a, start, second) or linear(before, end, d):
                        continue
                    found.append((a, start, end, d))
    return found


def _angle_deg(molecule: Molecule, triple: tuple[int, int, int]) -> float:
    a, b, c = (molecule.positions[atom] for atom in triple)
    cosine = (a - b) @ (c - b) / (np.linalg.norm(a - b) * np.linalg.norm(c - b))
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _table(rows: Sequence[tuple[int, ...]], width: int) -> Indices:
    return np.array(rows, dtype=np.int64).reshape(len(rows), width)
