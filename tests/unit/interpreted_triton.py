"""Cases of test_triton that run in a process of their own, with TRITON_INTERPRET=1.

The variable counts when Triton is imported. The operators' CUDA implementations are registered
for the CPU here, so that networks run through them as on a CUDA device.
"""

import os
import sys
from dataclasses import replace

import pytest
import torch

import trip_mm
import trip_mm.model.fused
from trip_mm.model.config import TripConfig
from trip_mm.model.kernels import attention, cuda, harmonics, operators
from trip_mm.model.kernels.dense import NAMES
from trip_mm.model.kernels.plan import make_plan

assert os.environ.get("TRITON_INTERPRET") == "1", "run by test_triton.py"

KERNELS_AFTER_IMPORT = [m for m in sys.modules if m.startswith("trip_mm.model.kernels.triton")]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
TINY = replace(
    TripConfig.preset("trip-s"), repulsion="none", cutoff=2.0, l_max=1, n_channels=4, n_heads=2,
    channels_div=1, radial_hidden=5, n_layers=2, elements=(1, 8),
)  # fmt: skip
CONFIGS = {
    "tiny": TINY,
    "published": replace(TINY, numerics="published", lone_atoms="trained"),
}
POSITIONS = torch.tensor([[0, 0, 0], [1, 0.1, 0], [-0.3, 0.9, 0.2], [9, 9, 9]], dtype=torch.float64)
NUMBERS = torch.tensor([8, 1, 1, 8])


@pytest.fixture(autouse=True)
def _no_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a compiled CPU kernel would run instead."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("a CPU kernel ran")

    for module in (operators, attention, harmonics):
        monkeypatch.setattr(module.threads, "run", refuse)


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    cuda.register("cpu")


def test_the_kernels_are_imported_when_they_are_used() -> None:
    assert "trip_mm.model.kernels.cuda" in sys.modules
    assert KERNELS_AFTER_IMPORT == []


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def potential(name: str, dtype: torch.dtype = torch.float64) -> trip_mm.TripPotential:
    return trip_mm.new_potential(CONFIGS[name], seed=1, dtype=dtype)


@pytest.mark.parametrize(("name", "dtype"), [("tiny", torch.float32), ("published", torch.float64)])
def test_energy_and_forces(name: str, dtype: torch.dtype) -> None:
    plain = potential(name, dtype).requires_grad_(False)
    energy, forces = plain.energy_and_forces(POSITIONS, NUMBERS)
    found, found_forces = plain.with_kernels().energy_and_forces(POSITIONS, NUMBERS)
    assert abs(found - energy) <= TOLERANCE[dtype] * max(abs(float(energy)), 1.0)
    assert close(found_forces, forces, TOLERANCE[dtype])


def random_inputs(
    spec: list[int], dtype: torch.dtype, n_atoms: int, n_edges: int
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Inputs of a convolution; the last atom sends nothing."""
    torch.manual_seed(0)
    plan = make_plan(tuple(spec), NAMES[dtype])
    order, bounds = operators.sort_edges(torch.randint(0, n_atoms - 1, (n_edges,)), n_atoms)
    parameters = torch.randn(plan.n_parameters, dtype=torch.float64)
    rows = parameters[plan.n_trunks * plan.trunk_size :].view(-1, plan.n_padded)
    rows[:, plan.n_hidden :] = 0.0
    shapes = [
        (n_edges, plan.n_edge_features),
        (n_atoms, plan.n_edge_features),
        (n_atoms, plan.n_channels_in, plan.n_components_in),
        (n_edges, plan.n_harmonics),
    ]
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes] + [parameters]
    return [t.to(dtype).requires_grad_(True) for t in inputs], order, bounds


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n_edges", [0, 37])
def test_convolution(dtype: torch.dtype, n_edges: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "MATRIX_BYTES", 10_000)  # less than two atoms have
    spec = [2, 3, 4, 11, 2, 16, 3, 2]
    inputs, order, bounds = random_inputs(spec, dtype, 4, n_edges)
    found = torch.ops.trip_mm.convolution(*inputs, order, bounds, spec)
    expected = operators.plain_convolution(*inputs, order, bounds, spec)
    assert found.shape == expected.shape == (n_edges, 9)
    if n_edges > 0:
        assert close(found, expected, TOLERANCE[dtype])
    direction = torch.randn_like(found)
    gradients = torch.autograd.grad(found, inputs, direction)
    for gradient, other in zip(
        gradients, torch.autograd.grad(expected, inputs, direction), strict=True
    ):
        assert gradient.shape == other.shape
        assert gradient.numel() == 0 or close(gradient, other, TOLERANCE[dtype])


def test_second_derivatives_of_the_convolution() -> None:
    spec = [1, 2, 2, 3, 1, 4, 2]
    inputs, order, bounds = random_inputs(spec, torch.float64, 3, 12)

    def penalty(operator: object) -> torch.Tensor:
        messages = operator(*inputs, order, bounds, spec)  # type: ignore[operator]
        slopes = torch.autograd.grad(messages.square().sum(), inputs[:4], create_graph=True)
        return sum(slope.square().sum() for slope in slopes)

    found = torch.autograd.grad(penalty(torch.ops.trip_mm.convolution), inputs)
    expected = torch.autograd.grad(penalty(operators.plain_convolution), inputs)
    for gradient, other in zip(found, expected, strict=True):
        assert close(gradient, other, 1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("spec", [[3, 6, 1, 2], [2, 4, 0, 1]])
def test_attention(spec: list[int], dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    n_atoms, n_edges = 5, 45
    tables = attention.head_tables(*spec)
    order, bounds = operators.sort_edges(torch.randint(1, n_atoms, (n_edges,)), n_atoms)
    inputs = [
        torch.randn(n_edges, tables.n_messages, dtype=dtype),
        torch.randn(n_atoms, spec[1], (spec[2] + 1) ** 2, dtype=dtype),
        -5.0 * torch.rand(n_edges, dtype=dtype),
    ]
    inputs[2][:3] = -1e9  # edges at the end of the sphere
    for tensor in inputs:
        tensor.requires_grad_(True)
    found = torch.ops.trip_mm.attention(*inputs, order, bounds, spec)[0]
    expected = attention.plain_attention(*inputs, order, bounds, spec)
    assert close(found, expected, TOLERANCE[dtype])
    direction = torch.randn_like(found)
    for gradient, other in zip(
        torch.autograd.grad(found, inputs, direction),
        torch.autograd.grad(expected, inputs, direction),
        strict=True,
    ):
        assert close(gradient, other, TOLERANCE[dtype])
