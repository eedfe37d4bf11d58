"""The element tables against OpenMM's, and the small functions over them."""

import numpy as np
import pytest
from openmm import app, unit

from trip_mm import elements
from trip_mm.errors import UnsupportedElementError

NUMBERS = range(1, len(elements.SYMBOLS))


def test_tables_go_to_fermium() -> None:
    assert len(elements.SYMBOLS) == len(elements.MASSES) == 101
    assert len(set(elements.SYMBOLS)) == 101


@pytest.mark.parametrize("number", NUMBERS)
def test_agrees_with_openmm(number: int) -> None:
    element = app.Element.getByAtomicNumber(number)
    assert element.symbol == elements.SYMBOLS[number]
    mass = element.mass.value_in_unit(unit.dalton)
    # OpenMM gives elements without stable isotope (Tc, Pm, from Po on) the mass number of another
    # isotope, and an older value for some of the others.
    radioactive = number in (43, 61) or number >= 84
    assert elements.MASSES[number] == pytest.approx(mass, abs=5.0 if radioactive else 0.05)


@pytest.mark.parametrize("number", NUMBERS)
def test_symbol_and_number_invert_each_other(number: int) -> None:
    symbol = elements.SYMBOLS[number]
    for spelling in (symbol, symbol.upper(), symbol.lower(), f" {symbol} "):
        assert elements.atomic_number(spelling) == number


@pytest.mark.parametrize("symbol", ["X", "", "Xx", "CA1", "Md", "1"])
def test_unknown_symbol(symbol: str) -> None:
    with pytest.raises(UnsupportedElementError, match="not the symbol of an element"):
        elements.atomic_number(symbol)


def test_symbols_and_masses_of_atoms() -> None:
    numbers = np.array([8, 1, 1])
    assert elements.symbols_of(numbers) == ["O", "H", "H"]
    assert elements.masses_of(numbers) == pytest.approx([15.999, 1.008, 1.008])


@pytest.mark.parametrize(
    ("numbers", "formula"),
    [
        ([8, 1, 6, 1, 6, 1, 1, 1, 1], "C2H6O"),
        ([1, 8, 1], "H2O"),
        ([17, 11], "ClNa"),
        ([6], "C"),
        ([7, 7], "N2"),
        ([8, 6, 8], "CO2"),
    ],
)
def test_hill_formula(numbers: list[int], formula: str) -> None:
    assert elements.formula(numbers) == formula
