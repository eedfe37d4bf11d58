"""Whether the program behind a potential knows the elements, asked without a calculation."""

import warnings

import numpy as np
from numpy.typing import NDArray

from trip_mm.elements import SYMBOLS
from trip_mm.errors import UnsupportedElementError
from trip_mm.geometry.potentials import TIGHT_BINDING, PotentialSpec

_APART = 10.0


def refuse_unknown_elements(spec: PotentialSpec, elements: NDArray[np.int64]) -> None:
    """Refuses elements that a basis set or a tight-binding Hamiltonian lacks.

    Args:
        spec: a potential of kind `qm`, which `geometry.potentials.bind` has accepted.
        elements: atomic numbers.

    Raises:
        UnsupportedElementError: naming the elements.
    """
    has = _basis_has if spec.is_quantum else _hamiltonian_has
    unknown = [SYMBOLS[int(z)] for z in np.unique(elements) if not has(spec.name, int(z))]
    if unknown:
        raise UnsupportedElementError(
            f"has no parameters for {', '.join(unknown)}; leave such data out, or use another "
            f"{'basis' if spec.is_quantum else 'potential'}"
        )


def _basis_has(name: str, number: int) -> bool:
    from pyscf import gto

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advises another package
        try:
            gto.basis.load(name.partition("/")[2], SYMBOLS[number])
        except (KeyError, gto.basis.BasisNotFoundError):
            return False
    return True


def _hamiltonian_has(name: str, number: int) -> bool:
    from tblite.exceptions import TBLiteRuntimeError
    from tblite.interface import Calculator

    pair = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, _APART]])
    try:
        Calculator(TIGHT_BINDING[name], np.array([number, number]), pair)
    except TBLiteRuntimeError:
        return False
    return True
