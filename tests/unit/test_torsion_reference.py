"""Making reference sets: recipe, mirror images, resume."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trip_mm.checkpoint import new_potential, save_potential
from trip_mm.errors import ConfigError, DataError, RunDirectoryError
from trip_mm.geometry.dihedral import dihedral_angle, set_dihedral
from trip_mm.geometry.molecule import Molecule, read_molecule
from trip_mm.geometry.relax import HeldDihedral, Relaxed
from trip_mm.locking import locked
from trip_mm.torsion import reference, scan
from trip_mm.torsion.record_files import read_hdf5
from trip_mm.torsion.record_sets import open_set, shipped_sets
from trip_mm.torsion.reference import is_mirrored, load_recipe, make_reference, mirror_image
from trip_mm.workers import Workers

HEADER = "record_id,smiles,dihedral,step_deg\n"
RECIPES = Path(__file__).parents[2] / "recipes" / "torsion-reference"


def recipe(directory: Path, rows: str, more: str = "", name: str = "set") -> Path:
    (directory / "molecules.csv").write_text(HEADER + rows)
    path = directory / "set.yaml"
    path.write_text(f"name: {name}\nmolecules: molecules.csv\ngeometries: gfn2\n{more}")
    return path


def test_mirror_images() -> None:
    molecule = read_molecule("OO")
    atoms = (2, 0, 1, 3)
    before = dihedral_angle(molecule.positions, atoms)
    assert dihedral_angle(mirror_image(molecule.positions), atoms) == pytest.approx(-before)
    assert is_mirrored(read_molecule("CC(C)CO"))
    assert not is_mirrored(read_molecule("CC(O)CN"))
    assert not is_mirrored(read_molecule("C[C@H](O)CN"))


def test_a_reference_is_made_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tblite")
    rows = "peroxide,OO,[H]OO[H],60\nnothing,c1ccccc1,0 1 2 3,60\n"
    path = recipe(tmp_path, rows, "energies: gfn1\n")
    lines: list[str] = []
    found = make_reference(load_recipe(path), tmp_path / "out", Workers(), lines.append)
    assert list(found.skipped) == ["nothing"]
    assert "ring" in found.skipped["nothing"]
    (record,) = read_hdf5(found.path)
    assert record.level == "GFN1-xTB//GFN2-xTB"
    assert record.points is not None
    assert record.points.angles_deg.tolist() == [-120.0, -60.0, 0.0, 60.0, 120.0, 180.0]
    energies = record.points.energies
    assert energies[:2] == pytest.approx(energies[3:5][::-1], abs=1e-9)
    assert record.dihedral is not None
    for angle, positions in zip(record.points.angles_deg, record.points.positions, strict=True):
        own = dihedral_angle(positions, record.dihedral)
        assert np.cos(np.radians(own - angle)) == pytest.approx(1.0, abs=1e-6)

    def refuse(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        raise AssertionError("nothing may be computed again")

    monkeypatch.setattr(scan, "relax", refuse)
    with locked(tmp_path / "out"), pytest.raises(RunDirectoryError, match="is in use by process"):
        make_reference(load_recipe(path), tmp_path / "out", Workers(), lines.append)
    again = make_reference(load_recipe(path), tmp_path / "out", Workers(), lines.append)
    assert np.array_equal(read_hdf5(again.path)[0].points.energies, energies)  # type: ignore[union-attr]


@pytest.mark.parametrize("field", ["geometries", "energies"])
def test_journals_of_another_model_of_the_same_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    def relaxed(molecule: Molecule, evaluate: object, held: HeldDihedral) -> Relaxed:
        turned = set_dihedral(molecule, held.atoms, held.angle_deg)
        return Relaxed(turned, 0.0, np.zeros_like(turned), 1)

    def bound(spec: object, molecule: Molecule) -> Callable[[NDArray[np.float64]], float]:
        return lambda positions: 0.0

    monkeypatch.setattr(scan, "relax", relaxed)
    monkeypatch.setattr(reference, "bind", bound)
    monkeypatch.setattr(reference, "bind_energy", bound)
    file = tmp_path / "own.safetensors"
    path = recipe(tmp_path, "peroxide,OO,[H]OO[H],120\n", "energies: gfn1\n")
    text = path.read_text()
    path.write_text(re.sub(rf"{field}: gfn\d", f"{field}: trip:{file}", text))
    for seed in (0, 1):
        save_potential(new_potential("trip-s", seed), file)
        if seed == 0:
            make_reference(load_recipe(path), tmp_path / "out", Workers(), print)
    with pytest.raises(ConfigError, match="holds results of other settings"):
        make_reference(load_recipe(path), tmp_path / "out", Workers(), print)


@pytest.mark.parametrize(
    ("rows", "more", "named"),
    [
        ("a,OO,[H]OO[H],7\n", "", "line 2"),
        ("a,OO,[H]OO[H],60\nb,OO,[H]OO[H]\n", "", "line 3: lacks step_deg"),
        ("a\n", "", "line 2: lacks smiles, dihedral, step_deg"),
        ("a/b,OO,[H]OO[H],60\n", "", "line 2: record_id 'a/b' holds a slash"),
        ("a,OO,[H]OO[H],60\na,OO,[H]OO[H],60\n", "", "twice"),
        ("a,OO,[H]OO[H],60\n", "colour: red\n", "colour"),
    ],
)
def test_mistakes_in_a_recipe_are_named(tmp_path: Path, rows: str, more: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make_reference(load_recipe(recipe(tmp_path, rows, more)), tmp_path / "o", Workers(), print)


def test_a_name_with_a_slash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set\.yaml: name: "):
        load_recipe(recipe(tmp_path, "a,OO,[H]OO[H],60\n", name="my/set"))


@pytest.mark.parametrize("name", ["gfn2", "wb97x"])
def test_recipes_of_the_shipped_sets_load(name: str) -> None:
    found = load_recipe(RECIPES / f"{name}.yaml")
    assert found.name.startswith("reference")
    assert found.molecules.is_file()


def test_a_set_is_shipped() -> None:
    assert len(open_set("reference").records) >= 40


def test_a_directory_does_not_hide_a_shipped_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reference").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(open_set("reference").records) >= 40
    with pytest.raises(DataError):
        open_set("./reference")


@pytest.mark.parametrize("name", list(shipped_sets()))
def test_shipped_sets(name: str) -> None:
    records = open_set(name).records
    assert len(records) >= 8
    for record in records:
        assert record.points is not None
        assert record.dihedral is not None
        assert record.points.n_points in (12, 24)
        assert record.level in ("GFN2-xTB", "ωB97x/6-31G*//GFN2-xTB")
        angles = [dihedral_angle(p, record.dihedral) for p in record.points.positions]
        difference = np.radians(np.array(angles) - record.points.angles_deg)
        assert np.degrees(np.arccos(np.cos(difference))).max() < 0.06
        barrier = record.profile().relative_kcal_per_mol.max()
        assert 0.1 < barrier < 60.0
