"""Solutes from PDB files: names that are understood, bonds that must be there, boxes."""

import numpy as np
import openmm
import pytest
from openmm import app, unit

from trip_mm.errors import CellTooSmallError, UnsupportedSystemError
from trip_mm.simulation.building import build_structure
from trip_mm.simulation.checks import check_structure
from trip_mm.simulation.schema import parse_system

WATER = np.array([[0.0, 0.0, 0.0], [0.957, 0.0, 0.0], [-0.240, 0.927, 0.0], [0.0, -0.5, 0.8]])


def record(name, residue, number, position, element):
    """One ATOM record; position in A."""
    label = f"{name if len(name) == 4 else f' {name:<3}'} {residue:<4}A{number:4d}"
    place = "".join(f"{value:8.3f}" for value in position)
    return f"ATOM      1 {label}    {place}  1.00  0.00          {element:>2}"


def water(names, number=9, shift=(0.0, 0.0, 0.0)):
    return [
        record(name, "HOH", number, position + np.array(shift), name.strip("0123456789")[0])
        for name, position in zip(names.split(), WATER, strict=False)
    ]


@pytest.fixture
def load(tmp_path):
    """Builds what the records of a PDB file say."""

    def build(records, ph=7.0, solvent=None):
        (tmp_path / "t.pdb").write_text("\n".join([*records, "END"]) + "\n")
        settings = {"structure": {"file": "t.pdb"}, "potential": "amber14", "ph": ph}
        if solvent is not None:
            settings["solvent"] = solvent
        return build_structure(parse_system(settings, str(tmp_path / "x.yaml")), 1)

    return build


@pytest.mark.parametrize(
    "names",
    [
        "O H1 H2", "OW HW1 HW2", "OH2 H1 H2", "O1 H1 H2", "OT HT1 HT2", "O1 H2 H3", "O H2 H3",
        "O HA HB", "OW HW2 HW3", "O 1H 2H", "O H1", "O H2", "O", "O1",
    ],
)  # fmt: skip
def test_atoms_of_water_are_known_by_their_elements(load, names):
    built = load(water(names))
    assert sorted(atom.name for atom in built.topology.atoms()) == ["H1", "H2", "O"]
    bonds = [{bond[0].name, bond[1].name} for bond in built.topology.bonds()]
    assert sorted(bonds, key=sorted) == [{"O", "H1"}, {"O", "H2"}]
    assert built.net_charge == 0


@pytest.mark.parametrize(("names", "left"), [("O H1 H2 H3", "H3"), ("H1 H2", "H1, H2")])
def test_water_with_other_atoms_is_refused(load, names, left):
    with pytest.raises(UnsupportedSystemError, match="HOH 9 of chain A") as raised:
        load([*water("O H1 H2", 8, (5.0, 0.0, 0.0)), *water(names)])
    assert f"without a bond: {left};" in str(raised.value)
    assert "one O and at most two H" in str(raised.value)


def peptide(keep=lambda atom: True, names=None, number=0, shift=(0.0, 0.0, 0.0), sequence="AA"):
    """Records of a capped peptide, some of its atoms left out, some residues renamed."""
    structure = {"sequence": sequence, "termini": "capped"}
    settings = {"structure": structure, "potential": "amber14", "ph": 5.0}  # HIS has HD1 and HE2
    built = build_structure(parse_system(settings, "x"), 1)
    return [
        record(
            atom.name,
            (names or {}).get(atom.residue.name, atom.residue.name),
            int(atom.residue.id) + number,
            built.positions[atom.index] * 10 + np.array(shift),
            atom.element.symbol,
        )
        for atom in built.topology.atoms()
        if keep(atom)
    ]


def without(*residues):
    return lambda atom: atom.residue.name not in residues


FAR = (20.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "behind", [water("O H1 H2", shift=FAR), [record("NA", "NA", 9, FAR, "Na")]], ids=["HOH", "NA"]
)
def test_peptide_without_its_last_oxygen_before_water_or_ion_is_refused(load, behind):
    open_end = peptide(without("NME"))
    with pytest.raises(UnsupportedSystemError) as raised:
        load(open_end + behind)
    assert "C of ALA 3 of chain A is bonded to CA and O only" in str(raised.value)
    assert "TER record after it" in str(raised.value)
    built = load([*open_end, "TER", *behind])
    assert built.added_atoms == ("OXT of ALA 3 of chain A",)


def test_peptide_behind_water_in_its_chain_is_refused(load):
    front = water("O H1 H2", number=1, shift=FAR)
    open_start = peptide(without("ACE"))
    with pytest.raises(
        UnsupportedSystemError, match=r"N of ALA 2 .* bonded to CA and H only"
    ) as raised:
        load(front + open_start)
    assert "TER record before it" in str(raised.value)
    assert load([*front, "TER", *open_start]).net_charge == 1


def test_lone_acetyl_is_refused(load):
    with pytest.raises(UnsupportedSystemError, match=r"C of ACE 1 .* bonded to CH3 and O only"):
        load([*peptide(without("ALA", "NME")), *water("O H1 H2", shift=FAR)])


@pytest.mark.parametrize("sequence", ["GPA", "PG", "CRDEHK"])
def test_complete_peptides_with_water_in_their_chain_are_built(load, sequence):
    load(peptide(sequence=sequence) + water("O H1 H2", number=40, shift=FAR))


@pytest.mark.parametrize("name", ["NH2", "NHE"])
@pytest.mark.parametrize("hydrogens", [True, False], ids=["hydrogens", "heavy"])
@pytest.mark.parametrize("rest", [[], water("O H1 H2", shift=FAR)], ids=["alone", "water"])
def test_amide_at_the_end_of_a_chain(load, name, hydrogens, rest):
    def keep(atom):
        if atom.element.symbol == "H" and not hydrogens:
            return False
        return atom.residue.name != "NME" or atom.name == "N"

    built = load(peptide(keep, {"NME": name}) + rest)
    *_, last, end = [r for r in built.topology.residues() if r.name != "HOH"]
    assert end.name == "NH2"
    assert sorted(atom.name for atom in end.atoms()) == ["HN1", "HN2", "N"]
    assert [{a.residue.name for a in bond} for bond in end.external_bonds()] == [{"ALA", "NH2"}]
    assert "OXT" not in [atom.name for atom in last.atoms()]
    assert built.net_charge == 0
    assert built.added_atoms == ()
    check_structure(built, "trip", (1, 6, 7, 8), None)
    check_structure(built, "amber14", None, None)
    field = app.ForceField("amber14/protein.ff14SB.xml", "amber14/tip3pfb.xml")
    system = field.createSystem(built.topology)
    nonbonded = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    charges = [
        nonbonded.getParticleParameters(i)[0]._value for i in range(system.getNumParticles())
    ]
    assert sum(charges) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(("name", "other"), [("HSE", "HIS"), ("LYN", "LYS"), ("CYM", "CYS")])
def test_other_names_of_protonation_states_are_told(load, name, other):
    sequence = {"HIS": "H", "LYS": "K", "CYS": "C"}[other]
    with pytest.raises(UnsupportedSystemError, match=rf"{name} 2 .* call it {other}"):
        load(peptide(names={other: name}, sequence=sequence))


@pytest.mark.parametrize(
    ("sequence", "missing", "ph", "hydrogens", "charge"),
    [
        ("H", "HD1", 7.0, ["HD2", "HE1", "HE2"], 0),
        ("H", "HD1", 6.4, ["HD1", "HD2", "HE1", "HE2"], 1),
        ("K", "HZ1", 10.1, ["HZ2", "HZ3"], 0),
        ("K", "HZ1", 10.0, ["HZ1", "HZ2", "HZ3"], 1),
        ("C", "HG", 8.6, [], -1),
        ("C", "HG", 8.5, ["HG"], 0),
    ],
)
def test_hydrogens_of_renamed_protonation_states(load, sequence, missing, ph, hydrogens, charge):
    """What the refusal of HSE, LYN and CYM promises."""
    records = peptide(lambda atom: atom.name != missing, sequence=sequence)
    built = load(records, ph)
    residue = list(built.topology.residues())[1]
    known = {"H": ("HD", "HE"), "K": ("HZ",), "C": ("HG",)}[sequence]
    assert sorted(a.name for a in residue.atoms() if a.name.startswith(known)) == hydrogens
    assert built.net_charge == charge


def crystal(edges, group="P 1"):
    """A CRYST1 record of a rectangular cell, edges in A."""
    lengths = "".join(f"{edge:9.3f}" for edge in edges)
    return f"CRYST1{lengths}  90.00  90.00  90.00 {group:<11}   1"


def moved(records, move, chosen):
    """The records with some atoms, named `CB 2` with their residue, moved by `move` (A)."""
    result = []
    for line in records:
        here = np.array([float(line[i : i + 8]) for i in (30, 38, 46)])
        if f"{line[12:16].strip()} {line[22:26].strip()}" in chosen:
            here += move
        result.append(line[:30] + "".join(f"{value:8.3f}" for value in here) + line[54:])
    return result


def bond_lengths(built):
    """Of every bond, in A, without regard to the box."""
    return np.array(
        [
            np.linalg.norm(built.positions[first.index] - built.positions[second.index]) * 10
            for first, second in built.topology.bonds()
        ]
    )


SIDE_CHAIN = ("CB 2", "HB1 2", "HB2 2", "HB3 2")
NEXT = ("N", "H", "CA", "HA", "CB", "HB1", "HB2", "HB3", "C", "O")
BACKBONE = ("C 2", "O 2", *(f"{name} 3" for name in NEXT))
BOX = crystal((20.0, 21.0, 22.0))


@pytest.mark.parametrize("chosen", [SIDE_CHAIN, BACKBONE], ids=["side chain", "backbone"])
@pytest.mark.parametrize("solvent", [None, {"edge": "36 A"}], ids=["box of the file", "solvent"])
def test_molecule_broken_across_the_box_is_made_whole(load, chosen, solvent):
    plain = peptide()
    wrapped = moved(plain, (20.0, -21.0, 0.0), chosen)
    reference = load([BOX, *plain])
    built = load([BOX, *wrapped], solvent=solvent)
    count = built.n_solute_atoms
    assert count == len(reference.positions)
    shift = built.positions[0] - reference.positions[0]
    np.testing.assert_allclose(built.positions[:count] - shift, reference.positions, atol=2e-4)
    assert bond_lengths(built).max() < 1.6


def test_molecules_in_a_skewed_box_are_made_whole(load):
    cell = "CRYST1   22.000   23.000   24.000  70.00  80.00  65.00 P 1           1"
    plain = [*peptide(), *water("O H1 H2", shift=(9.0, 0.0, 0.0))]
    reference = load([cell, *plain])
    box = reference.box_vectors * 10
    wrapped = moved(plain, box[2] - box[0], SIDE_CHAIN)
    wrapped = moved(moved(wrapped, box[1], ["H1 9"]), -box[2], ["O 9"])
    built = load([cell, *wrapped])
    assert bond_lengths(built).max() < 1.6
    moves = (built.positions - reference.positions) @ np.linalg.inv(reference.box_vectors)
    np.testing.assert_allclose(moves, np.round(moves), atol=1e-3)
    assert len({tuple(np.round(move)) for move in moves[-3:]}) == 1


def test_disulfide_bridge_across_the_box(load):
    structure = {"sequence": "C", "termini": "capped"}
    half = build_structure(parse_system({"structure": structure, "potential": "amber14"}, "x"), 1)
    sulphur = next(a.index for a in half.topology.atoms() if a.name == "SG")
    way = half.positions[sulphur] - half.positions.mean(axis=0)
    turn = np.diag([1.0, 1.0, 1.0]) - 2.0 * np.outer(way, way) / (way @ way)
    middle = half.positions[sulphur] + 0.1025 * way / np.linalg.norm(way)
    mirrored = (half.positions - middle) @ turn + middle
    atoms = [a for a in half.topology.atoms() if a.name != "HG"]
    one, other = (
        [
            record(a.name, a.residue.name, int(a.residue.id) + n, p[a.index] * 10, a.element.symbol)
            for a in atoms
        ]
        for n, p in ((0, half.positions), (10, mirrored + np.array([4.0, 0.0, 0.0])))
    )
    built = load([crystal((40.0, 40.0, 40.0)), *one, "TER", *other])
    names = [{first.name, second.name} for first, second in built.topology.bonds()]
    assert names.count({"SG"}) == 1
    assert "HG" not in [atom.name for atom in built.topology.atoms()]
    assert bond_lengths(built).max() == pytest.approx(2.05, abs=0.01)


@pytest.mark.parametrize("box", [[], [BOX]], ids=["no box", "box"])
def test_bond_that_is_too_long_is_refused(load, box):
    torn = moved(peptide(), (5.0, 5.0, 5.0), SIDE_CHAIN)
    with pytest.raises(UnsupportedSystemError) as raised:
        load([*box, *torn])
    text = str(raised.value)
    assert "CA of ALA 2 of chain A and CB of ALA 2 of chain A are bonded and" in text
    assert ("give the file that box (CRYST1)" in text) == (not box)


def test_hydrogen_that_is_too_far_is_refused(load):
    records = peptide()
    hydrogen, carbon = (
        np.array([float(line[i : i + 8]) for i in (30, 38, 46)])
        for name in ("HB1 ", "CB  ")
        for line in records
        if f"{name}ALA A   2" in line
    )
    way = (hydrogen - carbon) / np.linalg.norm(hydrogen - carbon)
    load(moved(records, carbon + 1.5 * way - hydrogen, ["HB1 2"]))
    with pytest.raises(UnsupportedSystemError, match=r"ALA 2 .* HB1 of ALA 2 .* 1\.7 A apart"):
        load(moved(records, carbon + 1.7 * way - hydrogen, ["HB1 2"]))


def test_broken_backbone_without_a_box_is_told(load):
    with pytest.raises(UnsupportedSystemError, match=r"residues are missing: .*\(CRYST1\)"):
        load(moved(peptide(), (20.0, 0.0, 0.0), BACKBONE))


GROUPS = ["P 21 21 21", "P -1", "C 1 2 1", "P 1 21 1", "R 3 :H"]


@pytest.mark.parametrize("group", GROUPS)
def test_cell_that_symmetry_fills_is_refused_unless_a_solvent_replaces_it(load, group):
    records = [crystal((20.0, 21.0, 22.0), group), *peptide()]
    with pytest.raises(UnsupportedSystemError, match="space group") as raised:
        load(records)
    assert f"space group {group}, " in str(raised.value)
    assert load(records, solvent={"edge": "20 A"}).box_vectors is not None
    assert load([crystal((1.0, 1.0, 1.0), group), *records[1:]]).box_vectors is None


@pytest.mark.parametrize("group", ["P 1", "P1", "", "p 1", "P 1 1 1"])
def test_cell_without_symmetry_is_used(load, group):
    built = load([crystal((20.0, 21.0, 22.0), group), *peptide()])
    np.testing.assert_allclose(np.diag(built.box_vectors), [2.0, 2.1, 2.2])


@pytest.mark.parametrize(
    ("key", "group", "refused"),
    [
        ("_symmetry.space_group_name_H-M", "'P 21 21 21'", True),
        ("_space_group.name_H-M_alt", "'C 1 2 1'", True),
        ("_symmetry.space_group_name_H-M", "'P 1'", False),
        ("_symmetry.space_group_name_H-M", "?", False),
        ("_symmetry.entry_id", "XXXX", False),
    ],
)
def test_space_group_of_mmcif(tmp_path, key, group, refused):
    structure = {"sequence": "A", "termini": "capped"}
    half = build_structure(parse_system({"structure": structure, "potential": "amber14"}, "x"), 1)
    half.topology.setUnitCellDimensions((2.0, 2.1, 2.2))
    with (tmp_path / "t.cif").open("w") as file:
        app.PDBxFile.writeFile(half.topology, half.positions * unit.nanometer, file)
        file.write(f"{key} {group}\n#\n")
    settings = {"structure": {"file": "t.cif"}, "potential": "amber14"}
    system = parse_system(settings, str(tmp_path / "x.yaml"))
    if refused:
        with pytest.raises(UnsupportedSystemError, match=f"space group {group[1:-1]}, "):
            build_structure(system, 1)
    else:
        assert build_structure(system, 1).box_vectors is not None


def test_only_the_place_holder_is_no_cell(load):
    assert load([crystal((1.0, 1.0, 1.0)), *peptide()]).box_vectors is None
    built = load([crystal((30.0, 30.0, 4.9)), *peptide()])
    np.testing.assert_allclose(np.diag(built.box_vectors), [3.0, 3.0, 0.49])
    with pytest.raises(CellTooSmallError, match=r"30\.00 x 30\.00 x 4\.90 A .* of the file"):
        check_structure(built, "trip", (1, 6, 7, 8), 4.6)
