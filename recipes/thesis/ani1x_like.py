"""Writes a file of random numbers in the layout of ani1x-release.h5, to measure the loader with.

    python recipes/thesis/ani1x_like.py ani1x-like.h5 --conformations 4400000

As in ANI-1x: one group per formula, about 15 atoms, energies in Ha and forces in Ha/A, and NaN
where a property is missing. The chemistry means nothing.
"""

import argparse
from pathlib import Path

import h5py
import numpy as np

FORMULAS = 64
MISSING_SHARE = 0.02
SPACING = 1.3  # A, of the grid that the atoms sit on
CHUNK = 16_384
LONE_HARTREE = {1: -0.5, 6: -37.8, 7: -54.6, 8: -75.0}


def write_group(
    file: h5py.File, numbers: np.ndarray, n_conf: int, rng: np.random.Generator
) -> None:
    """Writes `n_conf` conformations of one composition."""
    n_atoms = len(numbers)
    name = "".join(f"{s}{(numbers == z).sum()}" for s, z in zip("CHNO", (6, 1, 7, 8), strict=True))
    group = file.create_group(name)
    group["atomic_numbers"] = numbers.astype(np.uint8)
    shape = (n_conf, n_atoms, 3)
    coordinates = group.create_dataset("coordinates", shape, np.float32)
    energies = group.create_dataset("wb97x_dz.energy", (n_conf,), np.float64)
    forces = group.create_dataset("wb97x_dz.forces", shape, np.float32)
    cells = np.stack(np.unravel_index(np.arange(n_atoms), (3, 3, 3)), axis=1) * SPACING
    own = sum(LONE_HARTREE[int(z)] for z in numbers) - 0.1 * n_atoms
    for start in range(0, n_conf, CHUNK):
        stop = min(start + CHUNK, n_conf)
        noise = rng.standard_normal((stop - start, n_atoms, 3), dtype=np.float32)
        coordinates[start:stop] = cells + 0.1 * noise
        forces[start:stop] = 0.02 * noise
        energy = own + 0.02 * rng.standard_normal(stop - start)
        energy[rng.random(stop - start) < MISSING_SHARE] = np.nan
        energies[start:stop] = energy


def main() -> None:
    """Draws the formulas and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--conformations", type=int, default=4_400_000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    with h5py.File(arguments.file, "w") as file:
        for number in range(FORMULAS):
            # Every 30 numbers the first three counts repeat; the oxygens tell them apart.
            counts = (2 + number % 6, 4 + number % 10, number % 3, number // 30)
            numbers = np.repeat((6, 1, 7, 8), counts)
            first = arguments.conformations * number // FORMULAS
            last = arguments.conformations * (number + 1) // FORMULAS
            write_group(file, numbers, last - first, rng)
    print(f"{arguments.file}: {arguments.conformations} conformations")


if __name__ == "__main__":
    main()
