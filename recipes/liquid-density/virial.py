"""Mean errors of energy and virial of models on labelled clusters of water, by class.

    python recipes/liquid-density/virial.py data/liquid.h5 trip-gfn2-s trip-gfn2

The virial of a cluster is sum_i r_i . F_i. An error w of it per molecule is an error of about
w / (3 V) of the pressure, V the volume of a molecule: 1 kcal/mol is 770 bar at 30 A^3. The standard
error is that of independent clusters.
"""

import argparse
from pathlib import Path

import numpy as np

from trip_mm import load_potential
from trip_mm.training.dataset import Dataset
from trip_mm.units import EV_TO_KCAL_PER_MOL

ATOMS_OF_WATER = 3


def main() -> None:
    """Prints a line for each model and class."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="+")
    arguments = parser.parse_args()
    dataset = Dataset.open(arguments.data)
    for name in arguments.models:
        potential = load_potential(name).with_kernels()
        errors: dict[str, list[tuple[float, float]]] = {}
        for item in dataset:
            energy, forces = potential.energy_and_forces(item.positions, item.atomic_numbers)
            arms = item.positions - item.positions.mean(axis=0)
            virial = float(((forces - item.forces) * arms).sum())
            unit = EV_TO_KCAL_PER_MOL * ATOMS_OF_WATER / len(item.atomic_numbers)
            both = ((energy - item.energy) * unit, virial * unit)
            errors.setdefault(item.system_class, []).append(both)
        for system_class, values in errors.items():
            means = np.mean(values, axis=0)
            spreads = np.std(values, axis=0, ddof=1) / np.sqrt(len(values))
            print(
                f"{name} {system_class}: kcal/mol per molecule: energy {means[0]:+.3f} +- "
                f"{spreads[0]:.3f}, virial {means[1]:+.2f} +- {spreads[1]:.2f}"
            )


if __name__ == "__main__":
    main()
