"""Names of periodic boxes."""

import numpy as np
import pytest

from trip_mm.simulation.box import BOX_SHAPES, describe_box


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (None, "no periodic box"),
        (2.4 * BOX_SHAPES["cube"], "box of 24.0 x 24.0 x 24.0 A"),
        (np.diag([2.0, 2.4, 3.0]), "box of 20.0 x 24.0 x 30.0 A"),
        (
            2.4 * BOX_SHAPES["dodecahedron"],
            "rhombic dodecahedron, 24.0 A between opposite faces",
        ),
        (
            2.4 * BOX_SHAPES["octahedron"],
            "truncated octahedron, 24.0 A between opposite hexagons",
        ),
        (
            np.array([[2.0, 0, 0], [0.5, 2.0, 0], [0, 0, 3.0]]),
            "triclinic box with edges of 20.0, 20.6 and 30.0 A",
        ),
    ],
)
def test_a_box_is_called_by_its_shape(vectors: np.ndarray | None, said: str) -> None:
    """Vectors of equal length do not make a cube; files of structures round them."""
    assert describe_box(vectors) == said
    if vectors is not None:
        assert describe_box(np.round(vectors, 4)) == said
