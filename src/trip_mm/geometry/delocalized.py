"""Delocalized internal coordinates of many geometries of one molecule at once.

s = U^T q with the eigenvectors U of B B^T that have eigenvalues (Baker, Kessi and Delley,
J. Chem. Phys. 105, 192 (1996)); U stays what it was at the first geometry of each system.
"""

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import RelaxationError
from trip_mm.geometry.primitives import Primitives

Floats = NDArray[np.float64]

_LEAST_EIGENVALUE = 1e-6
_BACK_ITERATIONS = 12
_BACK_TOLERANCE = 1e-5


def delocalized_basis(primitives: Primitives, matrix: Floats) -> Floats:
    """Returns the directions in the space of primitives that change the geometry.

    Args:
        primitives: the coordinates.
        matrix: Wilson's B, `[n_systems, n_rows, 3 n_atoms]`.

    Returns:
        U, `[n_systems, n_rows, n_internal]`, orthonormal columns.

    Raises:
        RelaxationError: the primitives do not span all internal motions.
    """
    eigenvalues, vectors = np.linalg.eigh(matrix @ matrix.transpose(0, 2, 1))
    n = primitives.n_internal
    if primitives.n_rows < n or (n and eigenvalues[:, -n].min() < _LEAST_EIGENVALUE):
        raise RelaxationError("the internal coordinates do not span all motions of the molecule")
    basis: Floats = vectors[:, :, primitives.n_rows - n :]
    return basis


def to_delocalized(basis: Floats, matrix: Floats) -> Floats:
    """Returns derivatives of delocalized coordinates, `[n_systems, n_internal, 3 n_atoms]`."""
    product: Floats = basis.transpose(0, 2, 1) @ matrix
    return product


def pseudoinverse(derivatives: Floats) -> Floats:
    """Returns B^T (B B^T)^-1, `[n_systems, 3 n_atoms, n_internal]`: steps to displacements."""
    metric = derivatives @ derivatives.transpose(0, 2, 1)
    inverse: Floats = np.asarray(np.linalg.solve(metric, derivatives), dtype=np.float64)
    return inverse.transpose(0, 2, 1)


def displaced(
    primitives: Primitives,
    axes: Floats,
    basis: Floats,
    inverse: Floats,
    positions: Floats,
    steps: Floats,
) -> Floats:
    """Finds positions whose delocalized coordinates have changed by given steps.

    Iterates x <- x + B^+ (s_target - s(x)) with the B^+ of the start; a system that does not come
    closer keeps the first-order displacement.

    Args:
        primitives: the coordinates.
        axes: of linear bends.
        basis: U, `[n_systems, n_rows, n_internal]`.
        inverse: from `pseudoinverse`.
        positions: A, `[n_systems, n_atoms, 3]`.
        steps: `[n_systems, n_internal]`.

    Returns:
        A, `[n_systems, n_atoms, 3]`.
    """
    before = primitives.values(positions, axes)
    moved = positions + np.einsum("sij,sj->si", inverse, steps).reshape(positions.shape)
    best: Floats = moved.copy()
    least = np.full(len(positions), np.inf)
    for _ in range(_BACK_ITERATIONS):
        change = primitives.difference(primitives.values(moved, axes), before)
        missing = steps - np.einsum("srj,sr->sj", basis, change)
        errors = np.linalg.norm(missing, axis=1)
        closer = errors < least
        best[closer], least[closer] = moved[closer], errors[closer]
        if (errors < _BACK_TOLERANCE).all():
            break
        more = np.einsum("sij,sj->si", inverse, missing).reshape(positions.shape)
        moved = np.where((errors <= least)[:, None, None], moved + more, moved)
    return best
