"""Extended tight binding along a path: each geometry may start from the one before.

Where a bond is torn, the self-consistent charges of a closed shell often do not converge from
scratch, and do from those of a neighbour. The lower of the two solutions counts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import EvaluationError, MissingDependencyError
from trip_mm.geometry.molecule import Molecule
from trip_mm.geometry.potentials import TIGHT_BINDING, PotentialSpec
from trip_mm.units import ANGSTROM_TO_BOHR, HARTREE_TO_EV

_FRESH_DAMPING, _FOLLOWED_DAMPING = 0.4, 0.1
_MAX_ITERATIONS = 200


class FollowedTightBinding:
    """Energy and forces of one molecule in its own spin state.

    Args:
        spec: `gfn1` or `gfn2`.
        molecule: composition and unpaired electrons.

    Raises:
        MissingDependencyError: tblite is not installed.
    """

    def __init__(self, spec: PotentialSpec, molecule: Molecule) -> None:
        try:
            from tblite.interface import Calculator
        except ImportError:
            raise MissingDependencyError(
                f"{spec.label} needs tblite; pip install 'trip-mm[qm]'"
            ) from None
        self._calculator = Calculator
        self._hamiltonian = TIGHT_BINDING[spec.name]
        self._molecule = molecule
        self._last: Any = None

    def __call__(self, positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Returns energy in eV and forces in eV/A, `[n_atoms, 3]`.

        Args:
            positions: A, `[n_atoms, 3]`.

        Raises:
            EvaluationError: the charges converge neither from scratch nor from the last geometry.
        """
        tried = [self._converged(positions, _FRESH_DAMPING, None)]
        if self._last is not None:
            tried.append(self._converged(positions, _FOLLOWED_DAMPING, self._last))
        found = [result for result in tried if result is not None]
        if not found:
            found = [self._converged(positions, _FOLLOWED_DAMPING, None)]
        if found[0] is None:
            raise EvaluationError("SCF did not converge")
        self._last = min(found, key=lambda result: float(result.get("energy")))
        gradient = np.asarray(self._last.get("gradient"), dtype=np.float64)
        energy = float(self._last.get("energy")) * HARTREE_TO_EV
        return energy, -gradient * (HARTREE_TO_EV * ANGSTROM_TO_BOHR)

    def _converged(self, positions: NDArray[np.float64], damping: float, start: Any) -> Any:
        from tblite.exceptions import TBLiteRuntimeError, TBLiteValueError

        try:
            calculator = self._calculator(
                self._hamiltonian,
                self._molecule.atomic_numbers,
                positions * ANGSTROM_TO_BOHR,
                uhf=self._molecule.n_unpaired,
            )
            calculator.set("verbosity", 0)
            calculator.set("mixer-damping", damping)
            calculator.set("max-iter", _MAX_ITERATIONS)
            return calculator.singlepoint(start, copy=start is not None)
        except TBLiteRuntimeError:
            return None
        except TBLiteValueError as error:
            raise EvaluationError(f"tblite refused the input: {error}") from None
