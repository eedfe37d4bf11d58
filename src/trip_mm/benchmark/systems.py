"""The systems of a benchmark: water boxes by their number of atoms, and user systems."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import ConfigError
from trip_mm.simulation.building import build_structure
from trip_mm.simulation.catalog import find_config
from trip_mm.simulation.config_io import validate
from trip_mm.simulation.schema import load_system
from trip_mm.simulation.system_config import SystemConfig
from trip_mm.units import AMU_ANGSTROM2_PER_FS2_TO_EV, BOLTZMANN_CONSTANT, NM_TO_ANGSTROM

if TYPE_CHECKING:
    from openmm import app

WATER_PREFIX = "water:"
WATER_VOLUME = 29.99
"""A^3 per molecule at 298 K and 1 bar (0.997 g/cm3)."""
TEMPERATURE = 298.0
STEPS_ONE_WAY = 20
"""After so many steps the free flight turns round."""


@dataclass(frozen=True)
class BenchmarkSystem:
    """A structure in plain arrays, so that any interpreter can read it.

    Attributes:
        label: as given.
        atomic_numbers: int64 `[n_atoms]`.
        positions: A `[n_atoms, 3]`.
        velocities: A/fs `[n_atoms, 3]`, thermal.
        cell: A `[3, 3]`; None for open boundaries.
        bonds: pairs of indices, int64 `[n_bonds, 2]`.
    """

    label: str
    atomic_numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    cell: NDArray[np.float64] | None
    bonds: NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Writes the arrays as `.npz`; no cell is an empty array."""
        np.savez(
            path,
            label=self.label,
            atomic_numbers=self.atomic_numbers,
            positions=self.positions,
            velocities=self.velocities,
            cell=np.zeros((0, 3)) if self.cell is None else self.cell,
            bonds=self.bonds,
        )

    @classmethod
    def load(cls, path: Path) -> "BenchmarkSystem":
        """Reads what `save` wrote."""
        with np.load(path) as data:
            cell = data["cell"] if len(data["cell"]) else None
            return cls(
                str(data["label"]), data["atomic_numbers"], data["positions"],
                data["velocities"], cell, data["bonds"],
            )  # fmt: skip

    def displaced(self, step: int, timestep_fs: float) -> NDArray[np.float64]:
        """Returns the positions of a step: free flight, to and fro, at thermal speed.

        Neighbours change as fast as in dynamics at the same temperature, or faster, whatever the
        forces are: a network of random weights would tear the molecules apart.
        """
        phase = step % (2 * STEPS_ONE_WAY)
        time = min(phase, 2 * STEPS_ONE_WAY - phase) * timestep_fs
        moved: NDArray[np.float64] = self.positions + time * self.velocities
        return moved

    def topology(self) -> "app.Topology":
        """Builds an OpenMM topology: elements, bonds and box; one residue."""
        from openmm import app, unit

        topology = app.Topology()
        residue = topology.addResidue("ALL", topology.addChain())
        atoms = []
        for index, number in enumerate(self.atomic_numbers):
            element = app.Element.getByAtomicNumber(int(number))
            atoms.append(topology.addAtom(f"{element.symbol}{index}", element, residue))
        for first, second in self.bonds:
            topology.addBond(atoms[first], atoms[second])
        if self.cell is not None:
            topology.setPeriodicBoxVectors(self.cell / NM_TO_ANGSTROM * unit.nanometer)
        return topology


def build_system(name: str, seed: int) -> BenchmarkSystem:
    """Builds `water:ATOMS`, a shipped system, or a user's system file.

    Args:
        name: `water:621`, `trialanine`, or the path of a system YAML.
        seed: of the structure and the velocities.

    Raises:
        ConfigError: the name means nothing, or the number of atoms is not three per molecule.
        UnsupportedSystemError: the structure cannot be built.
    """
    if name.startswith(WATER_PREFIX):
        config = _water(name)
    else:
        path = find_config("systems", name)
        config = load_system(path)
    built = build_structure(config, seed)
    atoms = list(built.topology.atoms())
    numbers = np.array([atom.element.atomic_number for atom in atoms], dtype=np.int64)
    masses = np.array([atom.element.mass._value for atom in atoms])
    bonds = [(first.index, second.index) for first, second in built.topology.bonds()]
    speeds = np.sqrt(BOLTZMANN_CONSTANT * TEMPERATURE / (masses * AMU_ANGSTROM2_PER_FS2_TO_EV))
    velocities = np.random.default_rng(seed).normal(size=(len(atoms), 3)) * speeds[:, None]
    box = built.box_vectors
    return BenchmarkSystem(
        name,
        numbers,
        np.asarray(built.positions) * NM_TO_ANGSTROM,
        velocities,
        None if box is None else np.asarray(box) * NM_TO_ANGSTROM,
        np.array(bonds, dtype=np.int64).reshape(-1, 2),
    )


def _water(name: str) -> SystemConfig:
    """Settings of a cube of water with so many atoms at ambient density."""
    text = name.removeprefix(WATER_PREFIX)
    if not text.isdecimal() or int(text) % 3 or int(text) < 3:
        raise ConfigError(
            f"system {name!r}: the number of atoms must be a multiple of 3, as in water:621"
        )
    n_waters = int(text) // 3
    edge = (n_waters * WATER_VOLUME) ** (1.0 / 3.0)
    document = {
        "name": f"water-{text}",
        "solvent": {"shape": "cube", "edge": f"{edge:.6f} A", "n_waters": n_waters},
        "potential": {"trip": "none"},
    }
    return validate(SystemConfig, document, name)
