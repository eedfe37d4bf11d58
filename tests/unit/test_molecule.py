"""Small molecules from SMILES and SDF: which isomer is built."""

import logging

import pytest
from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom

from trip_mm.errors import UnsupportedSystemError
from trip_mm.simulation.building import build_structure
from trip_mm.simulation.methods import methods_text
from trip_mm.simulation.molecule import build_from_sdf, build_from_smiles
from trip_mm.simulation.plan import RunOptions, make_plan
from trip_mm.simulation.schema import parse_protocol, parse_system
from trip_mm.simulation.structure_file import load_structure, save_structure


@pytest.mark.parametrize(
    ("smiles", "open_parts"),
    [("CC(O)C(C)O", "C2, C3"), ("CC=CC", "C2=C3"), ("CC=CC(F)O", "C4, C2=C3")],
)
def test_open_configuration_is_told_and_recorded(smiles, open_parts, caplog):
    with caplog.at_level(logging.WARNING, "trip_mm"):
        built = build_from_smiles(smiles, 1)
    assert (
        f"structure.smiles: {smiles} leaves the configuration of {open_parts} open" in caplog.text
    )
    assert f"{built.isomeric_smiles} is built" in caplog.text
    plain = Chem.MolFromSmiles(built.isomeric_smiles)
    stereo = Chem.FindPotentialStereo(plain)
    assert all(part.specified == Chem.StereoSpecified.Specified for part in stereo)
    Chem.RemoveStereochemistry(plain)
    assert Chem.MolToSmiles(plain) == Chem.CanonSmiles(smiles)


@pytest.mark.parametrize(
    "smiles", ["CN[C@@H](C)[C@H](O)c1ccccc1", "C/C=C\\C", "CC(=O)NC", "CCN(C)C(C)C", "C1CCCCC1"]
)
def test_closed_configuration_is_built_without_a_word(smiles, caplog):
    with caplog.at_level(logging.WARNING, "trip_mm"):
        assert build_from_smiles(smiles, 2).isomeric_smiles == Chem.CanonSmiles(smiles)
    assert caplog.text == ""


@pytest.mark.parametrize(("smiles", "is_open"), [("C[C@H](O)CC", False), ("CC(O)CC", True)])
def test_flat_drawing(smiles, is_open, tmp_path, caplog):
    molecule = Chem.MolFromSmiles(smiles)
    rdDepictor.Compute2DCoords(molecule)
    (tmp_path / "m.sdf").write_text(Chem.MolToMolBlock(molecule) + "$$$$\n")
    with caplog.at_level(logging.WARNING, "trip_mm"):
        built = build_from_sdf(tmp_path / "m.sdf", 1)
    assert ("structure.file: m.sdf leaves the configuration of C2 open" in caplog.text) == is_open
    assert is_open or built.isomeric_smiles == Chem.CanonSmiles(smiles)


RADICALS = {
    "[CH3]": "has 1 unpaired electron (C1)",
    "CC(C)[O]": "has 1 unpaired electron (O1)",
    "[CH2]": "has 2 unpaired electrons (C1)",
    "[CH2]C[CH2]": "has 2 unpaired electrons (C1, C3)",
}
ISOTOPES = {
    "[2H]O[2H]": "names isotopes (2H)",
    "[13CH3]C([2H])O": "names isotopes (13C, 2H)",
    "[1H]OC": "names isotopes (1H)",
}


@pytest.mark.parametrize(("smiles", "found"), [*RADICALS.items(), *ISOTOPES.items()])
def test_radicals_and_isotopes_are_refused(smiles, found, tmp_path):
    with pytest.raises(UnsupportedSystemError) as raised:
        build_from_smiles(smiles, 1)
    assert f"structure.smiles: {smiles} {found}, and " in str(raised.value)
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(molecule, randomSeed=1)
    (tmp_path / "m.sdf").write_text(Chem.MolToMolBlock(molecule) + "$$$$\n")
    with pytest.raises(UnsupportedSystemError) as raised:
        build_from_sdf(tmp_path / "m.sdf", 1)
    assert f"structure.file: m.sdf {found}, and " in str(raised.value)


@pytest.mark.parametrize("smiles", ["[C-]#[O+]", "C[N+](=O)[O-]", "[H][H]", "O", "CC(=O)[O-]"])
def test_closed_shells_in_brackets_are_built(smiles):
    build_from_smiles(smiles, 1)


def test_isomer_is_in_the_methods(tmp_path):
    """Also after the structure went through its file, as when a run is made longer."""
    document = {
        "structure": {"smiles": "CC(O)C(C)O"},
        "solvent": {"edge": "16 A"},
        "potential": "amber14",
    }
    system = parse_system(document, "x.yaml")
    plan = make_plan(system, parse_protocol({"stages": [{"kind": "minimize"}]}, "p"), RunOptions())
    texts = []
    for seed in (1, 2):
        structure = build_structure(system, seed)
        isomer = build_from_smiles("CC(O)C(C)O", seed).isomeric_smiles
        save_structure(tmp_path / "structure.json", structure)
        for one in (structure, load_structure(tmp_path / "structure.json")):
            texts.append(methods_text(plan, one, {}))
            assert f"The molecule MOL is {isomer} (isomeric SMILES)." in texts[-1]
    assert texts[0] != texts[2]
