"""Torsion work where geomeTRIC is absent: what is finished is redone, what is not is refused."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trip_mm.errors import MissingDependencyError
from trip_mm.geometry.dihedral import set_dihedral
from trip_mm.geometry.molecule import read_molecule
from trip_mm.geometry.potentials import PotentialSpec
from trip_mm.torsion.comparison import ScanSettings, compare_potentials
from trip_mm.torsion.drive import DriveSettings, run_benchmark
from trip_mm.torsion.record_sets import RecordSet
from trip_mm.torsion.records import DrivenPoints, TorsionRecord, mapped_smiles
from trip_mm.torsion.reference import load_recipe, make_reference
from trip_mm.workers import Workers

PEROXIDE = (2, 0, 1, 3)
GFN2 = PotentialSpec("qm", "gfn2")
Work = Callable[[Path], list[float]]
"""Does all that a directory lacks; returns energies."""


@pytest.fixture(autouse=True)
def needed() -> None:
    """Work must be finished once."""
    pytest.importorskip("tblite")
    pytest.importorskip("geometric")


def scanned(out: Path) -> list[float]:
    settings = ScanSettings(PEROXIDE, (GFN2,), (), 120)
    (profile,) = compare_potentials(read_molecule("OO"), settings, out, lambda line: None).profiles
    return profile.energies.tolist()


def driven(out: Path) -> list[float]:
    molecule = read_molecule("OO")
    angles = np.array([60.0, 120.0, 180.0])
    positions = np.stack([set_dihedral(molecule, PEROXIDE, angle) for angle in angles])
    points = DrivenPoints(angles, np.zeros(3), positions)
    smiles = mapped_smiles(molecule.rdkit)
    record = TorsionRecord("peroxide", "test", smiles, PEROXIDE, points, "level")
    settings = DriveSettings((GFN2,), "relax", frozenset({1, 8}))
    dataset = RecordSet("set", (record,))
    (outcome,) = run_benchmark(dataset, settings, out, Workers(), lambda line: None).outcomes
    assert outcome.points is not None
    return outcome.points.energies.tolist()


def referenced(out: Path) -> list[float]:
    recipe = out.parent / "set.yaml"
    recipe.write_text("name: set\nmolecules: molecules.csv\ngeometries: gfn2\n")
    rows = "record_id,smiles,dihedral,step_deg\nperoxide,OO,[H]OO[H],120\n"
    recipe.with_name("molecules.csv").write_text(rows)
    found = make_reference(load_recipe(recipe), out, Workers(), lambda line: None)
    (points,) = (record.points for record in found.records)
    assert points is not None
    return points.energies.tolist()


@pytest.mark.parametrize("work", [scanned, driven, referenced])
def test_only_what_is_missing_needs_geometric(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    energies = work(out)
    monkeypatch.setitem(sys.modules, "geometric", None)
    assert work(out) == energies
    with pytest.raises(MissingDependencyError, match="needs geomeTRIC"):
        work(fresh)
    assert not fresh.exists()
    (journal,) = out.rglob("*.journal")
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    kept = journal.read_text()
    with pytest.raises(MissingDependencyError, match="needs geomeTRIC"):
        work(out)
    assert journal.read_text() == kept


def test_single_points_are_no_relaxations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their journal lies in the same directory."""
    (tmp_path / "gfn2.single-point.journal").touch()
    monkeypatch.setitem(sys.modules, "geometric", None)
    with pytest.raises(MissingDependencyError, match="needs geomeTRIC"):
        driven(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["gfn2.single-point.journal"]
