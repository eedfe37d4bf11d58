"""Torsion scans: choice of the dihedral, strategies, journal, profiles."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trip_mm.errors import (
    ConfigError,
    DataError,
    EvaluationError,
    RunDirectoryError,
    UnsupportedSystemError,
)
from trip_mm.geometry.dihedral import dihedral_angle
from trip_mm.geometry.molecule import Molecule, read_molecule
from trip_mm.geometry.potentials import EnergyFunction, PotentialSpec, bind
from trip_mm.locking import locked
from trip_mm.torsion import comparison, dihedrals
from trip_mm.torsion import scan as scanning
from trip_mm.torsion.comparison import ScanSettings, compare_potentials
from trip_mm.torsion.plots import with_gaps
from trip_mm.torsion.profile import Profile, deviation
from trip_mm.torsion.scan import (
    Attempt,
    Journal,
    grid_angles,
    journaled_step,
    sweep_both_ways,
    wavefront,
)
from trip_mm.units import KCAL_PER_MOL_TO_EV

BUTANE = (0, 1, 2, 3)
GFN2 = PotentialSpec("qm", "gfn2")


@pytest.fixture(scope="module")
def butane() -> Molecule:
    return read_molecule("CCCC")


def test_indices_count_from_zero(butane: Molecule) -> None:
    assert dihedrals.dihedral_from_indices(butane, "0, 1,2 3") == BUTANE
    assert dihedrals.describe(butane, BUTANE) == "C0-C1-C2-C3"


@pytest.mark.parametrize("text", ["0,1,2", "0,1,2,x", "0,1,2,2", "0,1,2,14", "-1,0,1,2"])
def test_wrong_indices_are_refused(butane: Molecule, text: str) -> None:
    with pytest.raises(ConfigError, match="dihedral"):
        dihedrals.dihedral_from_indices(butane, text)


@pytest.mark.parametrize(
    ("smiles", "text", "named"),
    [
        ("C1CCCC1", "0,1,2,3", "ring"),
        ("CC#CC", "0,1,2,3", "undefined"),
        ("CCCC", "0,2,1,3", "not bonded"),
        ("CCCC", "0,1,3,2", "not bonded"),
    ],
)
def test_dihedrals_that_cannot_turn_are_refused(smiles: str, text: str, named: str) -> None:
    with pytest.raises(UnsupportedSystemError, match=named):
        dihedrals.dihedral_from_indices(read_molecule(smiles), text)


def test_smarts_must_name_one_bond(butane: Molecule) -> None:
    assert dihedrals.dihedral_from_smarts(butane, "[CH3]-C-C-[CH3]") == BUTANE
    with pytest.raises(ConfigError, match="matches 3 bonds"):
        dihedrals.dihedral_from_smarts(butane, "*-C-C-*")
    with pytest.raises(ConfigError, match="nothing"):
        dihedrals.dihedral_from_smarts(butane, "O-C-C-O")
    with pytest.raises(ConfigError, match="four atoms"):
        dihedrals.dihedral_from_smarts(butane, "C-C")


@pytest.mark.parametrize(
    ("smiles", "n"), [("CCCC", 3), ("C1CCCC1C", 1), ("CC#CC", 0), ("c1ccccc1O", 1), ("NCC(=O)O", 3)]
)
def test_all_rotors(smiles: str, n: int) -> None:
    molecule = read_molecule(smiles)
    if n == 0:
        with pytest.raises(ConfigError, match="no bond"):
            dihedrals.all_rotors(molecule)
    else:
        assert len(dihedrals.all_rotors(molecule)) == n


@pytest.mark.parametrize("step", [0, 7, 180, -10])
def test_grid_steps_divide_the_circle(step: int) -> None:
    with pytest.raises(ConfigError, match="step"):
        grid_angles(step)


def test_grid_ends_at_180() -> None:
    assert grid_angles(90) == [-90.0, 0.0, 90.0, 180.0]


def hysteresis(butane: Molecule, angles: list[float]) -> scanning.Step:
    """A double well beside the dihedral: going up keeps the high one, going down the low one."""

    def step(key: str, index: int, start: NDArray[np.float64]) -> Attempt:
        low = start[0, 0] > 50.0 or angles[index] == 180.0
        positions = butane.positions.copy()
        positions[0, 0] = 100.0 if low else 0.0
        return Attempt(-1.0 if low else 0.0, positions, 1)

    return step


def test_both_ways_keeps_the_lower_energy(butane: Molecule) -> None:
    angles = grid_angles(30)
    found = sweep_both_ways(butane, BUTANE, angles, hysteresis(butane, angles))
    assert len(found.points) == 12
    assert [point.energy for point in found.points] == [-1.0] * 12
    assert found.n_evaluations == 24


def test_wavefront_stops_when_nothing_lowers(butane: Molecule) -> None:
    angles = grid_angles(30)
    found = wavefront(butane, BUTANE, angles, hysteresis(butane, angles))
    assert [point.energy for point in found.points] == [-1.0] * 12
    assert found.n_evaluations <= 5 * 12


def test_failed_relaxations_are_counted_and_passed_over(butane: Molecule) -> None:
    angles = grid_angles(90)

    def step(key: str, index: int, start: NDArray[np.float64]) -> Attempt:
        if index == 1:
            return Attempt(None, None, 0, f"{angles[index]:g} degrees: no")
        return Attempt(float(index), start, 1)

    found = sweep_both_ways(butane, BUTANE, angles, step)
    assert [point.angle_deg for point in found.points] == [-90.0, 90.0, 180.0]
    assert found.failures == ("0 degrees: no", "0 degrees: no")


def refuse(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    raise AssertionError("nothing may be computed again")


def test_journal_repeats_nothing_and_drops_a_torn_line(tmp_path: Path) -> None:
    angles = grid_angles(120)
    atoms = (2, 0, 1, 3)
    peroxide = read_molecule("OO")
    evaluate = bind(GFN2, peroxide)
    calls: list[int] = []

    def counted(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        calls.append(1)
        return evaluate(positions)

    path = tmp_path / "a.journal"

    def scan(function: EnergyFunction) -> list[float]:
        journal = Journal(path, {"a": 1})
        step = journaled_step(peroxide, function, atoms, angles, journal)
        found = sweep_both_ways(peroxide, atoms, angles, step)
        return [point.energy for point in found.points]

    first = scan(counted)
    assert len(first) == 3
    assert scan(refuse) == first
    path.write_text(path.read_text()[:-40])
    n_before = len(calls)
    assert scan(counted) == first
    assert 0 < len(calls) - n_before < n_before
    with pytest.raises(ConfigError, match="other settings"):
        Journal(path, {"a": 2})


def test_a_damaged_line_within_a_journal_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    journal = Journal(path, {"a": 1})
    for key in ("first", "second", "third"):
        journal.add(key, {"energy_ev": 1.0})
    lines = path.read_text().splitlines()
    text = "\n".join([*lines[:2], lines[2][:-4], lines[3]]) + "\n"
    path.write_text(text)
    with pytest.raises(ConfigError, match="line 3 is damaged"):
        Journal(path, {"a": 1})
    assert path.read_text() == text
    path.write_text("\n".join([*lines[:2], lines[3]]) + "\n")
    assert list(Journal(path, {"a": 1}).entries) == ["first", "third"]


def profile(label: str, energies: list[float], angles: list[float] | None = None) -> Profile:
    grid = np.array(angles or grid_angles(360 // len(energies)))
    return Profile(label, grid, np.array(energies) * KCAL_PER_MOL_TO_EV)


def test_deviation_by_hand() -> None:
    reference = profile("r", [0.0, 1.0, 4.0, 1.0])  # highest at 90, lowest at -90
    other = profile("o", [11.0, 10.0, 12.0, 13.0])  # highest at 180, lowest at 0
    found = deviation(other, reference)
    # Differences 11, 9, 8, 12 with mean 10.
    assert found.rmse_kcal_per_mol == pytest.approx(np.sqrt((1 + 1 + 4 + 4) / 4))
    assert found.mae_kcal_per_mol == pytest.approx(1.5)
    assert found.max_error_kcal_per_mol == pytest.approx(2.0)
    assert found.barrier_error_kcal_per_mol == pytest.approx(3.0 - 4.0)
    assert found.barrier_shift_deg == pytest.approx(90.0)
    assert found.minimum_shift_deg == pytest.approx(90.0)


def test_deviation_uses_common_angles_only() -> None:
    reference = profile("r", [0.0, 1.0, 4.0, 1.0])
    partial = profile("p", [5.0, 9.0], [-90.0, 90.0])
    assert deviation(partial, reference).rmse_kcal_per_mol == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(DataError, match="share 0 angles"):
        deviation(profile("x", [1.0, 2.0], [1.0, 2.0]), reference)


def test_a_failed_angle_leaves_a_gap_in_the_picture() -> None:
    scanned = profile("a", [1.0, 0.0, 2.0], [-60.0, 0.0, 180.0])
    angles, energies = with_gaps(scanned, grid_angles(60))
    assert angles.tolist() == [-180.0, *grid_angles(60)]
    assert np.isnan(energies).tolist() == [False, True, False, False, True, True, False]
    assert energies[[2, 3, 6]] == pytest.approx(scanned.relative_kcal_per_mol)


def test_a_profile_closes_at_both_ends_of_the_picture() -> None:
    """-180 and 180 degrees are one point; a gap there is one at both ends."""
    angles, energies = with_gaps(profile("a", [1.0, 0.0, 2.0], [-60.0, 60.0, 180.0]), [])
    assert (angles[0], energies[0]) == (-180.0, energies[-1])
    angles, energies = with_gaps(profile("a", [1.0, 0.0], [-60.0, 60.0]), grid_angles(120))
    assert np.isnan(energies[[0, -1]]).all()


def test_comparison_writes_everything_and_continues(
    butane: Molecule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ScanSettings(BUTANE, (GFN2,), (PotentialSpec("qm", "gfn1"),), 60)
    lines: list[str] = []
    result = compare_potentials(butane, settings, tmp_path / "out", lines.append)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"profiles.csv", "profiles.png", "scan.json", "gfn2.xyz", "gfn2.journal"} <= names
    document = json.loads((tmp_path / "out" / "scan.json").read_text())
    assert document["dihedral"] == [0, 1, 2, 3]
    assert document["reference"] == "GFN1-xTB at GFN2-xTB geometries"
    rows = list(csv.reader((tmp_path / "out" / "profiles.csv").open()))
    assert len(rows) == 7
    assert rows[0][0] == "angle (degrees)"
    # Butane: trans is lowest; the eclipsed methyl groups at 0 degrees are highest, 4 to 6 kcal/mol.
    own = result.profiles[0]
    assert own.angles_deg[own.energies.argmin()] == 180.0
    assert own.angles_deg[own.energies.argmax()] == 0.0
    assert 4.0 < own.relative_kcal_per_mol.max() < 7.0
    assert "GFN2-xTB" in result.deviations

    frames = (tmp_path / "out" / "gfn2.xyz").read_text().split("\n14\n")
    last = np.array([line.split()[1:] for line in frames[-1].splitlines()[1:]], dtype=float)
    assert abs(dihedral_angle(last, BUTANE)) == pytest.approx(180.0, abs=0.05)

    monkeypatch.setattr(scanning, "relax", refuse)
    again = compare_potentials(butane, settings, tmp_path / "out", lines.append)
    assert np.array_equal(again.profiles[0].energies, own.energies)
    with pytest.raises(ConfigError, match="other settings"):
        compare_potentials(butane, replace(settings, step_deg=30), tmp_path / "out", lines.append)


def test_potentials_that_tables_cannot_tell_apart_are_refused(
    butane: Molecule, tmp_path: Path
) -> None:
    same_name = tuple(PotentialSpec("trip", f"{folder}/m.safetensors") for folder in ("a", "b"))
    for relaxed, single, named in (
        ((GFN2, GFN2), (), "potential gfn2 is given twice"),
        (same_name, (), r"trip:a/m.safetensors and trip:b/m.safetensors are both called TrIP m"),
        ((GFN2,), same_name, "both called TrIP m"),
    ):
        settings = ScanSettings(BUTANE, relaxed, single, 60)
        with pytest.raises(ConfigError, match=named):
            compare_potentials(butane, settings, tmp_path / "out", print)
    assert not (tmp_path / "out").exists()


def test_failing_single_points_are_counted(
    butane: Molecule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = comparison.bind_energy(GFN2, butane)

    def bound(spec: PotentialSpec, molecule: Molecule):
        def energy(positions: NDArray[np.float64]) -> float:
            if abs(dihedral_angle(positions, BUTANE) - 60.0) < 1.0:
                raise EvaluationError("GFN2-xTB: SCF did not converge")
            return evaluate(positions)

        return energy

    monkeypatch.setattr(comparison, "bind_energy", bound)
    settings = ScanSettings(BUTANE, (GFN2,), (GFN2,), 120)
    result = compare_potentials(butane, settings, tmp_path, lambda line: None)
    label = "GFN2-xTB at GFN2-xTB geometries"
    assert result.failures == {label: ("60 degrees: GFN2-xTB: SCF did not converge",)}
    assert len(result.profiles[1].energies) == 2
    assert result.deviations["GFN2-xTB"].rmse_kcal_per_mol == pytest.approx(0.0, abs=1e-6)


def test_a_directory_in_use_is_left_alone(butane: Molecule, tmp_path: Path) -> None:
    settings = ScanSettings(BUTANE, (GFN2,), (), 120)
    with locked(tmp_path), pytest.raises(RunDirectoryError, match="is in use by process"):
        compare_potentials(butane, settings, tmp_path, print)
    assert not list(tmp_path.glob("*.journal"))
