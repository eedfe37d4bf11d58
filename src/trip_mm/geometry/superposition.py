"""Geometries laid on each other: Kabsch, Acta Cryst. A 32, 922 (1976)."""

import numpy as np
from numpy.typing import NDArray


def superposition(
    positions: NDArray[np.float64], target: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the rotation that lays positions on a target with the least weighted deviation.

    Args:
        positions: A, `[n_atoms, 3]`.
        target: A, `[n_atoms, 3]`.
        weights: `[n_atoms]`; both geometries are centred by them.

    Returns:
        `[3, 3]`, to be used as `centred_positions @ rotation.T`.
    """
    share = weights[:, None] / weights.sum()
    a = positions - (share * positions).sum(axis=0)
    b = target - (share * target).sum(axis=0)
    u, _, vt = np.linalg.svd((share * a).T @ b)
    handedness = np.sign(np.linalg.det(u @ vt))
    rotation: NDArray[np.float64] = (vt.T * np.array([1.0, 1.0, handedness])) @ u.T
    return rotation


def rmsd(positions: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Returns the root-mean-square deviation of superposed geometries in A, all atoms alike.

    Args:
        positions: A, `[n_atoms, 3]`.
        target: A, `[n_atoms, 3]`.
    """
    return float(np.sqrt(np.square(_distances(positions, target)).mean()))


def largest_distance(positions: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Returns the largest distance of an atom from itself in superposed geometries, A.

    Args:
        positions: A, `[n_atoms, 3]`.
        target: A, `[n_atoms, 3]`.
    """
    return float(_distances(positions, target).max())


def _distances(positions: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    rotation = superposition(positions, target, np.ones(len(positions)))
    laid = (positions - positions.mean(axis=0)) @ rotation.T
    distances: NDArray[np.float64] = np.linalg.norm(laid - (target - target.mean(axis=0)), axis=1)
    return distances
