"""Padded edge lists: shapes that stay, energies and forces that do not change."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import trip_mm
from trip_mm.backends.evaluator import OpenMMEvaluator
from trip_mm.edge_padding import EdgePadding, NoPadding
from trip_mm.errors import ConfigError
from trip_mm.model.config import TripConfig
from trip_mm.units import EV_TO_KJ_PER_MOL, NM_TO_ANGSTROM

SMALL = replace(TripConfig.preset("trip-s"), cutoff=3.0)
CONFIGS = {
    "thesis": SMALL,
    "published": replace(SMALL, numerics="published", lone_atoms="trained"),
    "convolution": replace(SMALL, interaction="convolution"),
    "distance": replace(SMALL, edge_features="distance"),
}
CELL = 9.0 * torch.eye(3, dtype=torch.float64)


def potential(name: str = "thesis") -> trip_mm.TripPotential:
    made = trip_mm.new_potential(CONFIGS[name], seed=2, dtype=torch.float64)
    return made.requires_grad_(False)


def atoms(n_atoms: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Atoms on a lattice of 1.5 A, displaced at random."""
    rng = np.random.default_rng(seed)
    lattice = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), -1).reshape(-1, 3)
    positions = 1.5 * lattice[:n_atoms] + rng.normal(0, 0.1, (n_atoms, 3))
    return torch.tensor(positions), torch.tensor(rng.choice([1, 6, 7, 8], n_atoms))


def assert_equal_results(
    padded: trip_mm.TripPotential,
    plain: trip_mm.TripPotential,
    positions: torch.Tensor,
    numbers: torch.Tensor,
    cell: torch.Tensor | None,
) -> None:
    energy, forces = plain.energy_and_forces(positions, numbers, cell)
    found, found_forces = padded.energy_and_forces(positions, numbers, cell)
    assert abs(found - energy) <= 1e-12 * max(1.0, abs(float(energy)))
    scale = max(1.0, float(forces.abs().max()))
    torch.testing.assert_close(found_forces, forces, rtol=0.0, atol=1e-12 * scale)


@pytest.mark.parametrize("cell", [None, CELL], ids=["open", "periodic"])
@pytest.mark.parametrize("name", CONFIGS)
def test_padding_changes_nothing(name: str, cell: torch.Tensor | None) -> None:
    plain = potential(name)
    padded = plain.with_padding(0.3)
    assert_equal_results(padded, plain, *atoms(90), cell)
    assert padded.padding.capacity >= 1.3 * len(plain.neighbors(atoms(90)[0], cell)[0])


def test_padding_changes_nothing_for_the_kernels() -> None:
    plain = potential()
    assert_equal_results(plain.with_kernels().with_padding(0.3), plain, *atoms(90), CELL)
    assert_equal_results(plain.with_padding(0.3).with_kernels(), plain, *atoms(90), CELL)


@pytest.mark.parametrize("n_atoms", [1, 2, 17])
def test_small_systems(n_atoms: int) -> None:
    plain = potential()
    positions, numbers = atoms(n_atoms)
    padded = plain.with_padding()
    for factor in (1.0, 100.0):  # then there is no edge
        assert_equal_results(padded, plain, factor * positions, numbers, None)


def test_shapes_stay_while_edges_come_and_go() -> None:
    plain = potential()
    padded = plain.with_padding(0.2)
    positions, numbers = atoms(60)
    shapes, n_edges = set(), set()

    def look(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        shapes.add(tuple(part.shape for part in inputs))

    handle = padded.model.register_forward_pre_hook(look)
    rng = np.random.default_rng(1)
    for _ in range(5):
        positions = positions + torch.tensor(rng.normal(0, 0.05, positions.shape))
        n_edges.add(len(plain.neighbors(positions, CELL)[0]))
        padded(positions, numbers, CELL)
    handle.remove()
    assert len(n_edges) > 1
    assert len(shapes) == 1
    assert padded.padding.n_growths == 1


@pytest.mark.parametrize("scripted", [False, True], ids=["eager", "scripted"])
def test_overflow_grows_the_capacity(scripted: bool) -> None:
    plain = potential()
    padded = plain.with_padding(0.0)
    run = torch.jit.script(padded) if scripted else padded
    positions, numbers = atoms(60)
    capacities = []
    for factor in (1.3, 1.0, 0.8, 1.3):
        energy = run(factor * positions, numbers)
        expected = plain(factor * positions, numbers)
        assert abs(energy - expected) <= 1e-12 * max(1.0, abs(float(expected)))
        capacities.append(run.padding.capacity)
        n_edges = len(plain.neighbors(factor * positions)[0])
        assert run.padding.capacity >= n_edges
        assert run.padding.capacity - n_edges < 256 or factor == 1.3
    assert capacities[0] < capacities[1] < capacities[2] == capacities[3]
    assert run.padding.n_growths == 3


def test_another_number_of_atoms_has_its_own_capacity() -> None:
    plain = potential()
    padded = plain.with_padding()
    capacities = []
    for n_atoms in (90, 20, 90):
        assert_equal_results(padded, plain, *atoms(n_atoms), CELL)
        capacities.append(padded.padding.capacity)
    assert capacities[1] < capacities[0] == capacities[2]


def test_padded_edges_join_ghosts_only_and_are_sorted_by_receiver() -> None:
    padding = EdgePadding(cutoff=3.0, slack=0.5)
    numbers = torch.full((40,), 8)
    senders = torch.randint(0, 40, (1000,))
    receivers = torch.sort(torch.randint(0, 40, (1000,)))[0]
    vectors = torch.randn(1000, 3)
    found = padding(numbers, senders, receivers, vectors)
    assert [len(part) for part in found] == [43, 1536, 1536, 1536]
    for part, given in zip(found[1:], (senders, receivers, vectors), strict=True):
        assert torch.equal(part[:1000], given)
    assert torch.equal(found[1][1000:], found[2][1000:])
    per_ghost = torch.bincount(found[2][1000:] - 40)
    assert per_ghost.tolist() == [179, 179, 178]
    assert bool((found[2].diff() >= 0).all())
    assert bool((torch.linalg.norm(found[3][1000:], dim=1) == 6.0).all())


def test_refuses_a_negative_slack() -> None:
    for slack in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="slack"):
            potential().with_padding(slack)


def test_the_evaluator_pads_on_cuda_devices_only() -> None:
    plain = potential()
    positions, numbers = atoms(60)
    evaluator = OpenMMEvaluator(plain, numbers, cuda_edge_slack=0.1)
    energy = evaluator(positions / NM_TO_ANGSTROM, CELL / NM_TO_ANGSTROM)
    assert isinstance(evaluator.compiled.padding, NoPadding)
    assert isinstance(plain.padding, NoPadding)
    assert evaluator.on_cuda.padding.n_growths == 0
    there = evaluator.on_cuda(positions, numbers, CELL) * EV_TO_KJ_PER_MOL
    assert evaluator.on_cuda.padding.n_growths == 1
    assert abs(there - energy) <= 1e-11 * abs(float(energy))
    unpadded = OpenMMEvaluator(plain, numbers, cuda_edge_slack=None)
    assert isinstance(unpadded.on_cuda.padding, NoPadding)
