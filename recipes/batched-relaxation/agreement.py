"""Do the batched relaxer and geomeTRIC end at the same minima over the reference set?

Compares the relaxed points of two runs of the torsion benchmark. Where energies or geometries
differ, geomeTRIC starts again from the batched geometry: if that is a minimum, it stays, and the
two relaxations went into different valleys from the same start.

    trip-mm torsion drive reference --potential trip-gfn2-s --mode relax --out one-by-one
    trip-mm torsion drive reference --potential trip-gfn2-s --mode relax-batched --out batched
    python recipes/batched-relaxation/agreement.py one-by-one batched
"""

import json
import sys
from pathlib import Path

import numpy as np

from trip_mm.geometry.potentials import bind, parse_potential
from trip_mm.geometry.relax import HeldDihedral, relax
from trip_mm.geometry.superposition import rmsd
from trip_mm.torsion.record_sets import open_set
from trip_mm.units import EV_TO_KCAL_PER_MOL

MODEL = "trip-gfn2-s"
SAME_ENERGY, SAME_GEOMETRY = 0.01, 0.005  # kcal/mol, A


def points(path: Path) -> dict[str, tuple[float, np.ndarray]]:
    """Reads energies (eV) and positions (A) by record and grid point."""
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return {
        entry["key"]: (entry["energy_ev"], np.array(entry["positions_angstrom"]))
        for entry in entries
    }


def main() -> None:
    """Prints what agrees, and each point that does not."""
    one_by_one = points(Path(sys.argv[1]) / f"{MODEL}.relax.journal")
    batched = points(Path(sys.argv[2]) / f"{MODEL}.relax-batched.journal")
    records = {record.record_id: record for record in open_set("reference").records}
    difference = {key: batched[key][0] - one_by_one[key][0] for key in one_by_one}
    energies = EV_TO_KCAL_PER_MOL * np.array(list(difference.values()))
    distances = np.array([rmsd(batched[key][1], one_by_one[key][1]) for key in difference])
    same = (np.abs(energies) < SAME_ENERGY) & (distances < SAME_GEOMETRY)
    print(f"{same.sum()} of {len(same)} points agree; median difference", end=" ")
    print(f"{np.median(np.abs(energies)):.1e} kcal/mol, {np.median(distances):.1e} A")
    for key, energy, distance in zip(difference, energies, distances, strict=True):
        if abs(energy) < SAME_ENERGY and distance < SAME_GEOMETRY:
            continue
        record_id, _, index = key.split()
        record = records[record_id]
        assert record.points is not None
        assert record.dihedral is not None
        molecule = record.molecule(int(index)).at(batched[key][1])
        held = HeldDihedral(record.dihedral, float(record.points.angles_deg[int(index)]))
        again = relax(molecule, bind(parse_potential(MODEL), molecule), held)
        moved = rmsd(again.positions, batched[key][1])
        change = EV_TO_KCAL_PER_MOL * (again.energy - batched[key][0])
        print(
            f"{record.label} {held.angle_deg:g}: {energy:+.4f} kcal/mol, {distance:.4f} A; "
            f"geomeTRIC from the batched geometry: {change:+.4f} kcal/mol, {moved:.4f} A"
        )


if __name__ == "__main__":
    main()
