"""The rigid scan of water: both O-H distances at a fixed angle (TrIP thesis 5.2, Figure 6)."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import DataError
from trip_mm.files import make_directory
from trip_mm.geometry.molecule import Molecule
from trip_mm.surfaces.smoothness import LEAST_DEPTH_KCAL_PER_MOL, WELL_TOLERANCE, find_wells
from trip_mm.surfaces.subjects import Evaluator, Subject, bind_subject, evaluated, journal_of
from trip_mm.torsion.scan import Journal
from trip_mm.units import EV_TO_KCAL_PER_MOL

ANGLE_DEG = 104.5
ATOMIC_NUMBERS: NDArray[np.int64] = np.array([8, 1, 1], dtype=np.int64)
REFERENCE_METHOD = "ωB97x/6-31G*"
REFERENCE_STATES = ("singlet", "ground state")

WINDOW_KCAL_PER_MOL = 600.0
"""Errors count where the reference lies less than this above its minimum, as far as Figure 6."""
_CLOSE, _TORN = 0.8, 1.5
_FEWEST_COMMON = 4

Announce = Callable[[str], None]


@dataclass(frozen=True)
class Surface:
    """Energy of water over both O-H distances.

    Attributes:
        label: name of the potential.
        distances: A, ascending, `[n]`.
        energies: eV, symmetric, `[n, n]`; NaN where a point failed.
        failures: reasons, one for each geometry that failed.
    """

    label: str
    distances: NDArray[np.float64]
    energies: NDArray[np.float64]
    failures: tuple[str, ...] = ()

    @property
    def kcal_per_mol_above_minimum(self) -> NDArray[np.float64]:
        """Energies above the lowest, kcal/mol, `[n, n]`."""
        relative: NDArray[np.float64] = self.energies - np.nanmin(self.energies)
        return relative * EV_TO_KCAL_PER_MOL

    def wells(self) -> tuple[tuple[float, float], ...]:
        """Returns the minima at least 1 kcal/mol deep, shorter distance first, A.

        Minima on the far edges are none: there the energy may still fall.
        """
        last = len(self.distances) - 1
        cells = find_wells(self.kcal_per_mol_above_minimum, LEAST_DEPTH_KCAL_PER_MOL)
        inner = {(min(i, j), max(i, j)) for (i, j), _ in cells if max(i, j) < last}
        return tuple(sorted((float(self.distances[i]), float(self.distances[j])) for i, j in inner))


@dataclass(frozen=True)
class SurfaceError:
    """Errors of one surface on the grid points that the reference shares, kcal/mol.

    Both are taken above their own minimum on these points. Regions: `close`, an O-H shorter than
    0.8 A; `bound`, both from 0.8 to 1.5 A; `one torn` and `both torn`, beyond.

    Attributes:
        n_points: shared points within the window.
        mae: mean absolute error over all of them.
        mae_by_region: over those of each region; regions without points are left out.
        false_wells: wells that the reference does not have within 0.2 A.
    """

    n_points: int
    mae: float
    mae_by_region: dict[str, float]
    false_wells: tuple[tuple[float, float], ...]


def water_positions(
    first: float, second: float, angle_deg: float = ANGLE_DEG
) -> NDArray[np.float64]:
    """Returns oxygen and two hydrogens, A, `[3, 3]`, from the O-H distances in A."""
    angle = np.radians(angle_deg)
    return np.array(
        [
            [0.0, 0.0, 0.0],
            [first, 0.0, 0.0],
            [second * np.cos(angle), second * np.sin(angle), 0.0],
        ]
    )


def water_molecule() -> Molecule:
    """Returns water near its equilibrium, for composition and bonds."""
    return Molecule(ATOMIC_NUMBERS, water_positions(0.96, 0.96), ((0, 1), (0, 2)), name="water")


def compute_surfaces(
    distances: NDArray[np.float64], subjects: Sequence[Subject], out: Path, announce: Announce
) -> tuple[Surface, ...]:
    """Scans water with every potential.

    Only half of the grid is computed, because the bonds are alike. Finished points of density
    functionals go to a journal in `out` at once; the same call continues after an interruption.

    Args:
        distances: ascending, A.
        subjects: potentials.
        out: directory for the journals, made if missing.
        announce: is given a line for each potential.

    Raises:
        TripError: a potential that cannot know water, or a directory of another scan.
        DataError: a potential that fails everywhere.
    """
    evaluators = [bind_subject(subject, water_molecule()) for subject in subjects]
    make_directory(out)
    surfaces = []
    for subject, evaluate in zip(subjects, evaluators, strict=True):
        scanned: dict[str, object] = {
            "angle_deg": ANGLE_DEG,
            "distances_angstrom": distances.tolist(),
        }
        journal = journal_of(subject, out, scanned)
        surface = _one_surface(distances, subject, evaluate, journal)
        n_points = len(distances) * (len(distances) + 1) // 2
        line = f"{surface.label}: {n_points - len(surface.failures)} of {n_points} geometries"
        announce(line + (f"; first failure {surface.failures[0]}" if surface.failures else ""))
        surfaces.append(surface)
    return tuple(surfaces)


def _one_surface(
    distances: NDArray[np.float64], subject: Subject, evaluate: Evaluator, journal: Journal | None
) -> Surface:
    energies = np.full((len(distances), len(distances)), np.nan)
    failures = []
    for i, first in enumerate(distances):
        for j, second in enumerate(distances[i:], i):
            point = partial(_point, float(first), float(second), evaluate)
            entry = evaluated(point, key=f"{first:.6f} {second:.6f}", journal=journal)
            if "error" in entry:
                failures.append(f"{first:g}, {second:g} A: {entry['error']}")
                continue
            energies[i, j] = energies[j, i] = float(str(entry["energy_ev"]))
    if not np.isfinite(energies).any():
        raise DataError(f"{subject.label}: no energy at all; first failure: {failures[0]}")
    return Surface(subject.label, distances, energies, tuple(failures))


def _point(first: float, second: float, evaluate: Evaluator) -> dict[str, object]:
    return {"energy_ev": evaluate(water_positions(first, second))[0]}


def reference_surfaces() -> tuple[Surface, ...]:
    """Reads the reference that comes with trip-mm: wB97x/6-31G*, singlet and ground state.

    The ground state is the lowest of singlet, triplet and quintet. `recipes/water-scan/` computes
    the table.

    Raises:
        DataError: the table is damaged.
    """
    file = resources.files("trip_mm") / "surfaces" / "water-wb97x-631gs.csv"
    try:
        rows = [
            [float(cell) if cell else np.nan for cell in row]
            for row in csv.reader(file.read_text(encoding="utf-8").splitlines()[1:])
        ]
        table = np.array(rows, dtype=np.float64)
        distances = np.unique(table[:, 0])
        index = np.searchsorted(distances, table[:, :2])
        states = np.full((3, len(distances), len(distances)), np.nan)
        states[:, index[:, 0], index[:, 1]] = table[:, 2:].T
        states[:, index[:, 1], index[:, 0]] = table[:, 2:].T
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{file}: damaged reference ({error}); reinstall trip-mm") from error
    energies = (states[0], np.nanmin(states, axis=0))
    return tuple(
        Surface(f"{REFERENCE_METHOD}, {state}", distances, surface)
        for state, surface in zip(REFERENCE_STATES, energies, strict=True)
    )


def check_grid(distances: NDArray[np.float64], reference: Surface) -> None:
    """Refuses a grid that a surface on it could not be compared by.

    Args:
        distances: A, `[n]`.
        reference: what it is to be compared with.

    Raises:
        DataError: the grids share fewer than four distances.
    """
    n_shared = len(_matches(distances, reference.distances))
    if n_shared < _FEWEST_COMMON:
        raise DataError(
            f"the grid and {reference.label} share {n_shared} distances; take a step of 0.1 or "
            "0.05 A from 0.5 A"
        )


def compare(surface: Surface, reference: Surface) -> SurfaceError:
    """Compares a surface with a reference where their grids meet.

    Raises:
        DataError: the grids share fewer than four distances.
    """
    check_grid(surface.distances, reference)
    own = [int(i) for i in _matches(surface.distances, reference.distances)]
    other = [int(i) for i in _matches(reference.distances, surface.distances)]
    rows, columns = np.triu_indices(len(own))
    shared = surface.distances[own]
    a = surface.energies[np.ix_(own, own)][rows, columns] * EV_TO_KCAL_PER_MOL
    b = reference.energies[np.ix_(other, other)][rows, columns] * EV_TO_KCAL_PER_MOL
    errors = (a - np.nanmin(a)) - (b - np.nanmin(b))
    valid = np.isfinite(errors) & (b - np.nanmin(b) < WINDOW_KCAL_PER_MOL)
    shorter, longer = shared[rows], shared[columns]
    regions = {
        "close": shorter < _CLOSE,
        "bound": (shorter >= _CLOSE) & (longer <= _TORN),
        "one torn": (shorter >= _CLOSE) & (shorter <= _TORN) & (longer > _TORN),
        "both torn": shorter > _TORN,
    }
    known = reference.wells()
    return SurfaceError(
        int(valid.sum()),
        float(np.abs(errors[valid]).mean()),
        {
            name: float(np.abs(errors[valid & region]).mean())
            for name, region in regions.items()
            if (valid & region).any()
        },
        tuple(well for well in surface.wells() if not _near(well, known)),
    )


def _near(well: tuple[float, float], known: Sequence[tuple[float, float]]) -> bool:
    return any(
        max(abs(a - b) for a, b in zip(well, other, strict=True)) <= WELL_TOLERANCE
        for other in known
    )


def _matches(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the indices of the values that the others hold too."""
    return np.flatnonzero(np.abs(values[:, None] - others[None]).min(axis=1) < 1e-6)
