"""Density functional energies of one molecule in several spin states, torn bonds included.

Far from equilibrium a self-consistent field may not converge, or converge to a saddle point of the
orbital space, or to another solution than its neighbour on the surface. Each state therefore
starts from several densities (superposed atoms, neighbours on the surface), goes on by second-order
iterations where none converges, and leaves internal instabilities. The singlet stays restricted
(paired electrons), as in the ANI-1x data; higher states are unrestricted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trip_mm.elements import symbols_of
from trip_mm.errors import ConfigError, EvaluationError, MissingDependencyError
from trip_mm.training.levels import has_cartesian_functions
from trip_mm.units import HARTREE_TO_EV

STATE_NAMES: dict[int, str] = {0: "singlet", 2: "triplet", 4: "quintet"}
"""Names of spin states by the number of unpaired electrons."""

_DIIS_ITERATIONS = 40
_SECOND_ORDER_ITERATIONS = 30
_MAX_ESCAPES = 2
# The p orbitals of a lone oxygen atom turn at no cost: an escape that lowers the energy by less
# than this (Ha) is such a turn on the integration grid.
_SAME_ENERGY = 1e-5
# The search for the solution takes a coarse grid and tolerance, its energy fine ones.
_SEARCH_GRID_LEVEL = 1
_SEARCH_TOLERANCE = 1e-6
_GRID_LEVEL = 3
_TOLERANCE = 1e-8


@dataclass(frozen=True)
class FunctionalSettings:
    """A density functional and its basis, Cartesian where `has_cartesian_functions` says so.

    Attributes:
        functional: as pyscf names it.
        basis: as pyscf names it.
    """

    functional: str = "wb97x"
    basis: str = "6-31g*"


@dataclass(frozen=True)
class SpinState:
    """A converged spin state.

    Attributes:
        energy: eV.
        density: density matrix, one for each spin where unrestricted; starts neighbours.
    """

    energy: float
    density: NDArray[np.float64]


def solve_spin_state(
    atomic_numbers: Sequence[int] | NDArray[np.int64],
    positions: NDArray[np.float64],
    settings: FunctionalSettings,
    n_unpaired: int,
    guesses: Sequence[NDArray[np.float64]] = (),
) -> SpinState:
    """Finds the lowest solution that the guesses lead to.

    Args:
        atomic_numbers: `[n_atoms]`.
        positions: A, `[n_atoms, 3]`.
        settings: functional and basis.
        n_unpaired: unpaired electrons.
        guesses: densities of neighbours on the surface, tried besides superposed atoms.

    Raises:
        EvaluationError: no guess converges; the message is the reason.
        ConfigError: no such functional or basis, or a number of electrons that does not fit.
        MissingDependencyError: pyscf is not installed.
    """
    found = []
    for guess in (None, *guesses):
        field = _new_field(atomic_numbers, positions, settings, n_unpaired)
        field.kernel(dm0=guess)
        found.append(field)
    converged = [field for field in found if field.converged]
    best = min(converged or found, key=lambda field: float(field.e_tot))
    if not converged:
        best = _second_order(best, best.mo_coeff)
    best = _without_instability(best)
    fine = _new_field(atomic_numbers, positions, settings, n_unpaired)
    fine.grids.level, fine.conv_tol = _GRID_LEVEL, _TOLERANCE
    fine.kernel(dm0=best.make_rdm1())
    if not fine.converged:
        fine = _second_order(fine, best.mo_coeff)
    density = np.asarray(fine.make_rdm1(), dtype=np.float64)
    return SpinState(float(fine.e_tot) * HARTREE_TO_EV, density)


def _without_instability(field: Any) -> Any:
    """Leaves saddle points of the orbital space until the energy falls no further."""
    for _ in range(_MAX_ESCAPES):
        orbitals, _, stable, _ = field.stability(return_status=True)
        if stable:
            break
        try:
            lower = _second_order(field, orbitals)
        except EvaluationError:
            break
        if float(lower.e_tot) > float(field.e_tot) - _SAME_ENERGY:
            break
        field = lower
    return field


def _second_order(field: Any, orbitals: Any) -> Any:
    """Converges from given orbitals by the co-iterative augmented Hessian method."""
    solver = getattr(field, "_scf", field).newton()
    solver.max_cycle = _SECOND_ORDER_ITERATIONS
    solver.kernel(orbitals, field.mo_occ)
    if not solver.converged:
        raise EvaluationError("SCF did not converge")
    return solver


def _new_field(
    atomic_numbers: Sequence[int] | NDArray[np.int64],
    positions: NDArray[np.float64],
    settings: FunctionalSettings,
    n_unpaired: int,
) -> Any:
    try:
        from pyscf import dft, gto
    except ImportError:
        raise MissingDependencyError("spin states need pyscf; pip install 'trip-mm[qm]'") from None
    symbols = symbols_of(np.asarray(atomic_numbers, dtype=np.int64))
    try:
        molecule = gto.M(
            atom=list(zip(symbols, positions.tolist(), strict=True)),
            basis=settings.basis,
            spin=n_unpaired,
            cart=has_cartesian_functions(settings.basis),
            verbose=0,
        )
        field = (dft.RKS if n_unpaired == 0 else dft.UKS)(molecule)
        field.xc = settings.functional
        field._numint.libxc.parse_xc(settings.functional)
    except (RuntimeError, KeyError, ValueError) as error:
        raise ConfigError(
            f"{settings.functional}/{settings.basis} with {n_unpaired} unpaired electrons: "
            f"pyscf refuses it ({str(error).strip()[:100]})"
        ) from error
    field.grids.level, field.conv_tol = _SEARCH_GRID_LEVEL, _SEARCH_TOLERANCE
    field.max_cycle = _DIIS_ITERATIONS
    return field
