"""Shapes of periodic boxes."""

import math

import numpy as np

from trip_mm.simulation.solute import FloatArray
from trip_mm.units import NM_TO_ANGSTROM

BOX_SHAPES: dict[str, FloatArray] = {
    "cube": np.eye(3),
    "dodecahedron": np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, math.sqrt(0.5)]]),
    "octahedron": np.array(
        [
            [1, 0, 0],
            [1 / 3, 2 * math.sqrt(2) / 3, 0],
            [-1 / 3, math.sqrt(2) / 3, math.sqrt(6) / 3],
        ]
    ),
}
"""Lattice vectors for unit edge, which is the distance of the nearest images; volumes 1, 0.707 and
0.770."""

_ROUNDING = 1e-3
"""Share of the edge by which vectors of files may differ from a shape."""


def describe_box(box_vectors: FloatArray | None) -> str:
    """Returns shape and size of a box, A.

    Args:
        box_vectors: nm `[3, 3]`, rows are lattice vectors; None if not periodic.
    """
    if box_vectors is None:
        return "no periodic box"
    a, b, c = (f"{edge * NM_TO_ANGSTROM:.1f}" for edge in np.linalg.norm(box_vectors, axis=1))
    if _is(box_vectors, np.diag(np.diag(box_vectors))):
        return f"box of {a} x {b} x {c} A"
    edge = float(np.linalg.norm(box_vectors[0]))
    if _is(box_vectors, edge * BOX_SHAPES["dodecahedron"]):
        return f"rhombic dodecahedron, {a} A between opposite faces"
    if _is(box_vectors, edge * BOX_SHAPES["octahedron"]):
        return f"truncated octahedron, {a} A between opposite hexagons"
    return f"triclinic box with edges of {a}, {b} and {c} A"


def _is(box_vectors: FloatArray, other: FloatArray) -> bool:
    edge = float(np.linalg.norm(box_vectors[0]))
    return bool(np.allclose(box_vectors, other, rtol=0.0, atol=_ROUNDING * edge))
