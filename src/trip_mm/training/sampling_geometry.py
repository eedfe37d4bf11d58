"""Changes to geometries: displacement, stretched bonds, rotations, placing one molecule by another.

Every function takes positions in A, `[n_atoms, 3]` float64, and returns new ones.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trip_mm.elements import formula
from trip_mm.training.groups import Conformation

Positions = NDArray[np.float64]
Bond = tuple[int, int]

SIDEWAYS = 2.0
"""Largest shift of a stacked molecule along each axis of its plane, A."""
TILT = np.deg2rad(10.0)
"""Standard deviation of the angle by which a stacked molecule is tilted."""


def unlabelled(
    atomic_numbers: Sequence[int] | NDArray[np.int64],
    positions: Positions,
    system_class: str,
    source: str,
) -> Conformation:
    """Makes a conformation without labels; an odd number of electrons gets one unpaired."""
    numbers = np.asarray(atomic_numbers, dtype=np.int64)
    return Conformation(
        numbers,
        np.asarray(positions, dtype=np.float64),
        float("nan"),
        np.full((len(numbers), 3), np.nan),
        system_class,
        formula(numbers),
        source,
        n_unpaired=int(numbers.sum()) % 2,
    )


def displaced(positions: Positions, sigma: float, rng: np.random.Generator) -> Positions:
    """Moves every coordinate by a normal deviate of standard deviation `sigma` (A)."""
    return positions + rng.normal(0.0, sigma, positions.shape)


def shortest_distance(positions: Positions) -> float:
    """Returns the shortest distance between two atoms in A; infinite for one atom."""
    if len(positions) < 2:
        return float("inf")
    differences = positions[:, None] - positions[None, :]
    squared = np.einsum("ijk,ijk->ij", differences, differences)
    squared[np.diag_indices(len(positions))] = np.inf
    return float(np.sqrt(squared.min()))


def fragment_of(bonds: Sequence[Bond], fixed: int, moved: int) -> list[int] | None:
    """Returns the atoms that hang on `moved` when the bond to `fixed` is cut.

    Returns None if the bond lies in a ring, where nothing can be moved by itself.
    """
    neighbors: dict[int, list[int]] = {}
    for first, second in bonds:
        neighbors.setdefault(first, []).append(second)
        neighbors.setdefault(second, []).append(first)
    found = {moved}
    waiting = [moved]
    while waiting:
        atom = waiting.pop()
        for other in neighbors.get(atom, []):
            if (atom, other) == (moved, fixed) or other in found:
                continue
            if other == fixed:
                return None
            found.add(other)
            waiting.append(other)
    return sorted(found)


def with_bond_scaled(
    positions: Positions, bonds: Sequence[Bond], bond: Bond, factor: float
) -> Positions | None:
    """Scales the length of a bond, moving what hangs on its second atom; None in a ring."""
    fixed, moved = bond
    fragment = fragment_of(bonds, fixed, moved)
    if fragment is None:
        return None
    result = positions.copy()
    result[fragment] += (factor - 1.0) * (positions[moved] - positions[fixed])
    return result


def with_torsion_turned(
    positions: Positions, bonds: Sequence[Bond], bond: Bond, angle: float
) -> Positions | None:
    """Turns what hangs on the second atom of a bond by `angle` (rad) about it; None in a ring."""
    fixed, moved = bond
    fragment = fragment_of(bonds, fixed, moved)
    if fragment is None:
        return None
    axis = positions[moved] - positions[fixed]
    result = positions.copy()
    centred = positions[fragment] - positions[moved]
    result[fragment] = centred @ rotation_about(axis, angle).T + positions[moved]
    return result


def rotation_about(axis: Positions, angle: float) -> Positions:
    """Returns the matrix of a rotation by `angle` (rad) about `axis` (Rodrigues' formula)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross)


def random_rotation(rng: np.random.Generator) -> Positions:
    """Draws a rotation matrix uniformly: the orthogonal factor of a normal random matrix."""
    matrix, upper = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = matrix * np.sign(np.diag(upper))
    if np.linalg.det(matrix) < 0:
        matrix[:, 0] *= -1
    return np.asarray(matrix)


def placed_at_distance(
    first: Positions, second: Positions, distance: float, rng: np.random.Generator
) -> Positions:
    """Turns `second` at random and moves it so that it comes no closer to `first` than `distance`.

    The molecules touch: the shortest distance between an atom of one and an atom of the other is
    `distance` (A). The search goes along a random direction from far away to the first contact.

    Returns:
        Positions of both, first above second, `[n_first + n_second, 3]`.
    """
    centred = first - first.mean(axis=0)
    turned = (second - second.mean(axis=0)) @ random_rotation(rng).T
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    touching = _first_contact(centred, turned, direction, distance)
    return placed_at_distance(first, second, distance, rng) if touching is None else touching


def stacked_at_distance(
    first: Positions, second: Positions, distance: float, rng: np.random.Generator
) -> Positions:
    """Lays `second` flat on `first` so that it comes no closer than `distance`.

    The flat side of a molecule is across the direction of its smallest extent. Both are turned in
    their planes at random, `second` is shifted sideways and tilted a little.

    Returns:
        Positions of both, first above second, `[n_first + n_second, 3]`.
    """
    lower, upper = (_lying_flat(molecule, rng) for molecule in (first, second))
    upper = upper @ rotation_about(rng.normal(size=3), rng.normal(scale=TILT)).T
    upper[:, :2] += rng.uniform(-SIDEWAYS, SIDEWAYS, size=2)
    touching = _first_contact(lower, upper, np.array([0.0, 0.0, 1.0]), distance)
    return stacked_at_distance(first, second, distance, rng) if touching is None else touching


def _lying_flat(positions: Positions, rng: np.random.Generator) -> Positions:
    """Turns a molecule so that its smallest extent is along z, with a random angle about z."""
    centred = positions - positions.mean(axis=0)
    _, _, axes = np.linalg.svd(centred)  # the longest first
    axes[2] *= rng.choice([-1.0, 1.0])
    axes[0] *= np.linalg.det(axes)  # a rotation: no molecule becomes its mirror image
    about_z = rotation_about(np.array([0.0, 0.0, 1.0]), rng.uniform(0.0, 2.0 * np.pi))
    return np.asarray(centred @ axes.T @ about_z.T)


def _first_contact(
    centred: Positions, turned: Positions, direction: Positions, distance: float
) -> Positions | None:
    """Moves `turned` from far away along a direction to the first contact; None if it passes by."""
    separation = turned[None] - centred[:, None]  # [n_first, n_second, 3]
    along = separation @ direction
    across = np.einsum("ijk,ijk->ij", separation, separation) - along**2
    # |separation + t direction| = distance is solved for each pair; the first contact coming from
    # far away is the largest root.
    discriminant = distance**2 - across
    roots = np.where(discriminant >= 0, -along + np.sqrt(np.maximum(discriminant, 0.0)), -np.inf)
    shift = roots.max()
    if not np.isfinite(shift):
        return None
    return np.concatenate([centred, turned + shift * direction])


def with_hydrogens_rescaled(
    positions: Positions, oxygens: NDArray[np.int64], hydrogens: NDArray[np.int64], length: float
) -> Positions:
    """Sets every O-H bond of water to `length` (A), keeping its direction.

    Args:
        positions: A, `[n_atoms, 3]`.
        oxygens: index of each water's oxygen, `[n_waters]`.
        hydrogens: indices of its two hydrogens, `[n_waters, 2]`.
        length: A.
    """
    result = positions.copy()
    centre = positions[oxygens][:, None]
    vectors = positions[hydrogens] - centre
    vectors *= length / np.linalg.norm(vectors, axis=-1, keepdims=True)
    result[hydrogens] = centre + vectors
    return result


def nearest_images(vectors: Positions, cell: Positions) -> Positions:
    """Reduces vectors by whole lattice vectors to their nearest images.

    Exact for vectors shorter than half the shortest cell height, which is what clusters need.

    Args:
        vectors: A, `[..., 3]`.
        cell: A, rows are lattice vectors in lower triangular (OpenMM's reduced) form, `[3, 3]`.
    """
    reduced = vectors.copy()
    for axis in (2, 1, 0):
        turns = np.round(reduced[..., axis] / cell[axis, axis])
        reduced -= turns[..., None] * cell[axis]
    return reduced


def made_whole(positions: Positions, cell: Positions) -> Positions:
    """Moves each atom to the image nearest to an atom placed before it.

    Atoms are placed in the order of shortest distance to those placed already, so that a molecule
    broken over the boundary comes out whole.

    Args:
        positions: A, `[n_atoms, 3]`.
        cell: A, as in `nearest_images`.
    """
    vectors = nearest_images(positions[None] - positions[:, None], cell)  # from i to j
    distances = np.linalg.norm(vectors, axis=-1)
    result = positions.copy()
    best = distances[0].copy()
    parent = np.zeros(len(positions), dtype=np.int64)
    waiting = np.ones(len(positions), dtype=bool)
    waiting[0] = False
    while waiting.any():
        atom = int(np.where(waiting, best, np.inf).argmin())
        result[atom] = result[parent[atom]] + vectors[parent[atom], atom]
        waiting[atom] = False
        closer = distances[atom] < best
        parent[closer & waiting] = atom
        best = np.minimum(best, distances[atom])
    return result
