"""Geometry changes, recipes and the samplers, on the smallest possible systems."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trip_mm.cli.main import app
from trip_mm.errors import ConfigError, DataError
from trip_mm.training import sampling_clusters
from trip_mm.training.dataset import Dataset
from trip_mm.training.groups import Conformation
from trip_mm.training.sampling import sample_recipe
from trip_mm.training.sampling_clusters import cut_cluster, sample_liquid_water, sample_peptides
from trip_mm.training.sampling_dynamics import (
    Liquid,
    build_peptide,
    build_solvated_peptide,
)
from trip_mm.training.sampling_geometry import (
    fragment_of,
    made_whole,
    placed_at_distance,
    random_rotation,
    shortest_distance,
    stacked_at_distance,
    with_bond_scaled,
    with_hydrogens_rescaled,
    with_torsion_turned,
)
from trip_mm.training.sampling_molecules import build_molecule, sample_dimer_scans
from trip_mm.training.sampling_recipe import (
    DimerScansSource,
    LiquidWaterSource,
    PeptidesSource,
    TrajectorySource,
    load_recipe,
)
from trip_mm.training.sampling_trajectory import sample_trajectory

RECIPES = Path(__file__).parents[2] / "recipes"

SMALL_RECIPE = """
name: small
seed: 5
sources:
  - {kind: molecules, class: molecule, smiles: some.smi, conformations: 6, conformers: 1}
  - {kind: stretched-bonds, class: stretched, smiles: some.smi, conformations: 4, conformers: 1}
  - {kind: pairs, class: pair, conformations: 2, conformers: 1, pairs: [[O, O]]}
  - {kind: diatomics, class: diatomic, elements: [1, 8], distance: [1.0, 2.0], step: 0.5}
  - {kind: water-scan, class: water-scan, conformations: 2}
"""


def ethanol_chain() -> tuple[np.ndarray, list[tuple[int, int]]]:
    positions = np.array([[0, 0, 0], [1.5, 0, 0], [2.0, 1.4, 0], [2.9, 1.4, 0.5]], dtype=float)
    return positions, [(0, 1), (1, 2), (2, 3)]


def test_bond_is_scaled_and_the_rest_kept() -> None:
    positions, bonds = ethanol_chain()
    changed = with_bond_scaled(positions, bonds, (1, 2), 2.0)
    assert changed is not None
    lengths = np.linalg.norm(np.diff(changed, axis=0), axis=1)
    before = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    np.testing.assert_allclose(lengths, before * [1.0, 2.0, 1.0])
    np.testing.assert_array_equal(changed[:2], positions[:2])


def test_torsion_turns_only_what_hangs_on_it() -> None:
    positions, bonds = ethanol_chain()
    turned = with_torsion_turned(positions, bonds, (1, 2), np.pi)
    assert turned is not None
    np.testing.assert_allclose(turned[:3], positions[:3], atol=1e-12)
    assert np.linalg.norm(turned[3] - turned[2]) == pytest.approx(
        np.linalg.norm(positions[3] - positions[2])
    )
    assert abs(turned[3] - positions[3]).max() > 0.3


def test_ring_bonds_are_left_alone() -> None:
    assert fragment_of([(0, 1), (1, 2), (2, 0)], 0, 1) is None
    assert fragment_of([(0, 1), (1, 2)], 0, 1) == [1, 2]


def test_placed_molecules_touch_at_the_distance() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(4, 3)), rng.normal(size=(3, 3))
    for distance in (0.8, 2.0, 5.0):
        both = placed_at_distance(first, second, distance, rng)
        between = np.linalg.norm(both[:4, None] - both[None, 4:], axis=-1)
        assert between.min() == pytest.approx(distance)


def test_a_dimer_scan_pulls_rigid_molecules_apart() -> None:
    source = DimerScansSource.model_validate(
        {
            "kind": "dimer-scans",
            "class": "pair",
            "pairs": [["O", "CO"], ["C", "N"]],
            "scans": 3,
            "contact": [1.8, 1.8],
            "step": 0.25,
            "points": 5,
        }
    )
    found = list(sample_dimer_scans(source, np.random.default_rng(3)))
    assert len(found) == 15
    assert len({item.source for item in found}) == 3
    scan = np.array([item.positions for item in found[:5]])
    lengths = np.linalg.norm(scan[:, :, None] - scan[:, None], axis=-1)  # [5, 9, 9]
    for inside in (lengths[:, :3, :3], lengths[:, 3:, 3:]):
        np.testing.assert_allclose(inside, np.broadcast_to(inside[0], inside.shape))
    assert lengths[0, :3, 3:].min() == pytest.approx(1.8)
    centres = np.linalg.norm(scan[:, 3:].mean(axis=1) - scan[:, :3].mean(axis=1), axis=1)
    np.testing.assert_allclose(np.diff(centres), 0.25)


def test_stacked_molecules_lie_flat_on_each_other() -> None:
    rng = np.random.default_rng(4)
    angles = np.arange(6) * np.pi / 3
    ring = 1.4 * np.stack([np.cos(angles), np.sin(angles), np.zeros(6)], axis=1)
    ring = ring @ random_rotation(rng).T
    tilts = []
    for _ in range(40):
        both = stacked_at_distance(ring, ring, 3.3, rng)
        between = np.linalg.norm(both[:6, None] - both[None, 6:], axis=-1)
        assert between.min() == pytest.approx(3.3)
        normals = [np.linalg.svd(part - part.mean(axis=0))[2][2] for part in (both[:6], both[6:])]
        tilts.append(np.degrees(np.arccos(min(1.0, abs(normals[0] @ normals[1])))))
        apart = both[6:].mean(axis=0) - both[:6].mean(axis=0)
        assert 2.0 < abs(apart @ normals[0]) < 4.5
    assert np.median(tilts) < 10.0


def test_stacking_makes_no_mirror_image() -> None:
    rng = np.random.default_rng(5)
    chiral = np.array([[0.0, 0, 0], [1.0, 0, 0], [0, 1.2, 0], [0, 0, 0.7]])
    for _ in range(20):
        both = stacked_at_distance(chiral, chiral, 3.0, rng)
        for part in (both[:4], both[4:]):
            assert np.linalg.det(part[1:] - part[0]) == pytest.approx(1.0 * 1.2 * 0.7)


def test_random_rotation_is_proper() -> None:
    matrix = random_rotation(np.random.default_rng(1))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1.0)


def test_water_hydrogens_get_their_length() -> None:
    positions = np.array([[0, 0, 0], [1.01, 0, 0], [0, 1.01, 0.2]], dtype=float)
    changed = with_hydrogens_rescaled(positions, np.array([0]), np.array([[1, 2]]), 0.95)
    np.testing.assert_allclose(np.linalg.norm(changed[1:], axis=1), 0.95)


def test_cluster_takes_nearest_waters_in_their_nearest_image() -> None:
    edge = 10.0
    oxygens = np.array([[9.5, 0, 0], [3.0, 0, 0], [5.0, 5.0, 5.0]])
    bonds = np.array([[0, 0, 0], [0.9, 0, 0], [0, 0.9, 0]])
    waters = (oxygens[:, None] + bonds).reshape(-1, 3)
    positions = np.concatenate([[[0.5, 0.0, 0.0]], waters])
    numbers = np.array([6] + [8, 1, 1] * 3)
    liquid = Liquid(
        None, positions, numbers, np.array([0]), np.arange(1, 10).reshape(3, 3), edge * np.eye(3)
    )
    cluster = cut_cluster(liquid, positions, np.array([0]), 2)
    assert cluster.atomic_numbers.tolist() == [6, 8, 1, 1, 8, 1, 1]
    np.testing.assert_allclose(cluster.positions[1], [-0.5, 0, 0])
    np.testing.assert_allclose(cluster.positions[2], [0.4, 0, 0])
    np.testing.assert_allclose(cluster.positions[4], [3.0, 0, 0])


@pytest.mark.parametrize(
    ("sequence", "n_atoms"), [("ALA-ALA-ALA", 33), ("ACE-ALA-NME", 22), ("SER-ILE", 33)]
)
def test_peptides_have_their_atoms(sequence: str, n_atoms: int) -> None:
    topology, positions = build_peptide(sequence, 1)
    assert topology.getNumAtoms() == n_atoms
    assert shortest_distance(positions) > 0.9


def test_unknown_residue_is_named() -> None:
    with pytest.raises(ConfigError, match="'XYZ' is unknown"):
        build_peptide("ALA-XYZ", 1)


@pytest.mark.parametrize("sequence", ["GLY", "ACE", "ALA-ACE-ALA", "NME-ALA"])
def test_peptide_without_a_template_is_refused(sequence: str) -> None:
    with pytest.raises(ConfigError, match=f"'{sequence}'.*two residues or more"):
        build_peptide(sequence, 1)


def test_molecule_without_meaning_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        build_molecule("C(", 1, 0)


def test_peptide_clusters_are_whole_and_within_size() -> None:
    source = PeptidesSource.model_validate(
        {
            "kind": "solvated-peptides",
            "class": "peptide-cluster",
            "peptides": ["GLY-GLY"],
            "temperatures_k": [300.0],
            "snapshots": 1,
            "interval_ps": 0.02,
            "equilibration_ps": 0.02,
            "clusters_per_snapshot": 3,
            "n_atoms": [40, 60],
            "padding_nm": 0.4,
            "displacement": [0.0, 0.02],
        }
    )
    clusters = list(sample_peptides(source, np.random.default_rng(0)))
    assert len(clusters) == 3
    for cluster in clusters:
        assert 40 - 3 < len(cluster.atomic_numbers) <= 60
        assert cluster.atomic_numbers.sum() % 2 == 0
        assert_waters_whole(cluster, first=17)


def test_water_clusters_are_whole() -> None:
    source = LiquidWaterSource.model_validate(
        {
            "kind": "liquid-water",
            "class": "water-cluster",
            "temperatures_k": [300.0],
            "snapshots": 1,
            "interval_ps": 0.02,
            "equilibration_ps": 0.0,
            "n_waters": [3, 5],
            "displacement": [0.0, 0.02],
        }
    )
    for cluster in sample_liquid_water(source, np.random.default_rng(0)):
        assert len(cluster.atomic_numbers) in (9, 12, 15)
        assert_waters_whole(cluster, first=0)


def assert_waters_whole(cluster: Conformation, first: int) -> None:
    waters = cluster.positions[first:].reshape(-1, 3, 3)
    lengths = np.linalg.norm(waters[:, 1:] - waters[:, :1], axis=-1)
    assert lengths.min() > 0.8
    assert lengths.max() < 1.2


def sample_small(directory: Path, name: str, text: str = SMALL_RECIPE) -> Dataset:
    (directory / "some.smi").write_text("# comment\nCO\nCC\n")
    (directory / f"{name}.yaml").write_text(text)
    sample_recipe(directory / f"{name}.yaml", directory / f"{name}.h5")
    return Dataset.open(directory / f"{name}.h5")


def test_recipe_is_deterministic_by_seed(tmp_path: Path) -> None:
    first, again = (sample_small(tmp_path, name) for name in ("a", "b"))
    other = sample_small(tmp_path, "c", SMALL_RECIPE.replace("seed: 5", "seed: 6"))
    assert len(first) == 6 + 4 + 2 + 9 + 2
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.positions, two.positions)
    water = [next(i for i in d if i.system_class == "water-scan") for d in (first, other)]
    assert abs(water[0].positions - water[1].positions).max() > 0
    assert sorted(item.geometry_id for item in first) == list(range(len(first)))


def test_the_folder_of_the_output_is_made(tmp_path: Path) -> None:
    sample_small(tmp_path, "a")
    out = tmp_path / "new" / "folder" / "a.h5"
    assert sample_recipe(tmp_path / "a.yaml", out) == len(Dataset.open(out))


def test_odd_electrons_get_an_unpaired_one(tmp_path: Path) -> None:
    dataset = sample_small(tmp_path, "a")
    radicals = {item.formula for item in dataset if item.n_unpaired == 1}
    assert radicals == {"HO"}


def test_a_peptide_larger_than_its_clusters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    waters = np.arange(17, 26).reshape(3, 3)
    numbers = np.concatenate([np.full(17, 6), np.tile([8, 1, 1], 3)])
    liquid = Liquid(None, np.zeros((26, 3)), numbers, np.arange(17), waters, None)
    monkeypatch.setattr(sampling_clusters, "build_solvated_peptide", lambda *_: liquid)
    monkeypatch.setattr(sampling_clusters, "dynamics", lambda *_: iter([np.zeros((26, 3))]))

    def sampled(n_atoms: list[int]) -> list[Conformation]:
        given = {"kind": "solvated-peptides", "class": "p", "peptides": ["GLY-GLY"]}
        source = PeptidesSource.model_validate(
            {**given, "temperatures_k": [300.0], "snapshots": 1, "n_atoms": n_atoms}
        )
        return list(sample_peptides(source, np.random.default_rng(0)))

    assert [len(item.atomic_numbers) for item in sampled([10, 20])] == [20]
    with pytest.raises(ConfigError, match=r"class p: GLY-GLY has 17 atoms, .* n_atoms \[10, 19\]"):
        sampled([10, 19])


@pytest.mark.parametrize(
    ("geometries", "labels"),
    [("x.geometries.h5", "x.h5"), ("x.h5", "x.labels.h5"), ("x.y.h5", "x.y.labels.h5")],
)
def test_the_next_command_names_where_the_labels_go(
    tmp_path: Path, geometries: str, labels: str
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: x\nseed: 1\nsources: [{kind: diatomics, class: d, step: 2.0}]\n")
    out = tmp_path / geometries
    found = CliRunner().invoke(app, ["sample", str(recipe), "--out", str(out)])
    assert f"next: trip-mm label {out} --method gfn2 --out {tmp_path / labels}\n" in found.output


def test_scale_and_kept_out_formulas(tmp_path: Path) -> None:
    (tmp_path / "out.smi").write_text("CC\n")
    text = SMALL_RECIPE.replace("seed: 5", "seed: 5\nscale: 2\nkeep_out: out.smi")
    dataset = sample_small(tmp_path, "a", text)
    molecules = [item for item in dataset if item.system_class == "molecule"]
    assert len(molecules) == 12
    assert {item.formula for item in molecules} == {"CH4O"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "the top level is a list"),
        ("name: [", "line 1, column 8"),
        ("name: x\nseed: 1\nsources: []", "sources"),
        ("name: x\nseed: 1\nsources: [{kind: magic, class: m}]", "magic"),
        ("name: x\nseed: -1\nsources: [{kind: diatomics, class: d}]", "seed"),
        ("name: x\nseed: 1\nsources: [{kind: diatomics, class: d, colour: red}]", "colour"),
        (
            "name: x\nseed: 1\nsources: [{kind: diatomics, class: d, distance: [5.0, 1.0]}]",
            "not an ascending range",
        ),
    ],
)
def test_malformed_recipes_give_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(RECIPES.rglob("*.yaml")) if "sources:" in path.read_text("utf-8")],
    ids=lambda path: str(path.relative_to(RECIPES)),
)
def test_shipped_recipes_fit_the_schema(path: Path) -> None:
    assert load_recipe(path).sources


def test_broken_molecule_is_made_whole() -> None:
    cell = np.array([[10.0, 0, 0], [2.0, 9.0, 0], [-3.0, 2.0, 8.0]])
    chain = np.cumsum(np.random.default_rng(2).normal(0, 0.8, (12, 3)), axis=0)
    whole = made_whole(chain + np.random.default_rng(3).integers(-2, 3, (12, 3)) @ cell, cell)
    np.testing.assert_allclose(np.diff(whole, axis=0), np.diff(chain, axis=0), atol=1e-9)


def test_trajectory_is_cut_across_the_boundary(tmp_path: Path) -> None:
    import MDAnalysis
    from openmm import app

    liquid = build_solvated_peptide("GLY-GLY", 0.4, 1)
    universe_file = tmp_path / "topology.pdb"
    with universe_file.open("w") as file:
        app.PDBFile.writeFile(liquid.topology, liquid.start, file)
    universe = MDAnalysis.Universe(str(universe_file))
    edge = liquid.cell[0, 0]
    universe.dimensions = [edge, edge, edge, 90, 90, 90]
    with MDAnalysis.Writer(str(tmp_path / "t.xtc"), universe.atoms.n_atoms) as writer:
        for shift in (0.0, 7.0):
            universe.atoms.positions = (liquid.start + shift) % edge
            writer.write(universe.atoms)
    source = TrajectorySource.model_validate(
        {
            "kind": "trajectory",
            "class": "peptide-cluster",
            "topology": "topology.pdb",
            "trajectory": "t.xtc",
            "conformations": 2,
            "n_waters": [10, 10],
            "displacement": [0.0, 0.0],
        }
    )
    first, second = sample_trajectory(source, tmp_path, np.random.default_rng(0))
    assert len(first.atomic_numbers) == 17 + 30
    assert_waters_whole(first, first=17)
    distances = [
        np.sort(np.linalg.norm(c.positions[:, None] - c.positions[None], axis=-1).ravel())
        for c in (first, second)
    ]
    np.testing.assert_allclose(distances[0], distances[1], atol=0.05)
    source = source.model_copy(update={"first_frame": 5})
    with pytest.raises(DataError, match="2 frames"):
        next(sample_trajectory(source, tmp_path, np.random.default_rng(0)))


KEPT_OUT_RECIPE = """
name: kept-out
seed: 1
keep_out: test.smi
sources:
  - {{kind: {kind}, class: small, smiles: some.smi, conformations: 2, conformers: 1{more}}}
"""


@pytest.mark.parametrize("kind", ["molecules", "stretched-bonds"])
def test_a_source_without_molecules_is_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / "recipe.yaml").write_text(KEPT_OUT_RECIPE.format(kind=kind, more=""))
    (tmp_path / "some.smi").write_text("C\nO\n")
    (tmp_path / "test.smi").write_text("O\nC\n")
    empty = f"source {kind} of class small is empty: every molecule of some.smi has a formula"
    with pytest.raises(ConfigError, match=empty):
        sample_recipe(tmp_path / "recipe.yaml", tmp_path / "g.h5")
    assert not (tmp_path / "g.h5").exists()


def test_bonds_that_cannot_be_stretched_are_an_error(tmp_path: Path) -> None:
    more = ", factor: [0.01, 0.02]"
    text = KEPT_OUT_RECIPE.format(kind="stretched-bonds", more=more)
    (tmp_path / "recipe.yaml").write_text(text)
    (tmp_path / "some.smi").write_text("C\n")
    (tmp_path / "test.smi").write_text("O\n")
    with pytest.raises(ConfigError, match=r"C: atoms came closer than 0\.5 A 1000 times in a row"):
        sample_recipe(tmp_path / "recipe.yaml", tmp_path / "g.h5")
    (tmp_path / "recipe.yaml").write_text(text.replace("some.smi", "double.smi"))
    (tmp_path / "double.smi").write_text("O=O\n")
    with pytest.raises(ConfigError, match=r"no molecule of double\.smi has a single bond"):
        sample_recipe(tmp_path / "recipe.yaml", tmp_path / "g.h5")
