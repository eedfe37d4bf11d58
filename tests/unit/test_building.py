"""Structures from sequences, files and SMILES; solvation; what is refused before a run."""

import random
from pathlib import Path

import numpy as np
import pytest
from openmm import app, unit

from trip_mm.errors import (
    CellTooSmallError,
    ConfigError,
    UnsupportedElementError,
    UnsupportedSystemError,
)
from trip_mm.simulation.building import BuiltStructure, build_structure
from trip_mm.simulation.checks import check_stages, check_structure
from trip_mm.simulation.contacts import cell_heights, close_pairs
from trip_mm.simulation.schema import load_system, parse_protocol, parse_system

ROOT = Path(__file__).parents[2]
SYSTEMS = sorted((ROOT / "systems").glob("*.yaml"))
HCNO = (1, 6, 7, 8)
AMBER = ("amber14/protein.ff14SB.xml", "amber14/tip3pfb.xml")

_built: dict[tuple[str, int], BuiltStructure] = {}


def shipped(name, seed=1):
    """A shipped system, built once per session (nothing changes a built structure)."""
    if (name, seed) not in _built:
        _built[name, seed] = build_structure(load_system(ROOT / "systems" / f"{name}.yaml"), seed)
    return _built[name, seed]


def build(seed=1, source="x.yaml", **settings):
    return build_structure(parse_system({"potential": "amber14", **settings}, source), seed)


def elements(structure):
    return [atom.element.symbol for atom in structure.topology.atoms()]


def molecules(topology):
    """Sets of bonded atoms."""
    parent = list(range(topology.getNumAtoms()))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for first, second in topology.bonds():
        parent[root(first.index)] = root(second.index)
    groups = {}
    for i in range(len(parent)):
        groups.setdefault(root(i), set()).add(i)
    return list(groups.values())


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_shipped_system(path):
    built = shipped(path.stem)
    check_structure(built, "trip", HCNO, 4.6)
    assert built.net_charge == 0
    assert built.positions.shape == (built.topology.getNumAtoms(), 3)
    solute = set(range(built.n_solute_atoms))
    sizes = [len(group) for group in molecules(built.topology) if not group & solute]
    assert set(sizes) <= {3}
    residue = [atom.residue.index for atom in built.topology.atoms()]
    contacts = close_pairs(built.positions, built.box_vectors, 0.15)
    assert all(residue[i] == residue[j] for i, j, _ in contacts if j >= built.n_solute_atoms)


@pytest.mark.parametrize("name", ["trialanine", "trialanine-capped", "alanine-dipeptide", "water"])
def test_amber14_has_parameters(name):
    built = shipped(name)
    system = app.ForceField(*AMBER).createSystem(
        built.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.8 * unit.nanometer,
        constraints=app.HBonds,
    )
    charges = [
        system.getForce(i).getParticleParameters(j)[0].value_in_unit(unit.elementary_charge)
        for i in range(system.getNumForces())
        if system.getForce(i).__class__.__name__ == "NonbondedForce"
        for j in range(system.getNumParticles())
    ]
    assert round(sum(charges), 4) == built.net_charge


def test_trialanine_is_the_benchmark_system():
    built = shipped("trialanine")
    assert len(built.positions) == 558
    assert built.n_solute_atoms == 33
    np.testing.assert_allclose(built.box_vectors, 1.78 * np.eye(3))
    names = [residue.name for residue in built.topology.residues()]
    assert names == ["ALA"] * 3 + ["HOH"] * 175


@pytest.mark.parametrize(
    ("sequence", "termini", "n_atoms", "charge"),
    [
        ("AAA", "zwitterion", 33, 0),
        ("AAA", "capped", 42, 0),
        ("A", "capped", 22, 0),
        ("KA", "zwitterion", 35, 1),
        ("D", "capped", 24, -1),
        ("RHE", "zwitterion", 59, 0),
        ("GPYW", "zwitterion", 69, 0),
        ("CMSTNQ", "capped", 96, 0),
        ("VILF", "zwitterion", 77, 0),
    ],
)
def test_peptide(sequence, termini, n_atoms, charge):
    built = build(structure={"sequence": sequence, "termini": termini})
    assert len(built.positions) == built.n_solute_atoms == n_atoms
    assert built.net_charge == charge
    assert len(molecules(built.topology)) == 1
    check_structure(built, "amber14", None, None)
    field = app.ForceField(*AMBER)
    field.createSystem(built.topology)
    assert close_pairs(built.positions, None, 0.085) == []


@pytest.mark.parametrize(("ph", "charge"), [(1.0, 1), (7.0, 0), (13.0, -1)])
def test_ph_of_a_glutamate_with_lysine(ph, charge):
    built = build(structure={"sequence": "EK", "termini": "capped"}, ph=ph)
    assert built.net_charge == charge


def backbone(built):
    index = {(a.residue.index, a.name): a.index for a in built.topology.atoms()}

    def angle(*names):
        a, b, c, d = (built.positions[index[name]] for name in names)
        axis = (c - b) / np.linalg.norm(c - b)
        v = (a - b) - (a - b) @ axis * axis
        w = (d - c) - (d - c) @ axis * axis
        return np.degrees(np.arctan2(np.cross(axis, v) @ w, v @ w))

    phi = angle((0, "C"), (1, "N"), (1, "CA"), (1, "C"))
    psi = angle((1, "N"), (1, "CA"), (1, "C"), (2, "N"))
    omega = angle((0, "CA"), (0, "C"), (1, "N"), (1, "CA"))
    chiral = np.linalg.det(
        [built.positions[index[1, x]] - built.positions[index[1, "CA"]] for x in ("N", "C", "CB")]
    )
    return phi, psi, omega, chiral


def test_peptide_is_extended_trans_and_left_handed():
    phi, psi, omega, chiral = backbone(build(structure={"sequence": "AAA"}))
    assert phi == pytest.approx(-75, abs=5)
    assert psi == pytest.approx(145, abs=5)
    assert abs(omega) == pytest.approx(180, abs=5)
    assert chiral > 0  # L-amino acids


def test_long_sequence_is_refused():
    with pytest.raises(UnsupportedSystemError, match="too many to fold"):
        build(structure={"sequence": "A" * 31})


@pytest.mark.parametrize(
    ("shape", "volume"), [("cube", 1.0), ("dodecahedron", 0.7071), ("octahedron", 0.7698)]
)
def test_box_shapes(shape, volume):
    built = build(structure={"smiles": "C"}, solvent={"edge": "20 A", "shape": shape})
    box = built.box_vectors
    assert np.linalg.det(box) == pytest.approx(8.0 * volume, rel=1e-3)
    np.testing.assert_allclose(np.linalg.norm(box, axis=1), 2.0)
    assert box[0, 1] == box[0, 2] == box[1, 2] == 0.0  # OpenMM's reduced form
    assert abs(box[1, 0]) <= box[0, 0] / 2
    assert abs(box[2, 0]) <= box[0, 0] / 2
    assert abs(box[2, 1]) <= box[1, 1] / 2 + 1e-12
    vectors = built.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer)
    np.testing.assert_allclose(np.array(vectors), box)
    per_nm3 = (len(built.positions) - 5) / 3 / np.linalg.det(box)
    assert 28.0 < per_nm3 < 34.0  # bulk: 33.3


def test_padding():
    alone = build(structure={"sequence": "AAA"})
    built = build(structure={"sequence": "AAA"}, solvent={"padding": "8 A"})
    middle = (alone.positions.max(axis=0) + alone.positions.min(axis=0)) / 2
    diameter = 2 * np.linalg.norm(alone.positions - middle, axis=1).max()
    np.testing.assert_allclose(built.box_vectors, max(diameter + 0.8, 1.6) * np.eye(3), rtol=1e-6)


def test_exact_number_of_waters_and_refusal_when_too_many():
    water = {"edge": "15 A", "n_waters": 110}
    assert len(build(solvent=water).positions) == 330
    with pytest.raises(UnsupportedSystemError, match=r"n_waters: 200 .* do not fit .* 15 A"):
        build(solvent={"edge": "15 A", "n_waters": 200})
    with pytest.raises(UnsupportedSystemError, match="no water fits"):
        build(solvent={"edge": "2 A"})


def test_water_keeps_the_geometry_of_the_model():
    built = shipped("water")
    waters = built.positions.reshape(-1, 3, 3)
    arms = np.linalg.norm(waters[:, 1:] - waters[:, :1], axis=2)
    np.testing.assert_allclose(arms, 0.09572, atol=2e-4)
    assert elements(built)[:3] == ["O", "H", "H"]


def test_same_seed_same_coordinates_and_global_random_numbers_untouched():
    random.seed(5)
    expected = random.Random(5).random()
    first = build_structure(load_system(ROOT / "systems/trialanine.yaml"), 3)
    assert random.random() == expected
    second = shipped("trialanine", seed=3)
    np.testing.assert_array_equal(first.positions, second.positions)
    other = shipped("trialanine", seed=1)
    assert not np.array_equal(first.positions, other.positions)


def test_smiles_has_bonds_and_unique_names():
    built = build(structure={"smiles": "CC(=O)Oc1ccccc1C(=O)O"}, solvent={"edge": "20 A"})
    assert built.n_solute_atoms == 21
    bonds = [b for b in built.topology.bonds() if b[0].index < 21]
    assert len(bonds) == 21
    names = [a.name for a in built.topology.atoms()][:21]
    assert len(set(names)) == 21


def test_water_as_smiles_is_water():
    built = build(structure={"smiles": "O"})
    assert [r.name for r in built.topology.residues()] == ["HOH"]
    app.ForceField(*AMBER).createSystem(built.topology)


@pytest.mark.parametrize(
    ("smiles", "message"),
    [("C1CC", "not valid SMILES"), ("xyz", "not valid SMILES"), ("C.C", "2 separate molecules")],
)
def test_bad_smiles(smiles, message):
    with pytest.raises(UnsupportedSystemError, match=message):
        build(structure={"smiles": smiles})


def test_sdf_keeps_its_coordinates():
    built = shipped("ephedrine")
    line = (ROOT / "systems/ephedrine.sdf").read_text().splitlines()[4].split()
    np.testing.assert_allclose(built.positions[0], np.array(line[:3], dtype=float) / 10)
    assert built.box_vectors is None


@pytest.fixture
def peptide_pdb(tmp_path):
    def write(keep=lambda atom: True, change=lambda text: text, suffix=".pdb", **structure):
        built = build(structure={"sequence": "AKSA", **structure})
        modeller = app.Modeller(built.topology, built.positions * unit.nanometer)
        modeller.delete([atom for atom in modeller.topology.atoms() if not keep(atom)])
        path = tmp_path / f"peptide{suffix}"
        writer = app.PDBFile if suffix == ".pdb" else app.PDBxFile
        with path.open("w") as file:
            writer.writeFile(modeller.topology, modeller.positions, file)
        path.write_text(change(path.read_text()))
        settings = {"structure": {"file": path.name}}
        return lambda **more: build(source=str(tmp_path / "x.yaml"), **{**settings, **more})

    return write


@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_file_as_it_is(peptide_pdb, suffix):
    built = peptide_pdb(suffix=suffix)()
    reference = build(structure={"sequence": "AKSA"})
    assert built.net_charge == reference.net_charge == 1
    assert elements(built) == elements(reference)
    np.testing.assert_allclose(built.positions, reference.positions, atol=1e-3)


def test_missing_hydrogens_and_side_chain_atoms_are_added(peptide_pdb, caplog):
    load = peptide_pdb(lambda a: a.element.symbol != "H" and a.name not in ("CE", "NZ", "OXT"))
    built = load()
    assert "CE, NZ of LYS 2 of chain A; OXT of ALA 4 of chain A" in caplog.text
    assert sorted(elements(built)) == sorted(elements(build(structure={"sequence": "AKSA"})))
    assert built.net_charge == 1
    assert len(molecules(built.topology)) == 1


def test_file_is_solvated(peptide_pdb):
    built = peptide_pdb()(solvent={"padding": "6 A"})
    assert built.box_vectors is not None
    assert len(built.positions) > built.n_solute_atoms


def test_missing_residue_is_refused(peptide_pdb):
    load = peptide_pdb(lambda atom: atom.residue.index != 2)
    with pytest.raises(
        UnsupportedSystemError, match=r"residues are missing: between LYS 2 .* ALA 3"
    ):
        load()


def test_missing_residue_of_seqres_is_refused(peptide_pdb):
    load = peptide_pdb(change=lambda t: "SEQRES   1 A    5  ALA LYS SER ALA GLY\n" + t)
    with pytest.raises(UnsupportedSystemError, match="residues are missing: GLY in chain A"):
        load()


def test_unknown_residue_is_refused(peptide_pdb):
    load = peptide_pdb(change=lambda t: t.replace("SER", "LIG"))
    with pytest.raises(UnsupportedSystemError, match="LIG 3 of chain A is no amino acid"):
        load()


@pytest.mark.parametrize(("name", "wrong"), [(" OG ", " OX "), (" HG ", " HX ")])
def test_unknown_atom_is_refused(peptide_pdb, name, wrong):
    load = peptide_pdb(change=lambda t: t.replace(f"{name} SER", f"{wrong} SER"))
    with pytest.raises(
        UnsupportedSystemError, match=f"SER 3 of chain A has no atom named {wrong.strip()}"
    ):
        load()


@pytest.mark.parametrize("content", ["", "garbage\n", "ATOM   not a record\n", "END\n"])
@pytest.mark.parametrize("name", ["bad.pdb", "bad.cif", "bad.sdf"])
def test_unreadable_structure_file(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UnsupportedSystemError, match=f"structure.file: {name}"):
        build(structure={"file": name}, source=str(tmp_path / "x.yaml"))


def test_box_of_a_file_is_used(tmp_path):
    water = shipped("water")
    with (tmp_path / "w.pdb").open("w") as file:
        app.PDBFile.writeFile(water.topology, water.positions * unit.nanometer, file)
    built = build(structure={"file": "w.pdb"}, source=str(tmp_path / "x.yaml"))
    np.testing.assert_allclose(built.box_vectors, water.box_vectors, atol=1e-4)
    assert built.n_solute_atoms == 0
    assert built.topology.getNumBonds() == 432


def test_ions_neutralize_and_add_salt():
    solvent = {"edge": "24 A", "ions": {"concentration": "0.3 mol/l"}}
    built = build(structure={"sequence": "KK"}, solvent=solvent)
    names = [residue.name for residue in built.topology.residues()]
    assert built.net_charge == 0
    assert names.count("CL") - names.count("NA") == 2
    assert names.count("NA") == round(0.3 * names.count("HOH") / 55.4)
    check_structure(built, "amber14", None, 10.0)
    with pytest.raises(UnsupportedElementError, match="NA of NA") as raised:
        check_structure(built, "trip", HCNO, 4.6)
    assert "sodium" in str(raised.value)
    assert "it knows H, C, N, O" in str(raised.value)


def test_unknown_element_is_refused():
    built = build(structure={"sequence": "AMA"})
    with pytest.raises(UnsupportedElementError, match="SD of MET 2") as raised:
        check_structure(built, "trip", HCNO, None)
    assert "sulfur" in str(raised.value)


def test_constant_pressure_needs_a_box():
    npt = {"kind": "npt", "duration": "1 ps", "timestep": "1 fs", "temperature": "300 K"}
    protocol = parse_protocol({"stages": [{**npt, "pressure": "1 bar"}]}, "p.yaml")
    check_stages(shipped("water"), protocol.resolve("amber14"))
    with pytest.raises(UnsupportedSystemError, match=r"stage npt: .* the system has none"):
        check_stages(build(structure={"smiles": "CCO"}), protocol.resolve("trip"))


def test_hydrogens_heavier_than_their_atoms_allow_are_refused():
    nvt = {"kind": "nvt", "duration": "1 ps", "timestep": "1 fs", "temperature": "300 K"}
    methanol = build(structure={"smiles": "CO"})
    for mass, refused in (("3.7 u", False), ("3.8 u", True)):
        protocol = parse_protocol({"stages": [{**nvt, "hydrogen_mass": mass}]}, "p.yaml")
        if refused:
            with pytest.raises(ConfigError, match=r"stage nvt: hydrogen_mass: 3\.8 u leaves only"):
                check_stages(methanol, protocol.resolve("trip"))
        else:
            check_stages(methanol, protocol.resolve("trip"))


def test_rigid_water_takes_any_hydrogen_mass():
    nvt = {"kind": "nvt", "duration": "1 ps", "timestep": "1 fs", "temperature": "300 K"}
    protocol = parse_protocol({"stages": [{**nvt, "hydrogen_mass": "7 u"}]}, "p.yaml")
    check_stages(shipped("water"), protocol.resolve("amber14"))
    with pytest.raises(ConfigError, match="of HOH"):
        check_stages(shipped("water"), protocol.resolve("trip"))


def test_net_charge_is_refused_with_the_charged_residues():
    built = build(structure={"sequence": "RGKD", "termini": "capped"})
    with pytest.raises(UnsupportedSystemError, match=r"\+1 e \(ARG 2 \+1, LYS 4 \+1, ASP 5 -1\)"):
        check_structure(built, "trip", HCNO, None)


def test_net_charge_is_refused_on_trip_only():
    built = build(structure={"smiles": "CC(=O)[O-]"})
    assert built.net_charge == -1
    with pytest.raises(UnsupportedSystemError, match=r"net charge of -1 e"):
        check_structure(built, "trip", HCNO, None)
    check_structure(built, "openmm-ml", None, None)


def test_overlap_is_refused_also_through_the_box():
    topology = app.Topology()
    for index in range(2):
        residue = topology.addResidue("MOL", topology.addChain(), str(index + 1))
        topology.addAtom("C", app.element.carbon, residue)
    box = np.eye(3) * 2.0
    near = np.array([[0.0, 0.0, 0.01], [2.0, 0.0, 1.98]])
    overlap = BuiltStructure(topology, near, box, 2, 0)
    with pytest.raises(UnsupportedSystemError, match=r"C of MOL 1 .* and C of MOL 2 .* 0.30 A"):
        check_structure(overlap, "trip", HCNO, 4.6)
    check_structure(BuiltStructure(topology, near, None, 2, 0), "trip", HCNO, 4.6)


def test_small_box_is_refused_with_its_heights():
    built = build(solvent={"edge": "10 A", "shape": "dodecahedron"})
    assert cell_heights(built.box_vectors).min() == pytest.approx(0.7071, abs=1e-3)
    with pytest.raises(CellTooSmallError, match=r"8.16 x 8.16 x 7.07 A .* cutoff of 4.6 A"):
        check_structure(built, "trip", HCNO, 4.6)


def test_amber14_without_parameters_is_refused():
    built = build(structure={"smiles": "CCO"})
    with pytest.raises(UnsupportedSystemError, match="amber14 has no parameters for MOL"):
        check_structure(built, "amber14", None, None)


@pytest.mark.parametrize("seed", range(3))
def test_close_pairs_against_explicit_images(seed):
    rng = np.random.default_rng(seed)
    box = np.array([[1.0, 0, 0], [0.4, 0.9, 0], [-0.3, 0.4, 0.8]])
    positions = rng.normal(size=(40, 3))
    shifts = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3), -1).reshape(-1, 3) @ box
    expected = {}
    for i in range(40):
        for j in range(i, 40):
            d = np.linalg.norm(positions[j] + shifts - positions[i], axis=1)
            d = d[d > 1e-9].min() if i == j else d.min()
            if d < 0.3:
                expected[i, j] = d
    found = {(i, j): d for i, j, d in close_pairs(positions, box, 0.3)}
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[k] for k in expected], list(expected.values()))
