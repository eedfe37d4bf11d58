"""Conversions against OpenMM's unit system and against numbers anyone can look up."""

import pytest
from openmm import unit

from trip_mm import units


def test_energy_agrees_with_openmm() -> None:
    one_ev = unit.Quantity(1.0, unit.elementary_charge * unit.volt) * unit.AVOGADRO_CONSTANT_NA
    expected = one_ev.value_in_unit(unit.kilojoule_per_mole)
    # OpenMM's constants are those of CODATA 2018, exact since the redefinition of the SI.
    assert pytest.approx(expected, rel=1e-8) == units.EV_TO_KJ_PER_MOL
    kcal = (1.0 * unit.kilocalorie_per_mole).value_in_unit(unit.kilojoule_per_mole)
    assert pytest.approx(kcal, rel=1e-14) == units.KCAL_PER_MOL_TO_KJ_PER_MOL


def test_boltzmann_constant_agrees_with_openmm() -> None:
    molar_gas_constant = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(
        unit.kilojoule_per_mole / unit.kelvin
    )
    ours = units.BOLTZMANN_CONSTANT * units.EV_TO_KJ_PER_MOL
    assert ours == pytest.approx(molar_gas_constant, rel=1e-8)


def test_kinetic_energy_agrees_with_openmm() -> None:
    velocity = 1.0 * unit.angstrom / unit.femtosecond
    # A dalton is a gram per mole in OpenMM's unit system.
    energy = (1.0 * unit.dalton * velocity**2).value_in_unit(unit.kilojoule_per_mole)
    ours = units.AMU_ANGSTROM2_PER_FS2_TO_EV * units.EV_TO_KJ_PER_MOL
    assert ours == pytest.approx(energy, rel=1e-7)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (units.EV_TO_KJ_PER_MOL, 96.48533212),
        (units.EV_TO_KCAL_PER_MOL, 23.06054783),
        (units.HARTREE_TO_EV, 27.211386246),
        (units.BOHR_TO_ANGSTROM, 0.529177211),
        (units.COULOMB_CONSTANT, 14.39964547),
        (units.BOLTZMANN_CONSTANT, 8.617333262e-5),
        (units.AMU_ANGSTROM2_PER_FS2_TO_EV, 103.642697),
    ],
)
def test_published_values(value: float, expected: float) -> None:
    assert value == pytest.approx(expected, rel=2e-8)


@pytest.mark.parametrize(
    ("forward", "back"),
    [
        (units.NM_TO_ANGSTROM, units.ANGSTROM_TO_NM),
        (units.EV_TO_KJ_PER_MOL, units.KJ_PER_MOL_TO_EV),
        (units.EV_TO_KCAL_PER_MOL, units.KCAL_PER_MOL_TO_EV),
        (units.HARTREE_TO_EV, units.EV_TO_HARTREE),
        (units.BOHR_TO_ANGSTROM, units.ANGSTROM_TO_BOHR),
    ],
)
def test_conversions_invert_each_other(forward: float, back: float) -> None:
    assert forward * back == pytest.approx(1.0, rel=1e-15)
