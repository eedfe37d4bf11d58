"""Harmonic vibrations: normal modes of a Hessian without translations and rotations.

The mass-weighted Hessian is diagonalised in the space orthogonal to the translations and rotations
of the geometry (Wilson, Decius and Cross, Molecular Vibrations, 1955, chapter 2); a linear molecule
has two rotations, so 3 n - 5 vibrations.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trip_mm.elements import masses_of
from trip_mm.geometry.molecule import Molecule
from trip_mm.geometry.superposition import superposition
from trip_mm.units import (
    EV_TO_INVERSE_CM,
    EV_TO_KCAL_PER_MOL,
    SQRT_EV_PER_AMU_ANGSTROM2_TO_INVERSE_CM,
)

# Rotation about the axis of a linear molecule moves nothing: its vector is shorter than the longest
# by this factor even when relaxation leaves the molecule bent by a fraction of a degree.
_LINEAR_BELOW = 0.01
_ATOM_BELOW = 1e-6
"""Length of rotations of a single atom beyond rounding, A u^1/2."""


@dataclass(frozen=True)
class Vibrations:
    """Normal modes at one geometry, lowest wavenumber first.

    Attributes:
        molecule: the molecule at that geometry.
        wavenumbers: cm^-1, `[n_modes]`; imaginary ones are negative.
        modes: mass-weighted, orthonormal, `[n_modes, n_atoms, 3]`.
        reduced_masses: u, `[n_modes]`.
        largest_external: largest wavenumber among translations and rotations before they are
            projected out, cm^-1: how well the Hessian knows that they cost nothing.
    """

    molecule: Molecule
    wavenumbers: NDArray[np.float64]
    modes: NDArray[np.float64]
    reduced_masses: NDArray[np.float64]
    largest_external: float

    @property
    def displacements(self) -> NDArray[np.float64]:
        """Cartesian displacements of each mode, unit length, `[n_modes, n_atoms, 3]`."""
        return _displacements(self.modes, self.molecule)

    @property
    def imaginary(self) -> NDArray[np.float64]:
        """Wavenumbers of imaginary modes, cm^-1, negative."""
        return self.wavenumbers[self.wavenumbers < 0.0]

    @property
    def zero_point_energy(self) -> float:
        """Half the sum of the real wavenumbers, eV."""
        real = self.wavenumbers[self.wavenumbers > 0.0]
        return float(real.sum()) / 2.0 / EV_TO_INVERSE_CM

    @property
    def zero_point_kcal_per_mol(self) -> float:
        """Zero-point energy in kcal/mol."""
        return self.zero_point_energy * EV_TO_KCAL_PER_MOL


def external_motions(
    positions: NDArray[np.float64], masses: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns an orthonormal basis of mass-weighted translations and rotations.

    Args:
        positions: A, `[n_atoms, 3]`.
        masses: u, `[n_atoms]`.

    Returns:
        `[n_external, 3 n_atoms]`: 3 for an atom, 5 for a linear molecule, else 6.
    """
    roots = np.sqrt(masses)[:, None]
    arms = positions - (masses[:, None] * positions).sum(axis=0) / masses.sum()
    axes = np.eye(3)
    translations = np.stack([(roots * axis).ravel() for axis in axes])
    translations /= np.sqrt(masses.sum())
    rotations = np.stack([(roots * np.cross(axis, arms)).ravel() for axis in axes])
    _, lengths, basis = np.linalg.svd(rotations, full_matrices=False)
    if lengths[0] < _ATOM_BELOW:
        return translations
    return np.concatenate([translations, basis[lengths > _LINEAR_BELOW * lengths[0]]])


def harmonic_analysis(molecule: Molecule, hessian: NDArray[np.float64]) -> Vibrations:
    """Computes the normal modes.

    Args:
        molecule: at the geometry of the Hessian; masses are standard atomic weights.
        hessian: eV/A^2, `[3 n_atoms, 3 n_atoms]`, symmetric.
    """
    masses = masses_of(molecule.atomic_numbers)
    weights = np.repeat(1.0 / np.sqrt(masses), 3)
    weighted = weights[:, None] * hessian * weights[None, :]
    external = external_motions(molecule.positions, masses)
    residual = np.linalg.eigvalsh(external @ weighted @ external.T)
    # The right singular vectors beyond the external ones span all vibrations.
    internal = np.linalg.svd(external, full_matrices=True)[2][len(external) :]
    eigenvalues, vectors = np.linalg.eigh(internal @ weighted @ internal.T)
    modes = (vectors.T @ internal).reshape(-1, molecule.n_atoms, 3)
    cartesian = modes / np.sqrt(masses)[None, :, None]
    return Vibrations(
        molecule,
        _wavenumbers(eigenvalues),
        modes,
        1.0 / np.square(cartesian).sum(axis=(1, 2)),
        float(np.abs(_wavenumbers(residual)).max()),
    )


def _displacements(modes: NDArray[np.float64], molecule: Molecule) -> NDArray[np.float64]:
    cartesian = modes / np.sqrt(masses_of(molecule.atomic_numbers))[None, :, None]
    norms = np.sqrt(np.square(cartesian).sum(axis=(1, 2), keepdims=True))
    unit: NDArray[np.float64] = cartesian / norms
    return unit


def _wavenumbers(eigenvalues: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Converts eigenvalues in eV / (A^2 u) to cm^-1; the sign stays."""
    roots = np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues))
    wavenumbers: NDArray[np.float64] = roots * SQRT_EV_PER_AMU_ANGSTROM2_TO_INVERSE_CM
    return wavenumbers


@dataclass(frozen=True)
class MatchedModes:
    """Modes of one calculation paired with those of a reference by what moves.

    A mode is without a partner where the reference has fewer modes, because only one of both
    geometries is linear.

    Attributes:
        partners: index of the reference mode paired with each mode, -1 if none, `[n_modes]`.
        overlaps: absolute scalar product of the paired mass-weighted modes, 0 to 1, nan without a
            partner, `[n_modes]`.
        differences: wavenumber minus that of the partner, cm^-1, nan without one, `[n_modes]`.
    """

    partners: NDArray[np.int64]
    overlaps: NDArray[np.float64]
    differences: NDArray[np.float64]

    @property
    def mae(self) -> float | None:
        """Mean absolute difference, cm^-1; None without a pair, as for a single atom."""
        return float(np.abs(self._paired).mean()) if len(self._paired) else None

    @property
    def rmse(self) -> float | None:
        """Root of the mean square difference, cm^-1; None without a pair."""
        return float(np.sqrt(np.square(self._paired).mean())) if len(self._paired) else None

    @property
    def _paired(self) -> NDArray[np.float64]:
        return self.differences[self.partners >= 0]


def match_modes(vibrations: Vibrations, reference: Vibrations) -> MatchedModes:
    """Pairs modes one to one so that the sum of squared overlaps is largest.

    The reference is superposed on the other geometry first. Modes that share a wavenumber may mix
    freely; their overlaps say nothing then, their wavenumbers still do.

    Args:
        vibrations: modes of one calculation.
        reference: modes of the same molecule elsewhere, in the same order of atoms.
    """
    from scipy.optimize import linear_sum_assignment

    masses = masses_of(vibrations.molecule.atomic_numbers)
    rotation = superposition(reference.molecule.positions, vibrations.molecule.positions, masses)
    n_components = 3 * vibrations.molecule.n_atoms  # -1 is ambiguous where there are no modes
    turned = (reference.modes @ rotation.T).reshape(-1, n_components)
    own = vibrations.modes.reshape(-1, n_components)
    overlaps = np.abs(own @ turned.T)
    rows, columns = linear_sum_assignment(np.square(overlaps), maximize=True)
    partners = np.full(len(own), -1, dtype=np.int64)
    shared, differences = np.full(len(own), np.nan), np.full(len(own), np.nan)
    partners[rows] = columns
    shared[rows] = overlaps[rows, columns]
    differences[rows] = vibrations.wavenumbers[rows] - reference.wavenumbers[columns]
    return MatchedModes(partners, shared, differences)
