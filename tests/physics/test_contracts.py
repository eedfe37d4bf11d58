"""What every TrIP potential must satisfy, whatever its weights."""

import pytest
import torch
from tests.physics.conftest import CONFIGS, build
from tests.physics.structures import WATER, WATER_NUMBERS, cluster, periodic_box, random_rotation

import trip_mm

FORMS = ["eager", "scripted"]
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}


def close(a, b, dtype, scale=1.0):
    torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def subject(potentials, config_name, dtype_name, form):
    return (*potentials(config_name, dtype_name, form), dtype_name)


def test_rotation_translation_and_reflection(subject, config_name):
    _, evaluate, dtype = subject
    positions, numbers = cluster()
    energy, forces = evaluate(positions, numbers)
    rotation = random_rotation()
    turned = positions @ rotation.T + torch.tensor([3.1, -7.7, 12.9])
    energy_turned, forces_turned = evaluate(turned, numbers)
    close(energy_turned, energy, dtype)
    close(forces_turned, forces @ rotation.T, dtype, float(forces.abs().max()))
    mirrored, _ = evaluate(positions * torch.tensor([1.0, 1.0, -1.0]), numbers)
    if CONFIGS[config_name].l_max == 0:  # scalars only see distances
        close(mirrored, energy, dtype)
    else:  # the paths with l_out + l_in + J odd see handedness, and rotations alone are promised
        assert abs(float(mirrored - energy)) > 1e-6


def test_permutation(subject):
    _, evaluate, dtype = subject
    positions, numbers = cluster()
    energy, forces = evaluate(positions, numbers)
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(5))
    energy_permuted, forces_permuted = evaluate(positions[order], numbers[order])
    close(energy_permuted, energy, dtype)
    close(forces_permuted, forces[order], dtype, float(forces.abs().max()))


def test_forces_equal_finite_differences(potentials, config_name, form):
    _, evaluate = potentials(config_name, "float64", form)
    positions, numbers = cluster(seed=4, n_waters=2)
    _, forces = evaluate(positions, numbers)
    step = 1e-4
    for atom, axis in [(0, 0), (2, 1), (5, 2), (7, 0), (10, 1)]:
        moved = positions.clone()
        moved[atom, axis] += step
        above, _ = evaluate(moved, numbers)
        moved[atom, axis] -= 2 * step
        below, _ = evaluate(moved, numbers)
        assert float(forces[atom, axis]) == pytest.approx(
            -float(above - below) / (2 * step), rel=2e-6, abs=2e-6
        )


def test_periodic_forces_equal_finite_differences(potentials, config_name):
    _, evaluate = potentials(config_name, "float64", "eager")
    positions, numbers, cell = periodic_box()
    _, forces = evaluate(positions, numbers, cell)
    step = 1e-4
    for atom, axis in [(0, 0), (40, 2), (80, 1)]:
        moved = positions.clone()
        moved[atom, axis] += step
        above, _ = evaluate(moved, numbers, cell)
        moved[atom, axis] -= 2 * step
        below, _ = evaluate(moved, numbers, cell)
        assert float(forces[atom, axis]) == pytest.approx(
            -float(above - below) / (2 * step), rel=5e-6, abs=5e-6
        )


def test_lattice_shift_of_one_atom(subject):
    _, evaluate, dtype = subject
    positions, numbers, cell = periodic_box()
    energy, forces = evaluate(positions, numbers, cell)
    shifted = positions.clone()
    shifted[7] += torch.tensor([2.0, -3.0, 10.0], dtype=torch.float64) @ cell
    energy_shifted, forces_shifted = evaluate(shifted, numbers, cell)
    close(energy_shifted, energy, dtype)
    close(forces_shifted, forces, dtype, float(forces.abs().max()))


def test_far_systems_add_and_do_not_feel_each_other(subject):
    potential, evaluate, dtype = subject
    first, first_numbers = cluster(seed=6, n_waters=1)
    second, second_numbers = cluster(seed=7, n_waters=2)
    far = second + torch.tensor([100.0, 0.0, 0.0])
    e1, f1 = evaluate(first, first_numbers)
    e2, f2 = evaluate(far, second_numbers)
    both = torch.cat([first, far])
    energy, forces = evaluate(both, torch.cat([first_numbers, second_numbers]))
    close(energy, e1 + e2, dtype)
    close(forces, torch.cat([f1, f2]), dtype, float(forces.abs().max()))
    leaf = both.clone().requires_grad_(True)
    idx = torch.tensor([0] * len(first) + [1] * len(far))
    edges = trip_mm.neighbors.batched_neighbor_list(leaf.detach(), idx, None, potential.cutoff)
    vectors = (leaf[edges[1]] - leaf[edges[0]]).to(potential.dtype)
    atomic = potential.model(torch.cat([first_numbers, second_numbers]), *edges[:2], vectors)
    (gradient,) = torch.autograd.grad(atomic[: len(first)].sum(), leaf)
    assert torch.equal(gradient[len(first) :], torch.zeros_like(gradient[len(first) :]))


def test_batch_equals_single(potentials, config_name, dtype_name):
    potential, evaluate = potentials(config_name, dtype_name, "eager")
    systems = [cluster(seed=s, n_waters=s) for s in (1, 2, 3)]
    positions = torch.cat([p for p, _ in systems])
    numbers = torch.cat([n for _, n in systems])
    idx = torch.repeat_interleave(torch.arange(3), torch.tensor([len(n) for _, n in systems]))
    energies, forces = potential.energy_and_forces_batch(positions, numbers, idx, 3)
    single = [evaluate(p, n) for p, n in systems]
    close(energies, torch.stack([e for e, _ in single]), dtype_name)
    close(forces, torch.cat([f for _, f in single]), dtype_name, float(forces.abs().max()))


def test_isolated_atoms_and_systems_without_edges(potentials, config_name, dtype_name, form):
    potential, evaluate = potentials(config_name, dtype_name, form)
    exact = CONFIGS[config_name].lone_atoms == "exact"
    for number in potential.supported_elements:
        alone, force = evaluate(torch.zeros(1, 3, dtype=torch.float64), torch.tensor([number]))
        assert bool(torch.isfinite(alone))
        assert torch.equal(force, torch.zeros_like(force))
        if exact:
            assert float(alone) == float(potential.self_energies[number])
    pair = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]], dtype=torch.float64)
    both, _ = evaluate(pair, torch.tensor([6, 8]))
    each = [evaluate(pair[i : i + 1], torch.tensor([z]))[0] for i, z in enumerate((6, 8))]
    close(both, each[0] + each[1], dtype_name)
    empty = torch.zeros(0, 3, dtype=torch.float64)
    assert float(potential(empty, torch.zeros(0, dtype=torch.int64), None)) == 0.0


@pytest.mark.parametrize("name", [n for n in CONFIGS if n.startswith("thesis")])
def test_energy_and_force_are_continuous_across_the_cutoff(potentials, name):
    _, evaluate = potentials(name, "float64", "eager")
    positions, numbers = cluster(seed=8, n_waters=1)
    probe = torch.tensor([[0.0, 0.0, 0.0]], dtype=torch.float64)
    base = positions + torch.tensor([0.0, 0.0, 0.0])
    numbers = torch.cat([numbers, torch.tensor([8])])
    # approach along x from outside so that pairs cross 4.6 A one after the other
    xs = torch.linspace(-8.0, -5.8, 2201, dtype=torch.float64)
    energies, forces = [], []
    for x in xs:
        probe[0, 0] = x
        energy, force = evaluate(torch.cat([base, probe]), numbers)
        energies.append(energy)
        forces.append(force)
    e, f = torch.stack(energies), torch.stack(forces)
    # a jump shows in the residual of the local quadratic trend, a smooth curve does not
    jump = (e[3:] - 3 * e[2:-1] + 3 * e[1:-2] - e[:-3]).abs().max()
    force_jump = (f[3:] - 3 * f[2:-1] + 3 * f[1:-2] - f[:-3]).abs().max()
    assert float(jump) < 1e-7
    assert float(force_jump) < 1e-6


def test_published_numerics_jumps_at_the_cutoff(potentials):
    """The jump is real in what the program published; it is why `thesis` is the default."""
    _, evaluate = potentials("published", "float64", "eager")
    water = torch.tensor(WATER)
    numbers = torch.tensor([*WATER_NUMBERS, 6])

    def energy(x):
        return evaluate(
            torch.cat([water, torch.tensor([[x, 0.0, 0.0]], dtype=torch.float64)]), numbers
        )[0]

    inside, outside = energy(-4.6 + 1e-9), energy(-4.6 - 1e-9)
    assert abs(float(inside - outside)) > 1e-3


def test_second_derivatives_are_finite(potentials, config_name, dtype_name):
    """Training differentiates forces: also with lone atoms and atoms about to lose their edges."""
    potential, _ = potentials(config_name, dtype_name, "eager")
    positions, numbers = cluster(seed=9, n_waters=1)
    extra = torch.tensor([[50.0, 0, 0], [-6.0, 0, 0], [-1.7 - 4.5999, 1.1, 0.0]])
    positions = torch.cat([positions, extra.to(torch.float64)])
    numbers = torch.cat([numbers, torch.tensor([6, 1, 8])])
    idx = torch.zeros(len(numbers), dtype=torch.int64)
    _, forces = potential.energy_and_forces_batch(positions, numbers, idx, 1, create_graph=True)
    gradients = torch.autograd.grad(
        forces.square().sum(), list(potential.model.parameters()), allow_unused=True
    )
    assert all(g is None or bool(torch.isfinite(g).all()) for g in gradients)
    assert any(g is not None and float(g.abs().max()) > 0 for g in gradients)


def test_inputs_are_not_mutated(potentials, config_name):
    potential, _ = potentials(config_name, "float64", "eager")
    positions, numbers, cell = periodic_box()
    copies = positions.clone(), numbers.clone(), cell.clone()
    potential.energy_and_forces(positions, numbers, cell)
    assert torch.equal(positions, copies[0])
    assert not positions.requires_grad
    assert torch.equal(numbers, copies[1])
    assert torch.equal(cell, copies[2])


def test_virial_equals_strain_derivative(potentials, config_name):
    potential, evaluate = potentials(config_name, "float64", "eager")
    positions, numbers, cell = periodic_box()
    _, _, virial = potential.energy_forces_virial(positions, numbers, cell)
    step = 1e-5
    for i, j in [(0, 0), (1, 2), (2, 1)]:
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[i, j] += 0.5 * step
        strain[j, i] += 0.5 * step
        up, down = torch.eye(3) + strain, torch.eye(3) - strain
        above, _ = evaluate(positions @ up, numbers, cell @ up)
        below, _ = evaluate(positions @ down, numbers, cell @ down)
        expected = -float(above - below) / (2 * step)
        assert float(virial[i, j]) == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_numpy_in_numpy_out(potentials):
    potential, evaluate = potentials("thesis", "float64", "eager")
    positions, numbers = cluster()
    energy, forces = potential.energy_and_forces(positions.numpy(), numbers.numpy())
    expected, expected_forces = evaluate(positions, numbers)
    assert isinstance(energy, float)
    assert energy == float(expected)
    assert (forces == expected_forces.numpy()).all()


def test_float32_keeps_energies_in_float64():
    """Casting the network leaves self energies and the sum in float64."""
    potential = build("thesis", "float32")
    double = build("thesis", "float64")
    positions, numbers = cluster()
    repeated = torch.cat([positions + 200.0 * i for i in range(40)])
    e32, _ = potential.energy_and_forces(repeated, numbers.repeat(40))
    e64, _ = double.energy_and_forces(repeated, numbers.repeat(40))
    assert potential.self_energies.dtype == torch.float64 == e32.dtype
    assert abs(float(e32 - e64)) < 1e-3
    assert abs(float(e64)) > 1e4
