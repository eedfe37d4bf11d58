"""Points per minute and agreement of constrained relaxations: in batches, geomeTRIC, ASE.

Every route starts from the same turned geometries and holds the same angles. The sequential routes
take every few of the points, because a rate needs no more. Times are CPU times, which other work on
the machine does not disturb; with one thread they are the elapsed times on an idle core.

    export OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1
    python recipes/batched-relaxation/measure.py systems/ephedrine.sdf 1,2,4,6 --out figures.json
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.constraints import FixInternals
from ase.optimize import BFGS
from numpy.typing import NDArray

from trip_mm.backends.ase_calculator import TripCalculator
from trip_mm.errors import RelaxationError
from trip_mm.geometry.batch_evaluation import Evaluation, bind_batch
from trip_mm.geometry.batched import BatchRelaxer, Start
from trip_mm.geometry.dihedral import dihedral_angle, set_dihedral, wrapped
from trip_mm.geometry.molecule import Molecule, read_molecule
from trip_mm.geometry.potentials import bind, parse_potential
from trip_mm.geometry.relax import HeldDihedral, relax
from trip_mm.geometry.superposition import rmsd
from trip_mm.torsion.dihedrals import dihedral_from_indices
from trip_mm.torsion.scan import grid_angles
from trip_mm.units import EV_TO_KCAL_PER_MOL

MODEL = "trip-gfn2-s"
# The largest gradient of geomeTRIC's and our criterion, 6e-5 Ha/bohr, in eV/A.
ASE_FMAX = 0.0031
ASE_STEPS = 500

Found = dict[float, tuple[float, NDArray[np.float64]]]
"""Angle in degrees to energy in eV and positions in A."""


def batched(molecule: Molecule, helds: list[HeldDihedral]) -> tuple[Found, dict[str, float]]:
    """Relaxes all points together."""
    evaluate = bind_batch(parse_potential(MODEL), [molecule])
    evaluate([molecule])  # compiles
    spent = 0.0

    def timed(systems: list[Molecule]) -> list[Evaluation]:
        nonlocal spent
        begin = time.process_time()
        found = evaluate(systems)
        spent += time.process_time() - begin
        return found

    begin = time.process_time()
    relaxer = BatchRelaxer(timed)
    angles = {relaxer.submit(Start(molecule, held)): held.angle_deg for held in helds}
    outcomes = dict(relaxer.results())
    seconds = time.process_time() - begin
    found = {
        angles[ticket]: (outcome.relaxed.energy, outcome.relaxed.positions)
        for ticket, outcome in outcomes.items()
        if outcome.relaxed
    }
    return found, figures(len(helds), len(found), seconds, relaxer.n_evaluations, spent)


def figures(n: int, n_done: int, seconds: float, n_evaluations: int, spent: float) -> dict:
    """Returns what is reported of a route."""
    return {
        "points": n,
        "converged": n_done,
        "points_per_cpu_minute": round(60.0 * n_done / seconds, 2),
        "evaluations_per_point": round(n_evaluations / n, 1),
        "share_of_time_in_potential": round(spent / seconds, 3),
    }


def one_by_one(
    molecule: Molecule, helds: list[HeldDihedral], limit_s: float
) -> tuple[Found, dict[str, float]]:
    """Relaxes points one after the other with geomeTRIC, as `--strategy both` does."""
    inner = bind(parse_potential(MODEL), molecule)
    inner(molecule.positions)
    spent, n_evaluations = 0.0, 0

    def timed(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        nonlocal spent, n_evaluations
        begin = time.process_time()
        result = inner(positions)
        spent += time.process_time() - begin
        n_evaluations += 1
        return result

    def route(held: HeldDihedral) -> tuple[float, NDArray[np.float64]] | None:
        try:
            result = relax(molecule, timed, held)
        except RelaxationError as error:
            print(f"geomeTRIC, {held.angle_deg:g} degrees: {error}")
            return None
        return result.energy, result.positions

    found, n, seconds = sequential(route, helds, limit_s)
    return found, figures(n, len(found), seconds, n_evaluations, spent)


def with_ase(
    molecule: Molecule, helds: list[HeldDihedral], limit_s: float
) -> tuple[Found, dict[str, float]]:
    """Relaxes points one after the other with FixInternals and BFGS of ASE."""
    calculator = TripCalculator(MODEL, dtype="float64")
    inner = calculator.calculate
    spent, n_evaluations = 0.0, 0

    def timed(*arguments: object, **named: object) -> None:
        nonlocal spent, n_evaluations
        begin = time.process_time()
        inner(*arguments, **named)
        spent += time.process_time() - begin
        n_evaluations += 1

    calculator.calculate = timed

    def route(held: HeldDihedral) -> tuple[float, NDArray[np.float64]] | None:
        start = set_dihedral(molecule, held.atoms, held.angle_deg)
        atoms = Atoms(molecule.atomic_numbers, start, calculator=calculator)
        atoms.set_constraint(FixInternals(dihedrals_deg=[[held.angle_deg, list(held.atoms)]]))
        try:
            converged = BFGS(atoms, logfile=None).run(fmax=ASE_FMAX, steps=ASE_STEPS)
        except ValueError as error:  # FixInternals: "Shake did not converge."
            print(f"ASE, {held.angle_deg:g} degrees: {error}")
            return None
        if not converged:
            print(f"ASE, {held.angle_deg:g} degrees: not converged in {ASE_STEPS} steps")
            return None
        return atoms.get_potential_energy(), atoms.positions.copy()

    found, n, seconds = sequential(route, helds, limit_s)
    return found, figures(n, len(found), seconds, n_evaluations, spent)


def sequential(
    route: Callable[[HeldDihedral], tuple[float, NDArray[np.float64]] | None],
    helds: list[HeldDihedral],
    limit_s: float,
) -> tuple[Found, int, float]:
    """Runs a route on points until they or the time are used up."""
    found: Found = {}
    begin, n = time.process_time(), 0
    for held in helds:
        if time.process_time() - begin > limit_s:
            break
        n += 1
        result = route(held)
        if result is not None:
            found[held.angle_deg] = result
    return found, n, time.process_time() - begin


def agreement(found: Found, reference: Found, held: HeldDihedral) -> dict[str, object]:
    """Largest deviations from a reference on common angles, and those that found other minima."""
    common = sorted(set(found) & set(reference))
    energies = {a: (found[a][0] - reference[a][0]) * EV_TO_KCAL_PER_MOL for a in common}
    rmsds = {a: rmsd(found[a][1], reference[a][1]) for a in common}
    same = [a for a in common if abs(energies[a]) < 0.01 and rmsds[a] < 0.005]
    errors = [abs(wrapped(dihedral_angle(found[a][1], held.atoms) - a)) for a in found]
    return {
        "common_points": len(common),
        "within_0.01_kcal_per_mol_and_0.005_A": len(same),
        "others": {f"{a:g}": [round(energies[a], 4), round(rmsds[a], 4)] for a in common
                   if a not in same},
        "largest_angle_error_deg": max(errors),
    }  # fmt: skip


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("molecule")
    parser.add_argument("dihedral")
    parser.add_argument("--step", type=int, default=10)
    parser.add_argument("--every", type=int, default=3, help="of the points, one by one")
    parser.add_argument("--limit", type=float, default=70.0, help="seconds for a sequential route")
    parser.add_argument("--routes", default="batched,geometric,ase")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    molecule = read_molecule(arguments.molecule)
    atoms = dihedral_from_indices(molecule, arguments.dihedral)
    helds = [HeldDihedral(atoms, angle) for angle in grid_angles(arguments.step)]
    some = helds[:: arguments.every]
    document: dict[str, object] = {"molecule": molecule.name, "n_atoms": molecule.n_atoms}
    together, document["batched"] = batched(molecule, helds)
    for name, route in (("geometric", one_by_one), ("ase", with_ase)):
        if name in arguments.routes.split(","):
            found, numbers = route(molecule, some, arguments.limit)
            document[name] = numbers
            document[f"batched_against_{name}"] = agreement(together, found, helds[0])
    text = json.dumps(document, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
