"""Torsion sets: records, our files, OpenFF collections, SDF, ForceBalance, openff-toolkit."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from rdkit import Chem

from trip_mm.errors import BackendError, ConfigError, DataError
from trip_mm.geometry.dihedral import dihedral_angle, set_dihedral
from trip_mm.geometry.molecule import Molecule, read_molecule, to_xyz
from trip_mm.torsion import filters
from trip_mm.torsion.classes import torsion_class
from trip_mm.torsion.openff import record_from_openff
from trip_mm.torsion.qcarchive import fetch
from trip_mm.torsion.record_files import read_hdf5, read_json, write_hdf5, write_json
from trip_mm.torsion.record_sets import open_collection, open_set
from trip_mm.torsion.records import (
    NOT_STATED,
    DrivenPoints,
    TorsionRecord,
    mapped_smiles,
    mol_from_mapped_smiles,
)
from trip_mm.units import ANGSTROM_TO_BOHR, EV_TO_HARTREE, HARTREE_TO_EV

PEROXIDE = "[O:1]([O:2][H:4])[H:3]"
ATOMS = (2, 0, 1, 3)
ANGLES = np.array([-120.0, -60.0, 0.0, 60.0, 120.0, 180.0])
COLLECTION = Path(__file__).parents[3] / "shared" / "data" / "openff_2-0-0-td-set-v1.json"


@pytest.fixture(scope="module")
def peroxide() -> Molecule:
    return read_molecule("OO")


@pytest.fixture(scope="module")
def record(peroxide: Molecule) -> TorsionRecord:
    positions = np.array([set_dihedral(peroxide, ATOMS, angle) for angle in ANGLES])
    energies = -4000.0 + 0.1 * np.cos(np.radians(ANGLES))
    points = DrivenPoints(ANGLES, energies, positions)
    return TorsionRecord("r1", "test", PEROXIDE, ATOMS, points, "A/B", "C", "HOOH")


def assert_same(one: TorsionRecord, other: TorsionRecord) -> None:
    assert one.points is not None
    assert other.points is not None
    assert mapped_smiles(mol_from_mapped_smiles(one.smiles)) == mapped_smiles(
        mol_from_mapped_smiles(other.smiles)
    )
    assert one.dihedral == other.dihedral
    assert np.array_equal(one.points.angles_deg, other.points.angles_deg)
    assert one.points.energies == pytest.approx(other.points.energies, abs=1e-9)
    assert np.abs(one.points.positions - other.points.positions).max() < 1e-5


def test_map_numbers_give_the_order_of_atoms(record: TorsionRecord) -> None:
    mol = mol_from_mapped_smiles("[H:3][O:1][O:2][H:4]")
    assert [atom.GetSymbol() for atom in mol.GetAtoms()] == ["O", "O", "H", "H"]
    assert record.molecule(3).bonds == ((0, 1), (0, 2), (1, 3))
    assert dihedral_angle(record.molecule(3).positions, ATOMS) == pytest.approx(60.0)
    assert record.level == "A/B//C"


@pytest.mark.parametrize("smiles", ["OO", "[OH:1][OH:2]", "[O:1]([O:2][H:4])[H:4]", "no smiles"])
def test_unmapped_atoms_are_refused(smiles: str) -> None:
    with pytest.raises(DataError, match=r"map number|not SMILES"):
        mol_from_mapped_smiles(smiles)


def test_files_hold_the_whole_record(record: TorsionRecord, tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", [record], "what it is")
    write_json(tmp_path / "a.json", [record])
    for found in (read_hdf5(tmp_path / "a.h5"), read_json(tmp_path / "a.json")):
        assert_same(found[0], record)
        assert (found[0].level_of_theory, found[0].geometry_level) == ("A/B", "C")
        assert (found[0].record_id, found[0].name) == ("r1", "HOOH")
    assert len(open_set(str(tmp_path / "a.json")).records) == 1


def test_grids_from_0_to_360_are_the_same_grids(record: TorsionRecord, tmp_path: Path) -> None:
    write_json(tmp_path / "set.json", [record])
    document = json.loads((tmp_path / "set.json").read_text())
    entry = document["records"][0]
    entry["angles_deg"] = [angle % 360.0 for angle in entry["angles_deg"]]
    assert max(entry["angles_deg"]) > 180.0
    (tmp_path / "turned.json").write_text(json.dumps(document))
    assert_same(read_json(tmp_path / "turned.json")[0], record)


def test_damaged_files_are_refused(record: TorsionRecord, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_hdf5(path, [record])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match="cannot be read"):
        read_hdf5(path)
    write_json(tmp_path / "a.json", [record])
    document = json.loads((tmp_path / "a.json").read_text())
    del document["records"][0]["energies_ev"][0]
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="differ"):
        read_json(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(DataError, match="not a torsion set"):
        open_set(str(tmp_path / "b.json"))
    with pytest.raises(DataError, match="no such file"):
        open_set(str(tmp_path / "absent.h5"))


@pytest.mark.parametrize(
    ("name", "value"), [("energies_ev", ["low", "high"]), ("dihedral", [2, 0]), ("dihedral", 2)]
)
def test_malformed_hdf5_is_refused(
    record: TorsionRecord, tmp_path: Path, name: str, value: object
) -> None:
    path = tmp_path / "a.h5"
    write_hdf5(path, [record])
    with h5py.File(path, "a") as file:
        group = file["00000"]
        if name in group:
            del group[name]
            group[name] = value
        else:
            group.attrs[name] = value
    with pytest.raises(DataError, match="cannot be read as a torsion set"):
        read_hdf5(path)


def test_records_without_a_level_take_the_given_one(record: TorsionRecord, tmp_path: Path) -> None:
    bare = TorsionRecord("r1", "test", PEROXIDE, ATOMS, record.points)
    write_json(tmp_path / "a.json", [bare])
    assert open_set(str(tmp_path / "a.json")).records[0].level == NOT_STATED
    assert open_set(str(tmp_path / "a.json"), "B3LYP/DZVP").records[0].level == "B3LYP/DZVP"
    write_json(tmp_path / "b.json", [record])
    assert open_set(str(tmp_path / "b.json"), "B3LYP/DZVP").records[0].level == "A/B//C"


def write_sdf(path: Path, record: TorsionRecord, tags: dict[str, str]) -> None:
    assert record.points is not None
    with Chem.SDWriter(str(path)) as writer:
        for index, energy in enumerate(record.points.energies):
            mol = record.molecule(index).rdkit
            mol.SetProp("_Name", "r1")
            for key, value in {
                "energy_hartree": repr(float(energy) * EV_TO_HARTREE),
                **tags,
            }.items():
                mol.SetProp(key, value)
            writer.write(mol)


def test_sdf(record: TorsionRecord, tmp_path: Path) -> None:
    path = tmp_path / "a.sdf"
    write_sdf(path, record, {"dihedral": "2 0 1 3", "level_of_theory": "A/B"})
    (found,) = open_set(str(path)).records
    assert found.points is not None
    assert record.points is not None
    assert found.points.angles_deg == pytest.approx(ANGLES, abs=0.1)  # measured; four decimals
    assert found.points.energies == pytest.approx(record.points.energies, abs=1e-8)
    assert found.level == "A/B"


def test_sdf_points_may_differ_in_e_and_z(tmp_path: Path) -> None:
    with Chem.SDWriter(str(tmp_path / "a.sdf")) as writer:
        for angle, smiles in enumerate((r"CC/C=N/C", r"CC/C=N\C")):
            mol = Chem.Mol(read_molecule(smiles).rdkit)
            tags = {"record_id": "x", "dihedral": "0 1 2 3", "energy_ev": "1", "angle_deg": angle}
            for key, value in tags.items():
                mol.SetProp(key, str(value))
            writer.write(mol)
    (found,) = open_set(str(tmp_path / "a.sdf")).records
    assert found.points is not None
    assert found.points.angles_deg.tolist() == [0.0, 1.0]
    with Chem.SDWriter(str(tmp_path / "b.sdf")) as writer:
        for smiles in ("CC[C@H](O)N", "CC[C@@H](O)N"):
            mol = Chem.Mol(read_molecule(smiles).rdkit)
            for key, value in tags.items():
                mol.SetProp(key, str(value))
            writer.write(mol)
    with pytest.raises(DataError, match="record 2: other atoms or order"):
        open_set(str(tmp_path / "b.sdf"))


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"dihedral": "2 0 1"}, "dihedral"),
        ({"dihedral": "2 0 1 9"}, "dihedral"),
        ({"dihedral": "2 0 1 3", "energy_ev": "1"}, "2 energies"),
        ({"dihedral": "2 0 1 3", "angle_deg": "x"}, "not a number"),
    ],
)
def test_sdf_mistakes_are_named(
    record: TorsionRecord, tmp_path: Path, tags: dict[str, str], named: str
) -> None:
    write_sdf(tmp_path / "a.sdf", record, tags)
    with pytest.raises(DataError, match=named):
        open_set(str(tmp_path / "a.sdf"))


@pytest.mark.parametrize(
    ("tag", "value"),
    [("dihedral", "2 1 0 3"), ("level_of_theory", "C/D"), ("geometry_level", "C/D")],
)
def test_sdf_drives_of_one_title_are_not_merged(
    record: TorsionRecord, tmp_path: Path, tag: str, value: str
) -> None:
    tags = {"dihedral": "2 0 1 3", "level_of_theory": "A/B"}
    write_sdf(tmp_path / "one.sdf", record, tags)
    write_sdf(tmp_path / "other.sdf", record, {**tags, tag: value})
    texts = [(tmp_path / f"{name}.sdf").read_text() for name in ("one", "other")]
    (tmp_path / "a.sdf").write_text("".join(texts))
    with pytest.raises(DataError, match=f"record 7: another {tag} than in drive r1"):
        open_set(str(tmp_path / "a.sdf"))


def write_target(directory: Path, record: TorsionRecord) -> None:
    assert record.points is not None
    directory.mkdir(parents=True)
    frames, jobs = [], []
    for index, energy in enumerate(record.points.energies):
        molecule = record.molecule(index)
        frames.append(to_xyz(molecule, "frame"))
        coordinates = " ".join(f"{x:.8f}" for x in molecule.positions.ravel())
        jobs.append(f"JOB {index}\nCOORDS {coordinates}\nENERGY {energy * EV_TO_HARTREE:.12f}\n")
    (directory / "scan.xyz").write_text("".join(frames))
    (directory / "qdata.txt").write_text("\n".join(jobs))


def test_forcebalance_target(record: TorsionRecord, tmp_path: Path) -> None:
    write_target(tmp_path / "targets" / "hooh", record)
    metadata = {"dihedrals": [list(ATOMS)], "torsion_grid_ids": [[a] for a in ANGLES]}
    metadata["attributes"] = {"canonical_isomeric_explicit_hydrogen_mapped_smiles": PEROXIDE}
    (tmp_path / "targets" / "hooh" / "metadata.json").write_text(json.dumps(metadata))
    (found,) = open_set(str(tmp_path / "targets"), "B3LYP-D3BJ/DZVP").records
    assert_same(found, record)
    assert found.record_id == "hooh"
    assert found.level == "B3LYP-D3BJ/DZVP"


def test_torsiondrive_output_counts_atoms_from_one(record: TorsionRecord, tmp_path: Path) -> None:
    write_target(tmp_path / "hooh", record)
    with pytest.raises(DataError, match=r"dihedrals\.txt"):
        open_set(str(tmp_path / "hooh"))
    (tmp_path / "hooh" / "dihedrals.txt").write_text("# i j k l\n3 1 2 4\n")
    (found,) = open_set(str(tmp_path / "hooh")).records
    assert found.dihedral == ATOMS
    assert found.points is not None
    assert found.points.angles_deg == pytest.approx(ANGLES, abs=1e-3)
    text = (tmp_path / "hooh" / "qdata.txt").read_text()
    (tmp_path / "hooh" / "qdata.txt").write_text(text.replace("ENERGY", "ENERGIE", 1))
    with pytest.raises(DataError, match="6 geometries, 5 energies"):
        open_set(str(tmp_path / "hooh"))


class Conformer:
    """Stands in for a pint quantity."""

    def __init__(self, positions: np.ndarray) -> None:
        self.positions = positions

    def m_as(self, unit: str) -> np.ndarray:
        assert unit == "angstrom"
        return self.positions


def test_openff_molecule(record: TorsionRecord) -> None:
    assert record.points is not None
    molecule = SimpleNamespace(
        conformers=[Conformer(p) for p in record.points.positions],
        to_smiles=lambda mapped: PEROXIDE if mapped else "OO",
    )
    energies = record.points.energies * EV_TO_HARTREE
    found = record_from_openff(molecule, ATOMS, ANGLES.tolist(), energies.tolist(), "r1", "A/B")
    assert_same(found, record)
    with pytest.raises(DataError, match="6 conformers, 5 angles"):
        record_from_openff(molecule, ATOMS, ANGLES[:5].tolist(), energies.tolist(), "r1")


SERVER = "https://example.org:443/"


def collection(path: Path, ids: list[int]) -> Path:
    entries = [{"type": "torsion", "record_id": str(i), "cmiles": PEROXIDE} for i in ids]
    path.write_text(json.dumps({"entries": {SERVER: entries}, "provenance": {}}))
    return path


def qcarchive_drive(record: TorsionRecord, dihedrals: list[tuple[int, ...]]) -> SimpleNamespace:
    """What qcportal returns, as far as it is read; bohr and hartree as there."""
    assert record.points is not None
    optimizations = {
        (int(angle),): SimpleNamespace(
            energies=[0.0, energy / HARTREE_TO_EV],
            final_molecule=SimpleNamespace(
                symbols=["O", "O", "H", "H"], geometry=positions * ANGSTROM_TO_BOHR
            ),
        )
        for angle, energy, positions in zip(
            record.points.angles_deg, record.points.energies, record.points.positions, strict=True
        )
    }
    specification = SimpleNamespace(
        keywords=SimpleNamespace(dihedrals=dihedrals),
        optimization_specification=SimpleNamespace(
            qc_specification=SimpleNamespace(method="b3lyp-d3bj", basis="dzvp")
        ),
    )
    return SimpleNamespace(specification=specification, minimum_optimizations=optimizations)


class Portal:
    """Stands in for `qcportal.PortalClient`."""

    def __init__(self, drives: dict[int, object], fails_after: int = 99) -> None:
        self.drives, self.fails_after, self.asked = drives, fails_after, 0

    def get_torsiondrives(
        self, record_ids: list[int], missing_ok: bool, *, include: list[str]
    ) -> list[object]:
        assert missing_ok
        assert include == ["minimum_optimizations"]
        self.asked += len(record_ids)
        if self.asked > self.fails_after:
            raise ConnectionRefusedError("gone")
        return [self.drives.get(record_id) for record_id in record_ids]


def test_fetched_records_are_used_without_a_network(record: TorsionRecord, tmp_path: Path) -> None:
    path = collection(tmp_path / "set.json", [1, 2, 3])
    cache = tmp_path / "cache"
    assert all(r.points is None for r in open_set(str(path), "", cache).records)
    portal = Portal({1: qcarchive_drive(record, [ATOMS]), 2: qcarchive_drive(record, [ATOMS] * 2)})
    lines: list[str] = []
    entries = open_collection(path)
    failed = fetch(entries, cache, lambda server: portal, lines.append, "set.json")
    assert set(failed) == {"2", "3"}
    assert "drives 2 dihedrals" in failed["2"]
    assert "does not have it" in failed["3"]
    first, *others = open_set(str(path), "", cache).records
    assert_same(first, record)
    assert first.level == "B3LYP-D3BJ/DZVP"
    assert first.source == "set.json"
    assert all(r.points is None for r in others)
    fetch(entries, cache, lambda server: portal, lines.append, "set.json")
    assert portal.asked == 3 + 2  # what is in the cache is not asked for again


def test_a_lost_connection_keeps_what_came(record: TorsionRecord, tmp_path: Path) -> None:
    path = collection(tmp_path / "set.json", list(range(1, 31)))
    drives = {i: qcarchive_drive(record, [ATOMS]) for i in range(1, 31)}
    portal = Portal(drives, fails_after=20)
    with pytest.raises(BackendError, match="20 of 30 records are in"):
        fetch(open_collection(path), tmp_path / "c", lambda s: portal, lambda line: None, "set")
    found = open_set(str(path), "", tmp_path / "c").records
    assert sum(r.points is not None for r in found) == 20


def bare(record_id: str, smiles: str) -> TorsionRecord:
    return TorsionRecord(record_id, "test", smiles)


def test_every_record_is_admitted_or_has_a_reason(record: TorsionRecord) -> None:
    assert record.points is not None
    turned = replace(record.points, angles_deg=record.points.angles_deg + 8.0)
    angles = record.points.angles_deg
    repeated = replace(record.points, angles_deg=np.where(angles == 180.0, 120.0, angles))
    energies = np.where(angles == 180.0, np.nan, record.points.energies)
    records = [
        record,
        replace(record, record_id="nan", points=replace(record.points, energies=energies)),
        replace(record, record_id="two", points=repeated),
        replace(record, record_id="one", dihedral=(3, 1, 2, 4)),
        replace(record, record_id="off", points=turned),
        bare("f", "[H:1][F:2]"),
        bare("q", "[H:1][O-:2]"),
        bare("x", "OO"),
        bare("n", PEROXIDE),
        bare("s", "[H:1][H:2].[H:3][H:4]"),
    ]
    elements = filters.parse_elements("H, C,N,O")
    admitted, skipped = filters.admit(records, elements)
    assert [r.record_id for r in admitted] == ["r1"]
    assert {s.record.record_id: s.reason for s in skipped} == {
        "nan": filters.UNREADABLE,
        "two": filters.REPEATED,
        "one": filters.UNREADABLE,
        "off": filters.OFF_GRID,
        "f": filters.ELEMENT,
        "q": filters.CHARGE,
        "x": filters.UNREADABLE,
        "n": filters.NO_GEOMETRY,
        "s": filters.SEVERAL,
    }
    with pytest.raises(ConfigError, match="more than once"):
        filters.admit([record, record], elements)
    with pytest.raises(ConfigError, match="Xx"):
        filters.parse_elements("H,Xx")


@pytest.mark.skipif(not COLLECTION.exists(), reason="needs the OpenFF collection in ../shared/data")
def test_the_openff_set_is_counted_as_published(tmp_path: Path) -> None:
    records = open_set(str(COLLECTION), "", tmp_path).records
    admitted, skipped = filters.admit(records, filters.parse_elements("H,C,N,O"))
    assert len(records) == 942
    assert admitted == []
    assert filters.counts_by_reason(s.reason for s in skipped) == {
        filters.ELEMENT: 460,
        filters.NO_GEOMETRY: 414,
        filters.CHARGE: 68,
    }


@pytest.mark.parametrize(
    ("smiles", "atoms", "kind"),
    [
        ("CCCC", (0, 1, 2, 3), "C(sp3)-C(sp3)"),
        ("CC(=O)NC", (0, 1, 3, 4), "amide C-N"),
        ("CC(=O)OC", (0, 1, 3, 4), "ester C-O"),
        ("c1ccccc1c1ccccc1", (0, 5, 6, 7), "C(ar)-C(ar)"),
    ],
)
def test_classes(smiles: str, atoms: tuple[int, int, int, int], kind: str) -> None:
    assert torsion_class(Chem.AddHs(Chem.MolFromSmiles(smiles)), atoms) == kind
