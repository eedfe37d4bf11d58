"""What every OpenMM platform and force backend must compute: the numbers of the eager potential."""

from dataclasses import replace

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

from trip_mm.backends.diagnostics import platform_speeds, system_of, water_box
from trip_mm.backends.openmm_force import add_trip_force, available_backends
from trip_mm.backends.python_callable import TripComputation
from trip_mm.checkpoint import load_potential, new_potential, save_potential
from trip_mm.model.trip import TripConfig
from trip_mm.units import EV_TO_KJ_PER_MOL, NM_TO_ANGSTROM

TINY = TripConfig(
    n_channels=4, l_max=1, n_layers=1, n_heads=1, cutoff=3.0, radial_hidden=4, n_scalars=4,
    readout_hidden=4,
)  # fmt: skip
KJ = unit.kilojoule_per_mole
PER_NM = EV_TO_KJ_PER_MOL * NM_TO_ANGSTROM
DTYPES = {"single": "float32", "double": "float64"}

on_backends = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(
            name, marks=pytest.mark.skipif(reason is not None, reason=f"{name} does not work here")
        )
        for name, reason in available_backends().items()
    ],
)
on_platforms = pytest.mark.parametrize(
    "platform",
    [
        pytest.param(name, marks=pytest.mark.gpu if name not in ("Reference", "CPU") else ())
        for name in platform_speeds()
    ],
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    potential = new_potential(TINY, seed=3)
    potential.set_energy_statistics(
        {1: -13.6, 6: -1030.0, 7: -1485.0, 8: -2043.0}, {1: -2.0, 6: -7.0, 7: -5.0, 8: -6.0}, 2.0
    )
    return save_potential(potential, tmp_path_factory.mktemp("model") / "tiny")


def triclinic_water():
    """Water in a periodic box without right angles; nm."""
    topology, positions = water_box(3, 0.9)
    box_vectors = np.array([[0.9, 0.0, 0.0], [0.2, 0.85, 0.0], [-0.15, 0.25, 0.8]])
    topology.setPeriodicBoxVectors(box_vectors * unit.nanometer)
    fractional = positions @ np.linalg.inv(np.eye(3) * 0.9)
    return topology, fractional @ box_vectors + 1.7


def make_context(checkpoint, topology, backend, platform="Reference", **options):
    system = system_of(topology)
    add_trip_force(system, topology, checkpoint, backend=backend, **options)
    return context_of(system, platform)


def context_of(system, platform="Reference", integrator=None):
    integrator = integrator or openmm.VerletIntegrator(0.001)
    properties = {"Precision": "double"} if platform in ("CUDA", "OpenCL") else {}
    chosen = openmm.Platform.getPlatformByName(platform)
    return openmm.Context(system, integrator, chosen, properties)


def energy_and_forces(context):
    state = context.getState(getEnergy=True, getForces=True)
    forces = state.getForces(asNumpy=True).value_in_unit(KJ / unit.nanometer)
    return state.getPotentialEnergy().value_in_unit(KJ), forces


def energy_at(context, positions):
    context.setPositions(positions)
    return context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(KJ)


def eager(checkpoint, topology, positions, precision, box_vectors=None, atoms=None):
    """Energy, kJ/mol, and forces, kJ/mol/nm, of the eager potential."""
    potential = load_potential(checkpoint, dtype=DTYPES[precision])
    atomic_numbers = np.array([atom.element.atomic_number for atom in topology.atoms()])
    if atoms is not None:
        atomic_numbers, positions = atomic_numbers[atoms], positions[atoms]
    if box_vectors is None and topology.getPeriodicBoxVectors() is not None:
        box_vectors = np.array(topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    cell = None if box_vectors is None else np.asarray(box_vectors) * NM_TO_ANGSTROM
    energy, forces = potential.energy_and_forces(positions * NM_TO_ANGSTROM, atomic_numbers, cell)
    return energy * EV_TO_KJ_PER_MOL, forces * PER_NM


@on_backends
@on_platforms
@pytest.mark.parametrize(("precision", "tolerance"), [("single", 1e-5), ("double", 1e-9)])
@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_equals_eager_potential(checkpoint, backend, platform, precision, tolerance, boundary):
    topology, positions = triclinic_water()
    if boundary == "open":
        topology.setPeriodicBoxVectors(None)
    expected_energy, expected_forces = eager(checkpoint, topology, positions, precision)
    context = make_context(checkpoint, topology, backend, platform, precision=precision)
    context.setPositions(positions)
    energy, forces = energy_and_forces(context)
    assert energy == pytest.approx(expected_energy, rel=tolerance * 1e-2)
    scale = np.abs(expected_forces).max()
    assert scale > 1.0
    np.testing.assert_allclose(forces / scale, expected_forces / scale, atol=tolerance, rtol=0)


@on_backends
@on_platforms
def test_forces_are_finite_differences_of_the_energy(checkpoint, backend, platform):
    topology, positions = triclinic_water()
    context = make_context(checkpoint, topology, backend, platform, precision="double")
    context.setPositions(positions)
    _, forces = energy_and_forces(context)
    step = 1e-5
    for atom, axis in [(0, 0), (1, 2), (10, 1), (23, 0)]:
        forward, backward = positions.copy(), positions.copy()
        forward[atom, axis] += step
        backward[atom, axis] -= step
        difference = energy_at(context, forward) - energy_at(context, backward)
        expected = -difference / (2 * step)
        assert forces[atom, axis] == pytest.approx(expected, rel=1e-5, abs=1e-3)


@on_backends
def test_box_is_read_at_every_call(checkpoint, backend):
    topology, positions = triclinic_water()
    context = make_context(checkpoint, topology, backend, precision="double")
    context.setPositions(positions)
    energies = []
    for stretch in (1.0, 1.02, 0.98):
        vectors = np.array(topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer)) * stretch
        context.setPeriodicBoxVectors(*vectors)
        energy, forces = energy_and_forces(context)
        expected_energy, expected_forces = eager(
            checkpoint, topology, positions, "double", box_vectors=vectors
        )
        assert energy == pytest.approx(expected_energy, rel=1e-12)
        np.testing.assert_allclose(forces, expected_forces, atol=1e-6)
        energies.append(energy)
    assert len(set(energies)) == 3


@on_backends
def test_lattice_shift_of_one_atom_changes_nothing(checkpoint, backend):
    topology, positions = triclinic_water()
    context = make_context(checkpoint, topology, backend, precision="double")
    context.setPositions(positions)
    energy, forces = energy_and_forces(context)
    vectors = np.array(topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    moved = positions.copy()
    moved[4] += np.array([1, -2, 10]) @ vectors
    context.setPositions(moved)
    moved_energy, moved_forces = energy_and_forces(context)
    assert moved_energy == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(moved_forces, forces, atol=1e-6)


@on_backends
@pytest.mark.parametrize("periodic", [True, False])
def test_single_atom(checkpoint, backend, periodic):
    topology = app.Topology()
    residue = topology.addResidue("H", topology.addChain())
    topology.addAtom("H", app.element.hydrogen, residue)
    if periodic:
        topology.setPeriodicBoxVectors(np.eye(3) * unit.nanometer)
    context = make_context(checkpoint, topology, backend, precision="double")
    context.setPositions([[0.1, 0.2, 0.3]])
    energy, forces = energy_and_forces(context)
    assert energy == pytest.approx(-13.6 * EV_TO_KJ_PER_MOL, rel=1e-12)
    assert np.abs(forces).max() == 0.0


@on_backends
@on_platforms
def test_some_atoms_beside_a_classical_rest(checkpoint, backend, platform):
    topology, positions = water_box(3, 0.9)
    atoms = [5, 3, 4, 12, 13, 14]  # in an order of their own
    system = system_of(topology)
    classical = openmm.CustomExternalForce("100*x^2")
    for i in range(6, 12):
        classical.addParticle(i)
    system.addForce(classical)
    add_trip_force(
        system, topology, checkpoint, backend=backend, ml_atoms=atoms, precision="double"
    )
    context = context_of(system, platform)
    context.setPositions(positions)
    energy, forces = energy_and_forces(context)
    expected_energy, expected_forces = eager(
        checkpoint, topology, positions, "double", atoms=np.array(atoms)
    )
    rest = positions[6:12, 0]
    assert energy == pytest.approx(expected_energy + 100 * (rest**2).sum(), rel=1e-9)
    total = np.zeros_like(positions)
    total[atoms] = expected_forces
    total[6:12, 0] -= 200 * rest
    np.testing.assert_allclose(forces, total, atol=1e-6 * np.abs(total).max())


@on_backends
def test_two_contexts_of_one_system_do_not_disturb_each_other(checkpoint, backend):
    topology, positions = triclinic_water()
    system = system_of(topology)
    add_trip_force(system, topology, checkpoint, backend=backend, precision="double")
    first, second = context_of(system), context_of(system)
    here, there = positions, positions + np.linspace(0, 0.02, positions.size).reshape(-1, 3)
    expected = [eager(checkpoint, topology, x, "double")[0] for x in (here, there)]
    for _ in range(2):
        assert energy_at(first, here) == pytest.approx(expected[0], rel=1e-12)
        assert energy_at(second, there) == pytest.approx(expected[1], rel=1e-12)


@on_backends
@on_platforms
def test_cell_that_becomes_too_small_stops_with_a_reason(checkpoint, backend, platform):
    topology, positions = water_box(3, 0.9)
    context = make_context(checkpoint, topology, backend, platform)
    context.setPositions(positions)
    context.setPeriodicBoxVectors(*(np.eye(3) * 0.59))
    with pytest.raises(openmm.OpenMMException, match="cell too small for the cutoff"):
        context.getState(getEnergy=True)


@on_backends
def test_positions_that_are_not_finite_stop_with_a_reason(checkpoint, backend):
    topology, positions = water_box(3, 0.9)
    context = make_context(checkpoint, topology, backend)
    positions[3, 1] = np.nan
    context.setPositions(positions)
    with pytest.raises(openmm.OpenMMException, match="positions are not finite"):
        context.getState(getEnergy=True)


# Monte Carlo barostat


def npt_context(checkpoint, topology, positions, backend, pressure):
    """A context at constant pressure that tries a new volume at every step; atoms at rest."""
    system = system_of(topology)
    add_trip_force(system, topology, checkpoint, backend=backend, precision="double")
    barostat = openmm.MonteCarloBarostat(pressure * unit.bar, 300 * unit.kelvin, 1)
    barostat.setRandomNumberSeed(7)
    system.addForce(barostat)
    context = context_of(system, integrator=openmm.VerletIntegrator(1e-9))
    context.setPositions(positions)
    return context


def volume(state):
    return state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3)


@on_backends
def test_barostat_moves_molecules_whole(checkpoint, backend):
    topology, positions = water_box(3, 0.9)
    context = npt_context(checkpoint, topology, positions, backend, pressure=1.0)
    assert len(context.getMolecules()) == 27
    start = context.getState(getPositions=True)
    for _ in range(50):
        context.getIntegrator().step(1)
        state = context.getState(getPositions=True)
        if volume(state) != volume(start):
            break
    assert volume(state) != volume(start), "no trial was accepted"
    before = start.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    after = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    assert np.abs(after[::3] - before[::3]).max() > 1e-4
    for first, second in ((0, 1), (0, 2), (1, 2)):
        lengths = [np.linalg.norm(x[first::3] - x[second::3], axis=1) for x in (before, after)]
        np.testing.assert_allclose(lengths[1], lengths[0], rtol=0, atol=1e-12)


@on_backends
def test_energy_after_barostat_trials_is_that_of_the_new_box(checkpoint, backend):
    topology, positions = water_box(3, 0.9)
    context = npt_context(checkpoint, topology, positions, backend, pressure=1.0)
    for _ in range(10):
        context.getIntegrator().step(1)
    state = context.getState(getEnergy=True, getPositions=True)
    box_vectors = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    assert abs(box_vectors[0, 0] - 0.9) > 1e-6
    after = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    expected, _ = eager(checkpoint, topology, after, "double", box_vectors=box_vectors)
    assert state.getPotentialEnergy().value_in_unit(KJ) == pytest.approx(expected, rel=1e-12)


def test_barostat_trial_sees_the_energy_of_the_trial(checkpoint, monkeypatch):
    topology, positions = water_box(3, 0.9)
    calls = []
    original = TripComputation.__call__

    def recorded(self, state):
        energy, forces = original(self, state)
        box_vectors = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        calls.append((np.array(box_vectors), np.array(positions), energy))
        return energy, forces

    monkeypatch.setattr(TripComputation, "__call__", recorded)
    context = npt_context(checkpoint, topology, positions, "python", pressure=1.0)
    context.getIntegrator().step(5)
    assert len({call[0][0, 0] for call in calls}) >= 5
    for box_vectors, at, energy in calls:
        expected, _ = eager(checkpoint, topology, at, "double", box_vectors=box_vectors)
        assert energy == pytest.approx(expected, rel=1e-12)


def test_acceptance_is_that_of_molecules(tmp_path):
    """Molecules without forces are an ideal gas: <V> = (n_molecules + 1) k T / p."""
    potential = new_potential(replace(TINY, l_max=0, repulsion="none"))
    with torch.no_grad():
        for parameter in potential.model.parameters():
            parameter.zero_()
    checkpoint = save_potential(potential, tmp_path / "ideal-gas")
    pressure = 100.0
    unit_volume = (
        (unit.MOLAR_GAS_CONSTANT_R * 300 * unit.kelvin / (pressure * unit.bar))
        / unit.AVOGADRO_CONSTANT_NA
    ).value_in_unit(unit.nanometer**3)
    topology, positions = water_box(2, (15 * unit_volume) ** (1 / 3))
    context = npt_context(checkpoint, topology, positions, "python", pressure)
    assert energy_at(context, positions) == pytest.approx(0.0, abs=1e-9)
    volumes = []
    for _ in range(600):
        context.getIntegrator().step(1)
        volumes.append(volume(context.getState()) / unit_volume)
    # From 15 it falls to 9; it would rise to 25 if every atom were a molecule.
    assert 4.0 < np.mean(volumes[300:]) < 13.0
