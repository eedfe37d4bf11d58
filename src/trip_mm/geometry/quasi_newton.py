"""Quasi-Newton steps of many small problems at once: trust region, damped BFGS, model Hessian."""

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem

from trip_mm.geometry.molecule import Molecule
from trip_mm.geometry.primitives import Primitives
from trip_mm.units import ANGSTROM_TO_BOHR, HARTREE_TO_EV

Floats = NDArray[np.float64]

_SECULAR_ITERATIONS = 40
_RADIUS_SLACK = 1.01
_CONSTRAINT_STIFFNESS = 1.0
_DAMPING = 0.2


def model_hessian(primitives: Primitives, molecule: Molecule) -> Floats:
    """Force constants of primitive coordinates by Schlegel's rules.

    Theor. Chim. Acta 66, 333 (1984): bonds 1.734 / (r - B)^3, angles 0.16 with hydrogen and 0.25
    without, dihedrals at least 0.0023, out-of-plane 0.045, in Ha, bohr and radians.

    Returns:
        eV/A^2 and eV, `[n_rows]`.
    """
    numbers, positions = molecule.atomic_numbers, molecule.positions
    table = Chem.GetPeriodicTable()
    radii = np.array([table.GetRcovalent(int(z)) for z in numbers])
    period = np.searchsorted([2, 10, 18], numbers)  # H-He 0, Li-Ne 1, Na-Ar 2
    shifts = np.array([[-0.244, 0.352, 0.660], [0.352, 1.085, 1.522], [0.660, 1.522, 2.068]])

    def lengths(pairs: NDArray[np.int64]) -> Floats:
        found: Floats = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=-1)
        return found

    i, j = primitives.bonds.T
    shift = shifts[np.minimum(period[i], 2), np.minimum(period[j], 2)]
    stretch = np.maximum(lengths(primitives.bonds) * ANGSTROM_TO_BOHR - shift, 0.7)
    bonds = 1.734 / stretch**3 * HARTREE_TO_EV * ANGSTROM_TO_BOHR**2
    angles = np.where((numbers[primitives.angles[:, ::2]] == 1).any(axis=1), 0.16, 0.25)
    bends = np.full(2 * len(primitives.bends), 0.16)
    inner = primitives.dihedrals[:, 1:3]
    beyond = (lengths(inner) - radii[inner].sum(axis=1)) * ANGSTROM_TO_BOHR
    dihedrals = np.maximum(0.0023 - 0.07 * beyond, 0.0023)
    bonded = {frozenset(pair) for pair in molecule.bonds}
    out_of_plane = [
        frozenset((a, c)) in bonded and frozenset((a, d)) in bonded
        for a, _, c, d in primitives.dihedrals.tolist()
    ]
    dihedrals[np.array(out_of_plane, dtype=bool)] = 0.045
    rest = np.concatenate([angles, bends, dihedrals]) * HARTREE_TO_EV
    return np.concatenate([bonds, rest])


def trust_steps(hessians: Floats, gradients: Floats, radii: Floats) -> Floats:
    """Minimises g s + s H s / 2 within |s| <= radius, for positive definite H.

    The level shift is found by Newton's method on the secular equation (More and Sorensen,
    SIAM J. Sci. Stat. Comput. 4, 553 (1983)).

    Args:
        hessians: `[n_systems, n, n]`.
        gradients: `[n_systems, n]`.
        radii: `[n_systems]`.

    Returns:
        `[n_systems, n]`.
    """
    identity = np.eye(hessians.shape[1])
    largest = np.linalg.norm(hessians, axis=(1, 2))
    # No smaller shift can bring the step inside.
    shifts = np.maximum(np.linalg.norm(gradients, axis=1) / radii - largest, 0.0)
    steps = np.zeros_like(gradients)
    for _ in range(_SECULAR_ITERATIONS):
        shifted = hessians + shifts[:, None, None] * identity
        steps = -np.linalg.solve(shifted, gradients[..., None])[..., 0]
        norms = np.linalg.norm(steps, axis=1)
        outside = norms > _RADIUS_SLACK * radii
        if not outside.any():
            break
        curvature = (steps * np.linalg.solve(shifted, steps[..., None])[..., 0]).sum(axis=1)
        change = np.square(norms) / np.maximum(curvature, 1e-300) * (norms - radii) / radii
        shifts = np.where(outside, np.maximum(shifts + change, 0.0), shifts)
    norms = np.linalg.norm(steps, axis=1)
    scale = np.minimum(1.0, radii / np.maximum(norms, 1e-300))
    limited: Floats = steps * scale[:, None]
    return limited


def without_direction(
    hessians: Floats, gradients: Floats, directions: Floats
) -> tuple[Floats, Floats]:
    """Projects one direction out of quadratic models; a zero direction leaves its model alone.

    Args:
        hessians: `[n_systems, n, n]`.
        gradients: `[n_systems, n]`.
        directions: any length, `[n_systems, n]`.

    Returns:
        Hessians that are stiff along the direction and uncoupled from it, and gradients across it.
    """
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    units = np.where(norms > 0.0, directions / np.maximum(norms, 1e-300), 0.0)
    across = gradients - (gradients * units).sum(axis=1, keepdims=True) * units
    dyads = units[:, :, None] * units[:, None, :]
    projectors = np.eye(hessians.shape[1]) - dyads
    return projectors @ hessians @ projectors + _CONSTRAINT_STIFFNESS * dyads, across


def damped_bfgs(hessians: Floats, steps: Floats, changes: Floats) -> Floats:
    """Updates Hessians; they stay positive definite.

    BFGS with Powell's damping (Nocedal and Wright, Numerical Optimization, procedure 18.2).

    Args:
        hessians: `[n_systems, n, n]`.
        steps: s, `[n_systems, n]`.
        changes: of the gradient, y, `[n_systems, n]`.
    """
    bent = np.einsum("sij,sj->si", hessians, steps)
    model = np.einsum("si,si->s", steps, bent)
    actual = np.einsum("si,si->s", steps, changes)
    usable = model > 1e-14
    safe = np.where(usable, model, 1.0)
    weak = usable & (actual < _DAMPING * model)
    mixing = np.where(weak, (1.0 - _DAMPING) * model / np.where(weak, model - actual, 1.0), 1.0)

    mixed = mixing[:, None] * changes + (1.0 - mixing[:, None]) * bent
    along = np.where(usable, np.einsum("si,si->s", steps, mixed), 1.0)
    gain = mixed[:, :, None] * mixed[:, None, :] / along[:, None, None]
    loss = bent[:, :, None] * bent[:, None, :] / safe[:, None, None]
    updated: Floats = np.where(usable[:, None, None], hessians + gain - loss, hessians)
    return updated
