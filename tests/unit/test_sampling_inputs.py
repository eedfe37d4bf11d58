"""What the samplers refuse or leave out, before or instead of sampling it wrongly."""

from pathlib import Path

import numpy as np
import pytest

from trip_mm.errors import ConfigError, DataError
from trip_mm.training.sampling import sample_recipe
from trip_mm.training.sampling_molecules import (
    build_molecule,
    sample_dimer_scans,
    sample_molecules,
    sample_pairs,
    sample_stretched_bonds,
)
from trip_mm.training.sampling_recipe import (
    DimerScansSource,
    MoleculesSource,
    PairsSource,
    ProtonTransfersSource,
    StretchedBondsSource,
    load_recipe,
)

RECIPES = Path(__file__).parents[2] / "recipes"
NOTHING: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [("CC(=O)[O-]", -1), ("C[NH3+]", 1), ("[NH3+]CC(=O)[O-]", 0), ("[CH3]", 0)],
)
def test_a_molecule_keeps_its_charge(smiles: str, charge: int) -> None:
    assert build_molecule(smiles, 1, 0).charge == charge


@pytest.mark.parametrize(("smiles", "charge"), [("CC(=O)[O-]", "-1"), ("C[NH3+]", r"\+1")])
def test_charged_molecules_are_refused(smiles: str, charge: str) -> None:
    given = {"class": "m", "smiles": "some.smi", "conformations": 2, "conformers": 1}
    molecules = MoleculesSource.model_validate({"kind": "molecules", **given})
    stretched = StretchedBondsSource.model_validate({"kind": "stretched-bonds", **given})
    rng = np.random.default_rng(0)
    for found in (
        sample_molecules(molecules, ["C", smiles], NOTHING, rng),
        sample_stretched_bonds(stretched, ["C", smiles], NOTHING, rng),
    ):
        with pytest.raises(ConfigError, match=rf"class m: SMILES .*charge of {charge}; .* pairs"):
            next(found)


def test_a_zwitterion_is_sampled() -> None:
    source = MoleculesSource.model_validate(
        {"kind": "molecules", "class": "m", "smiles": "x", "conformations": 1, "conformers": 1}
    )
    (found,) = sample_molecules(source, ["[NH3+]CC(=O)[O-]"], NOTHING, np.random.default_rng(0))
    assert found.n_unpaired == 0


@pytest.mark.parametrize("pair", [["O", "[NH4+]"], ["[NH4+]", "[NH4+]"], ["C(=O)[O-]", "O"]])
def test_pairs_with_a_charge_are_refused(pair: list[str]) -> None:
    pairs = [["O", "O"], pair]
    contacts = PairsSource.model_validate(
        {"kind": "pairs", "class": "p", "pairs": pairs, "conformations": 1, "conformers": 1}
    )
    scans = DimerScansSource.model_validate(
        {"kind": "dimer-scans", "class": "p", "pairs": pairs, "scans": 1, "conformers": 1}
    )
    rng = np.random.default_rng(0)
    for found in (sample_pairs(contacts, rng), sample_dimer_scans(scans, rng)):
        with pytest.raises(ConfigError, match=r"class p: pair .* carries a net charge of [+-][12]"):
            next(found)


def shipped_pairs() -> list[tuple[str, str]]:
    recipes = [p for p in sorted(RECIPES.rglob("*.yaml")) if "sources:" in p.read_text("utf-8")]
    return sorted(
        {
            pair
            for path in recipes
            for source in load_recipe(path).sources
            if isinstance(source, PairsSource | DimerScansSource | ProtonTransfersSource)
            for pair in source.pairs
        }
    )


def test_shipped_pairs_are_neutral() -> None:
    pairs = shipped_pairs()
    assert ("[OH3+]", "[OH-]") in pairs
    source = PairsSource.model_validate(
        {
            "kind": "pairs",
            "class": "p",
            "pairs": pairs,
            "conformations": len(pairs),
            "conformers": 1,
        }
    )
    found = list(sample_pairs(source, np.random.default_rng(0)))
    assert {item.n_unpaired for item in found} == {0}


# Sources without their ranges.
WATERS = "kind: water-scan, class: w, conformations: 1"
WATER = "kind: liquid-water, class: c, temperatures_k: [300.0], snapshots: 1"
FRAMES = "kind: trajectory, class: c, topology: t.pdb, trajectory: t.xtc, conformations: 1"
PROTONS = "kind: proton-transfers, class: c, pairs: [[O, O]], conformations: 1"
SPICE = "kind: spice-file, class: c, file: s.hdf5, conformations: 1"
PEPTIDES = (
    "kind: solvated-peptides, class: c, peptides: [GLY], temperatures_k: [300.0], snapshots: 1"
)


def write_recipe(path: Path, source: str) -> Path:
    path.write_text(f"name: x\nseed: 1\nsources: [{{{source}}}]\n")
    return path


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"{WATER}, n_waters: [32, 8]", "n_waters: .*32 to 8 is not an ascending range"),
        (f"{WATER}, n_waters: [0, 0]", "n_waters.*greater than 0"),
        (f"{WATER}, n_waters: [0, 5]", "n_waters.*greater than 0"),
        (f"{FRAMES}, n_waters: [9, 2]", "n_waters: .*9 to 2 is not an ascending range"),
        (f"{FRAMES}, n_waters: [-1, 2]", "n_waters.*greater than or equal to 0"),
        (f"{FRAMES}, n_waters: [0, 2], around: water", "n_waters: .*around: water"),
        (f"{SPICE}, n_waters: [9, 2]", "n_waters: .*9 to 2 is not an ascending range"),
        (f"{SPICE}, n_waters: [-2, 2]", "n_waters.*greater than or equal to 0"),
        (f"{SPICE}, oh_length: [1.0, 0.9]", "oh_length: .*1.0 to 0.9 is not an ascending range"),
        (f"{PROTONS}, progress: [0.5, 1.2]", "progress: .*1 is a proton on the acceptor"),
        (f"{PROTONS}, distance: [1.5, 3.0]", "distance: .*no room within 1.5 A"),
        (f"{PROTONS}, acceptors: []", "acceptors.*at least 1"),
        (f"{PEPTIDES}, n_atoms: [60, 40]", "n_atoms: .*60 to 40 is not an ascending range"),
    ],
)
def test_ranges_are_checked(tmp_path: Path, source: str, message: str) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", source)
    with pytest.raises(ConfigError, match=rf"recipe\.yaml: sources\[0\]\..*{message}"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"{SPICE}, displacement: [0.0, .nan]", r"displacement\[1\]: .*finite"),
        (f"{WATER}, interval_ps: .inf", "interval_ps: .*finite"),
        (WATER.replace("300.0", ".inf"), r"temperatures_k\[0\]: .*finite"),
    ],
)
def test_numbers_are_finite(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(write_recipe(tmp_path / "recipe.yaml", source))


def test_a_class_has_one_rule_of_splitting(tmp_path: Path) -> None:
    two = f"{SPICE}, split_by: source}}, {{{WATER}"
    with pytest.raises(
        ConfigError, match=r"recipe\.yaml: sources\[1\]\.split_by: class c is split by"
    ):
        load_recipe(write_recipe(tmp_path / "recipe.yaml", two))
    same = f"{SPICE}, split_by: source}}, {{{WATER}, split_by: source"
    assert len(load_recipe(write_recipe(tmp_path / "recipe.yaml", same)).sources) == 2
    others = two.replace("liquid-water, class: c", "liquid-water, class: w")
    assert len(load_recipe(write_recipe(tmp_path / "recipe.yaml", others)).sources) == 2


def test_recipes_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    with pytest.raises(ConfigError, match="the key 'conformations' occurs twice"):
        load_recipe(write_recipe(path, f"{SPICE}, conformations: 2"))
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml: byte 0 is not UTF-8"):
        load_recipe(path)
    path.write_text(f"name: x\nseed: 1\nscale: .inf\nsources: [{{{SPICE}}}]\n")
    with pytest.raises(ConfigError, match=r"scale: .*finite"):
        load_recipe(path)


@pytest.mark.parametrize(
    "source",
    [
        f"{WATER}, n_waters: [1, 1]",
        f"{FRAMES}, n_waters: [0, 0]",
        f"{FRAMES}, n_waters: [1, 2], around: water",
        f"{SPICE}, n_waters: [0, 3]",
        f"{SPICE}, n_waters: null",
        WATER.replace("[300.0]", "[400.0, 300.0]"),
        "kind: diatomics, class: d, elements: [8, 1]",
    ],
)
def test_what_is_no_range_need_not_ascend(tmp_path: Path, source: str) -> None:
    assert load_recipe(write_recipe(tmp_path / "recipe.yaml", source)).sources


SMILES_LIST = "class: m, smiles: some.smi, conformations: 1, conformers: 1"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"kind: molecules, {SMILES_LIST}", r"smiles: \S*some\.smi: no such file of SMILES; write"),
        (f"kind: stretched-bonds, {SMILES_LIST}", r"smiles: \S*some\.smi: no such file"),
        (
            f"kind: molecules, {SMILES_LIST.replace('some', 'bad')}",
            r"smiles: \S*bad\.smi: SMILES 'C\(' cannot be read",
        ),
        (SPICE, r"file: \S*s\.hdf5: no such file; give its directory with --data"),
        (FRAMES, r"topology: \S*t\.pdb: no such file; give its directory with --data"),
        (FRAMES.replace("t.pdb", "bad.smi"), r"trajectory: \S*t\.xtc: no such file"),
        (
            PEPTIDES.replace("GLY", "GLY-GLX"),
            "peptides: peptide 'GLY-GLX': residue 'GLX' is unknown",
        ),
        ("kind: pairs, class: p, pairs: [[O, Q]], conformations: 1", "pairs: SMILES 'Q' cannot"),
    ],
)
def test_what_a_source_needs_is_checked_before_anything_is_sampled(
    tmp_path: Path, source: str, message: str
) -> None:
    (tmp_path / "bad.smi").write_text("C\nC(\n")
    path = write_recipe(tmp_path / "r.yaml", f"{WATERS}}}, {{{source}")
    reported: list[str] = []
    with pytest.raises((ConfigError, DataError), match=rf"r\.yaml: sources\[1\]\.{message}"):
        sample_recipe(path, tmp_path / "g.h5", report=lambda kind, n: reported.append(kind))
    assert reported == []


def test_a_missing_list_of_formulas_to_keep_out_is_found_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"name: x\nseed: 1\nkeep_out: out.smi\nsources: [{{{WATERS}}}]\n")
    with pytest.raises(ConfigError, match=r"r\.yaml: keep_out: \S*out\.smi: no such file"):
        sample_recipe(path, tmp_path / "g.h5")


def test_what_is_wrong_with_a_source_names_it(tmp_path: Path) -> None:
    (tmp_path / "some.smi").write_text("C[NH3+]\n")
    path = write_recipe(tmp_path / "r.yaml", f"{WATERS}}}, {{kind: molecules, {SMILES_LIST}")
    with pytest.raises(ConfigError, match=r"r\.yaml: sources\[1\]: .* net charge of \+1"):
        sample_recipe(path, tmp_path / "g.h5")
