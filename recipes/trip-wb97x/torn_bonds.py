"""Labels single bonds of small molecules from a stretch to the cutoff.

    python recipes/trip-wb97x/torn_bonds.py recipes/trip-wb97x/labels-torn-bonds.h5

A restricted calculation tears no bond, and a transfer that sees no torn bond digs wells between the
parts. Each bond starts far apart as a triplet, whose spin is then turned over on one part: two
radicals of opposite spins. They are followed inwards, each distance from the density of the one
before, until the spins pair by themselves. A bond whose calculation fails ends there, for the state
might change. Five minutes of two cores.
"""

import argparse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from atom_pairs import ELEMENTS, MAX_FORCE, METHOD, energy_and_forces, solve, write_labels

from trip_mm.elements import SYMBOLS, formula
from trip_mm.training.groups import Conformation
from trip_mm.training.labels_methods import lone_atom_energies
from trip_mm.training.sampling_geometry import displaced, fragment_of, with_bond_scaled
from trip_mm.training.sampling_molecules import build_molecule

TORN = (
    *[("N", 0, 1)] * 4,
    *[("O", 0, 1)] * 2,
    *[("C", 0, 1)] * 3,
    ("CO", 0, 1),
    ("CO", 0, 2),
    ("CO", 1, 5),
    ("CN", 0, 1),
    ("CN", 1, 5),
    ("CC", 0, 1),
    ("C=O", 0, 2),
    *[("N", 0, 1)] * 8,
    *[("CN", 1, 5)] * 2,
    ("NC=O", 0, 3),
)
"""SMILES, and the atoms of a bond, in the order of the SMILES, hydrogens behind."""
FARTHEST = 4.6
STEP = 0.2
NEAREST = 1.25
"""Times the length of the bond."""
MAX_GAP = 0.001
"""Hartree between the two spin states of radicals that are far apart."""
SEED = 104


def label_bond(index: int) -> tuple[list[Conformation], Counter[str]]:
    """Labels one bond of TORN, from far apart inwards."""
    smiles, fixed, moved = TORN[index]
    rng = np.random.default_rng([SEED, index])
    molecule = build_molecule(smiles, 1, SEED)
    symbols = [SYMBOLS[number] for number in molecule.atomic_numbers]
    start = displaced(molecule.conformers[0], 0.03, rng)
    length = float(np.linalg.norm(start[fixed] - start[moved]))
    part = fragment_of(molecule.bonds, fixed, moved)
    assert part is not None
    kept: list[Conformation] = []
    triplet, density = None, None
    for distance in np.arange(FARTHEST - rng.uniform(0.0, STEP), NEAREST * length, -STEP):
        positions = with_bond_scaled(start, molecule.bonds, (fixed, moved), distance / length)
        assert positions is not None
        atoms = list(zip(symbols, positions.tolist(), strict=True))
        if triplet is None:
            triplet = solve(atoms, 2)
            density = triplet.make_rdm1()
            functions = triplet.mol.aoslice_by_atom()
            turned = np.concatenate([np.arange(*functions[atom, 2:]) for atom in part])
            block = np.ix_([0, 1], turned, turned)
            density[block] = density[block][::-1].copy()
        field = solve(atoms, 0, density)
        if not field.converged:
            return kept, Counter({"SCF did not converge": 1})
        if not kept and field.e_tot - triplet.e_tot > MAX_GAP:
            return kept, Counter({"not the state of two radicals": 1})
        density = field.make_rdm1()
        energy, forces = energy_and_forces(field)
        print(f"{smiles} {distance:.2f} A {energy:10.3f} eV", flush=True)
        if np.linalg.norm(forces, axis=1).max() > MAX_FORCE:
            return kept, Counter({f"force above {MAX_FORCE:.0f} eV/A": 1})
        numbers = np.array(molecule.atomic_numbers)
        source = f"{smiles}/{symbols[fixed]}{fixed}-{symbols[moved]}{moved}/{index}"
        kept.append(
            Conformation(
                numbers, positions, energy, forces, "torn-bond", formula(numbers), source, 0
            )
        )
    return kept, Counter()


def main() -> None:
    """Labels the bonds and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    kept: list[Conformation] = []
    failures: Counter[str] = Counter()
    with ProcessPoolExecutor(arguments.processes) as pool:
        for found, left_out in pool.map(label_bond, range(len(TORN))):
            kept += found
            failures += left_out
    lone = lone_atom_energies(METHOD, ELEMENTS)
    write_labels(arguments.out, Path(__file__).name, kept, failures, lone)


if __name__ == "__main__":
    main()
