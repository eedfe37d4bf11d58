"""The compiled kernels compute what the plain layers compute, with every derivative."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import trip_mm
from trip_mm.errors import ConfigError
from trip_mm.model.config import TripConfig
from trip_mm.model.kernels import threads
from trip_mm.model.kernels.harmonics import harmonics
from trip_mm.model.so3 import harmonics_of

SMALL = replace(TripConfig.preset("trip-s"), repulsion="none")
CONFIGS = {
    "small": SMALL,
    "published": replace(SMALL, numerics="published", lone_atoms="trained"),
    "convolution": replace(SMALL, interaction="convolution"),
    "per-degree": replace(SMALL, radial_networks="per-degree", n_layers=3),
    "remainders": replace(SMALL, n_channels=6, n_heads=3, radial_hidden=11),
    "one-degree": replace(SMALL, l_max=1),
    "invariant": replace(SMALL, l_max=0),
    "full-width": replace(TripConfig(), repulsion="none", n_layers=2),
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def water(n_molecules: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    edge = (n_molecules * 29.9) ** (1 / 3)
    n_side = int(np.ceil(n_molecules ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(n_side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    molecule = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    positions = (grid[:n_molecules, None] * edge / n_side + molecule).reshape(-1, 3)
    positions = positions + rng.normal(0, 0.05, positions.shape)
    return (
        torch.tensor(positions),
        torch.tensor([8, 1, 1] * n_molecules),
        torch.eye(3, dtype=torch.float64) * edge,
    )


def potential(name: str, dtype: torch.dtype) -> trip_mm.TripPotential:
    return trip_mm.new_potential(CONFIGS[name], seed=1, dtype=dtype)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CONFIGS)
def test_energy_and_forces(name: str, dtype: torch.dtype) -> None:
    plain = potential(name, dtype)
    system = water(33)
    energy, forces = plain.energy_and_forces(*system)
    fused_energy, fused_forces = plain.with_kernels().energy_and_forces(*system)
    assert abs(fused_energy - energy) <= TOLERANCE[dtype] * max(abs(energy), 1.0)
    assert close(fused_forces, forces, TOLERANCE[dtype])


@pytest.mark.parametrize("name", CONFIGS)
def test_parameter_gradients(name: str) -> None:
    plain = potential(name, torch.float64)
    fused = plain.with_kernels()
    positions, numbers, _ = water(3)
    parameters = list(plain.parameters())
    expected = torch.autograd.grad(plain(positions, numbers), parameters, allow_unused=True)
    found = torch.autograd.grad(fused(positions, numbers), parameters, allow_unused=True)
    for parameter, gradient in zip(found, expected, strict=True):
        assert (parameter is None) == (gradient is None)
        if gradient is not None:
            torch.testing.assert_close(parameter, gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["small", "published", "per-degree"])
def test_second_derivatives(name: str) -> None:
    plain = potential(name, torch.float64)
    positions, numbers, _ = water(3)
    systems = torch.zeros(len(numbers), dtype=torch.int64)

    def gradients(model: trip_mm.TripPotential) -> tuple[torch.Tensor | None, ...]:
        energies, forces = model.energy_and_forces_batch(
            positions, numbers, systems, 1, create_graph=True
        )
        loss = energies.sum() + forces.square().sum()
        return torch.autograd.grad(loss, list(plain.parameters()), allow_unused=True)

    for found, expected in zip(gradients(plain.with_kernels()), gradients(plain), strict=True):
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_any_number_of_threads(n_threads: int) -> None:
    fused = potential("small", torch.float64).with_kernels()
    system = water(33)
    before = torch.get_num_threads()
    energy, forces = fused.energy_and_forces(*system)
    try:
        torch.set_num_threads(n_threads)
        other_energy, other_forces = fused.energy_and_forces(*system)
    finally:
        torch.set_num_threads(before)
    assert abs(other_energy - energy) < 1e-10 * abs(energy)
    assert close(other_forces, forces, 1e-10)


def test_atoms_without_edges() -> None:
    plain = potential("small", torch.float64)
    positions = torch.tensor([[0.0, 0, 0], [100, 0, 0], [100, 1, 0]], dtype=torch.float64)
    numbers = torch.tensor([8, 1, 1])
    for atoms in (slice(0, 1), slice(0, 3)):
        energy, forces = plain.energy_and_forces(positions[atoms], numbers[atoms])
        fused_energy, fused_forces = plain.with_kernels().energy_and_forces(
            positions[atoms], numbers[atoms]
        )
        assert abs(fused_energy - energy) < 1e-12
        torch.testing.assert_close(fused_forces, forces, rtol=1e-10, atol=1e-13)


def test_scripted() -> None:
    plain = potential("small", torch.float64).requires_grad_(False)
    positions, numbers, cell = water(33)
    scripted = torch.jit.script(plain.with_kernels())
    energy, forces = plain.energy_and_forces(positions, numbers, cell)
    for _ in range(3):  # the executor specialises after the first calls
        leaf = positions.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(scripted(leaf, numbers, cell), leaf)
        assert abs(scripted(positions, numbers, cell) - energy) < 1e-10
        assert close(-gradient, forces, 1e-10)


@pytest.mark.parametrize("n_edges", [0, 1, 37])
@pytest.mark.parametrize("degree", [0, 2, 4, 6])
def test_harmonics(degree: int, n_edges: int) -> None:
    rng = np.random.default_rng(degree)
    vectors = torch.tensor(rng.normal(size=(n_edges, 3)), requires_grad=True)
    envelope = torch.tensor(rng.random(n_edges), requires_grad=True)
    found = harmonics(vectors, envelope, degree)
    expected = harmonics_of(vectors, degree) * envelope.unsqueeze(1)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    gradient = torch.tensor(rng.normal(size=found.shape))
    inputs = (vectors, envelope)
    for first, second in zip(
        torch.autograd.grad(found, inputs, gradient),
        torch.autograd.grad(expected, inputs, gradient, allow_unused=True),
        strict=True,
    ):
        reference = torch.zeros_like(first) if second is None else second
        torch.testing.assert_close(first, reference, rtol=1e-10, atol=1e-10)


def test_twin_shares_parameters() -> None:
    plain = potential("small", torch.float64)
    fused = plain.with_kernels()
    assert fused.state_dict().keys() == plain.state_dict().keys()
    system = water(3)[:2]
    with torch.no_grad():
        plain.model.blocks[1].convolution.weights[0].weight.mul_(2.0)
    assert abs(fused(*system) - plain(*system)) < 1e-11


def test_only_on_the_cpu() -> None:
    with pytest.raises(ConfigError, match="CPU"):
        potential("small", torch.float32).to("meta").with_kernels()


def test_work_is_split_evenly_and_completely() -> None:
    bounds = np.array([0, 0, 10, 10, 11, 30, 31, 40, 40])
    for n_parts in range(1, 12):
        parts = threads.split(bounds, n_parts)
        assert [i for first, last in parts for i in range(first, last)] == list(range(8))
        assert len(parts) <= n_parts
