"""Names of levels of theory: which mean the same, and what kind of functions a basis has."""

import numpy as np
import pytest

from trip_mm.surfaces.spin_states import FunctionalSettings, solve_spin_state
from trip_mm.training.labels_methods import find_method
from trip_mm.training.levels import canonical_level, has_cartesian_functions, same_level
from trip_mm.units import HARTREE_TO_EV

NUMBERS = np.array([8, 1, 1])
WATER = np.array([[0.0, 0.0, 0.0], [0.97, 0.0, 0.0], [-0.25, 0.93, 0.1]])


@pytest.mark.parametrize(
    ("basis", "expected"),
    [
        ("6-31g*", True),
        ("6-31G(d)", True),
        ("631g**", True),
        ("6-31gs", True),
        ("6-31++G**", True),
        ("6-31+g(2d,p)", True),
        ("3-21g", True),
        ("4-31g", True),
        ("6-311g**", False),
        ("6-311++g(2d,2p)", False),
        ("def2-tzvppd", False),
        ("cc-pvdz", False),
        ("aug-cc-pvtz", False),
        ("sto-3g", False),
    ],
)
def test_the_family_of_6_31g_is_cartesian(basis: str, expected: bool) -> None:
    assert has_cartesian_functions(basis) is expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("wB97X/6-31G(d)", "wb97x/6-31g*", True),
        ("gfn2", "GFN2-xTB", True),
        ("df-wb97x/6-31g*", "wb97x/6-31g*", True),
        ("wb97x/6-31g* (Cartesian)", "ωB97x/6-31G(d)", True),
        ("wb97x/6-31g**", "wb97x/6-31g*", False),
        ("GFN2-xTB", "wb97x/6-31g*", False),
        ("", "", False),
        ("wb97x/6-31g*-cartesian", "wb97x/6-31g*", True),
        ("wb97x/6-31g* (6D)", "wb97x/6-31g*", True),
        ("wb97x/6-31g* (5D)", "wb97x/6-31g*", False),
        ("wb97x/6-31g* (spherical)", "wb97x/6-31g* (5d)", True),
        ("df-b3lyp/def2-tzvpp (spherical)", "b3lyp/def2-tzvpp", True),
        ("b3lyp/def2-tzvpp (cartesian)", "b3lyp/def2-tzvpp", False),
        ("b3lyp/def2-tzvpp (cartesian)", "b3lyp/def2-tzvpp (6d)", True),
        ("b3lyp/6-311g(d,p) (cart)", "b3lyp/6-311g**", False),
    ],
)
def test_levels_are_compared_by_meaning(first: str, second: str, expected: bool) -> None:
    assert same_level(first, second) is expected


def test_a_level_has_one_spelling() -> None:
    assert canonical_level("wB97X/6-31G(d), cartesian") == "wb97x/6-31g*"
    assert canonical_level("B3LYP/def2-SVP-cart") == "b3lyp/def2-svp(cartesian)"
    assert canonical_level(canonical_level("B3LYP/def2-SVP-cart")) == "b3lyp/def2-svp(cartesian)"
    assert canonical_level("GFN2-xTB") == "gfn2"


@pytest.mark.parametrize(("basis", "cartesian"), [("6-31g*", True), ("def2-svp", False)])
def test_labels_are_computed_with_these_functions(basis: str, cartesian: bool) -> None:
    pytest.importorskip("pyscf", reason="density functional labels need pyscf")
    from pyscf import dft, gto

    atoms = list(zip("OHH", WATER.tolist(), strict=True))
    field = dft.RKS(gto.M(atom=atoms, basis=basis, cart=cartesian, verbose=0))
    field.xc = "lda,vwn"
    field.grids.level = 4
    expected = field.kernel() * HARTREE_TO_EV
    found = find_method(f"lda,vwn/{basis}").energy(NUMBERS, WATER, 0)
    assert found == pytest.approx(expected, abs=1e-5)
    state = solve_spin_state(NUMBERS, WATER, FunctionalSettings("lda,vwn", basis), 0)
    assert len(state.density) == field.mol.nao
