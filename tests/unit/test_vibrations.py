"""Hessians and harmonic vibrations: springs solved by hand, ASE, the network's own differences."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import constants

import trip_mm
from trip_mm.cli.frequencies import _print_table
from trip_mm.cli.frequencies import command as frequencies_command
from trip_mm.elements import masses_of
from trip_mm.errors import ConfigError, UnsupportedSystemError
from trip_mm.geometry import frequencies as frequencies_module
from trip_mm.geometry import hessian as hessian_module
from trip_mm.geometry.frequencies import (
    Frequencies,
    comparison_dict,
    frequencies_at,
    relaxed_frequencies,
    write_frequencies,
)
from trip_mm.geometry.hessian import bind_hessian, hessian_by_differences
from trip_mm.geometry.molecule import Molecule, read_molecule
from trip_mm.geometry.potentials import PotentialSpec, bind, parse_potential
from trip_mm.geometry.superposition import rmsd
from trip_mm.geometry.vibrations import external_motions, harmonic_analysis, match_modes
from trip_mm.model.trip import TripConfig
from trip_mm.units import EV_TO_KCAL_PER_MOL

GFN2 = parse_potential("gfn2")
TRIP = parse_potential("trip:any")


def random_rotation(seed: int) -> NDArray[np.float64]:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.linalg.det(q)


def spring_hessian(
    positions: NDArray[np.float64], springs: dict[tuple[int, int], float]
) -> NDArray[np.float64]:
    """Hessian of springs at their rest lengths: k u u^T in blocks."""
    n = len(positions)
    hessian = np.zeros((n, 3, n, 3))
    for (i, j), k in springs.items():
        u = positions[j] - positions[i]
        u /= np.linalg.norm(u)
        block = k * np.outer(u, u)
        hessian[i, :, i] += block
        hessian[j, :, j] += block
        hessian[i, :, j] -= block
        hessian[j, :, i] -= block
    return hessian.reshape(3 * n, 3 * n)


def per_cm(k_over_m: float) -> float:
    """sqrt(k / m) in cm^-1 from eV / (A^2 u), in SI units throughout."""
    omega = np.sqrt(k_over_m * constants.e / 1e-20 / constants.atomic_mass)
    return float(omega / (2.0 * np.pi * constants.c) / 100.0)


def atoms(numbers: list[int], positions: NDArray[np.float64]) -> Molecule:
    return Molecule(np.array(numbers), positions, ())


def test_a_diatomic_spring() -> None:
    positions = np.array([[0.0, 0.0, 0.0], [0.7, 0.5, -0.9]])
    molecule = atoms([6, 8], positions)
    found = harmonic_analysis(molecule, spring_hessian(positions, {(0, 1): 118.0}))
    c, o = masses_of([6, 8])
    assert found.wavenumbers == pytest.approx([per_cm(118.0 * (1 / c + 1 / o))])
    assert found.zero_point_energy == pytest.approx(
        constants.h * constants.c * 100 * found.wavenumbers[0] / 2 / constants.e, rel=1e-10
    )
    assert found.largest_external < 1e-4


def test_a_linear_chain_of_springs() -> None:
    """O=C=O with springs k: k/m_O and k (1/m_O + 2/m_C) along the axis, no bending force."""
    rotation = random_rotation(1)
    positions = np.array([[0.0, 0.0, -1.16], [0.0, 0.0, 0.0], [0.0, 0.0, 1.16]]) @ rotation.T
    hessian = spring_hessian(positions, {(0, 1): 100.0, (1, 2): 100.0})
    found = harmonic_analysis(atoms([8, 6, 8], positions), hessian)
    o, c = masses_of([8, 6])
    assert len(found.wavenumbers) == 4
    assert found.wavenumbers == pytest.approx(
        [0.0, 0.0, per_cm(100.0 / o), per_cm(100.0 * (1 / o + 2 / c))], abs=1e-3
    )


def test_imaginary_modes_are_negative_and_without_zero_point_energy() -> None:
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = harmonic_analysis(atoms([1, 1], positions), spring_hessian(positions, {(0, 1): -2.0}))
    (h,) = masses_of([1])
    assert found.imaginary == pytest.approx([-per_cm(2.0 * 2 / h)])
    assert found.zero_point_energy == 0.0


@pytest.mark.parametrize(
    ("positions", "n"),
    [
        ([[0.3, 0.1, 0.2]], 3),
        ([[0, 0, 0], [1, 1, 1]], 5),
        ([[0, 0, 0], [1, 1, 1], [2.5, 2.5, 2.5]], 5),
        ([[0, 0, 0], [1, 0.005, 0], [2, 0, 0]], 5),
        ([[0, 0, 0], [1, 0.2, 0], [2, 0, 0]], 6),
    ],
)
def test_external_motions_are_orthonormal_and_of_the_right_number(
    positions: list[list[float]], n: int
) -> None:
    basis = external_motions(np.array(positions, dtype=np.float64), np.full(len(positions), 12.0))
    assert len(basis) == n
    assert basis @ basis.T == pytest.approx(np.eye(n), abs=1e-12)


@pytest.mark.parametrize(("smiles", "n_modes"), [("O", 3), ("O=C=O", 4), ("C#N", 4)])
def test_gfn2_wavenumbers_are_those_of_ase(smiles: str, n_modes: int, tmp_path: Path) -> None:
    from ase import Atoms
    from ase.calculators.calculator import Calculator
    from ase.vibrations import Vibrations

    found = relaxed_frequencies(read_molecule(smiles), GFN2)
    molecule = found.vibrations.molecule
    evaluate = bind(GFN2, molecule)

    class Wrapped(Calculator):  # type: ignore[misc]
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms=None, properties=None, system_changes=None):
            super().calculate(atoms, properties, system_changes)
            self.results["energy"], self.results["forces"] = evaluate(atoms.positions)

    image = Atoms(
        molecule.atomic_numbers,
        molecule.positions,
        masses=masses_of(molecule.atomic_numbers),
        calculator=Wrapped(),
    )
    vibrations = Vibrations(image, name=str(tmp_path / "vib"), delta=0.005)
    vibrations.run()
    expected = np.sort(vibrations.get_frequencies().real)[-n_modes:]
    assert len(found.vibrations.wavenumbers) == n_modes
    assert found.vibrations.wavenumbers == pytest.approx(expected, abs=1.0)
    assert found.is_stationary
    assert len(found.vibrations.imaginary) == 0


def test_gfn2_wavenumbers_are_near_experiment() -> None:
    """Harmonic wavenumbers of water and CO2 from spectra, within what GFN2-xTB can do."""
    water = relaxed_frequencies(read_molecule("O"), GFN2).vibrations
    assert water.wavenumbers == pytest.approx([1649.0, 3832.0, 3943.0], rel=0.1)
    assert water.zero_point_kcal_per_mol == pytest.approx(13.5, rel=0.1)
    dioxide = relaxed_frequencies(read_molecule("O=C=O"), GFN2).vibrations
    assert dioxide.wavenumbers == pytest.approx([673.0, 673.0, 1354.0, 2397.0], rel=0.15)


@pytest.fixture
def random_model(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TripConfig(
        n_channels=4, l_max=1, n_layers=1, n_heads=1, cutoff=3.0, radial_hidden=4, n_scalars=4
    )

    def load(name: str, dtype: str = "float32") -> trip_mm.TripPotential:
        return trip_mm.new_potential(config, seed=1, dtype=dtype)

    monkeypatch.setattr("trip_mm.checkpoint.load_potential", load)


@pytest.mark.usefixtures("random_model")
def test_analytic_hessian_is_the_limit_of_differences() -> None:
    molecule = read_molecule("CO")
    analytic = bind_hessian(TRIP, molecule)
    assert analytic.origin == "analytic"
    exact = analytic.evaluate(molecule.positions)
    assert exact == pytest.approx(exact.T, abs=1e-12)
    energy_function = bind(TRIP, molecule)
    errors = [
        np.abs(hessian_by_differences(energy_function, molecule.positions, step) - exact).max()
        for step in (0.002, 0.0005)
    ]
    assert errors[1] < 1e-4 * np.abs(exact).max()
    assert errors[1] < errors[0] / 8  # quadratic in the step
    assert bind_hessian(TRIP, molecule, "differences").origin == "central differences"


@pytest.mark.usefixtures("random_model")
def test_wavenumbers_do_not_depend_on_orientation() -> None:
    molecule = read_molecule("CO")
    turned = molecule.at(molecule.positions @ random_rotation(2).T + 5.0)
    one, two = (frequencies_at(m, TRIP).vibrations for m in (molecule, turned))
    assert two.wavenumbers == pytest.approx(one.wavenumbers, abs=1e-4)
    pairs = match_modes(one, two)
    assert list(pairs.partners) == list(range(12))
    assert pairs.overlaps == pytest.approx(np.ones(12), abs=1e-6)
    assert pairs.mae == pytest.approx(0.0, abs=1e-4)


def test_modes_without_partner_are_left_out() -> None:
    bent = np.array([[0.0, 0.3, -1.1], [0.0, 0.0, 0.0], [0.0, 0.3, 1.1]])
    straight = bent * [1, 0, 1]
    springs = {(0, 1): 100.0, (1, 2): 90.0}
    one = harmonic_analysis(atoms([8, 6, 8], straight), spring_hessian(straight, springs))
    two = harmonic_analysis(atoms([8, 6, 8], bent), spring_hessian(bent, springs))
    pairs = match_modes(one, two)
    assert sorted(pairs.partners) == [-1, 0, 1, 2]
    assert np.isnan(pairs.differences).sum() == 1
    assert pairs.rmse is not None
    assert np.isfinite(pairs.rmse)


def test_a_single_atom_has_no_modes_to_pair() -> None:
    atom = harmonic_analysis(atoms([1], np.zeros((1, 3))), np.zeros((3, 3)))
    pairs = match_modes(atom, atom)
    assert (len(pairs.partners), pairs.mae, pairs.rmse) == (0, None, None)
    assert comparison_dict(pairs)["mae_per_cm"] is None


@pytest.mark.parametrize(
    ("option", "passed"), [("differences", "differences"), ("analytic", "auto"), ("auto", "auto")]
)
def test_the_reference_takes_the_hessian_option_too(
    monkeypatch: pytest.MonkeyPatch, option: str, passed: str
) -> None:
    asked: list[tuple[str, str]] = []

    def computed(molecule: Molecule, spec: PotentialSpec, hessian: str) -> Frequencies:
        asked.append((spec.label, hessian))
        empty = np.zeros((3, 3))
        return Frequencies(spec, harmonic_analysis(molecule, empty), 0.0, 0.0, hessian)

    monkeypatch.setattr(frequencies_module, "frequencies_at", computed)
    monkeypatch.setattr(hessian_module, "bind", lambda spec, molecule: None)
    monkeypatch.setattr(hessian_module, "_analytic_trip", lambda spec, molecule: None)
    frequencies_command("[H]", "trip-gfn2-s", "gfn2", option, True, None)
    assert [hessian for _, hessian in asked] == [option, passed]


def test_files(tmp_path: Path) -> None:
    water = relaxed_frequencies(read_molecule("O"), GFN2)
    other = relaxed_frequencies(read_molecule("O"), parse_potential("gfn1"))
    files = write_frequencies(tmp_path / "out", water, other)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in files
    )
    document = json.loads((tmp_path / "out" / "frequencies.json").read_text())
    assert document["wavenumbers_per_cm"] == pytest.approx(water.vibrations.wavenumbers)
    assert document["comparison"]["partners"] == [0, 1, 2]
    sections = (tmp_path / "out" / "modes.molden").read_text().split("[")
    numbers = [float(line) for line in sections[2].splitlines()[1:]]
    assert numbers == pytest.approx(water.vibrations.wavenumbers, abs=1e-3)
    assert sections[4].count("vibration") == 3
    assert len(sections[4].splitlines()) == 1 + 3 * 4


def test_mistakes_are_refused() -> None:
    water = read_molecule("O")
    with pytest.raises(ConfigError, match="numerical"):
        bind_hessian(GFN2, water, "numerical")
    with pytest.raises(ConfigError, match="no analytic"):
        bind_hessian(GFN2, water, "analytic")
    with pytest.raises(UnsupportedSystemError, match="charge"):
        bind_hessian(parse_potential("trip-gfn2-s"), read_molecule("[NH4+]"))


def test_largest_force_tells_what_is_no_minimum() -> None:
    water = read_molecule("O")
    stretched = water.at(water.positions * 1.05)
    assert not frequencies_at(stretched, GFN2).is_stationary


def test_rmsd_is_that_of_superposed_geometries() -> None:
    positions = read_molecule("CCO").positions
    assert rmsd(positions @ random_rotation(3).T + 1.0, positions) == pytest.approx(0.0, abs=1e-9)
    mirrored = positions * [1, 1, -1]
    assert rmsd(mirrored, positions) > 0.1
    shifted = positions.copy()
    shifted[0] += [0.003, 0.0, 0.0]
    assert 0.0 < rmsd(shifted, positions) < 0.003 / 3 + 1e-12


def test_conversions() -> None:
    from trip_mm.units import EV_TO_INVERSE_CM, SQRT_EV_PER_AMU_ANGSTROM2_TO_INVERSE_CM

    assert pytest.approx(8065.5439, abs=1e-3) == EV_TO_INVERSE_CM
    assert per_cm(1.0) == pytest.approx(SQRT_EV_PER_AMU_ANGSTROM2_TO_INVERSE_CM, rel=1e-9)
    # 1 kcal/mol is 349.755 cm^-1.
    assert pytest.approx(349.755, abs=1e-3) == EV_TO_INVERSE_CM / EV_TO_KCAL_PER_MOL


def test_the_table_names_the_molecule_as_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    pyrrole = read_molecule("c1cc[nH]c1")
    vibrations = harmonic_analysis(pyrrole, np.eye(3 * pyrrole.n_atoms))
    _print_table(Frequencies(GFN2, vibrations, 0.0, 0.0, "analytic"), None, None)
    assert "c1cc[nH]c1 (C4H5N)" in capsys.readouterr().out
