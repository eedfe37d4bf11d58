"""Reading every known layout of labelled conformations, and splitting without leaks."""

import json
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from pydantic import ValidationError

from trip_mm.errors import DataError
from trip_mm.training.config import SplitConfig
from trip_mm.training.dataset import Dataset, FixedKeys
from trip_mm.training.formats_write import FileHeader, write_conformations, write_geometries
from trip_mm.training.groups import Conformation, group_conformations, group_place
from trip_mm.training.record import recorded_held_out
from trip_mm.training.splits import advise_to_hold_out, describe_too_few, draw_split
from trip_mm.units import HARTREE_TO_EV

FIXTURE = Path(__file__).parents[1] / "data" / "comp6_fixture.h5"


def make_conformation(
    symbols: str, source: str, system_class: str = "molecule", seed: int = 0
) -> Conformation:
    rng = np.random.default_rng(seed)
    numbers = np.array([{"H": 1, "C": 6, "N": 7, "O": 8}[s] for s in symbols])
    positions = rng.normal(size=(len(numbers), 3)).astype(np.float32).astype(np.float64)
    return Conformation(
        numbers, positions, -float(seed), -positions, system_class, symbols, source, 0, seed
    )


def write_ani1x(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, numbers, n_conf in (("C1H4", [6, 1, 1, 1, 1], 5), ("H2O1", [8, 1, 1], 3)):
            group = file.create_group(name)
            group["atomic_numbers"] = np.array(numbers, dtype=np.uint8)
            group["coordinates"] = np.ones((n_conf, len(numbers), 3), dtype=np.float32)
            group["wb97x_dz.energy"] = np.array([-1.0, np.nan, -2.0, -3.0, -4.0][:n_conf])
            group["wb97x_dz.forces"] = np.full((n_conf, len(numbers), 3), 0.5, dtype=np.float32)


def test_own_layout_keeps_every_number(tmp_path: Path) -> None:
    written = [make_conformation("OHH", "a", seed=1), make_conformation("CHHHH", "b", seed=2)]
    header = FileHeader("here", "GFN2-xTB", {1: -10.7, 8: -102.5}, {"SCF": 3}, {})
    write_conformations(tmp_path / "x.h5", written, header)
    dataset = Dataset.open(tmp_path / "x.h5")
    assert len(dataset) == 2
    assert dataset.lone_atom_energies == {1: -10.7, 8: -102.5}
    assert dataset.failures == {"SCF": 3}
    assert dataset.level_of_theory == "GFN2-xTB"
    by_formula = {item.formula: item for item in dataset}
    water = by_formula["OHH"]
    assert water.atomic_numbers.tolist() == [1, 1, 8]
    np.testing.assert_array_equal(water.positions, written[0].positions[[1, 2, 0]])
    np.testing.assert_array_equal(water.forces, written[0].forces[[1, 2, 0]])
    assert water.energy == -1.0
    assert (water.source, water.geometry_id) == ("a", 1)


def test_geometries_have_no_labels(tmp_path: Path) -> None:
    write_geometries(tmp_path / "g.h5", [make_conformation("OHH", "a")], FileHeader("here"))
    item = Dataset.open(tmp_path / "g.h5")[0]
    assert np.isnan(item.energy)
    assert np.isnan(item.forces).all()


def test_ani1x_layout_reads_every_group_and_keeps_missing(tmp_path: Path) -> None:
    write_ani1x(tmp_path / "ani1x.h5")
    dataset = Dataset.open(tmp_path / "ani1x.h5")
    assert [group.formula for group in dataset.groups] == ["C1H4", "H2O1"]
    energies = [item.energy for item in dataset]
    assert np.isnan([energies[1], energies[6]]).all()
    assert energies[7] == pytest.approx(-2.0 * HARTREE_TO_EV)
    np.testing.assert_allclose(dataset[7].forces, 0.5 * HARTREE_TO_EV)


def test_comp6_forces_are_negative_gradients() -> None:
    dataset = Dataset.open(FIXTURE)
    assert {group.system_class for group in dataset.groups} == {"s66x8"}
    with h5py.File(FIXTURE) as file:
        stored = file["s66x8/mol00"]
        gradient = stored["forces"][3]
        energy = stored["energies"][3]
    item = dataset[3]
    np.testing.assert_allclose(item.forces, -gradient * HARTREE_TO_EV, rtol=1e-6)
    assert item.energy == pytest.approx(energy * HARTREE_TO_EV)
    # Along a dimer's scan the work done by the forces is the drop in energy.
    first, last = dataset[2], dataset[4]
    step = last.positions - first.positions
    step -= step[:3].mean(axis=0)
    work = float((item.forces * step).sum())
    assert work == pytest.approx(first.energy - last.energy, rel=0.1)


def test_extended_xyz(tmp_path: Path) -> None:
    ase = pytest.importorskip("ase")
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    atoms = ase.Atoms("OH2", positions=[[0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]])
    atoms.calc = SinglePointCalculator(atoms, energy=-5.0, forces=np.full((3, 3), 0.1))
    write(tmp_path / "x.extxyz", [atoms, atoms], format="extxyz")
    dataset = Dataset.open(tmp_path / "x.extxyz")
    assert len(dataset) == 2
    assert dataset[1].energy == -5.0
    np.testing.assert_allclose(dataset[1].forces, 0.1)


def hydroxyl(path: Path, *comments: str) -> Path:
    frames = [f"2\n{comment}\nO 0 0 0\nH 0 0 0.97\n" for comment in comments]
    path.write_text("".join(frames))
    return path


@pytest.mark.parametrize(
    ("comment", "n_unpaired"),
    [
        ("energy=-1.0", 1),
        ("energy=-1.0 charge=0 spin_multiplicity=4", 3),
        ("energy=-1.0 multiplicity=2", 1),
        ("energy=-1.0 spin=2 total_charge=0.0", 1),
        ('energy=-1.0 Lattice="9 0 0 0 9 0 0 0 9" pbc="F F F"', 1),
    ],
)
def test_spin_of_extended_xyz(tmp_path: Path, comment: str, n_unpaired: int) -> None:
    pytest.importorskip("ase")
    (item,) = Dataset.open(hydroxyl(tmp_path / "oh.xyz", comment))
    assert (item.n_unpaired, item.energy) == (n_unpaired, -1.0)


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ('Lattice="9 0 0 0 9 0 0 0 9"', r"frame 1: is periodic.*open boundaries.*pbc=\"F F F\""),
        ('Lattice="9 0 0 0 9 0 0 0 9" pbc="F F T"', "frame 1: is periodic"),
        ("charge=-1", r"frame 1: charge is -1, and only neutral"),
        ("total_charge=1", r"frame 1: total_charge is \+1"),
        ("charge=neutral", "frame 1: charge 'neutral' is no number"),
        ("multiplicity=1", "frame 1: multiplicity 1 does not fit 9 electrons"),
        ("spin=1", "frame 1: spin 1 does not fit 9 electrons; write the multiplicity"),
        ("multiplicity=12", "frame 1: multiplicity 12 does not fit"),
        ("multiplicity=2 spin=4", "frame 1: multiplicity, spin contradict each other"),
        ("class=water/cluster", "frame 1: class 'water/cluster' is no name; write one without /"),
        ("class=.", r"frame 1: class '\.' is no name"),
        ("class=failed_ids", "frame 1: class 'failed_ids' is no name"),
        ("level_of_theory=gfn2", "frame 1: level_of_theory is gfn2, but none in the first"),
    ],
)
def test_extended_xyz_that_is_refused(tmp_path: Path, comment: str, message: str) -> None:
    pytest.importorskip("ase")
    path = hydroxyl(tmp_path / "oh.xyz", "energy=-1.0", f"energy=-1.0 {comment}")
    with pytest.raises(DataError, match=f"oh\\.xyz: {message}"):
        Dataset.open(path)


def test_text_that_is_no_extended_xyz_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ase")
    (tmp_path / "oh.xyz").write_text("two atoms\n\nO 0 0 0\nH 0 0 1\n")
    with pytest.raises(DataError, match=r"oh\.xyz: not a readable extended XYZ file"):
        Dataset.open(tmp_path / "oh.xyz")


def test_levels_are_not_mixed_unsaid(tmp_path: Path) -> None:
    pytest.importorskip("ase")
    silent = hydroxyl(tmp_path / "silent.xyz", "energy=-1.0")
    assert Dataset.open(silent).level_of_theory == ""
    with pytest.raises(
        DataError, match=r"silent\.xyz: does not state .*level_of_theory=wb97x/6-31g"
    ):
        Dataset.open(FIXTURE, silent)
    stated = hydroxyl(tmp_path / "stated.xyz", 'energy=-1.0 level_of_theory="wB97X/6-31G(d)"')
    assert Dataset.open(stated).level_of_theory == "wB97X/6-31G(d)"
    assert len(Dataset.open(FIXTURE, stated)) == 17
    other = hydroxyl(tmp_path / "other.xyz", "energy=-1.0 level_of_theory=GFN2-xTB")
    with pytest.raises(DataError, match="cannot be mixed"):
        Dataset.open(FIXTURE, other)
    geometries = hydroxyl(tmp_path / "geometries.xyz", "")  # nothing of unknown level
    assert len(Dataset.open(FIXTURE, geometries)) == 17


def test_split_keeps_formulas_and_trajectories_whole(tmp_path: Path) -> None:
    molecules = [make_conformation("C" * (1 + i % 30) + "H", "any", seed=i) for i in range(300)]
    clusters = [
        make_conformation("OHH" * (1 + i % 3), f"run{i % 25}", "cluster", seed=i)
        for i in range(200)
    ]
    header = FileHeader("here", split_by={"cluster": "source", "molecule": "formula"})
    write_conformations(tmp_path / "x.h5", molecules + clusters, header)
    dataset = Dataset.open(tmp_path / "x.h5")
    split = dataset.split(0.05, seed=3)
    parts = {
        name: [dataset[int(i)] for i in indices]
        for name, indices in (("train", split.train), ("validation", split.validation))
    }
    for name, key in (("molecule", "formula"), ("cluster", "source")):
        train, validation = (
            {getattr(c, key) for c in parts[part] if c.system_class == name}
            for part in ("train", "validation")
        )
        assert validation
        assert not train & validation
    assert len(split.train) + len(split.validation) == 500
    assert 0.02 * 500 <= len(split.validation) <= 0.08 * 500
    again = Dataset.open(tmp_path / "x.h5").split(0.05, seed=3)
    np.testing.assert_array_equal(split.validation, again.validation)
    assert dataset.split(0.05, seed=4).held_out != split.held_out
    assert json.loads(split.to_json())["n_train"] == len(split.train)


def write_sources(path: Path, system_class: str, counts: dict[str, int]) -> Path:
    """Writes water trimers, `counts[source]` of each source, split by source."""
    items = [
        make_conformation("OHH" * 3, source, system_class, seed=i)
        for source, count in counts.items()
        for i in range(count)
    ]
    write_conformations(path, items, FileHeader("here", split_by={system_class: "source"}))
    return path


def test_other_classes_change_nothing_of_what_a_class_holds_out(tmp_path: Path) -> None:
    old = write_sources(tmp_path / "old.h5", "old", {f"run{i}": 4 for i in range(20)})
    for name in ("added", "visited"):  # before and after `old` in the alphabet
        new = write_sources(tmp_path / f"{name}.h5", name, {f"run{i}": 4 for i in range(20)})
        for seed in range(5):
            alone = Dataset.open(old).split(0.1, seed)
            together = Dataset.open(old, new).split(0.1, seed)
            assert alone.held_out == tuple(k for k in together.held_out if k.startswith("old/"))
            kept = together.validation[together.validation < 80]
            np.testing.assert_array_equal(kept, alone.validation)


def test_a_source_too_large_for_the_fraction_is_trained_on(tmp_path: Path) -> None:
    two = write_sources(tmp_path / "two.h5", "two", {"a": 10, "b": 10})
    many = write_sources(tmp_path / "many.h5", "many", {f"run{i}": 4 for i in range(20)})
    split = Dataset.open(two, many).split(0.1)
    assert {key.split("/")[0] for key in split.held_out} == {"many"}
    assert json.loads(split.to_json())["trained_entirely"] == ["two"]
    assert describe_too_few(split) == ["two: too few sources to hold any out; all are trained on"]
    alone = Dataset.open(two).split(0.1)
    assert len(alone.validation) == 0
    advice = advise_to_hold_out(alone)
    assert advice.endswith("set data.split.validation_fraction to 0.34 or more")
    assert len(Dataset.open(two).split(0.34).validation) == 10
    assert len(Dataset.open(two).split(0.33).validation) == 0
    one = write_sources(tmp_path / "one.h5", "one", {"a": 10})
    assert "add data of other formulas or sources" in advise_to_hold_out(Dataset.open(one).split())


def test_what_is_fixed_stays_and_the_rest_is_drawn(tmp_path: Path) -> None:
    first = write_sources(tmp_path / "1.h5", "visited", {f"round-1/{i}": 4 for i in range(10)})
    later = write_sources(tmp_path / "2.h5", "visited", {f"round-2/{i}": 4 for i in range(10)})
    seed = 2  # of a draw that would change: see below
    before = Dataset.open(first).split(0.3, seed)
    keys = Dataset.open(first).split_keys()
    assert len(keys) == 10
    held = frozenset(before.held_out)
    both = Dataset.open(first, later)
    drawn = both.split(0.3, seed).held_out
    assert len(drawn) == 6
    assert not held <= set(drawn)
    after = both.split(0.3, seed, FixedKeys(held, keys - held))
    assert {key for key in after.held_out if "round-1" in key} == held
    assert len(after.held_out) == 6
    assert len(after.validation) == 24
    with pytest.raises(DataError, match="visited/nowhere: no such formula or source"):
        both.split(0.3, seed, FixedKeys(frozenset({"visited/nowhere"})))


def test_what_is_always_trained_on_cannot_be_held_out(tmp_path: Path) -> None:
    written = [make_conformation("OHH", "a", seed=1), make_conformation("CHHHH", "b", seed=2)]
    write_conformations(tmp_path / "x.h5", written, FileHeader("here"))
    dataset = Dataset.open(tmp_path / "x.h5")
    with pytest.raises(DataError, match="formula/H2O: formulas of up to 3 atoms are always"):
        dataset.split(0.3, 0, FixedKeys(frozenset({"formula/H2O"})))
    held = dataset.split(0.0, 0, FixedKeys(frozenset({"formula/CH4"}))).held_out
    assert held == ("formula/CH4",)


def test_a_run_that_resumes_keeps_the_split_that_it_recorded(tmp_path: Path) -> None:
    """Also one that was drawn by other rules, or by an earlier version."""
    dataset = Dataset.open(
        write_sources(tmp_path / "1.h5", "old", {f"run{i}": 4 for i in range(20)})
    )
    config = SplitConfig(validation_fraction=0.1)
    drawn = draw_split(dataset, config)
    recorded = frozenset({"old/run3", "old/run11"})
    assert recorded != set(drawn.held_out)
    assert frozenset(draw_split(dataset, config, recorded).held_out) == recorded
    again = draw_split(dataset, config, frozenset(drawn.held_out))
    assert again.to_json() == drawn.to_json()
    named = SplitConfig(validation_fraction=0.1, hold_out=("old/run3",), train_only=("old/run11",))
    found = draw_split(dataset, named).held_out
    assert "old/run3" in found
    assert "old/run11" not in found
    for out in (tmp_path / "run", tmp_path / "committee" / "member-0"):
        out.mkdir(parents=True)
        (out / "train.json").write_text(json.dumps({"split": {"held_out": sorted(recorded)}}))
    assert recorded_held_out(tmp_path / "run") == recorded
    assert recorded_held_out(tmp_path / "committee") == recorded
    assert recorded_held_out(tmp_path / "none") is None
    for wrong in ({"by": "random", "hold_out": ["a"]}, {"hold_out": ["a"], "train_only": ["a"]}):
        with pytest.raises(ValidationError, match="remove"):
            SplitConfig.model_validate(wrong)


def test_several_files_preload_and_pickle(tmp_path: Path) -> None:
    header = FileHeader("here", "GFN2-xTB", {1: -10.0})
    for name, seed in (("part-0.h5", 1), ("part-1.h5", 2)):
        items = [make_conformation("OHH", "a", seed=seed), make_conformation("CH", "b", seed=9)]
        write_conformations(tmp_path / name, items, header)
    dataset = Dataset.open(tmp_path)
    assert len(dataset) == 4
    assert dataset.elements() == (1, 6, 8)
    assert dataset.n_atoms().tolist() == [2, 3, 2, 3]
    loaded = pickle.loads(pickle.dumps(dataset)).preload()
    for first, second in zip(dataset, loaded, strict=True):
        np.testing.assert_array_equal(first.positions, second.positions)
        assert first.energy == second.energy


def test_groups_of_every_layout_say_where_they_are(tmp_path: Path) -> None:
    pytest.importorskip("ase", reason="extended XYZ is read by ASE")
    (tmp_path / "a.xyz").write_text('1\nenergy=-1.0 pbc="F F F"\nH 0 0 0\n')
    (group,) = Dataset.open(tmp_path / "a.xyz").groups
    assert group_place(group) == f"{tmp_path / 'a.xyz'}: {group.system_class}/H"
    water = make_conformation("OHH", "a")
    write_conformations(tmp_path / "a.h5", [water], FileHeader("test", "made", {}))
    opened = Dataset.open(tmp_path / "a.h5")
    places = [group_place(group) for group in (*opened.groups, *opened.preload().groups)]
    assert places == [f"{tmp_path / 'a.h5'}: {water.system_class}/{water.formula}"] * 2
    (bare,) = group_conformations([water], {})
    assert group_place(bare) == f"{water.system_class}/{water.formula}"


def test_refusals_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Dataset.open(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(DataError, match="not a readable HDF5"):
        Dataset.open(tmp_path / "text.h5")
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file["numbers"] = [1, 2]
    with pytest.raises(DataError, match="unknown HDF5 layout"):
        Dataset.open(tmp_path / "odd.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \*\.h5"):
        Dataset.open(tmp_path / "empty")
    for name, energy in (("a.h5", -10.0), ("b.h5", -11.0)):
        items = [make_conformation("OHH", "a")]
        write_conformations(tmp_path / name, items, FileHeader("x", "GFN2-xTB", {1: energy}))
    with pytest.raises(DataError, match="lone-atom energies"):
        Dataset.open(tmp_path / "a.h5", tmp_path / "b.h5")
    with pytest.raises(DataError, match="outside"):
        Dataset.open(tmp_path / "a.h5").split(1.5)


def test_a_file_named_twice_is_refused(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        (tmp_path / name).write_bytes(FIXTURE.read_bytes())
    assert len(Dataset.open(tmp_path)) == 2 * len(Dataset.open(FIXTURE))
    for again in (tmp_path, tmp_path / "c" / ".." / "b.h5"):
        with pytest.raises(DataError, match=r"b\.h5: is named twice|a\.h5: is named twice"):
            Dataset.open(tmp_path, again)
