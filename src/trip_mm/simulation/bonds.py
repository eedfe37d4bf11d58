"""The covalent bonds of a structure: molecules made whole, bonds that are too long to be one."""

import numpy as np
from numpy.typing import NDArray
from openmm import app

from trip_mm.simulation.contacts import close_pairs, minimum_image
from trip_mm.simulation.solute import FloatArray
from trip_mm.units import ANGSTROM_TO_NM

IntArray = NDArray[np.int64]

_LONGEST_TO_HYDROGEN_NM = 1.6 * ANGSTROM_TO_NM
"""S-H, the longest in peptides, is 1.34 A long; beyond 1.6 A a hydrogen bond begins."""

_LONGEST_NM = 2.6 * ANGSTROM_TO_NM
"""C-S, the longest but for bridges, is 1.81 A long, and more in models that are not relaxed."""

_LONGEST_BRIDGE_NM = 3.0 * ANGSTROM_TO_NM
"""OpenMM takes two sulphurs (2.05 A in a bridge) for bonded up to here."""


def made_whole(
    topology: app.Topology, positions: FloatArray, box_vectors: FloatArray
) -> FloatArray:
    """Moves atoms by lattice vectors until no bond goes to a periodic image.

    Only bonds that are too long pull on an atom, so that molecules that are whole stay as they are.
    The first atom of each molecule stays, too.

    Args:
        topology: atoms and bonds.
        positions: nm `[n_atoms, 3]`.
        box_vectors: nm `[3, 3]`, rows are lattice vectors in OpenMM's reduced form.
    """
    pairs = _pairs(topology)
    vectors = positions[pairs[:, 1]] - positions[pairs[:, 0]]
    broken = np.linalg.norm(vectors, axis=1) > _limits(topology, pairs)
    if not broken.any():
        return positions
    moves = np.where(broken[:, None], minimum_image(vectors, box_vectors) - vectors, 0.0)
    neighbours: list[list[tuple[int, FloatArray]]] = [[] for _ in positions]
    for (first, second), move in zip(pairs.tolist(), moves, strict=True):
        neighbours[first].append((second, move))
        neighbours[second].append((first, -move))
    shifts = np.zeros_like(positions)
    seen = np.zeros(len(positions), dtype=bool)
    for start in range(len(positions)):
        waiting = [] if seen[start] else [start]
        seen[start] = True
        while waiting:
            atom = waiting.pop()
            for other, move in neighbours[atom]:
                if not seen[other]:
                    seen[other] = True
                    shifts[other] = shifts[atom] + move
                    waiting.append(other)
    whole: FloatArray = positions + shifts
    return whole


def bond_bridges(topology: app.Topology, positions: FloatArray, box_vectors: FloatArray) -> None:
    """Bonds the sulphurs of disulfide bridges that go to a periodic image.

    OpenMM finds bridges (CYS without HG, sulphurs closer than 3 A) without regard to the box. A
    bridge that is missed would get two hydrogens.

    Args:
        topology: gets the bonds.
        positions: nm `[n_atoms, 3]`.
        box_vectors: nm `[3, 3]`, rows are lattice vectors.
    """
    bonded = {atom for bond in topology.bonds() if _is_bridge(*bond) for atom in bond}
    free = [
        atom
        for residue in topology.residues()
        if residue.name == "CYS" and all(atom.name != "HG" for atom in residue.atoms())
        for atom in residue.atoms()
        if atom.name == "SG" and atom not in bonded
    ]
    if not free:
        return
    sulphurs = positions[[atom.index for atom in free]]
    for first, second, _ in close_pairs(sulphurs, box_vectors, _LONGEST_BRIDGE_NM):
        ends = {free[first], free[second]}
        if len(ends) > 1 and not ends & bonded:
            topology.addBond(free[first], free[second])
            bonded |= ends


def long_bonds(
    topology: app.Topology, positions: FloatArray
) -> list[tuple[app.topology.Atom, app.topology.Atom, float]]:
    """Lists bonds that are clearly too long to be any, longest first.

    Args:
        topology: atoms and bonds.
        positions: nm `[n_atoms, 3]`.

    Returns:
        Both atoms and their distance in nm.
    """
    atoms = list(topology.atoms())
    pairs = _pairs(topology)
    lengths = np.linalg.norm(positions[pairs[:, 1]] - positions[pairs[:, 0]], axis=1)
    found = np.flatnonzero(lengths > _limits(topology, pairs))
    return [
        (atoms[pairs[bond, 0]], atoms[pairs[bond, 1]], float(lengths[bond]))
        for bond in found[np.argsort(-lengths[found], kind="stable")]
    ]


def _pairs(topology: app.Topology) -> IntArray:
    """Atom indices of each bond, `[n_bonds, 2]`."""
    pairs = [(first.index, second.index) for first, second in topology.bonds()]
    return np.asarray(pairs, dtype=np.int64).reshape(-1, 2)


def _limits(topology: app.Topology, pairs: IntArray) -> FloatArray:
    """Largest length of each bond, nm `[n_bonds]`."""
    elements = [atom.element for atom in topology.atoms()]
    hydrogen = np.asarray([element is app.element.hydrogen for element in elements], dtype=bool)
    sulphur = np.asarray([element is app.element.sulfur for element in elements], dtype=bool)
    limits = np.where(sulphur[pairs].all(axis=1), _LONGEST_BRIDGE_NM, _LONGEST_NM)
    return np.where(hydrogen[pairs].any(axis=1), _LONGEST_TO_HYDROGEN_NM, limits)


def _is_bridge(first: app.topology.Atom, second: app.topology.Atom) -> bool:
    return bool(first.name == second.name == "SG")
