"""The operators on CUDA devices: in Triton's interpreter, as machine code, and on a device.

The interpreter runs the kernels on the CPU, without a compiler; so the second test compiles what
the first one ran. Neither says how fast they are, nor that a device runs them as expected.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import trip_mm
from trip_mm.backends.evaluator import OpenMMEvaluator, energy_and_forces
from trip_mm.errors import ConfigError, MissingDependencyError
from trip_mm.model.config import TripConfig
from trip_mm.model.kernels import attention, cuda, dense, dense_harmonics, devices, harmonics
from trip_mm.model.kernels.operators import plain_convolution, sort_edges
from trip_mm.model.kernels.plan import make_plan

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    not devices.has_triton(), reason="Triton is not installed (it is for Linux only)"
)
needs_cuda = pytest.mark.skipif(
    not (torch.cuda.is_available() and devices.has_triton()),
    reason="no CUDA device, or Triton is not installed",
)


@needs_triton
def test_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "interpreted_triton.py"],
        cwd=HERE,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


INTEGERS = {"table", "order", "bounds", "value", "target", "key", "place"}
NUMBERS = {
    "first", "n_atoms", "n_table", "n_out", "n_hidden", "n_padded", "n_basis", "n_messages",
    "width", "n_heads", "n_value", "n_key",
}  # fmt: skip


@needs_triton
@pytest.mark.parametrize(
    ("capability", "real"),
    [
        (90, "fp32"),
        pytest.param(80, "fp32", marks=pytest.mark.slow),
        pytest.param(90, "fp64", marks=pytest.mark.slow),
    ],
)
def test_compiles_without_a_device(
    capability: int, real: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from trip_mm.model.kernels import triton_attention, triton_convolution

    plan = make_plan((2, 32, 32, 32, 1, 25, 32, 32, 32), "float32")
    shape = triton_convolution._shape(plan, 2)[1]
    heads = triton_attention._sizes((8, 16, 2, 2))[1]
    kernels = [
        (triton_convolution._messages, shape, 4),
        (triton_convolution._edge_gradients, shape, triton_convolution.WIDE["num_warps"]),
        (triton_convolution._matrix_gradients, shape | {"Q": triton_convolution.COLUMNS}, 4),
        (triton_convolution._row_sums, {"W": 32, "E": triton_convolution.EDGES}, 4),
        (triton_attention._forward, heads, 4),
        (triton_attention._backward, heads, 4),
    ]
    for kernel, constants, n_warps in kernels:
        signature = {}
        for name in kernel.arg_names:
            if name in constants:
                signature[name] = "constexpr"
            elif name in NUMBERS:
                signature[name] = "i32"
            else:
                signature[name] = "*i64" if name in INTEGERS else f"*{real}"
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        compiled = triton.compile(
            source, target=GPUTarget("cuda", capability, 32), options={"num_warps": n_warps}
        )
        assert len(compiled.asm["cubin"]) > 1000
        assert compiled.metadata.shared <= 48 * 1024  # what every device grants


def test_sorted_edges_as_on_the_cpu() -> None:
    for n_edges in (0, 1, 200):
        ends = torch.randint(0, 9, (n_edges,))
        expected = sort_edges(ends, 10)
        found = dense.sort_edges(ends, 10)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
        assert torch.equal(dense.atoms_of_edges(*found), ends)


@pytest.mark.parametrize("degree", [0, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_harmonics_as_on_the_cpu(degree: int, dtype: torch.dtype) -> None:
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    rng = np.random.default_rng(degree)
    vectors, envelope = rng.normal(size=(31, 3)), rng.random(31)
    gradient = torch.tensor(rng.normal(size=(31, (degree + 1) ** 2)), dtype=dtype)
    inputs = torch.tensor(vectors, dtype=dtype), torch.tensor(envelope, dtype=dtype), degree
    found = (
        dense_harmonics.harmonics(*inputs),
        *dense_harmonics.harmonics_backward(gradient, *inputs),
    )
    expected = harmonics.harmonics(*inputs), *harmonics.harmonics_backward(gradient, *inputs)
    for a, b in zip(found, expected, strict=True):
        assert float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


class _Launch:
    """Stands for a kernel: checks where its tensors are."""

    def __init__(self) -> None:
        self.n_launches = 0

    def __getitem__(self, grid: tuple[int, ...]) -> "_Launch":
        return self

    def __call__(self, *arguments: object, **constants: object) -> None:
        self.n_launches += 1
        assert all(t.device.type == "meta" for t in arguments if isinstance(t, torch.Tensor))


@pytest.fixture
def _clean_tables() -> Iterator[None]:
    """Forgets tables that a test made in a mode of its own."""
    yield
    dense.make_layout.cache_clear()
    dense_harmonics._tables.cache_clear()
    if devices.has_triton():
        from trip_mm.model.kernels import triton_attention

        triton_attention._device_tables.cache_clear()


@needs_triton
@pytest.mark.usefixtures("_clean_tables")
def test_everything_stays_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors refuse to mix devices: `meta` stands for one that is not the CPU."""
    from trip_mm.model.kernels import triton_attention, triton_convolution

    launches = _Launch()
    for name in ("_messages", "_edge_gradients", "_matrix_gradients", "_row_sums"):
        monkeypatch.setattr(triton_convolution, name, launches)
    for name in ("_forward", "_backward"):
        monkeypatch.setattr(triton_attention, name, launches)
    spec, heads = [1, 3, 4, 11, 2, 9, 3, 2], [3, 6, 1, 2]
    plan, tables = make_plan(tuple(spec), "float32"), attention.head_tables(*heads)
    harmonics.polynomials(4, "float32")

    def real(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device="meta", requires_grad=True)

    with FakeTensorMode():
        with pytest.raises(RuntimeError, match=r"[Dd]evice"):
            real(2) + torch.zeros(2)
        order, bounds = dense.sort_edges(torch.zeros(40, dtype=torch.int64, device="meta"), 5)
        inputs = [real(40, 4), real(5, 4), real(5, 3, 4), real(40, 9), real(plan.n_parameters)]
        messages = plain_convolution(*inputs, order, bounds, spec)
        torch.autograd.grad(messages.sum(), inputs)
        given = real(40, tables.n_messages), real(5, 6, 4), real(40)
        sums = attention.plain_attention(*given, order, bounds, heads)
        torch.autograd.grad(sums.sum(), given)
        harmonics.plain_harmonics(real(40, 3), real(40), 4)
        with torch.no_grad():
            dense_harmonics.harmonics_backward(real(40, 25), real(40, 3), real(40), 4)
            assert cuda.convolution(*inputs, order, bounds, spec).shape == messages.shape
            gradients = cuda.convolution_backward(messages, *inputs, order, bounds, spec, True)
            assert [g.shape for g in gradients] == [t.shape for t in inputs]
            weights = cuda.attend(*given, order, bounds, heads)[1]
            gradients = cuda.attend_backward(
                sums, given[0], given[1], weights, order, bounds, heads
            )
            assert [g.shape for g in gradients] == [t.shape for t in given]
    assert launches.n_launches == 2 + 4 + 1 + 1 + 1


@pytest.fixture
def _no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_triton", lambda: False)
    devices.announce_plain_form.cache_clear()


@pytest.mark.usefixtures("_no_triton")
def test_without_triton_the_plain_form_runs_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = trip_mm.new_potential(TripConfig.preset("trip-s"), seed=0)
    monkeypatch.setattr(trip_mm.TripPotential, "device", torch.device("cuda"))
    with caplog.at_level(logging.WARNING, logger="trip_mm"):
        assert plain.with_kernels() is plain
        assert plain.with_kernels() is plain
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "plain PyTorch" in caplog.text


@pytest.mark.usefixtures("_no_triton")
def test_without_triton_the_operators_refuse() -> None:
    with pytest.raises(MissingDependencyError, match="Triton"):
        cuda.convolution(*[torch.zeros(1)] * 7, [0])


def test_other_devices_have_no_kernels() -> None:
    with pytest.raises(ConfigError, match="CPUs and CUDA devices, not on meta"):
        trip_mm.new_potential(TripConfig.preset("trip-s"), seed=0).to("meta").with_kernels()


def water_box() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """64 water molecules in a cube."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    molecule = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    positions = (3.1 * grid + molecule).reshape(-1, 3) + rng.normal(0, 0.05, (192, 3))
    cell = torch.eye(3, dtype=torch.float64) * 12.4
    return torch.tensor(positions), torch.tensor([8, 1, 1] * 64), cell


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("preset", ["trip", "trip-s"])
def test_on_a_device_as_on_the_cpu(preset: str, dtype: torch.dtype) -> None:
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    config = replace(TripConfig.preset(preset), repulsion="none")
    plain = trip_mm.new_potential(config, seed=1, dtype=dtype).requires_grad_(False)
    positions, numbers, cell = water_box()
    energy, forces = plain.with_kernels().energy_and_forces(positions, numbers, cell)
    there = trip_mm.new_potential(config, seed=1, dtype=dtype).requires_grad_(False).cuda()
    inputs = positions.cuda(), numbers.cuda(), cell.cuda()
    for form in (there.with_kernels(), there.with_kernels().with_padding()):
        found, found_forces = form.energy_and_forces(*inputs)
        assert abs(float(found) - float(energy)) <= tolerance * max(1.0, abs(float(energy)))
        difference = (found_forces.cpu() - forces).abs().max()
        assert float(difference) <= tolerance * float(forces.abs().max())
        _, same_forces = form.energy_and_forces(*inputs)
        assert float((same_forces - found_forces).abs().max()) <= tolerance


@pytest.mark.gpu
@needs_cuda
def test_the_evaluator_on_a_device_as_on_the_cpu() -> None:
    positions, numbers, cell = water_box()
    plain = trip_mm.new_potential(TripConfig.preset("trip-s"), seed=1).requires_grad_(False)
    evaluator = OpenMMEvaluator(plain, numbers)
    energy, forces = energy_and_forces(evaluator, 0.1 * positions, 0.1 * cell)
    for form in (evaluator.cuda(), torch.jit.script(evaluator)):
        found, found_forces = energy_and_forces(form, 0.1 * positions.cuda(), 0.1 * cell.cuda())
        assert abs(float(found - energy.cuda())) <= 1e-5 * abs(float(energy))
        difference = float((found_forces.cpu() - forces).abs().max())
        assert difference <= 2e-5 * float(forces.abs().max())


@pytest.mark.gpu
@needs_cuda
def test_second_derivatives_on_a_device_as_on_the_cpu() -> None:
    positions, numbers, _ = water_box()
    systems = torch.zeros(6, dtype=torch.int64)

    def gradients(device: str) -> list[torch.Tensor]:
        plain = trip_mm.new_potential(TripConfig.preset("trip-s"), seed=1, dtype=torch.float64)
        model = plain.to(device).with_kernels()
        energies, forces = model.energy_and_forces_batch(
            positions[:6].to(device), numbers[:6].to(device), systems.to(device), 1,
            create_graph=True,
        )  # fmt: skip
        loss = energies.sum() + forces.square().sum()
        found = torch.autograd.grad(loss, list(plain.parameters()), allow_unused=True)
        return [gradient.cpu() for gradient in found if gradient is not None]

    for found, expected in zip(gradients("cuda"), gradients("cpu"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
