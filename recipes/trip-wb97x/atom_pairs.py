"""Labels every pair of bare atoms of H, C, N and O from a close contact to the cutoff.

    python recipes/trip-wb97x/atom_pairs.py recipes/trip-wb97x/labels-atom-pairs.h5

Labels of whole molecules say nothing of two atoms alone, and a transfer that sees only molecules
digs wells between them. A pair starts as two isolated atoms of opposite spins far apart, in three
orientations of their open shells, and is followed inwards: each distance starts from the density of
the one before, which keeps the spins of a torn bond on their atoms. Near the minimum the states of
other spins are tried, too. The lowest state counts; a distance where one fails has no label, for
that might be the lowest, but for far apart, where all are alike. Five minutes of two cores.
"""

import argparse
import itertools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pyscf import dft, gto
from scipy.linalg import block_diag

from trip_mm.elements import SYMBOLS
from trip_mm.training.formats_write import FileHeader, write_conformations
from trip_mm.training.groups import Conformation
from trip_mm.training.labels_methods import (
    GROUND_STATE_UNPAIRED,
    LabelError,
    find_method,
    lone_atom_energies,
)
from trip_mm.units import ANGSTROM_TO_BOHR, HARTREE_TO_EV

ELEMENTS = (1, 6, 7, 8)
METHOD = find_method("df-wb97x/6-31g*")
NEAR = 1.85
"""A; below, all spin states are tried."""
FAR = 3.35
"""A; beyond, the orientations differ by less than 0.01 eV, and any that converges will do."""
FINE = ((1, 8),)
"""Pairs with twice as many distances; a transfer with fewer digs a well between O and H."""
MAX_FORCE = 30.0
"""eV/A, as `trip-mm label`."""


def distances(numbers: tuple[int, int]) -> list[float]:
    """Returns distances in A, from the outside inwards."""
    step = 0.1 if numbers in FINE else 0.2
    return [*np.arange(4.6, 2.1, -step).tolist(), *np.arange(2.0, 0.55, -0.1).tolist()]


def solve(atoms: list[tuple[str, list[float]]], n_unpaired: int, density: Any = None) -> Any:
    """Runs the method of METHOD, from a density; returns the mean field."""
    molecule = gto.M(atom=atoms, basis="6-31g*", cart=True, spin=n_unpaired, verbose=0)
    field = dft.UKS(molecule).density_fit()
    field.xc = "wb97x"
    field.grids.level = 3
    field.max_cycle = 100
    field.kernel(dm0=density)
    return field


def energy_and_forces(field: Any) -> tuple[float, np.ndarray]:
    """Returns eV and eV/A."""
    derivative = field.nuc_grad_method()
    derivative.grid_response = True
    return field.e_tot * HARTREE_TO_EV, -derivative.kernel() * (HARTREE_TO_EV * ANGSTROM_TO_BOHR)


class State:
    """A pair of opposite spins along one axis, followed from the outside inwards."""

    def __init__(self, numbers: tuple[int, int], axis: int, densities: list[Any]) -> None:
        first, second = (GROUND_STATE_UNPAIRED[number] for number in numbers)
        self.symbols = [SYMBOLS[number] for number in numbers]
        self.axis = axis
        self.n_unpaired = abs(first - second)
        pair = list(densities)
        flipped = 0 if second > first else 1
        pair[flipped] = pair[flipped][::-1]
        self.density = np.array([block_diag(pair[0][spin], pair[1][spin]) for spin in (0, 1)])

    def at(self, distance: float) -> tuple[float, np.ndarray, int] | None:
        """Returns energy, forces and unpaired electrons, or None where nothing converges."""
        positions = np.zeros((2, 3))
        positions[1, self.axis] = distance
        atoms = list(zip(self.symbols, positions, strict=True))
        field = solve(atoms, self.n_unpaired, self.density)
        if not field.converged:
            return None
        self.density = field.make_rdm1()
        energy, forces = energy_and_forces(field)
        along_z = np.zeros((2, 3))
        along_z[:, 2] = forces[:, self.axis]
        return energy, along_z, self.n_unpaired


def other_spins(
    numbers: tuple[int, int], distance: float, lowest: int
) -> Iterator[tuple[float, np.ndarray, int] | None]:
    """Yields the states of more unpaired electrons, and of fewer, from superposed atoms."""
    highest = sum(GROUND_STATE_UNPAIRED[number] for number in numbers)
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]])
    for n_unpaired in range(highest % 2, highest, 2):
        if n_unpaired != lowest:
            try:
                found = METHOD.calculate(np.array(numbers), positions, n_unpaired)
            except LabelError:
                yield None
            else:
                yield found.energy, found.forces, n_unpaired


def label_pair(
    numbers: tuple[int, int], densities: dict[int, Any], limit: float
) -> tuple[list[Conformation], Counter[str]]:
    """Labels one pair; `limit` is the energy of its isolated atoms in eV."""
    name = "".join(SYMBOLS[number] for number in numbers)
    formula = f"{SYMBOLS[numbers[0]]}2" if numbers[0] == numbers[1] else name
    states = [State(numbers, axis, [densities[number] for number in numbers]) for axis in range(3)]
    kept: list[Conformation] = []
    failures: Counter[str] = Counter()
    for distance in distances(numbers):
        found = [state.at(distance) for state in states]
        if distance < NEAR:
            found += other_spins(numbers, distance, states[0].n_unpaired)
        converged = [item for item in found if item is not None]
        if not converged or (distance < FAR and len(converged) < len(found)):
            failures["SCF did not converge"] += 1
            continue
        energy, forces, n_unpaired = min(converged, key=lambda item: item[0])
        print(f"{name} {distance:.1f} A {n_unpaired} {energy - limit:8.3f} eV", flush=True)
        if np.linalg.norm(forces, axis=1).max() > MAX_FORCE:
            failures[f"force above {MAX_FORCE:.0f} eV/A"] += 1
            continue
        positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]])
        item = Conformation(
            np.array(numbers), positions, energy, forces, "atom-pair", formula, name, n_unpaired
        )
        kept.append(item)
    return kept, failures


def write_labels(
    out: Path, script: str, kept: list[Conformation], failures: Counter[str], lone: dict[int, float]
) -> None:
    """Writes labels that a script of this folder has made, and says how many there are."""
    header = FileHeader(
        source=f"recipes/trip-wb97x/{script}",
        level_of_theory=METHOD.name,
        lone_atom_energies=lone,
        failures=failures,
    )
    write_conformations(out, kept, header)
    print(f"{len(kept)} labels; left out: {dict(failures)}")


def main() -> None:
    """Labels the pairs and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    lone = lone_atom_energies(METHOD, ELEMENTS)
    densities = {
        number: solve(
            [(SYMBOLS[number], [0.0, 0.0, 0.0])], GROUND_STATE_UNPAIRED[number]
        ).make_rdm1()
        for number in ELEMENTS
    }
    kept: list[Conformation] = []
    failures: Counter[str] = Counter()
    pairs = list(itertools.combinations_with_replacement(ELEMENTS, 2))
    with ProcessPoolExecutor(arguments.processes) as pool:
        jobs = [
            pool.submit(label_pair, pair, densities, sum(lone[number] for number in pair))
            for pair in reversed(pairs)
        ]
        for job in jobs:
            found, left_out = job.result()
            kept += found
            failures += left_out
    write_labels(arguments.out, Path(__file__).name, kept, failures, lone)


if __name__ == "__main__":
    main()
