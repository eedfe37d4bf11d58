"""Primitive and delocalized internal coordinates, quasi-Newton steps."""

import numpy as np
import pytest

from trip_mm.errors import RelaxationError
from trip_mm.geometry.delocalized import (
    delocalized_basis,
    displaced,
    pseudoinverse,
    to_delocalized,
)
from trip_mm.geometry.dihedral import dihedral_angle, wrapped
from trip_mm.geometry.molecule import Molecule, read_molecule
from trip_mm.geometry.primitives import Primitives, primitives_of
from trip_mm.geometry.quasi_newton import (
    damped_bfgs,
    model_hessian,
    trust_steps,
    without_direction,
)

SMILES = ["OO", "N", "C=O", "CCO", "C1CC1", "O=C=O", "C#N", "CC#CC", "C=C=C", "CN=C=O", "N#CC#N"]


def two_geometries(molecule: Molecule) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.02, molecule.positions.shape)
    return np.stack([molecule.positions, molecule.positions + noise])


@pytest.mark.parametrize("smiles", SMILES)
def test_derivatives_are_those_of_the_values(smiles: str) -> None:
    molecule = read_molecule(smiles)
    primitives = primitives_of(molecule)
    positions = two_geometries(molecule)
    axes = primitives.bend_axes(positions)
    matrix = primitives.wilson(positions, axes)
    for column in range(3 * molecule.n_atoms):
        shift = np.zeros_like(molecule.positions)
        shift.flat[column] = 1e-5
        ahead, behind = (primitives.values(positions + s * shift, axes) for s in (1, -1))
        slope = primitives.difference(ahead, behind) / 2e-5
        assert matrix[:, :, column] == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("smiles", SMILES)
def test_coordinates_span_all_internal_motions(smiles: str) -> None:
    molecule = read_molecule(smiles)
    primitives = primitives_of(molecule)
    positions = molecule.positions[None]
    axes = primitives.bend_axes(positions)
    matrix = primitives.wilson(positions, axes)
    basis = delocalized_basis(primitives, matrix)
    linear = smiles in ("O=C=O", "C#N", "N#CC#N")
    assert basis.shape[2] == 3 * molecule.n_atoms - (5 if linear else 6)
    rank = np.linalg.matrix_rank(matrix[0], tol=1e-4)
    assert rank == basis.shape[2]


def test_values_are_lengths_angles_and_dihedrals() -> None:
    molecule = read_molecule("CCO")
    primitives = primitives_of(molecule)
    values = primitives.values(molecule.positions[None], np.zeros((1, 0, 2, 3)))[0]
    i, j = primitives.bonds[0]
    assert values[0] == pytest.approx(np.linalg.norm(molecule.positions[i] - molecule.positions[j]))
    for row, chain in enumerate(primitives.dihedrals):
        found = np.degrees(values[primitives.first_dihedral + row])
        assert wrapped(found - dihedral_angle(molecule.positions, chain)) == pytest.approx(0.0)
    assert primitives.row_of(tuple(primitives.dihedrals[2])) == primitives.first_dihedral + 2
    assert primitives.row_of(tuple(primitives.dihedrals[2][::-1])) == primitives.first_dihedral + 2
    with pytest.raises(KeyError):
        primitives.row_of((0, 0, 0, 0))


def test_differences_of_dihedrals_take_the_short_way() -> None:
    primitives = primitives_of(read_molecule("OO"))
    one, two = np.zeros((1, 6)), np.zeros((1, 6))
    one[0, -1], two[0, -1] = np.radians(179.0), np.radians(-179.0)
    assert np.degrees(primitives.difference(one, two)[0, -1]) == pytest.approx(-2.0)


@pytest.mark.parametrize("smiles", ["CCO", "CC#CC", "CN=C=O", "C1CC1"])
def test_steps_arrive_where_they_should(smiles: str) -> None:
    molecule = read_molecule(smiles)
    primitives = primitives_of(molecule)
    positions = two_geometries(molecule)
    axes = primitives.bend_axes(positions)
    matrix = primitives.wilson(positions, axes)
    basis = delocalized_basis(primitives, matrix)
    inverse = pseudoinverse(to_delocalized(basis, matrix))
    steps = np.random.default_rng(1).normal(0, 0.05, (2, primitives.n_internal))
    moved = displaced(primitives, axes, basis, inverse, positions, steps)
    change = primitives.difference(
        primitives.values(moved, axes), primitives.values(positions, axes)
    )
    assert np.einsum("srj,sr->sj", basis, change) == pytest.approx(steps, abs=1e-4)


def test_coordinates_that_span_too_little_are_refused() -> None:
    molecule = read_molecule("CC")
    full = primitives_of(molecule)
    few = Primitives(8, full.bonds, full.angles[:2], full.bends, full.dihedrals[:1])
    matrix = few.wilson(molecule.positions[None], np.zeros((1, 0, 2, 3)))
    with pytest.raises(RelaxationError, match="span"):
        delocalized_basis(few, matrix)


def test_straight_angles_are_noticed() -> None:
    molecule = read_molecule("O")
    primitives = primitives_of(molecule)
    straight = np.array([[[0.0, 0.01, 0.0], [0.96, 0.0, 0.0], [-0.96, 0.0, 0.0]]])
    assert not primitives.is_singular(molecule.positions[None])[0]
    assert primitives.is_singular(straight)[0]
    assert len(primitives_of(molecule.at(straight[0])).bends) == 1


def test_model_hessian_orders_bonds_angles_torsions() -> None:
    molecule = read_molecule("CC=O")
    primitives = primitives_of(molecule)
    stiffness = model_hessian(primitives, molecule)
    bonds = stiffness[: len(primitives.bonds)]
    torsions = stiffness[primitives.first_dihedral :]
    double = primitives.bonds.tolist().index([1, 2])
    assert bonds[double] == bonds.max()
    assert (stiffness > 0).all()
    assert bonds.min() > 10.0  # eV/A^2
    assert torsions.max() < 2.0


def test_trust_steps_are_newton_steps_or_end_on_the_radius() -> None:
    rng = np.random.default_rng(2)
    root = rng.normal(size=(50, 6, 6))
    hessians = root @ root.transpose(0, 2, 1) + 0.01 * np.eye(6)
    gradients = rng.normal(size=(50, 6))
    radii = rng.uniform(0.05, 30.0, 50)
    steps = trust_steps(hessians, gradients, radii)
    newton = -np.linalg.solve(hessians, gradients[..., None])[..., 0]
    norms = np.linalg.norm(steps, axis=1)
    inside = np.linalg.norm(newton, axis=1) <= radii
    assert 5 < inside.sum() < 45
    assert steps[inside] == pytest.approx(newton[inside])
    assert norms[~inside] == pytest.approx(radii[~inside], rel=0.011)
    # No other step of that length lowers the model by more.

    def model(tried: np.ndarray) -> np.ndarray:
        return (gradients * tried).sum(1) + 0.5 * np.einsum("si,sij,sj->s", tried, hessians, tried)

    for _ in range(200):
        other = steps + norms[:, None] * rng.normal(0, 0.2, steps.shape)
        other *= (norms / np.linalg.norm(other, axis=1))[:, None]
        assert (model(steps) <= model(other) + 1e-3 * np.abs(model(steps))).all()


def test_bfgs_learns_the_hessian_and_stays_positive_definite() -> None:
    rng = np.random.default_rng(3)
    root = rng.normal(size=(1, 4, 4))
    exact = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(4)
    hessian = np.eye(4)[None]
    step = rng.normal(size=(1, 4))
    change = np.einsum("sij,sj->si", exact, step)
    learned = damped_bfgs(hessian, step, change)
    damped = (step * change).sum() < 0.2 * (step * step).sum()
    if not damped:
        assert np.einsum("sij,sj->si", learned, step) == pytest.approx(change)
    uphill = damped_bfgs(hessian, step, -step)
    assert np.linalg.eigvalsh(uphill).min() > 0.0
    assert np.array_equal(damped_bfgs(hessian, 0 * step, change), hessian)


def test_a_direction_is_projected_out() -> None:
    rng = np.random.default_rng(4)
    root = rng.normal(size=(2, 5, 5))
    hessians = root @ root.transpose(0, 2, 1) + np.eye(5)
    gradients, directions = rng.normal(size=(2, 2, 5))
    directions[1] = 0.0
    projected, across = without_direction(hessians, gradients, directions)
    steps = trust_steps(projected, across, np.array([10.0, 10.0]))
    assert steps[0] @ directions[0] == pytest.approx(0.0, abs=1e-12)
    assert projected[1] == pytest.approx(hessians[1])
    assert across[1] == pytest.approx(gradients[1])
