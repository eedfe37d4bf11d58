"""Paths of two bare atoms."""

import re

import numpy as np
from numpy.typing import NDArray

from trip_mm.elements import atomic_number, symbols_of
from trip_mm.errors import ConfigError
from trip_mm.geometry.molecule import Molecule
from trip_mm.surfaces.path import RigidPath


def diatomic_path(pair: str, distances: NDArray[np.float64]) -> RigidPath:
    """Returns two atoms moved apart, with as few unpaired electrons as their number allows.

    Args:
        pair: two element symbols, as `O-H`.
        distances: ascending, A.

    Raises:
        ConfigError: not two symbols with a hyphen.
        UnsupportedElementError: no such element.
    """
    match = re.fullmatch(r"([A-Za-z]{1,2})-([A-Za-z]{1,2})", pair.strip())
    if match is None:
        raise ConfigError(f"{pair!r}: write two element symbols with a hyphen, as O-H")
    numbers = np.array([atomic_number(symbol) for symbol in match.groups()], dtype=np.int64)
    name = "-".join(symbols_of(numbers))
    direction = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    molecule = Molecule(
        numbers, direction.copy(), ((0, 1),), n_unpaired=int(numbers.sum()) % 2, name=name
    )
    farthest = float(distances[-1])
    return RigidPath(
        f"{name} pair", f"{name} distance", molecule, direction, 1.0, distances, farthest
    )
