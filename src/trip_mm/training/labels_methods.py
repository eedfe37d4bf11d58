"""Quantum chemistry that labels geometries: GFN2-xTB by tblite, density functionals by pyscf."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from trip_mm.elements import SYMBOLS, symbols_of
from trip_mm.errors import ConfigError, DataError, MissingDependencyError
from trip_mm.training.groups import fits_electrons
from trip_mm.training.levels import has_cartesian_functions
from trip_mm.units import ANGSTROM_TO_BOHR, HARTREE_TO_EV


@dataclass(frozen=True)
class Labels:
    """Result of one calculation.

    Attributes:
        energy: eV.
        forces: eV/A, `[n_atoms, 3]`.
        n_unpaired: unpaired electrons of the state that converged.
    """

    energy: float
    forces: NDArray[np.float64]
    n_unpaired: int


Calculation = Callable[[NDArray[np.int64], NDArray[np.float64], int], Labels]
EnergyCalculation = Callable[[NDArray[np.int64], NDArray[np.float64], int], float]
Result = TypeVar("Result")

GROUND_STATE_UNPAIRED: dict[int, int] = {1: 1, 6: 2, 7: 3, 8: 2, 9: 1, 16: 2, 17: 1}
"""Unpaired electrons of the isolated atom in its ground state, by atomic number (Hund)."""

DENSITY_FITTING = "df-"
"""Prefix of a functional whose densities are fitted."""

_MIXER_DAMPINGS = (0.4, 0.1)
_EXTRA_UNPAIRED = (2, 4)
# Calculations that converge do so within 40 iterations or so.
_MAX_ITERATIONS = 120
_SCF_FAILED = "SCF did not converge"


class LabelError(Exception):
    """One conformation got no label; the message is the reason under which it is counted."""


@dataclass(frozen=True)
class Method:
    """A level of theory and the function that computes energies and forces at it.

    Attributes:
        name: as written in the files, such as `GFN2-xTB` or `wb97x/6-31g*`.
        calculate: atomic numbers `[n_atoms]`, positions in A `[n_atoms, 3]` and unpaired
            electrons to labels; raises `LabelError`.
        energy: the same arguments to the energy in eV, which costs less; raises `LabelError`.
    """

    name: str
    calculate: Calculation
    energy: EnergyCalculation


def find_method(name: str) -> Method:
    """Returns the method of a name: `gfn2`, `gfn1`, or `functional/basis` for pyscf.

    `df-functional/basis` fits electron densities with an auxiliary basis, on a smaller grid: two to
    four times faster; on small molecules energies differ by 0.02 kcal/mol and forces by
    0.03 kcal/mol/A (rms). `has_cartesian_functions` says what kind of functions a basis has.

    Raises:
        ConfigError: the name means nothing.
        MissingDependencyError: the program behind it is not installed.
    """
    lowered = name.lower()
    if lowered in ("gfn2", "gfn2-xtb"):
        return _tight_binding("GFN2-xTB")
    if lowered in ("gfn1", "gfn1-xtb"):
        return _tight_binding("GFN1-xTB")
    functional, slash, basis = lowered.partition("/")
    fitted = functional.removeprefix(DENSITY_FITTING)
    if slash and fitted and basis:
        if fitted != functional:
            return _density_functional(lowered, fitted, basis, _fitted)
        return _density_functional(lowered, functional, basis, _exact)
    raise ConfigError(
        f"method {name!r} is unknown; use gfn2, gfn1, functional/basis or df-functional/basis"
    )


def lone_atom_energies(method: Method, elements: tuple[int, ...]) -> dict[int, float]:
    """Computes the energy in eV of each isolated atom in its ground-state multiplicity.

    Raises:
        DataError: the ground state of an element is not tabulated, or its SCF fails.
    """
    energies = {}
    for number in elements:
        if number not in GROUND_STATE_UNPAIRED:
            raise DataError(
                f"element {SYMBOLS[number]}: the multiplicity of the isolated atom is not "
                "tabulated; add it to GROUND_STATE_UNPAIRED"
            )
        try:
            unpaired = GROUND_STATE_UNPAIRED[number]
            result = method.calculate(np.array([number]), np.zeros((1, 3)), unpaired)
            energies[number] = result.energy
        except LabelError as error:
            raise DataError(f"isolated {SYMBOLS[number]} at {method.name}: {error}") from None
    return energies


def check_spin(atomic_numbers: NDArray[np.int64], n_unpaired: int) -> None:
    """Refuses a number of unpaired electrons that a neutral molecule cannot have.

    Raises:
        LabelError: it is odd where the number of electrons is even or the reverse, or too large.
    """
    n_electrons = int(np.sum(atomic_numbers))
    if not fits_electrons(n_unpaired, n_electrons):
        raise LabelError(f"{n_electrons} electrons cannot have {n_unpaired} unpaired ones")


def _n_threads() -> int:
    """Returns the threads of one calculation: `OMP_NUM_THREADS`, or 1 where it says nothing."""
    stated = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(int(stated), 1) if stated.isdecimal() else 1


def _on_own_threads(
    compute: Callable[[NDArray[np.int64], NDArray[np.float64], int], Result],
) -> Callable[[NDArray[np.int64], NDArray[np.float64], int], Result]:
    """Lets a calculation run on `_n_threads` threads and gives the libraries theirs back after it.

    More threads would compete with the processes beside it. To set `OMP_NUM_THREADS` here, even for
    the import alone, is no way: tblite and torch share one OpenMP library, which reads it when the
    first of them is imported, so that it would decide about torch or come too late.
    """
    libraries = ThreadpoolController()  # those that are loaded: the program is imported by now
    n_threads = _n_threads()

    @wraps(compute)
    def limited(
        atomic_numbers: NDArray[np.int64], positions: NDArray[np.float64], n_unpaired: int
    ) -> Result:
        with libraries.limit(limits=n_threads):
            return compute(atomic_numbers, positions, n_unpaired)

    return limited


def _tight_binding(hamiltonian: str) -> Method:
    calculate = _tblite_calculation(hamiltonian)

    def energy(
        atomic_numbers: NDArray[np.int64], positions: NDArray[np.float64], n_unpaired: int
    ) -> float:
        return calculate(atomic_numbers, positions, n_unpaired).energy

    return Method(hamiltonian, calculate, energy)


def _tblite_calculation(hamiltonian: str) -> Calculation:
    try:
        from tblite.exceptions import TBLiteRuntimeError, TBLiteValueError
        from tblite.interface import Calculator
    except ImportError:
        raise MissingDependencyError(
            f"{hamiltonian} needs tblite; pip install 'trip-mm[qm]'"
        ) from None

    def converged(
        atomic_numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        n_unpaired: int,
        damping: float,
    ) -> Labels | None:
        try:
            calculator = Calculator(
                hamiltonian, atomic_numbers, positions * ANGSTROM_TO_BOHR, uhf=n_unpaired
            )
            calculator.set("verbosity", 0)
            calculator.set("mixer-damping", damping)
            calculator.set("max-iter", _MAX_ITERATIONS)
            result = calculator.singlepoint()
        except TBLiteRuntimeError:
            return None
        except TBLiteValueError as error:
            raise LabelError(f"tblite refused the input: {error}") from None
        gradient = np.asarray(result.get("gradient"), dtype=np.float64)
        return Labels(
            float(result.get("energy")) * HARTREE_TO_EV,
            -gradient * (HARTREE_TO_EV * ANGSTROM_TO_BOHR),
            n_unpaired,
        )

    @_on_own_threads
    def calculate(
        atomic_numbers: NDArray[np.int64], positions: NDArray[np.float64], n_unpaired: int
    ) -> Labels:
        check_spin(atomic_numbers, n_unpaired)
        for damping in _MIXER_DAMPINGS:
            found = converged(atomic_numbers, positions, n_unpaired, damping)
            if found is not None:
                return found
        # Torn bonds: the closed shell swings between ionic states, the open shell is the ground
        # state of the separated radicals.
        open_shells = [
            converged(atomic_numbers, positions, n_unpaired + extra, _MIXER_DAMPINGS[0])
            for extra in _EXTRA_UNPAIRED
        ]
        candidates = [labels for labels in open_shells if labels is not None]
        if not candidates:
            raise LabelError(_SCF_FAILED)
        return min(candidates, key=lambda labels: labels.energy)

    return calculate


def _exact(field: Any) -> Any:
    """Leaves the Coulomb and exchange integrals of a mean field as they are; a fine grid."""
    field.grids.level = 4
    return field


def _fitted(field: Any) -> Any:
    """Fits the densities of a mean field, in the auxiliary basis that pyscf assigns.

    The grid has half as many points: the energy of a dozen atoms changes by 0.001 kcal/mol.
    """
    fitted = field.density_fit()
    fitted.grids.level = 3
    return fitted


def _density_functional(
    name: str, functional: str, basis: str, integrals: Callable[[Any], Any]
) -> Method:
    try:
        from pyscf import dft, gto
    except ImportError:
        raise MissingDependencyError(f"{name} needs pyscf; pip install 'trip-mm[qm]'") from None

    try:
        dft.libxc.parse_xc(functional)
        gto.basis.load(basis, "H")
    except (KeyError, NotImplementedError, gto.basis.BasisNotFoundError) as error:
        raise ConfigError(
            f"method {name!r}: pyscf knows no such functional or basis ({error}); use "
            "FUNCTIONAL/BASIS, such as wb97x/6-31g*"
        ) from error

    def converged(
        atomic_numbers: NDArray[np.int64], positions: NDArray[np.float64], n_unpaired: int
    ) -> Any:
        check_spin(atomic_numbers, n_unpaired)
        try:
            molecule = gto.M(
                atom=list(zip(symbols_of(atomic_numbers), positions.tolist(), strict=True)),
                basis=basis,
                spin=n_unpaired,
                cart=has_cartesian_functions(basis),
                verbose=0,
            )
            field = integrals(dft.RKS(molecule) if n_unpaired == 0 else dft.UKS(molecule))
            field.xc = functional
            field.kernel()
        except (RuntimeError, ValueError, np.linalg.LinAlgError) as error:
            # What pyscf raises for an element outside the basis, for an unknown correction of the
            # functional and for atoms on top of each other.
            raise LabelError(f"pyscf: {str(error).strip().splitlines()[0]}") from None
        if not field.converged:
            raise LabelError(_SCF_FAILED)
        return field

    @_on_own_threads
    def energy(
        atomic_numbers: NDArray[np.int64], positions: NDArray[np.float64], n_unpaired: int
    ) -> float:
        return float(converged(atomic_numbers, positions, n_unpaired).e_tot) * HARTREE_TO_EV

    @_on_own_threads
    def calculate(
        atomic_numbers: NDArray[np.int64], positions: NDArray[np.float64], n_unpaired: int
    ) -> Labels:
        field = converged(atomic_numbers, positions, n_unpaired)
        found = float(field.e_tot) * HARTREE_TO_EV
        if len(atomic_numbers) == 1:
            return Labels(found, np.zeros((1, 3)), n_unpaired)
        derivative = field.nuc_grad_method()
        derivative.grid_response = True
        gradient = np.asarray(derivative.kernel(), dtype=np.float64)
        return Labels(found, -gradient * (HARTREE_TO_EV * ANGSTROM_TO_BOHR), n_unpaired)

    return Method(name, calculate, energy)
