"""How smooth and sensible a curve is: the figures of MLIP benchmarks.

Tortuosity, force flips, energy jumps and the repulsion correlation are defined as in the diatomics
task of MLIP Arena (Chiang et al., arXiv:2509.20630). With E_i the energies by ascending distance:

    tortuosity   = sum_i |E_{i+1} - E_i| / (|E_first - E_min| + |E_last - E_min|)
    force flips  = sign changes of the force, forces below 10 meV/A left out
    energy jump  = sum of |dE| on both sides of every sign change of dE, dE below 1 meV left out
    repulsion    = Spearman's correlation of energy and distance short of the minimum

A smooth curve with one well has tortuosity 1, one force flip, a small energy jump and repulsion -1;
a repulsive one has no flip. Added are the conservation error, the largest difference between the
energy and the integral of the force, the wells with their depth, and the error against a reference.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from trip_mm.surfaces.curve import Curve
from trip_mm.units import EV_TO_KCAL_PER_MOL

LEAST_DEPTH_KCAL_PER_MOL = 1.0
"""A minimum shallower than this is no well."""
WELL_TOLERANCE = 0.2
"""A well is known to the reference if that has one within this distance, A."""
ERROR_WINDOW_KCAL_PER_MOL = 100.0
"""Errors count where the reference lies less than this above its lowest point."""

_FORCE_FLOOR = 0.01
_ENERGY_FLOOR = 0.001


@dataclass(frozen=True)
class Well:
    """A minimum of a curve.

    Attributes:
        distance_angstrom: where it is.
        depth_kcal_per_mol: climb from it to where the curve goes down to a lower point; from the
            lowest minimum, the whole climb towards long distances.
    """

    distance_angstrom: float
    depth_kcal_per_mol: float


@dataclass(frozen=True)
class Smoothness:
    """Figures of one curve; see the module for their definitions.

    Attributes:
        tortuosity: 1 for a single well or a repulsive wall.
        force_flips: sign changes of the force; None without forces.
        energy_jump_kcal_per_mol: 0 or small.
        conservation_kcal_per_mol: largest |E - integral of the force|; None without forces.
        repulsion: -1 where the energy rises monotonically towards short distances; None where the
            minimum lies at the first two points.
        wells: minima at least 1 kcal/mol deep by ascending distance, the far end not counted.
        shortest_kcal_per_mol: energy at the shortest distance above the lowest.
    """

    tortuosity: float
    force_flips: int | None
    energy_jump_kcal_per_mol: float
    conservation_kcal_per_mol: float | None
    repulsion: float | None
    wells: tuple[Well, ...]
    shortest_kcal_per_mol: float

    def to_dict(self) -> dict[str, object]:
        """Returns the figures by name."""
        return asdict(self)


def smoothness(curve: Curve) -> Smoothness:
    """Computes the figures of a curve."""
    energies, distances = curve.energies, curve.distances
    lowest = float(energies.min())
    span = abs(energies[0] - lowest) + abs(energies[-1] - lowest)
    variation = float(np.abs(np.diff(energies)).sum())
    return Smoothness(
        tortuosity=variation / float(span) if span > 0 else 1.0,
        force_flips=None if curve.forces is None else _force_flips(curve.forces),
        energy_jump_kcal_per_mol=_energy_jump(energies) * EV_TO_KCAL_PER_MOL,
        conservation_kcal_per_mol=None
        if curve.forces is None
        else _conservation_error(distances, energies, curve.forces) * EV_TO_KCAL_PER_MOL,
        repulsion=_repulsion(distances, energies),
        wells=curve_wells(curve),
        shortest_kcal_per_mol=float(energies[0] - lowest) * EV_TO_KCAL_PER_MOL,
    )


def false_wells(own: Sequence[Well], reference: Sequence[Well]) -> tuple[Well, ...]:
    """Returns the wells that the reference does not have within 0.2 A."""
    known = [well.distance_angstrom for well in reference]
    return tuple(
        well
        for well in own
        if all(abs(well.distance_angstrom - other) > WELL_TOLERANCE for other in known)
    )


def mean_absolute_error(curve: Curve, reference: Curve, zero: float) -> float | None:
    """Compares two curves, both taken from a common distance, in kcal/mol.

    Only distances count that both have and where the reference lies less than 100 kcal/mol above
    its lowest point; None if there are none.

    Args:
        curve: to judge.
        reference: to compare with.
        zero: distance at which both are zero, A.
    """
    _, own, other = np.intersect1d(curve.distances, reference.distances, return_indices=True)
    a, b = curve.kcal_per_mol_above(zero), reference.kcal_per_mol_above(zero)
    window = b[other] < b.min() + ERROR_WINDOW_KCAL_PER_MOL
    return float(np.abs(a[own] - b[other])[window].mean()) if window.any() else None


def curve_wells(curve: Curve) -> tuple[Well, ...]:
    """Returns the wells by ascending distance; a minimum at the far end is none.

    A minimum at the shortest distance is a hole in the repulsive wall and counts.
    """
    energies = curve.energies * EV_TO_KCAL_PER_MOL
    found = find_wells(energies, 0.0)
    last = len(energies) - 1
    lowest = int(energies.argmin())
    outwards = float(energies[lowest:].max() - energies[lowest])
    wells = [
        Well(float(curve.distances[i]), depth if np.isfinite(depth) else outwards)
        for (i,), depth in found
        if i != last
    ]
    deep = [well for well in wells if well.depth_kcal_per_mol >= LEAST_DEPTH_KCAL_PER_MOL]
    return tuple(sorted(deep, key=lambda well: well.distance_angstrom))


def find_wells(
    energies: NDArray[np.float64], least_depth: float
) -> list[tuple[tuple[int, ...], float]]:
    """Finds minima on a line or grid by their depth (persistence of sublevel sets).

    The depth of a minimum is what one has to climb from it to reach a lower one. Cells are
    neighbours across faces, edges and corners; cells that are not finite are walls.

    Args:
        energies: any number of dimensions.
        least_depth: in the unit of the energies.

    Returns:
        Indices and depths of the minima, the lowest first; a minimum with no way to a lower one
        is infinitely deep.
    """
    flooded = np.full(energies.shape, -1, dtype=np.int64)
    parents: list[int] = []
    bottoms: list[tuple[int, ...]] = []
    depths: list[float] = []

    def basin_of(cell: tuple[int, ...]) -> int:
        basin = int(flooded[cell])
        while basin >= 0 and parents[basin] != basin:
            basin = parents[basin]
        return basin

    for flat in np.argsort(energies, axis=None, kind="stable"):
        cell = tuple(int(i) for i in np.unravel_index(flat, energies.shape))
        if not np.isfinite(energies[cell]):
            continue
        basins = sorted({basin_of(c) for c in _around(cell, energies.shape)} - {-1})
        if not basins:
            basins = [len(parents)]
            parents.append(basins[0])
            bottoms.append(cell)
            depths.append(float("inf"))
        flooded[cell] = basins[0]  # the basin found first is the deepest
        for other in basins[1:]:
            parents[other] = basins[0]
            depths[other] = float(energies[cell] - energies[bottoms[other]])
    found = zip(bottoms, depths, strict=True)
    return [(bottom, depth) for bottom, depth in found if depth >= least_depth and depth > 0.0]


def _around(cell: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Returns the cells that share a face, an edge or a corner with a cell."""
    ranges = [range(max(i - 1, 0), min(i + 2, n)) for i, n in zip(cell, shape, strict=True)]
    return [other for other in product(*ranges) if other != cell]


def _force_flips(forces: NDArray[np.float64]) -> int:
    signs = np.sign(forces[np.abs(forces) >= _FORCE_FLOOR])
    return int((np.diff(signs) != 0).sum())


def _energy_jump(energies: NDArray[np.float64]) -> float:
    changes = np.diff(energies)
    changes = changes[np.abs(changes) >= _ENERGY_FLOOR]
    flips = np.diff(np.sign(changes)) != 0
    return float(np.abs(changes[:-1][flips]).sum() + np.abs(changes[1:][flips]).sum())


def _repulsion(distances: NDArray[np.float64], energies: NDArray[np.float64]) -> float | None:
    from scipy.stats import spearmanr

    end = int(energies.argmin()) + 1
    if end < 3:
        return None
    return float(spearmanr(distances[:end], energies[:end]).statistic)


def _conservation_error(
    distances: NDArray[np.float64], energies: NDArray[np.float64], forces: NDArray[np.float64]
) -> float:
    """Largest difference in eV; the force is integrated as a cubic spline from the far end."""
    from scipy.interpolate import CubicSpline

    work = CubicSpline(distances, forces).antiderivative()
    expected = energies[-1] + work(distances[-1]) - work(distances)
    return float(np.abs(energies - expected).max())
