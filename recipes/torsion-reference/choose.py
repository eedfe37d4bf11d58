"""Chooses the molecules of the GFN2-xTB reference set from an OpenFF collection.

    python choose.py openff_2-0-0-td-set-v1.json > molecules.csv

Neutral molecules of H, C, N and O, each once, in bins of size; within a bin the classes of torsion
take turns, rare ones first, so that no class is left out because another is frequent. Which
molecule stands for a class is drawn with a fixed seed.
"""

import csv
import json
import random
import sys
from collections import Counter
from pathlib import Path

from rdkit import Chem

from trip_mm.errors import TripError
from trip_mm.geometry.molecule import Molecule
from trip_mm.torsion.classes import torsion_class
from trip_mm.torsion.dihedrals import Dihedral, all_rotors
from trip_mm.torsion.records import mol_from_mapped_smiles
from trip_mm.torsion.reference import embedded

SEED = 2021
# Largest number of atoms, molecules to choose, grid step in degrees.
BINS = ((12, 14, 15), (16, 14, 30), (19, 8, 30), (22, 4, 30), (25, 2, 30))


def main(path: Path) -> None:
    """Prints the chosen rows, smallest molecules first."""
    generator = random.Random(SEED)
    candidates: list[tuple[int, str, dict[str, object]]] = []
    seen = set()
    for entries in json.loads(path.read_text())["entries"].values():
        for entry in entries:
            mol = mol_from_mapped_smiles(entry["cmiles"])
            symbols = {atom.GetSymbol() for atom in mol.GetAtoms()}
            if symbols - set("HCNO") or Chem.GetFormalCharge(mol) != 0:
                continue
            if entry["inchi_key"] in seen or mol.GetNumAtoms() > BINS[-1][0]:
                continue
            seen.add(entry["inchi_key"])
            try:
                molecule = embedded(entry["cmiles"], 1, entry["record_id"])
                rotors = [d for d in all_rotors(molecule) if worth_driving(molecule, d)]
            except TripError as error:
                print(f"{entry['record_id']}: {error}", file=sys.stderr)
                continue
            for dihedral in rotors:
                row = {
                    "record_id": entry["record_id"],
                    "smiles": entry["cmiles"],
                    "dihedral": " ".join(map(str, dihedral)),
                    "source": f"{path.name} {entry['record_id']}",
                }
                kind = torsion_class(molecule.rdkit, dihedral)
                candidates.append((molecule.n_atoms, kind, row))
    write(chosen(candidates, generator))


def worth_driving(molecule: Molecule, dihedral: Dihedral) -> bool:
    """Leaves out methyl groups; keeps hydroxyl and amino groups and chains of heavy atoms."""
    numbers = molecule.atomic_numbers[list(dihedral)]
    ends = ((0, 1), (3, 2))
    return not any(numbers[end] == 1 and numbers[center] == 6 for end, center in ends)


def chosen(
    candidates: list[tuple[int, str, dict[str, object]]], generator: random.Random
) -> list[dict[str, object]]:
    """Takes turns among the classes within each bin of size, those taken least so far first."""
    rows: list[dict[str, object]] = []
    taken: set[object] = set()
    counts: Counter[str] = Counter()
    smallest = 0
    for largest, wanted, step in BINS:
        inside = [c for c in candidates if smallest < c[0] <= largest]
        generator.shuffle(inside)
        frequency = Counter(kind for _, kind, _ in candidates)
        for _ in range(wanted):
            free = [c for c in inside if c[2]["record_id"] not in taken]
            if not free:
                break
            size, kind, row = min(free, key=lambda c: (counts[c[1]], frequency[c[1]]))
            counts[kind] += 1
            taken.add(row["record_id"])
            rows.append({**row, "step_deg": step, "n_atoms": size, "class": kind})
        smallest = largest
    return sorted(rows, key=lambda row: int(str(row["n_atoms"])))


def write(rows: list[dict[str, object]]) -> None:
    """Prints CSV."""
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
