"""Energies and forces of potentials along a rigid path."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import DataError
from trip_mm.files import make_directory
from trip_mm.surfaces.path import RigidPath
from trip_mm.surfaces.subjects import Evaluator, Subject, bind_subject, evaluated, journal_of
from trip_mm.torsion.scan import Journal
from trip_mm.units import EV_TO_KCAL_PER_MOL

Announce = Callable[[str], None]
FEWEST_POINTS = 5


@dataclass(frozen=True)
class Curve:
    """Energy of one potential along a path.

    Attributes:
        label: name of the potential.
        distances: A, ascending, `[n_points]`; points that failed are left out.
        energies: eV, `[n_points]`.
        forces: -dE/d(distance) from the potential's own forces, eV/A, `[n_points]`; None where it
            gives none.
        failures: reasons, one for each point that failed.
    """

    label: str
    distances: NDArray[np.float64]
    energies: NDArray[np.float64]
    forces: NDArray[np.float64] | None
    failures: tuple[str, ...] = ()

    def kcal_per_mol_above(self, zero: float) -> NDArray[np.float64]:
        """Returns energies above that of the point closest to a distance, kcal/mol."""
        origin = self.energies[int(np.abs(self.distances - zero).argmin())]
        relative: NDArray[np.float64] = self.energies - origin
        return relative * EV_TO_KCAL_PER_MOL


def compute_curves(
    path: RigidPath, subjects: Sequence[Subject], out: Path, announce: Announce
) -> tuple[Curve, ...]:
    """Evaluates every potential at every point of a path.

    Finished points of density functionals go to a journal in `out` at once; the same call
    continues after an interruption.

    Args:
        path: the geometries.
        subjects: potentials.
        out: directory, made if missing.
        announce: is given a line for each potential.

    Raises:
        TripError: a potential that cannot know the system, or a directory of another scan.
        DataError: a potential that fails at nearly all points.
    """
    evaluators = [bind_subject(subject, path.molecule) for subject in subjects]
    make_directory(out)
    curves = []
    for subject, evaluate in zip(subjects, evaluators, strict=True):
        journal = journal_of(subject, out, _identity(path))
        curve = _one_curve(path, subject, evaluate, journal)
        line = f"{curve.label}: {len(curve.energies)} points"
        if curve.failures:
            line += f", {len(curve.failures)} failed: {curve.failures[0]}"
        announce(line)
        curves.append(curve)
    return tuple(curves)


def _one_curve(
    path: RigidPath, subject: Subject, evaluate: Evaluator, journal: Journal | None
) -> Curve:
    distances, energies, forces, failures = [], [], [], []
    for index, distance in enumerate(path.distances):
        entry = evaluated(
            partial(_point, path, index, evaluate), key=f"{distance:.6f}", journal=journal
        )
        if "error" in entry:
            failures.append(f"{distance:g} A: {entry['error']}")
            continue
        distances.append(float(distance))
        energies.append(float(str(entry["energy_ev"])))
        forces.append(entry["force_ev_per_angstrom"])
    if len(energies) < FEWEST_POINTS:
        raise DataError(
            f"{subject.label}: only {len(energies)} of {len(path.distances)} points; first "
            f"failure: {failures[0]}"
        )
    return Curve(
        subject.label,
        np.array(distances),
        np.array(energies),
        None if None in forces else np.array(forces, dtype=np.float64),
        tuple(failures),
    )


def _point(path: RigidPath, index: int, evaluate: Evaluator) -> dict[str, object]:
    energy, forces = evaluate(path.positions(index))
    force = None if forces is None else path.force_along(forces)
    return {"energy_ev": energy, "force_ev_per_angstrom": force}


def _identity(path: RigidPath) -> dict[str, object]:
    """What the points of a path depend on."""
    return {
        "atomic_numbers": path.molecule.atomic_numbers.tolist(),
        "positions_angstrom": np.round(path.molecule.positions, 6).tolist(),
        "direction": np.round(path.direction, 6).tolist(),
        "start_angstrom": round(path.start, 6),
        "distances_angstrom": path.distances.tolist(),
    }
