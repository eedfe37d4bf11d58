"""Small molecules from SMILES and SDF: which isomer is built."""

import logging

import pytest
from rdkit import Chem
from rdkit.Chem import rdDepictor

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
