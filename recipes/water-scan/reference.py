"""Computes the wB97x/6-31G* reference of the water scan in its spin states.

    python recipes/water-scan/reference.py water-reference.csv

Every finished state goes to the journal `water-reference.journal` beside the table at once; the
same command continues after an interruption. One core needs about an hour.

The scan runs from torn bonds inwards, so that each geometry can start from the orbitals of two
longer ones, first on a coarse grid and then in between; what fails is tried again from all its
neighbours. The triplet is left out where both bonds are short and the quintet where either is:
there they lie several eV above the singlet, or the triplet.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import EvaluationError
from trip_mm.surfaces.spin_states import STATE_NAMES, FunctionalSettings, solve_spin_state
from trip_mm.surfaces.water import ATOMIC_NUMBERS, water_positions
from trip_mm.torsion.scan import Journal

DISTANCES = (
    *(0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4),
    *(1.6, 1.8, 2.0, 2.2, 2.4, 2.7, 3.0, 3.3, 3.7, 4.1, 4.5),
)
"""A, closer where the energy changes fast."""
COARSE = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8, 2.2, 2.7, 3.3, 4.5)
"""A, computed before the others."""
SHORT = 1.45
"""A; the singlet lies far below where bonds are shorter."""


def wanted(first: float, second: float, n_unpaired: int) -> bool:
    """Says whether a state can be the ground state at these distances."""
    longer, shorter = max(first, second), min(first, second)
    return {0: True, 2: longer > SHORT, 4: shorter > SHORT}[n_unpaired]


def key(i: int, j: int, n_unpaired: int) -> str:
    """Names a state in the journal."""
    return f"{DISTANCES[i]:.2f} {DISTANCES[j]:.2f} {STATE_NAMES[n_unpaired]}"


def guesses(journal: Journal, i: int, j: int, n_unpaired: int) -> list[NDArray[np.float64]]:
    """Returns the densities of the closest finished geometries with one longer bond."""
    found: dict[str, NDArray[np.float64]] = {}
    longer_first = [(min(k, j), max(k, j)) for k in range(i + 1, len(DISTANCES))]
    longer_second = [(i, k) for k in range(j + 1, len(DISTANCES))]
    for candidates in (longer_first, longer_second):
        for a, b in candidates:
            entry = journal.entries.get(key(a, b, n_unpaired), {})
            if "density" in entry:
                found[key(a, b, n_unpaired)] = np.array(entry["density"])
                break
    return list(found.values())


def order() -> list[tuple[int, int]]:
    """Returns index pairs, coarse grid before the rest, torn bonds before short ones."""
    n = len(DISTANCES)
    pairs = [(i, j) for j in range(n) for i in range(j + 1)]
    fine = {(i, j): not {DISTANCES[i], DISTANCES[j]} <= set(COARSE) for i, j in pairs}
    return sorted(pairs, key=lambda pair: (fine[pair], -sum(pair)))


def attempt(
    positions: NDArray[np.float64],
    settings: FunctionalSettings,
    n_unpaired: int,
    starts: list[NDArray[np.float64]],
) -> dict[str, object]:
    """Returns the journal entry of a state."""
    try:
        found = solve_spin_state(ATOMIC_NUMBERS, positions, settings, n_unpaired, starts)
    except EvaluationError as error:
        return {"error": str(error)}
    return {"energy_ev": found.energy, "density": found.density.round(6).tolist()}


def try_again(journal: Journal, settings: FunctionalSettings) -> None:
    """Starts what failed from all finished neighbours, shorter bonds included."""
    n = len(DISTANCES)
    for i, j in order():
        for n_unpaired in STATE_NAMES:
            name = key(i, j, n_unpaired)
            if "error" not in journal.entries.get(name, {}):
                continue
            around = {(min(a, b), max(a, b)) for a in (i - 1, i, i + 1) for b in (j - 1, j, j + 1)}
            near = [
                journal.entries.get(key(a, b, n_unpaired), {})
                for a, b in sorted(around)
                if a >= 0 and b < n
            ]
            starts = [np.array(entry["density"]) for entry in near if "density" in entry]
            positions = water_positions(DISTANCES[i], DISTANCES[j])
            journal.add(name, attempt(positions, settings, n_unpaired, starts))


def compute(journal: Journal, settings: FunctionalSettings) -> None:
    """Fills the journal with what it lacks."""
    pairs = order()
    for count, (i, j) in enumerate(pairs, 1):
        for n_unpaired in STATE_NAMES:
            name = key(i, j, n_unpaired)
            if name in journal.entries or not wanted(DISTANCES[i], DISTANCES[j], n_unpaired):
                continue
            positions = water_positions(DISTANCES[i], DISTANCES[j])
            starts = guesses(journal, i, j, n_unpaired)
            journal.add(name, attempt(positions, settings, n_unpaired, starts))
        print(f"{count}/{len(pairs)}: {DISTANCES[i]:.2f} {DISTANCES[j]:.2f} A", flush=True)


def write_table(journal: Journal, path: Path) -> None:
    """Writes one row for each geometry, first distance not longer than the second, in eV."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        states = [f"{name} (eV)" for name in STATE_NAMES.values()]
        writer.writerow(["O-H 1 (A)", "O-H 2 (A)", *states])
        for i, first in enumerate(DISTANCES):
            for j, second in enumerate(DISTANCES[i:], i):
                entries = [journal.entries.get(key(i, j, state), {}) for state in STATE_NAMES]
                cells = [f"{e['energy_ev']:.6f}" if "energy_ev" in e else "" for e in entries]
                writer.writerow([f"{first:.2f}", f"{second:.2f}", *cells])
    partial.replace(path)


def main() -> None:
    """Computes, writes the table and counts failures."""
    table = Path(sys.argv[1])
    settings = FunctionalSettings()
    identity: dict[str, object] = {
        "method": f"{settings.functional}/{settings.basis}",
        "distances_angstrom": DISTANCES,
    }
    journal = Journal(table.with_suffix(".journal"), identity)
    compute(journal, settings)
    try_again(journal, settings)
    write_table(journal, table)
    failed = {name: entry["error"] for name, entry in journal.entries.items() if "error" in entry}
    print(f"{len(journal.entries)} states, {len(failed)} failed")
    for name, reason in failed.items():
        print(f"  {name}: {reason}")


if __name__ == "__main__":
    main()
