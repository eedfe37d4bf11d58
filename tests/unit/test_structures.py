"""Solutes from PDB files: names that are understood, bonds that must be there."""

import numpy as np
import pytest

from trip_mm.errors import UnsupportedSystemError
from trip_mm.simulation.building import build_structure
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

    def build(records, ph=7.0):
        (tmp_path / "t.pdb").write_text("\n".join([*records, "END"]) + "\n")
        settings = {"structure": {"file": "t.pdb"}, "potential": "amber14", "ph": ph}
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
    built = build_structure(parse_system({"structure": structure, "potential": "amber14"}, "x"), 1)
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
