"""Labels every pair of bare atoms of H, C, N and O, near the minimum and far apart.

    python recipes/trip-wb97x/atom_pairs.py recipes/trip-wb97x/labels-atom-pairs.h5

Labels of whole molecules say nothing of two atoms alone, and a transfer that sees only molecules
digs wells between them. At short distances the lowest of all spin states counts. Far apart only
the state of highest spin is one determinant that ends at the isolated atoms; in between, no single
determinant is right, and nothing is labelled. Where the calculation far apart finds an excited
state (two C, two O), that is left out. Takes some minutes of one core.
"""

import argparse
import itertools
from collections import Counter
from pathlib import Path

import numpy as np

from trip_mm.elements import SYMBOLS
from trip_mm.training.formats_write import FileHeader, write_conformations
from trip_mm.training.groups import Conformation
from trip_mm.training.labels_methods import (
    GROUND_STATE_UNPAIRED,
    LabelError,
    Labels,
    Method,
    find_method,
    lone_atom_energies,
)

ELEMENTS = (1, 6, 7, 8)
METHOD = "df-wb97x/6-31g*"
NEAR = np.arange(0.6, 1.85, 0.1)  # A
FAR = np.arange(2.8, 4.65, 0.2)  # A
MAX_FORCE = 30.0  # eV/A, as trip-mm label
EXCITED = 0.2  # eV above the isolated atoms; no ground state lies so high far apart


def spins(numbers: tuple[int, int], far: bool) -> range:
    """Returns the unpaired electrons to try: all up to those of the atoms, or only these."""
    highest = sum(GROUND_STATE_UNPAIRED[number] for number in numbers)
    return range(highest if far else highest % 2, highest + 1, 2)


def lowest(
    method: Method, numbers: tuple[int, int], distance: float, far: bool
) -> Conformation | None:
    """Labels a pair in its lowest spin state, or returns None where a state does not converge."""
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]])
    found: list[Labels] = []
    for n_unpaired in spins(numbers, far):
        try:
            found.append(method.calculate(np.array(numbers), positions, n_unpaired))
        except LabelError as error:
            # It might be the lowest.
            print(f"{numbers} at {distance:.1f} A, {n_unpaired} unpaired: {error}")
            return None
    best = min(found, key=lambda labels: labels.energy)
    name = "".join(SYMBOLS[number] for number in numbers)
    formula = f"{SYMBOLS[numbers[0]]}2" if numbers[0] == numbers[1] else name
    return Conformation(
        np.array(numbers),
        positions,
        best.energy,
        best.forces,
        "atom-pair",
        formula,
        name,
        best.n_unpaired,
    )


def main() -> None:
    """Labels the pairs and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    method = find_method(METHOD)
    lone = lone_atom_energies(method, ELEMENTS)
    kept: list[Conformation] = []
    failures: Counter[str] = Counter()
    for numbers in itertools.combinations_with_replacement(ELEMENTS, 2):
        for distance, far in [(d, False) for d in NEAR] + [(d, True) for d in FAR]:
            item = lowest(method, numbers, float(distance), far)
            if item is None:
                failures["SCF did not converge"] += 1
            elif far and item.energy - sum(lone[number] for number in numbers) > EXCITED:
                failures["excited state"] += 1
            elif np.linalg.norm(item.forces, axis=1).max() > MAX_FORCE:
                failures[f"force above {MAX_FORCE:.0f} eV/A"] += 1
            else:
                kept.append(item)
        print(f"{numbers}: {len(kept)} labels", flush=True)
    header = FileHeader(
        source="recipes/trip-wb97x/atom_pairs.py",
        level_of_theory=method.name,
        lone_atom_energies=lone,
        failures=failures,
    )
    write_conformations(arguments.out, kept, header)


if __name__ == "__main__":
    main()
