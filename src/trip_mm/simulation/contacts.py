"""Distances between points in an open or periodic cell: nearest images, close contacts, in nm."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def cell_heights(box_vectors: FloatArray) -> FloatArray:
    """Returns the three perpendicular heights of a cell `[3]`, in the unit of its vectors."""
    heights: FloatArray = 1.0 / np.linalg.norm(np.linalg.inv(box_vectors), axis=0)
    return heights


def wrap(positions: FloatArray, box_vectors: FloatArray) -> FloatArray:
    """Moves each point into the cell, nm `[n_points, 3]`."""
    fractions = positions @ np.linalg.inv(box_vectors)
    wrapped: FloatArray = (fractions - np.floor(fractions)) @ box_vectors
    return wrapped


def minimum_image(vectors: FloatArray, box_vectors: FloatArray | None) -> FloatArray:
    """Returns each vector's nearest periodic image, `[n, 3]`, for a reduced triclinic box.

    Args:
        vectors: displacements, `[n, 3]`, in the unit of `box_vectors`.
        box_vectors: lattice vectors as rows in OpenMM's reduced form, `[3, 3]`, or None.
    """
    if box_vectors is None:
        return vectors
    nearest = vectors.copy()
    for row in (2, 1, 0):
        shift = np.round(nearest[:, row] / box_vectors[row, row])
        nearest -= shift[:, None] * box_vectors[row]
    return nearest


def images_near_cell(
    positions: FloatArray, box_vectors: FloatArray, reach: float
) -> tuple[FloatArray, IntArray]:
    """Lists the periodic images of points inside the cell and within `reach` (nm) around it.

    Returns:
        Image positions nm `[n_images, 3]` and the point each is an image of `[n_images]`. The
        points themselves, wrapped into the cell, come first.
    """
    margin = reach / cell_heights(box_vectors)
    fractions = positions @ np.linalg.inv(box_vectors)
    fractions -= np.floor(fractions)
    ranges = [np.arange(-np.ceil(m), np.ceil(m) + 1) for m in margin]
    shifts = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
    shifts = shifts[np.argsort(np.any(shifts != 0, axis=1), kind="stable")]
    images, owners = [], []
    for shift in shifts:
        shifted = fractions + shift
        inside = np.all((shifted >= -margin) & (shifted < 1.0 + margin), axis=1)
        images.append(shifted[inside])
        owners.append(np.flatnonzero(inside))
    points: FloatArray = np.concatenate(images) @ box_vectors
    return points, np.concatenate(owners).astype(np.int64)


def close_pairs(
    positions: FloatArray, box_vectors: FloatArray | None, distance: float
) -> list[tuple[int, int, float]]:
    """Lists pairs of points closer than `distance` (nm), images included, closest first.

    A point closer than that to its own image counts as a pair with itself.
    """
    if len(positions) == 0:
        return []
    if box_vectors is None:
        points, owners = positions, np.arange(len(positions), dtype=np.int64)
    else:
        points, owners = images_near_cell(positions, box_vectors, distance)
    pairs = cKDTree(points).query_pairs(distance, output_type="ndarray")
    n_points = len(positions)
    found: dict[tuple[int, int], float] = {}
    for first, second in pairs:
        if first >= n_points and second >= n_points:
            continue  # both outside the cell: the same pair occurs inside
        low, high = sorted((int(owners[first]), int(owners[second])))
        length = float(np.linalg.norm(points[first] - points[second]))
        found[low, high] = min(length, found.get((low, high), length))
    return sorted(((i, j, d) for (i, j), d in found.items()), key=lambda pair: pair[2])
