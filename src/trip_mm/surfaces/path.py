"""Rigid paths: one part of a system moves along a straight line, the rest stays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import ConfigError
from trip_mm.geometry.molecule import Molecule

_SHORTEST = 0.1


@dataclass(frozen=True)
class RigidPath:
    """Geometries along a distance.

    Attributes:
        name: of the system, for titles.
        quantity: what the distance is, for axes, without its unit.
        molecule: composition, charge, unpaired electrons, and the geometry at `start`.
        direction: change of the positions with the distance, `[n_atoms, 3]`.
        start: distance of the molecule's own geometry, A.
        distances: ascending, A, `[n_points]`.
        zero: distance at which curves are drawn together, A.
    """

    name: str
    quantity: str
    molecule: Molecule
    direction: NDArray[np.float64]
    start: float
    distances: NDArray[np.float64]
    zero: float

    def positions(self, index: int) -> NDArray[np.float64]:
        """Returns the geometry of a point, A, `[n_atoms, 3]`."""
        moved = float(self.distances[index]) - self.start
        positions: NDArray[np.float64] = self.molecule.positions + moved * self.direction
        return positions

    def force_along(self, forces: NDArray[np.float64]) -> float:
        """Returns -dE/d(distance) in eV/A from the forces, `[n_atoms, 3]`."""
        return float((forces * self.direction).sum())

    def nearest(self, distance: float) -> int:
        """Returns the index of the point closest to a distance."""
        return int(np.abs(self.distances - distance).argmin())


def distance_grid(first: float, last: float, step: float) -> NDArray[np.float64]:
    """Returns distances from `first` to `last` in equal steps, A.

    Raises:
        ConfigError: out of order, below 0.1 A, fewer than five points, or no whole number of steps.
    """
    if not _SHORTEST <= first < last:
        raise ConfigError(f"distances {first:g} to {last:g} A: need {_SHORTEST:g} <= first < last")
    if step <= 0:
        raise ConfigError(f"step {step:g} A: must be positive")
    n_steps = round((last - first) / step)
    if abs(first + n_steps * step - last) > 1e-6:
        raise ConfigError(f"step {step:g} A does not divide {first:g} to {last:g} A")
    if n_steps < 4:
        raise ConfigError(f"step {step:g} A: gives fewer than five points; take a smaller one")
    return np.round(first + step * np.arange(n_steps + 1), 6)
