"""Multiple time steps: what the two groups add up to, what the integrators do with them."""

import copy

import numpy as np
import openmm
import pytest
from openmm import app, unit

from trip_mm.backends.diagnostics import system_of, water_box
from trip_mm.backends.multiple_timesteps import (
    INNER_GROUP,
    OUTER_GROUP,
    MultipleTimestepIntegrator,
    MultipleTimestepLangevinIntegrator,
    split_by_system,
    split_by_trip,
)
from trip_mm.backends.openmm_force import ForceSource, add_trip_force
from trip_mm.checkpoint import new_potential
from trip_mm.errors import ConfigError, UnsupportedSystemError
from trip_mm.model.trip import TripConfig

FULL = TripConfig(
    n_channels=4, l_max=1, n_layers=2, n_heads=1, cutoff=3.0, radial_hidden=4, n_scalars=4,
    readout_hidden=4,
)  # fmt: skip
SMALL = TripConfig(
    n_channels=2, l_max=1, n_layers=1, n_heads=1, cutoff=2.0, radial_hidden=4, n_scalars=2,
    readout_hidden=4, channels_div=1,
)  # fmt: skip
FORCE_FIELD = ("amber14-all.xml", "amber14/tip3pfb.xml")
TOLERANCE = {"single": 1e-5, "double": 1e-9}
PLATFORM = {"single": "CPU", "double": "Reference"}
TIMESTEP = 0.5 * unit.femtosecond


@pytest.fixture(scope="module")
def water():
    return water_box(3, 1.0)


def flexible_amber(topology, cutoff=0.4):
    return app.ForceField(*FORCE_FIELD).createSystem(
        topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=cutoff * unit.nanometer,
        constraints=None,
        rigidWater=False,
    )


def full_system(topology, precision="double", backend="python"):
    system = system_of(topology)
    add_trip_force(system, topology, new_potential(FULL), precision=precision, backend=backend)
    return system


def split_system(topology, inner, precision="double", backend="python"):
    system = full_system(topology, precision, backend)
    if inner == "amber14":
        split_by_system(system, flexible_amber(topology))
    else:
        split_by_trip(system, topology, ForceSource(new_potential(SMALL), backend, precision))
    return system


def context_of(system, positions, integrator=None, platform="Reference"):
    if integrator is None:
        integrator = openmm.VerletIntegrator(TIMESTEP)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(positions)
    return context


def energy_and_forces(context, groups=-1):
    state = context.getState(energy=True, forces=True, groups=groups)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    return energy, state.getForces(asNumpy=True)._value


# The sum of the groups


@pytest.mark.parametrize(
    ("inner", "backend", "precision"),
    [
        ("amber14", "python", "single"),
        ("amber14", "python", "double"),
        ("trip", "auto", "single"),
        ("trip", "python", "double"),
    ],
)
def test_the_groups_add_up_to_the_full_potential(water, inner, backend, precision):
    topology, positions = water
    platform, tolerance = PLATFORM[precision], TOLERANCE[precision]
    full = context_of(full_system(topology, precision, backend), positions, platform=platform)
    split = context_of(
        split_system(topology, inner, precision, backend), positions, platform=platform
    )
    moved = np.asarray(positions) + 0.002 * np.random.default_rng(1).normal(size=(81, 3))
    box = np.asarray(topology.getPeriodicBoxVectors()._value) * 1.01
    for context in (full, split):
        context.setPeriodicBoxVectors(*box)
        context.setPositions(moved)
    energy, forces = energy_and_forces(full)
    inner_energy, inner_forces = energy_and_forces(split, 1 << INNER_GROUP)
    outer_energy, outer_forces = energy_and_forces(split, 1 << OUTER_GROUP)
    scale = np.abs(forces).max()
    assert abs(inner_energy) > 1.0
    assert np.abs(inner_forces).max() > 1e-3 * scale
    assert inner_energy + outer_energy == pytest.approx(energy, rel=tolerance)
    np.testing.assert_allclose(inner_forces + outer_forces, forces, atol=tolerance * scale)
    both_energy, both_forces = energy_and_forces(split)
    assert both_energy == pytest.approx(energy, rel=tolerance)
    np.testing.assert_allclose(both_forces, forces, atol=tolerance * scale)


def test_the_inner_group_is_the_cheap_potential_alone(water):
    topology, positions = water
    split = context_of(split_system(topology, "amber14"), positions)
    amber = context_of(flexible_amber(topology), positions)
    energy, forces = energy_and_forces(amber)
    inner_energy, inner_forces = energy_and_forces(split, 1 << INNER_GROUP)
    assert inner_energy == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(inner_forces, forces, atol=1e-8)


# Integrators


def trajectory(context, velocities, n_steps):
    context.setVelocities(velocities)
    context.getIntegrator().step(n_steps)
    return context.getState(positions=True).getPositions(asNumpy=True)._value


def thermal_velocities(system, positions):
    context = context_of(system, positions)
    context.setVelocitiesToTemperature(298 * unit.kelvin, 1)
    return context.getState(velocities=True).getVelocities(asNumpy=True)


def test_one_inner_step_is_velocity_verlet_on_the_full_potential(water):
    topology, positions = water
    velocities = thermal_velocities(full_system(topology), positions)
    whole = openmm.CustomIntegrator(TIMESTEP)
    whole.addUpdateContextState()
    whole.addComputePerDof("v", "v+0.5*dt*f/m")
    whole.addComputePerDof("x", "x+dt*v")
    whole.addComputePerDof("v", "v+0.5*dt*f/m")
    expected = trajectory(context_of(full_system(topology), positions, whole), velocities, 5)
    split = context_of(
        split_system(topology, "amber14"), positions, MultipleTimestepIntegrator(TIMESTEP, 1)
    )
    np.testing.assert_allclose(trajectory(split, velocities, 5), expected, atol=1e-10)


def test_the_outer_step_converges_with_its_square(water):
    topology, positions = water
    start = copy.deepcopy(positions)
    velocities = thermal_velocities(full_system(topology), start)

    def end(outer_fs):
        integrator = MultipleTimestepIntegrator(outer_fs * unit.femtosecond, 2)
        context = context_of(split_system(topology, "amber14"), start, integrator)
        return trajectory(context, velocities, round(2.0 / outer_fs))

    reference = end(0.125)
    coarse, fine = (np.abs(end(outer) - reference).max() for outer in (1.0, 0.5))
    assert coarse / fine > 3.0


def test_the_temperature_of_the_heat_bath_can_change(water):
    topology, positions = water
    integrator = MultipleTimestepLangevinIntegrator(
        10 * unit.kelvin, 1 / unit.picosecond, TIMESTEP, 2
    )
    context = context_of(flexible_amber(topology), positions, integrator)
    gas_constant = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)
    assert integrator.getGlobalVariableByName("kT") == pytest.approx(10 * gas_constant)
    integrator.setTemperature(300 * unit.kelvin)
    assert integrator.getTemperature() == 300 * unit.kelvin
    assert integrator.getGlobalVariableByName("kT") == pytest.approx(300 * gas_constant)
    context.getIntegrator().step(1)


# Refusals


def test_constraints_are_refused(water):
    topology, _ = water
    rigid = app.ForceField(*FORCE_FIELD).createSystem(topology, rigidWater=True)
    with pytest.raises(UnsupportedSystemError, match="the inner potential has 81 constraints"):
        split_by_system(full_system(topology), rigid)
    with pytest.raises(UnsupportedSystemError, match="the full potential has 81 constraints"):
        split_by_system(rigid, flexible_amber(topology))
    with pytest.raises(UnsupportedSystemError, match="rigidWater=False"):
        split_by_trip(rigid, topology, ForceSource(new_potential(SMALL)))


def test_systems_that_do_not_match_are_refused_and_left_alone(water):
    topology, _ = water
    system = full_system(topology)
    n_forces = system.getNumForces()
    other, _ = water_box(2, 1.0)
    with pytest.raises(UnsupportedSystemError, match="24 particles and the full one 81"):
        split_by_system(system, flexible_amber(other, cutoff=0.3))
    with pytest.raises(UnsupportedSystemError, match="has no forces"):
        split_by_system(system, system_of(topology))
    assert system.getNumForces() == n_forces


def test_no_inner_step_is_refused():
    with pytest.raises(ConfigError, match="0 inner steps mean nothing"):
        MultipleTimestepIntegrator(TIMESTEP, 0)
