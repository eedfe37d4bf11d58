"""Chemical elements up to fermium: symbols, atomic numbers and standard atomic masses in u."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import UnsupportedElementError

MAX_ATOMIC_NUMBER = 100
"""Largest atomic number that the tables hold."""

# fmt: off
SYMBOLS: tuple[str, ...] = (
    "X", "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S",
    "Cl", "Ar", "K", "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga",
    "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd",
    "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd", "Pm",
    "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os",
    "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa",
    "U", "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm",
)
"""Symbol of each atomic number; entry 0 is the dummy atom X."""

MASSES: tuple[float, ...] = (
    0.0, 1.008, 4.002602, 6.94, 9.0121831, 10.81, 12.011, 14.007, 15.999, 18.998403, 20.1797,
    22.989769, 24.305, 26.981538, 28.085, 30.973762, 32.06, 35.45, 39.948, 39.0983, 40.078,
    44.955908, 47.867, 50.9415, 51.9961, 54.938044, 55.845, 58.933194, 58.6934, 63.546, 65.38,
    69.723, 72.63, 74.921595, 78.971, 79.904, 83.798, 85.4678, 87.62, 88.90584, 91.224,
    92.90637, 95.95, 97.90721, 101.07, 102.9055, 106.42, 107.8682, 112.414, 114.818, 118.71,
    121.76, 127.6, 126.90447, 131.293, 132.90545, 137.327, 138.90547, 140.116, 140.90766,
    144.242, 144.91276, 150.36, 151.964, 157.25, 158.92535, 162.5, 164.93033, 167.259,
    168.93422, 173.054, 174.9668, 178.49, 180.94788, 183.84, 186.207, 190.23, 192.217, 195.084,
    196.96657, 200.592, 204.38, 207.2, 208.9804, 208.98243, 209.98715, 222.01758, 223.01974,
    226.02541, 227.02775, 232.0377, 231.03588, 238.02891, 237.04817, 244.06421, 243.06138,
    247.07035, 247.07031, 251.07959, 252.083, 257.09511,
)
"""Standard atomic mass in u of each atomic number (IUPAC); entry 0 is the dummy atom."""
# fmt: on

_NUMBER_OF_SYMBOL = {symbol: number for number, symbol in enumerate(SYMBOLS)}


def atomic_number(symbol: str) -> int:
    """Returns the atomic number of an element symbol.

    Args:
        symbol: element symbol in any case, for example `C`, `Cl` or `CL`.

    Raises:
        UnsupportedElementError: the symbol names no element up to fermium.
    """
    number = _NUMBER_OF_SYMBOL.get(symbol.strip().capitalize(), 0)
    if number == 0:
        raise UnsupportedElementError(f"{symbol!r} is not the symbol of an element up to Fm")
    return number


def symbols_of(atomic_numbers: Iterable[int]) -> list[str]:
    """Returns the element symbol of each atomic number."""
    return [SYMBOLS[int(number)] for number in atomic_numbers]


def masses_of(atomic_numbers: Iterable[int]) -> NDArray[np.float64]:
    """Returns the standard atomic mass in u of each atomic number, `[n_atoms]`."""
    return np.asarray([MASSES[int(number)] for number in atomic_numbers], dtype=np.float64)


def formula(atomic_numbers: Iterable[int]) -> str:
    """Returns the molecular formula in Hill order (C, H, then alphabetical), such as `C2H6O`."""
    symbols = symbols_of(atomic_numbers)
    counts = {symbol: symbols.count(symbol) for symbol in set(symbols)}
    first = ["C", "H"] if "C" in counts else []
    order = [s for s in first if s in counts] + sorted(s for s in counts if s not in first)
    return "".join(s + (str(counts[s]) if counts[s] > 1 else "") for s in order)
