"""The ASE calculator against the potential, and against ASE's own finite differences."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

import trip_mm
from trip_mm.backends.ase_calculator import TripCalculator
from trip_mm.errors import (
    CellTooSmallError,
    CheckpointError,
    UnsupportedElementError,
    UnsupportedSystemError,
)


@pytest.fixture(scope="module")
def calculator() -> TripCalculator:
    return TripCalculator("trip-gfn2-s", dtype="float64")


def triclinic_water(calculator: TripCalculator) -> Atoms:
    cell = np.array([[9.6, 0.0, 0.0], [1.5, 9.9, 0.0], [-1.0, 0.8, 10.3]])
    generator = np.random.default_rng(3)
    atoms = Atoms(cell=cell, pbc=True)
    for corner in ((0.1, 0.1, 0.1), (0.6, 0.1, 0.2), (0.2, 0.6, 0.15), (0.55, 0.6, 0.7)):
        water = molecule("H2O")
        water.rotate(float(generator.uniform(0, 360)), generator.normal(size=3))
        water.positions += np.asarray(corner) @ cell
        atoms += water
    atoms.calc = calculator
    return atoms


def test_energy_and_forces_are_the_potentials(calculator: TripCalculator) -> None:
    atoms = molecule("CH3CH2OH")
    atoms.calc = calculator
    potential = trip_mm.load_potential("trip-gfn2-s", dtype="float64")
    energy, forces = potential.energy_and_forces(atoms.positions, atoms.numbers)
    assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-10)


def test_forces_and_stress_are_derivatives(calculator: TripCalculator) -> None:
    atoms = triclinic_water(calculator)
    np.testing.assert_allclose(
        atoms.get_forces()[:3],
        calculate_numerical_forces(atoms, eps=1e-4, iatoms=range(3)),
        atol=1e-6,
    )
    stress = atoms.get_stress()
    np.testing.assert_allclose(stress, calculate_numerical_stress(atoms, eps=1e-5), atol=1e-8)
    # Asked for afterwards, the energy comes from the same results.
    assert atoms.get_potential_energy() == pytest.approx(calculator.results["energy"])


def test_relaxes_and_conserves_energy(calculator: TripCalculator) -> None:
    atoms = molecule("H2O")
    atoms.calc = calculator
    assert BFGS(atoms, logfile=None).run(fmax=1e-3, steps=60)
    assert atoms.get_distance(0, 1) == pytest.approx(0.96, abs=0.03)
    start = atoms.get_total_energy()
    atoms.set_velocities(np.random.default_rng(0).normal(size=(3, 3)) * 0.01)
    start = atoms.get_total_energy()
    VelocityVerlet(atoms, timestep=0.1 * units.fs).run(100)
    assert atoms.get_total_energy() == pytest.approx(start, abs=2e-4)


def test_refusals(calculator: TripCalculator) -> None:
    with pytest.raises(CheckpointError, match="no-such-model"):
        TripCalculator("no-such-model")
    slab = Atoms(
        "H2O", positions=molecule("H2O").positions, cell=[20, 20, 20], pbc=(True, True, False)
    )
    slab.calc = calculator
    with pytest.raises(UnsupportedSystemError, match="pbc"):
        slab.get_potential_energy()
    small = Atoms("H2O", positions=molecule("H2O").positions, cell=[8, 8, 8], pbc=True)
    small.calc = calculator
    for ask in (small.get_potential_energy, small.get_stress):
        with pytest.raises(CellTooSmallError):
            ask()
    open_water = molecule("H2O")
    open_water.calc = calculator
    with pytest.raises(UnsupportedSystemError, match="stress"):
        open_water.get_stress()
    other = molecule("CH3Cl")
    other.calc = calculator
    with pytest.raises(UnsupportedElementError, match="Cl"):
        other.get_potential_energy()
