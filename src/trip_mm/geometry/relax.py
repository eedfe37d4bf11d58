"""Relaxation of one molecule by geomeTRIC, free or with a dihedral angle held.

geomeTRIC works in translation-rotation internal coordinates, in which a dihedral angle can be held
exactly (Wang and Song, J. Chem. Phys. 144, 214108 (2016)).
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trip_mm.dependencies import require
from trip_mm.elements import symbols_of
from trip_mm.errors import RelaxationError
from trip_mm.geometry.dihedral import dihedral_angle, set_dihedral, wrapped
from trip_mm.geometry.molecule import Molecule, changed_bonds
from trip_mm.geometry.potentials import EnergyFunction
from trip_mm.units import ANGSTROM_TO_BOHR, BOHR_TO_ANGSTROM, EV_TO_HARTREE

MAX_ITERATIONS = 300
ANGLE_TOLERANCE_DEG = 0.05
"""Largest deviation from the held angle, degrees."""

# Gaussian's "tight" set in atomic units; the defaults of geomeTRIC leave 0.02 kcal/mol open in
# flat torsions.
CONVERGENCE = {
    "convergence_energy": 1e-7,
    "convergence_grms": 3e-5,
    "convergence_gmax": 6e-5,
    "convergence_drms": 3e-4,
    "convergence_dmax": 6e-4,
}
_ENFORCE_BELOW_RAD = 0.1


@dataclass(frozen=True)
class HeldDihedral:
    """A dihedral angle that a relaxation holds.

    Attributes:
        atoms: four atom indices, from 0.
        angle_deg: the angle, degrees.
    """

    atoms: tuple[int, int, int, int]
    angle_deg: float


@dataclass(frozen=True)
class Relaxed:
    """Result of a relaxation.

    Attributes:
        positions: A, `[n_atoms, 3]`.
        energy: eV.
        forces: eV/A, `[n_atoms, 3]`.
        n_evaluations: evaluations of the potential.
    """

    positions: NDArray[np.float64]
    energy: float
    forces: NDArray[np.float64]
    n_evaluations: int


def require_geometric() -> None:
    """Checks for geomeTRIC before anything is loaded or computed.

    Raises:
        MissingDependencyError: it is not installed.
    """
    require("geometric", "relaxation needs geomeTRIC", "geometry")


def relax(
    molecule: Molecule, energy_function: EnergyFunction, held: HeldDihedral | None = None
) -> Relaxed:
    """Relaxes a molecule until the tight criteria of Gaussian hold.

    Energy change below 1e-7 Ha, RMS and largest gradient below 3e-5 and 6e-5 Ha/bohr, RMS and
    largest displacement below 3e-4 and 6e-4 A.

    Args:
        molecule: where to start; bonds name the internal coordinates.
        energy_function: the potential bound to the molecule.
        held: a dihedral angle to hold; atoms are first turned about its axis to reach it.

    Raises:
        RelaxationError: it does not converge, a bond was torn or formed, or the angle is not held.
        EvaluationError: the potential fails at a geometry on the way.
        MissingDependencyError: geomeTRIC is not installed.
    """
    start = molecule.positions
    if held is not None:
        start = set_dihedral(molecule, held.atoms, held.angle_deg)
    if molecule.n_atoms == 1:
        energy, forces = energy_function(start)
        return Relaxed(start, energy, forces, 1)
    positions, n_evaluations = _optimize(molecule.at(start), energy_function, held)
    check_relaxed(molecule, positions, held)
    energy, forces = energy_function(positions)
    return Relaxed(positions, energy, forces, n_evaluations + 1)


def check_relaxed(
    molecule: Molecule, positions: NDArray[np.float64], held: HeldDihedral | None
) -> None:
    """Refuses a geometry that is no result.

    Raises:
        RelaxationError: a bond was torn or formed, or the held angle is not what it should be.
    """
    changed = changed_bonds(molecule, positions)
    if changed:
        i, j, distance = changed[0]
        names = symbols_of(molecule.atomic_numbers)
        raise RelaxationError(
            f"connectivity changed: {names[i]}{i} and {names[j]}{j} are {distance:.2f} A apart"
        )
    if held is not None:
        error = wrapped(dihedral_angle(positions, held.atoms) - held.angle_deg)
        if not abs(error) <= ANGLE_TOLERANCE_DEG:  # NaN is an error too
            raise RelaxationError(
                f"the dihedral angle ended {error:+.2f} degrees from {held.angle_deg:g}"
            )


def _optimize(
    molecule: Molecule, energy_function: EnergyFunction, held: HeldDihedral | None
) -> tuple[NDArray[np.float64], int]:
    """Runs geomeTRIC; returns positions in A and the number of evaluations."""
    require_geometric()
    from geometric.engine import Engine
    from geometric.errors import Error as GeometricError
    from geometric.internal import DelocalizedInternalCoordinates
    from geometric.molecule import Molecule as GeometricMolecule
    from geometric.optimize import Optimize
    from geometric.params import OptParams
    from geometric.prepare import parse_constraints

    class _Engine(Engine):
        """Hands positions in bohr to the potential."""

        n_evaluations = 0

        def calc_new(self, coords: NDArray[np.float64], dirname: str) -> dict[str, object]:
            self.n_evaluations += 1
            energy, forces = energy_function(coords.reshape(-1, 3) * BOHR_TO_ANGSTROM)
            gradient = -forces * (EV_TO_HARTREE / ANGSTROM_TO_BOHR)
            return {"energy": energy * EV_TO_HARTREE, "gradient": gradient.ravel()}

    frame = GeometricMolecule()
    frame.elem = symbols_of(molecule.atomic_numbers)
    frame.xyzs = [molecule.positions]
    frame.top_settings["read_bonds"] = True
    frame.Data["bonds"] = [list(pair) for pair in molecule.bonds]
    with _quiet(), tempfile.TemporaryDirectory() as scratch:
        frame.build_topology()
        constraints, values = None, [None]
        if held is not None:
            numbers = " ".join(str(index + 1) for index in held.atoms)
            text = f"$set\ndihedral {numbers} {held.angle_deg:.10f}"
            constraints, values = parse_constraints(frame, text)
        settings = {**CONVERGENCE, "maxiter": MAX_ITERATIONS, "enforce": _ENFORCE_BELOW_RAD}
        engine = _Engine(frame)
        flat = molecule.positions.ravel() * ANGSTROM_TO_BOHR
        try:
            coordinates = DelocalizedInternalCoordinates(
                frame, build=True, connect=False, addcart=False, constraints=constraints,
                cvals=values[0],
            )  # fmt: skip
            progress = Optimize(
                flat, frame, coordinates, engine, scratch, OptParams(**settings), print_info=False
            )
        except GeometricError as error:
            raise RelaxationError(f"did not converge: {str(error).strip() or error!r}") from error
        except np.linalg.LinAlgError as error:
            # Singular internal coordinates, such as a bond angle that has become straight.
            raise RelaxationError(f"geomeTRIC: {error}") from error
    return np.asarray(progress.xyzs[-1], dtype=np.float64), engine.n_evaluations


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the log of geomeTRIC, which prints every step, to warnings."""
    logger = logging.getLogger("geometric.nifty")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
