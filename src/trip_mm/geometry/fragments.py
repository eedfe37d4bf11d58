"""Bonds and molecules of a bare geometry, found from distances."""

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from trip_mm.geometry.molecule import BOND_TOLERANCE


def bonds_from_distances(
    atomic_numbers: NDArray[np.int64], positions: NDArray[np.float64]
) -> tuple[tuple[int, int], ...]:
    """Finds bonds: pairs closer than the sum of their covalent radii plus 0.45 A.

    Args:
        atomic_numbers: `[n_atoms]`.
        positions: A, `[n_atoms, 3]`.

    Returns:
        Pairs of atom indices, the smaller first, sorted.
    """
    table = Chem.GetPeriodicTable()
    radii = np.array([table.GetRcovalent(int(z)) for z in atomic_numbers])
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    close = distances < radii[:, None] + radii[None] + BOND_TOLERANCE
    return tuple((int(i), int(j)) for i, j in np.argwhere(np.triu(close, k=1)))


def molecule_of_atoms(n_atoms: int, bonds: tuple[tuple[int, int], ...]) -> NDArray[np.int64]:
    """Numbers the molecules that bonds make of atoms, in the order of their first atoms.

    Returns:
        Molecule of each atom, `[n_atoms]` int64.
    """
    pairs = np.array(bonds, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n_atoms, n_atoms))
    _, labels = connected_components(graph, directed=False)
    _, first = np.unique(labels, return_index=True)
    rank = np.argsort(np.argsort(first))
    return np.asarray(rank[labels], dtype=np.int64)
