"""Reduced precision: what it changes, the check that it must pass, and what is refused."""

import dataclasses

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from trip_mm.backends.ase_calculator import TripCalculator
from trip_mm.backends.diagnostics import system_of, water_box
from trip_mm.backends.openmm_force import add_trip_force
from trip_mm.checkpoint import fingerprint, load_potential, new_potential
from trip_mm.errors import BackendError, ConfigError, EvaluationError, PrecisionError
from trip_mm.model.reduced import reduced_product
from trip_mm.precision import CheckSettings, PrecisionCheck, check_precision
from trip_mm.precision.dynamics import (
    PhasePoint,
    kinetic_energy,
    langevin,
    thermal_velocities,
    verlet,
)
from trip_mm.precision.record import DRIFT_LIMIT_EV_PER_PS_PER_ATOM
from trip_mm.units import AMU_ANGSTROM2_PER_FS2_TO_EV, BOLTZMANN_CONSTANT, EV_TO_KJ_PER_MOL

SHORT = CheckSettings(n_steps=20, n_blocks=4, relax_iterations=20, thermal_steps=5)
DIMER = np.array(
    [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0],
     [2.85, 0.1, 0.1], [3.2, 0.85, 0.5], [3.2, -0.7, 0.5]]
)  # fmt: skip
NUMBERS = np.array([8, 1, 1, 8, 1, 1])


@pytest.fixture(scope="module")
def potential():
    return load_potential("trip-gfn2-s").requires_grad_(False)


@pytest.fixture(scope="module")
def measured(potential):
    return check_precision(potential, DIMER, NUMBERS, "bf16", settings=SHORT)


def good_check(potential, numbers=NUMBERS, **changes):
    values = {
        "precision": "bf16", "model": "trip-gfn2-s", "fingerprint": fingerprint(potential),
        "atomic_numbers": tuple(int(n) for n in numbers), "device": "cpu", "temperature_k": 298.0,
        "timestep_fs": 0.5, "n_steps": 400, "thermal_force_ev_per_angstrom": 0.8,
        "force_error_ev_per_angstrom": 0.004, "largest_force_error_ev_per_angstrom": 0.02,
        "drift_float32_ev_per_ps_per_atom": 1e-6, "drift_change_ev_per_ps_per_atom": 1e-5,
        "drift_error_ev_per_ps_per_atom": 1e-5, "seconds_float32": 1.0, "seconds_reduced": 0.5,
    }  # fmt: skip
    return PrecisionCheck(**(values | changes))


# The product and the network


def test_product_rounds_operands_and_not_sums():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 5, 5, generator=generator) for _ in range(2))
    exact = a.bfloat16().double() @ b.bfloat16().double()
    torch.testing.assert_close(reduced_product(a, b, "bf16").double(), exact, rtol=1e-5, atol=1e-5)
    assert (a.double() @ b.double() - exact).abs().max() > 1e-3


def test_product_has_the_derivative_of_the_product():
    eighths = torch.arange(-12, 12).reshape(2, 3, 4) / 8.0  # exact in bfloat16
    a = eighths.clone().requires_grad_(True)
    b = eighths.reshape(2, 4, 3).flip(1).clone().requires_grad_(True)
    weight = torch.arange(18).reshape(2, 3, 3) / 4.0
    found = torch.autograd.grad((reduced_product(a, b, "bf16") * weight).sum(), (a, b))
    expected = torch.autograd.grad((torch.bmm(a, b) * weight).sum(), (a, b))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_bf16_changes_forces_a_little(potential):
    exact = potential.energy_and_forces(DIMER, NUMBERS)
    twin = potential.with_precision("bf16")
    energy, forces = twin.energy_and_forces(DIMER, NUMBERS)
    error = np.sqrt(((forces - exact[1]) ** 2).mean())
    assert 1e-5 < error < 0.05  # eV/A
    assert 0.0 < abs(energy - exact[0]) < 0.05  # eV
    assert potential.energy_and_forces(DIMER, NUMBERS)[0] == exact[0]
    assert fingerprint(twin) == fingerprint(potential)


def test_a_lone_atom_keeps_its_energy(potential):
    positions, numbers = np.zeros((1, 3)), np.array([8])
    exact = potential.energy_and_forces(positions, numbers)[0]
    found = potential.with_precision("bf16").energy_and_forces(positions, numbers)[0]
    assert found == pytest.approx(exact, abs=1e-4)


def test_scripted_twin_computes_the_same(potential):
    twin = potential.with_precision("bf16")
    scripted = torch.jit.script(twin)
    positions, numbers = torch.as_tensor(DIMER), torch.as_tensor(NUMBERS)
    assert float(scripted(positions, numbers)) == pytest.approx(
        float(twin(positions, numbers)), abs=1e-6
    )


def test_a_twin_is_refused_where_it_has_no_meaning(potential):
    with pytest.raises(ConfigError, match="float32"):
        new_potential("trip-s", dtype="float64").with_precision("bf16")
    with pytest.raises(ConfigError, match="there are tf32, bf16"):
        potential.with_precision("fp8")
    with pytest.raises(ConfigError, match="no compiled kernels"):
        potential.with_precision("bf16").with_kernels()
    with pytest.raises(ConfigError, match="no compiled kernels"):
        potential.with_kernels().with_precision("bf16")
    with pytest.raises(ConfigError, match="does not check bf16"):
        TripCalculator(potential.with_precision("bf16"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_tf32_is_refused_without_a_gpu(potential):
    with pytest.raises(BackendError, match="tf32 is arithmetic of NVIDIA GPUs"):
        potential.with_precision("tf32")
    with pytest.raises(BackendError, match="leave precision out"):
        check_precision(potential, DIMER, NUMBERS, "tf32")
    with pytest.raises(RuntimeError, match="CUDA only"):
        reduced_product(torch.ones(1, 2, 2), torch.ones(1, 2, 2), "tf32")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_products_on_a_gpu(precision):
    potential = load_potential("trip-gfn2-s", device="cuda").requires_grad_(False)
    before = torch.backends.cuda.matmul.fp32_precision
    check = check_precision(potential, DIMER, NUMBERS, precision, settings=SHORT)
    assert torch.backends.cuda.matmul.fp32_precision == before
    assert check.device == "cuda"
    assert 0.0 < check.force_share < 0.02
    generator = torch.Generator("cuda").manual_seed(0)
    a, b = (torch.randn(3, 64, 64, device="cuda", generator=generator) for _ in range(2))
    error = (reduced_product(a, b, precision) - (a.double() @ b.double())).abs().max()
    assert 1e-4 < float(error) < 0.2


# The dynamics behind the check


def spring(positions):
    """Harmonic wells of 3 eV/A^2."""
    return float(1.5 * (positions**2).sum()), -3.0 * positions


def test_verlet_conserves_energy_and_langevin_reaches_the_temperature():
    rng = np.random.default_rng(1)
    masses = np.full(400, 12.0)
    velocities = thermal_velocities(masses, 300.0, rng)
    kinetic = kinetic_energy(masses, velocities) / (1.5 * 400 * BOLTZMANN_CONSTANT)
    assert kinetic == pytest.approx(300.0, rel=0.08)
    rest = PhasePoint(np.zeros((400, 3)), np.zeros((400, 3)))
    warm = langevin(spring, rest, masses, 400, 1.0, (300.0, 0.05), rng)
    reached = kinetic_energy(masses, warm.velocities) / (1.5 * 400 * BOLTZMANN_CONSTANT)
    assert reached == pytest.approx(300.0, rel=0.1)
    points = list(verlet(spring, warm, masses, 200, 0.5))
    total = [spring(p.positions)[0] + kinetic_energy(masses, p.velocities) for p in points]
    assert np.ptp(total) < 1e-4 * np.mean(total)
    # Equipartition in the wells, where <F^2> = k_B T k.
    force = np.sqrt((spring(warm.positions)[1] ** 2).mean())
    assert force == pytest.approx(np.sqrt(BOLTZMANN_CONSTANT * 300.0 * 3.0), rel=0.1)


def test_verlet_has_the_frequency_of_the_spring():
    start = PhasePoint(np.array([[0.1, 0.0, 0.0]]), np.zeros((1, 3)))
    period = 2.0 * np.pi * np.sqrt(12.0 * AMU_ANGSTROM2_PER_FS2_TO_EV / 3.0)
    n_steps = round(period / 0.01)
    *_, last = verlet(spring, start, np.array([12.0]), n_steps, 0.01)
    assert last.positions[0, 0] == pytest.approx(0.1, abs=1e-6)


# The check


def test_check_measures_what_it_says(measured, potential):
    assert measured.atomic_numbers == tuple(NUMBERS)
    assert measured.fingerprint == fingerprint(potential)
    assert 0.3 < measured.thermal_force_ev_per_angstrom < 2.0
    assert 0.0 < measured.force_error_ev_per_angstrom < 0.05
    assert measured.largest_force_error_ev_per_angstrom > measured.force_error_ev_per_angstrom
    assert measured.drift_error_ev_per_ps_per_atom > 0.0
    assert PrecisionCheck.from_dict(measured.to_dict()) == measured


def test_large_weights_do_not_pass(potential):
    shaken = new_potential(potential.config, seed=0)
    shaken.load_state_dict(potential.state_dict())
    with torch.no_grad():
        for block in shaken.model.blocks:
            for weight in block.project.maps:
                weight.weight.mul_(30.0)
    shaken.requires_grad_(False)
    check = check_precision(shaken, DIMER, NUMBERS, "bf16", settings=SHORT)
    assert not check.passed
    with pytest.raises(PrecisionError, match=r"not accurate enough.*use float32"):
        check.require_passed()


def test_limits_decide(potential):
    assert good_check(potential).passed
    bad_forces = good_check(potential, force_error_ev_per_angstrom=0.0081)
    assert not bad_forces.forces_pass
    with pytest.raises(PrecisionError, match=r"1\.01 % of the thermal force.*limit 1 %"):
        bad_forces.require_passed()
    limit = DRIFT_LIMIT_EV_PER_PS_PER_ATOM
    bad_drift = good_check(potential, drift_change_ev_per_ps_per_atom=-1.1 * limit)
    with pytest.raises(PrecisionError, match="drift of the energy changed by"):
        bad_drift.require_passed()
    # What the run cannot resolve has not been shown to be unchanged.
    assert not good_check(potential, drift_error_ev_per_ps_per_atom=0.6 * limit).passed
    assert not good_check(potential, force_error_ev_per_angstrom=float("nan")).passed
    assert not good_check(potential, drift_error_ev_per_ps_per_atom=float("nan")).passed


@pytest.mark.parametrize(
    ("n_atoms", "n_steps"), [(1, 10_000), (27, 8_520), (512, 3_200), (10**6, 400)]
)
def test_more_atoms_need_fewer_steps(n_atoms, n_steps):
    settings = CheckSettings()
    assert settings.block_steps(n_atoms) * settings.n_blocks == n_steps


def test_check_refuses_what_it_cannot_compare(potential):
    with pytest.raises(ConfigError, match="in float32, not a twin"):
        check_precision(potential.with_precision("bf16"), DIMER, NUMBERS, "bf16")
    with pytest.raises(ConfigError, match="no error bar"):
        CheckSettings(n_steps=2)
    far = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 50.0]])
    with pytest.raises(EvaluationError, match="mean force constant"):
        check_precision(potential, far, np.array([1, 1]), "bf16", settings=SHORT)


# In OpenMM


def test_force_needs_a_check_that_fits_and_passed(potential):
    topology, _positions = water_box(2, 1.0)
    numbers = [atom.element.atomic_number for atom in topology.atoms()]
    system = system_of(topology)
    for given, precision in ((potential, "bf16"), (potential.with_precision("bf16"), None)):
        with pytest.raises(ConfigError, match="must pass a check on your structure first"):
            add_trip_force(system, topology, given, precision=precision)
    check = good_check(potential, numbers)
    failed = dataclasses.replace(check, force_error_ev_per_angstrom=1.0)
    with pytest.raises(PrecisionError, match="bf16 is not accurate enough"):
        add_trip_force(system, topology, potential, precision=failed)
    with pytest.raises(ConfigError, match="other weights"):
        add_trip_force(system, topology, new_potential("trip-s"), precision=check)
    with pytest.raises(ConfigError, match="other atoms"):
        add_trip_force(system, topology, potential, precision=good_check(potential))
    assert system.getNumForces() == 0


@pytest.mark.parametrize("backend", [pytest.param("torch", marks=pytest.mark.slow), "python"])
def test_force_computes_in_the_checked_precision(potential, backend):
    from trip_mm.backends.openmm_force import available_backends

    if available_backends()[backend] is not None:
        pytest.skip(f"{backend} does not work here")
    topology, positions = water_box(2, 1.0)
    numbers = np.array([atom.element.atomic_number for atom in topology.atoms()])
    system = system_of(topology)
    check = good_check(potential, numbers)
    add_trip_force(system, topology, potential, backend=backend, precision=check)
    reference = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), reference)
    context.setPositions(positions)
    state = context.getState(forces=True)
    per_nm = unit.kilojoule_per_mole / unit.nanometer
    found = state.getForces(asNumpy=True).value_in_unit(per_nm)
    cell = np.eye(3) * 10.0
    per_ev = EV_TO_KJ_PER_MOL * 10.0
    exact = potential.energy_and_forces(positions * 10.0, numbers, cell)[1] * per_ev
    twin = potential.with_precision("bf16")
    expected = twin.energy_and_forces(positions * 10.0, numbers, cell)[1] * per_ev
    # Gradients are rounded in other units here, so that single numbers differ as the modes do.
    error, usual = (np.sqrt(((f - exact) ** 2).mean()) for f in (found, expected))
    assert 0.3 * usual < error < 3.0 * usual
    assert error < 0.1 * np.sqrt((exact**2).mean())
