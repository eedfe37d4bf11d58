"""Geometries of one molecule that relax side by side in internal coordinates.

Each geometry is its own problem with its own Hessian and trust region; the linear algebra of all is
done in stacked arrays. A held dihedral angle is kept exactly: steps leave it alone to first order
(the step is tangent to its surface), then one side of the molecule is turned back by what is left.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trip_mm.geometry.delocalized import (
    delocalized_basis,
    displaced,
    pseudoinverse,
    to_delocalized,
)
from trip_mm.geometry.dihedral import turning_atoms
from trip_mm.geometry.molecule import Molecule
from trip_mm.geometry.primitives import Primitives, primitives_of
from trip_mm.geometry.quasi_newton import (
    damped_bfgs,
    model_hessian,
    trust_steps,
    without_direction,
)
from trip_mm.geometry.relax import CONVERGENCE
from trip_mm.units import ANGSTROM_TO_BOHR, EV_TO_HARTREE

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Four = tuple[int, int, int, int]

_FIRST_RADIUS = 0.4
_LARGEST_RADIUS = 1.2
_LEAST_RADIUS = 0.002
# Energies that rise by less are rounding, not a step too far, eV.
_ENERGY_NOISE = 1e-8


@dataclass(frozen=True)
class Frame:
    """What all geometries of an ensemble share.

    Attributes:
        molecule: atoms and bonds.
        atoms: of the held dihedral angle, None for none.
        primitives: internal coordinates.
        turning: atoms that turn with the held angle.
    """

    molecule: Molecule
    atoms: Four | None
    primitives: Primitives
    turning: tuple[int, ...]

    @property
    def row(self) -> int | None:
        """Row of the held angle among the primitives."""
        return None if self.atoms is None else self.primitives.row_of(self.atoms)

    @property
    def n_derivatives(self) -> int:
        """Entries of Wilson's B matrix of one geometry."""
        return self.primitives.n_rows * 3 * self.primitives.n_atoms

    def same_as(self, other: "Frame") -> bool:
        """Whether geometries of both can share an ensemble."""
        return (
            self.atoms == other.atoms
            and self.molecule.charge == other.molecule.charge
            and self.molecule.n_unpaired == other.molecule.n_unpaired
            and np.array_equal(self.molecule.atomic_numbers, other.molecule.atomic_numbers)
            and self.primitives.same_as(other.primitives)
        )


def frame_of(molecule: Molecule, atoms: Four | None) -> Frame:
    """Chooses coordinates from the geometry of the molecule.

    Raises:
        UnsupportedSystemError: the held angle lies in a ring.
    """
    turning = () if atoms is None else tuple(turning_atoms(molecule, atoms))
    return Frame(molecule, atoms, primitives_of(molecule, atoms), turning)


@dataclass(frozen=True)
class Ensemble:
    """State of the geometries; every array starts with the axis of systems.

    Attributes:
        frame: what they share.
        tickets: who asked for each, int64.
        targets: held angles, radians (0 where none is held).
        positions: best geometry so far, A, `[n_systems, n_atoms, 3]`.
        energies: there, eV; inf before the first evaluation.
        gradients: there, eV/A, `[n_systems, 3 n_atoms]`.
        trials: geometries to be evaluated next, A, `[n_systems, n_atoms, 3]`.
        predicted: energy change that the quadratic model expects of the trial, eV.
        lengths: of the step to the trial.
        radii: trust radii.
        basis: U of the delocalized coordinates, `[n_systems, n_rows, n_internal]`.
        axes: of linear bends, `[n_systems, n_bends, 2, 3]`.
        hessians: in delocalized coordinates, `[n_systems, n_internal, n_internal]`.
        n_evaluations: int64.
        converged: whether the criteria hold.
        needs_frame: whether a bond angle has become straight, so that new coordinates are due.
    """

    frame: Frame
    tickets: NDArray[np.int64]
    targets: Floats
    positions: Floats
    energies: Floats
    gradients: Floats
    trials: Floats
    predicted: Floats
    lengths: Floats
    radii: Floats
    basis: Floats
    axes: Floats
    hessians: Floats
    n_evaluations: NDArray[np.int64]
    converged: Flags
    needs_frame: Flags

    def __len__(self) -> int:
        return len(self.tickets)

    def select(self, which: Flags) -> "Ensemble":
        """Returns some of the systems."""
        some: dict[str, Any] = {name: getattr(self, name)[which] for name in _ARRAYS}
        return replace(self, **some)

    def joined(self, other: "Ensemble") -> "Ensemble":
        """Returns the systems of both; the frames must be the same."""
        both: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in _ARRAYS
        }
        return replace(self, **both)


_ARRAYS = tuple(field.name for field in fields(Ensemble) if field.name != "frame")


def new_ensemble(frame: Frame, tickets: list[int], targets: Floats, positions: Floats) -> Ensemble:
    """Prepares geometries; their trials are where they start.

    Args:
        frame: what they share.
        tickets: who asked for each.
        targets: held angles, radians, `[n_systems]`.
        positions: A, `[n_systems, n_atoms, 3]`.

    Raises:
        RelaxationError: internal coordinates do not span the motions of a geometry.
    """
    n_systems, width = len(tickets), positions.shape[1] * 3
    axes = frame.primitives.bend_axes(positions)
    basis = delocalized_basis(frame.primitives, frame.primitives.wilson(positions, axes))
    stiffness = model_hessian(frame.primitives, frame.molecule)
    hessians = basis.transpose(0, 2, 1) @ (stiffness[:, None] * basis)
    zeros = np.zeros(n_systems)
    return Ensemble(
        frame,
        np.array(tickets, dtype=np.int64),
        targets,
        positions,
        np.full(n_systems, np.inf),
        np.zeros((n_systems, width)),
        _turned_back(frame, axes, positions, targets),
        zeros,
        zeros,
        np.full(n_systems, _FIRST_RADIUS),
        basis,
        axes,
        hessians,
        np.zeros(n_systems, dtype=np.int64),
        np.zeros(n_systems, dtype=bool),
        np.zeros(n_systems, dtype=bool),
    )


def advance(ensemble: Ensemble, energies: Floats, gradients: Floats) -> Ensemble:
    """Takes in evaluations of the trials, judges convergence, proposes the next trials.

    Args:
        ensemble: the state.
        energies: at the trials, eV, `[n_systems]`, finite.
        gradients: at the trials, eV/A, `[n_systems, 3 n_atoms]`.
    """
    fresh = ~np.isfinite(ensemble.energies)
    hessians = _updated_hessians(ensemble, gradients, fresh)
    change = np.where(fresh, 0.0, energies - np.where(fresh, 0.0, ensemble.energies))
    accepted = fresh | (change <= _ENERGY_NOISE)
    radii = _updated_radii(ensemble, change, fresh)
    step = np.where(fresh[:, None, None], np.inf, ensemble.trials - ensemble.positions)
    state = replace(
        ensemble,
        positions=np.where(accepted[:, None, None], ensemble.trials, ensemble.positions),
        energies=np.where(accepted, energies, ensemble.energies),
        gradients=np.where(accepted[:, None], gradients, ensemble.gradients),
        hessians=hessians,
        radii=radii,
        n_evaluations=ensemble.n_evaluations + 1,
    )
    return _proposed(state, accepted & _small(change, step))


def _proposed(state: Ensemble, settled: Flags) -> Ensemble:
    """Fills in the next trials; a settled system whose gradient vanishes has converged."""
    primitives = state.frame.primitives
    derivatives, inverse, free, direction = _local(state)
    converged = settled & _flat(_across(derivatives, free, direction))
    hessians, across = without_direction(state.hessians, free, direction)
    steps = trust_steps(hessians, across, state.radii)
    predicted = (across * steps).sum(axis=1) + 0.5 * np.einsum(
        "si,sij,sj->s", steps, hessians, steps
    )
    moved = displaced(primitives, state.axes, state.basis, inverse, state.positions, steps)
    trials = _turned_back(state.frame, state.axes, moved, state.targets)
    return replace(
        state,
        trials=trials,
        predicted=predicted,
        lengths=np.linalg.norm(steps, axis=1),
        converged=converged,
        needs_frame=primitives.is_singular(trials) & ~converged,
    )


def _local(state: Ensemble) -> tuple[Floats, Floats, Floats, Floats]:
    """Derivatives of the coordinates, their inverse; gradient and held direction in them."""
    matrix = state.frame.primitives.wilson(state.positions, state.axes)
    derivatives = to_delocalized(state.basis, matrix)
    inverse = pseudoinverse(derivatives)
    gradient = np.einsum("sij,si->sj", inverse, state.gradients)
    row = state.frame.row
    if row is None:
        return derivatives, inverse, gradient, np.zeros_like(gradient)
    return derivatives, inverse, gradient, np.einsum("sij,si->sj", inverse, matrix[:, row])


def _across(derivatives: Floats, gradient: Floats, direction: Floats) -> Floats:
    """Cartesian gradient without its part along the held angle, eV/A, `[n_systems, 3 n_atoms]`."""
    squared = np.square(direction).sum(axis=1, keepdims=True)
    share = (gradient * direction).sum(axis=1, keepdims=True) / np.where(squared > 0, squared, 1.0)
    cartesian: Floats = np.einsum("sij,si->sj", derivatives, gradient - share * direction)
    return cartesian


def _updated_hessians(state: Ensemble, gradients: Floats, fresh: Flags) -> Floats:
    """BFGS with what the trials have taught, accepted or not."""
    if fresh.all():
        return state.hessians
    primitives = state.frame.primitives
    before = primitives.values(state.positions, state.axes)
    after = primitives.values(state.trials, state.axes)
    change = primitives.difference(after, before)
    steps = np.einsum("srj,sr->sj", state.basis, change)
    ends = []
    for positions, cartesian in ((state.positions, state.gradients), (state.trials, gradients)):
        derivatives = to_delocalized(state.basis, primitives.wilson(positions, state.axes))
        ends.append(np.einsum("sij,si->sj", pseudoinverse(derivatives), cartesian))
    updated = damped_bfgs(state.hessians, steps, ends[1] - ends[0])
    return np.where(fresh[:, None, None], state.hessians, updated)


def _updated_radii(state: Ensemble, change: Floats, fresh: Flags) -> Floats:
    """Grows the trust radius where the model predicts well, shrinks it where it does not."""
    quality = np.where(fresh, 0.5, change / np.minimum(state.predicted, -1e-12))
    at_edge = state.lengths > 0.8 * state.radii
    grown = np.where(at_edge & (quality > 0.7), state.radii * 1.7, state.radii)
    shrunk = np.where(quality < 0.2, 0.4 * np.minimum(state.lengths, state.radii), grown)
    noise = np.abs(change) < 10 * _ENERGY_NOISE
    radii: Floats = np.where(fresh | noise, state.radii, shrunk)
    return np.clip(radii, _LEAST_RADIUS, _LARGEST_RADIUS)


def _small(change: Floats, step: Floats) -> Flags:
    """Whether energy change (eV) and step (A) meet the criteria."""
    moves = np.linalg.norm(step, axis=-1)
    energy = np.abs(change) * EV_TO_HARTREE < CONVERGENCE["convergence_energy"]
    rms = np.sqrt(np.square(moves).mean(axis=1)) < CONVERGENCE["convergence_drms"]
    small: Flags = energy & rms & (moves.max(axis=1) < CONVERGENCE["convergence_dmax"])
    return small


def _flat(cartesian: Floats) -> Flags:
    """Whether the gradients (eV/A) meet the criteria, which are on their lengths on atoms."""
    atoms = np.linalg.norm(cartesian.reshape(len(cartesian), -1, 3), axis=-1)
    gradients = atoms * (EV_TO_HARTREE / ANGSTROM_TO_BOHR)

    rms = np.sqrt(np.square(gradients).mean(axis=1)) < CONVERGENCE["convergence_grms"]
    flat: Flags = rms & (gradients.max(axis=1) < CONVERGENCE["convergence_gmax"])
    return flat


def _turned_back(frame: Frame, axes: Floats, positions: Floats, targets: Floats) -> Floats:
    """Turns one side of each geometry about the held angle's bond until the angle is the target."""
    row = frame.row
    if row is None or frame.atoms is None:
        return positions
    _, b, c, _ = frame.atoms
    missing = targets - frame.primitives.values(positions, axes)[:, row]
    origin = positions[:, c]
    axis = origin - positions[:, b]
    axis = (axis / np.linalg.norm(axis, axis=-1, keepdims=True))[:, None]
    arms = positions[:, list(frame.turning)] - origin[:, None]
    cosine, sine = np.cos(missing)[:, None, None], np.sin(missing)[:, None, None]
    turned = positions.copy()
    # Rodrigues' rotation about the bond.
    turned[:, list(frame.turning)] = (
        origin[:, None]
        + arms * cosine
        + np.cross(axis, arms) * sine
        + axis * (arms * axis).sum(axis=-1, keepdims=True) * (1.0 - cosine)
    )
    return turned
