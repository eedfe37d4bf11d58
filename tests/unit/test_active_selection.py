"""Which frames a round labels, and what is cut from them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import openmm.app
import pytest
import yaml

from trip_mm.active_learning import exploration, retraining
from trip_mm.active_learning.exploration import (
    Machine,
    driver_of,
    explore,
    prepare_trajectory,
)
from trip_mm.active_learning.layout import (
    RoundDirectory,
    mark_done,
    open_or_create,
    round_directory,
)
from trip_mm.active_learning.recipe import ActiveRecipe, SelectionConfig, load_active_recipe
from trip_mm.active_learning.retraining import relative_to, retrain
from trip_mm.active_learning.rounds import (
    CONVERGED,
    UNDER_WAY,
    _check_level,
    not_finite_note,
    round_state,
)
from trip_mm.active_learning.selection import Frame, _statistics, choose, cut, select
from trip_mm.checkpoint import new_potential, save_potential
from trip_mm.errors import ConfigError, RunDirectoryError
from trip_mm.model.config import TripConfig
from trip_mm.simulation.committee_reporter import COMMITTEE_COLUMNS
from trip_mm.simulation.overrides import apply_overrides, split_overrides
from trip_mm.simulation.protocol_config import ProtocolConfig
from trip_mm.simulation.yaml_io import read_yaml
from trip_mm.training.config import load_training_config
from trip_mm.training.dataset import Dataset
from trip_mm.training.formats_write import FileHeader, write_conformations
from trip_mm.training.sampling_dynamics import Liquid
from trip_mm.training.sampling_geometry import unlabelled

CELL = np.eye(3) * 20.0


def selection(**settings: object) -> SelectionConfig:
    return SelectionConfig.model_validate({"above": "2 kcal/mol/A", **settings})


def frames(*values: float, trajectory: int = 1, stage: str = "01-nvt") -> list[Frame]:
    return [
        Frame(trajectory, stage, 10 * (index + 1), 0.01 * (index + 1), 0, value)
        for index, value in enumerate(values)
    ]


def steps(chosen: list[Frame]) -> list[int]:
    return [frame.step for frame in chosen]


def test_only_frames_above_the_threshold_are_chosen_worst_first() -> None:
    found = frames(1.0, 3.0, 1.9, 5.0, 2.0, 4.0)
    assert steps(choose(found, selection())) == [20, 40, 60]
    assert steps(choose(found, selection(max_frames=2))) == [40, 60]
    assert choose(found, selection(above="1 eV/A")) == []


def test_chosen_frames_of_a_trajectory_keep_their_distance() -> None:
    found = frames(3.0, 4.0, 5.0, 4.5, 3.5)
    assert steps(choose(found, selection(spacing="20 fs"))) == [10, 30, 50]
    other = frames(3.0, 9.0, trajectory=2) + frames(8.0, stage="02-nvt")
    chosen = choose(found + other, selection(spacing="20 fs"))
    assert [(f.trajectory, f.stage, f.step) for f in chosen] == [
        (1, "01-nvt", 10),
        (1, "01-nvt", 30),
        (1, "01-nvt", 50),
        (1, "02-nvt", 10),
        (2, "01-nvt", 20),
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_disagreement_that_is_no_number_is_above_every_threshold(value: float) -> None:
    found = frames(1.0, value, 5.0, 1.5)
    assert steps(choose(found, selection())) == [20, 30]
    assert steps(choose(found, selection(max_frames=1))) == [20]
    statistics = _statistics(found, 2, selection())
    assert (statistics["n_above"], statistics["n_not_finite"]) == (2, 1)
    assert statistics["largest_kcal_per_mol_per_angstrom"] == 5.0
    assert statistics["median_kcal_per_mol_per_angstrom"] == 1.5
    only = _statistics(frames(value), 1, selection())
    assert only["n_above"] == 1
    assert only["largest_kcal_per_mol_per_angstrom"] is None
    row = {"round": 2, **statistics, "n_labelled": 2, "n_unstable": 0}
    assert not_finite_note(row).startswith("round 2: the disagreement of 1 of 4 frames is not a nu")


def write_round(folder: Path, disagreements: list[str]) -> RoundDirectory:
    """A round of one trajectory of a water: a frame every 10 steps, the last one not written."""
    directory = RoundDirectory(folder, 1)
    stage = directory.trajectory(1) / "01-nvt"
    stage.mkdir(parents=True)
    rows = [
        f"{10 * (k + 1)},{0.01 * (k + 1)},{value},0,0.1" for k, value in enumerate(disagreements)
    ]
    header = ",".join(f'"{name}"' for name in COMMITTEE_COLUMNS)
    (stage / "committee.csv").write_text("\n".join([header, *rows, ""]))
    topology = openmm.app.Topology()
    residue = topology.addResidue("HOH", topology.addChain())
    for name, symbol in (("O", "O"), ("H1", "H"), ("H2", "H")):
        topology.addAtom(name, openmm.app.Element.getBySymbol(symbol), residue)
    positions = np.asarray([[0.0, 0.0, 0.0], [0.096, 0.0, 0.0], [-0.024, 0.093, 0.0]])
    with (directory.trajectory(1) / "topology.pdb").open("w") as file:
        openmm.app.PDBFile.writeFile(topology, positions * openmm.unit.nanometer, file)
    xtc = openmm.app.XTCFile(str(stage / "trajectory.xtc"), topology, 0.001, 10, 10)
    for _ in disagreements[:-1]:
        xtc.writeModel(positions * openmm.unit.nanometer)
    return directory


def test_frames_without_a_number_are_labelled_where_they_were_written(tmp_path: Path) -> None:
    directory = write_round(tmp_path / "written", ["0.1", "nan", "nan"])
    found = select(recipe(1), directory)
    assert (found["n_frames"], found["n_above"], found["n_not_finite"]) == (3, 2, 2)
    assert found["n_selected"] == len(Dataset.open(directory.geometries)) == 1
    nothing = select(recipe(1), write_round(tmp_path / "nothing", ["0.1", "nan"]))
    assert (nothing["n_above"], nothing["n_selected"]) == (1, 0)
    state = round_state({**nothing, "n_labelled": 0, "n_unstable": 0}, last=False)
    assert state.startswith("ended: the disagreement of 1 frames is not a number")


def test_a_frame_that_was_not_written_is_not_labelled(tmp_path: Path) -> None:
    found = select(recipe(1), write_round(tmp_path / "round", ["9.0", "9.0", "99.0"]))
    assert (found["n_above"], found["n_selected"]) == (3, 2)


def test_only_stages_on_the_potential_of_the_run_are_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.yaml").write_text(
        "name: p\n"
        "defaults: {temperature: 300 K, friction: 1/ps, timestep: 1 fs,\n"
        "  committee: {models: [a.safetensors, b.safetensors], every: 10 fs}}\n"
        "stages:\n"
        "  - {kind: minimize}\n"
        "  - {kind: nvt, name: soft, duration: 20 fs, potential: amber14}\n"
        "  - {kind: nvt, duration: 20 fs}\n"
    )
    monkeypatch.setattr(exploration, "prepare_run", lambda system, protocol, options: options)
    own = recipe(1).model_copy(update={"protocol": str(tmp_path / "p.yaml")})
    members = (Path("1.safetensors"), Path("2.safetensors"))
    options = prepare_trajectory(own, members, Machine(), (1, 1))
    _, changes = split_overrides(options.overrides)
    document = apply_overrides(read_yaml(tmp_path / "p.yaml"), changes, ProtocolConfig, "p.yaml")
    stages = ProtocolConfig.model_validate(document).stages
    assert stages[1].committee is None
    assert stages[2].committee.models == ["1.safetensors", "2.safetensors"]


@pytest.mark.parametrize("backend", ["auto", "python"])
def test_a_trajectory_continues_where_the_command_says(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = RoundDirectory(tmp_path, 1)
    directory.trajectory(1).mkdir(parents=True)
    (directory.trajectory(1) / "run.json").touch()
    told: dict[str, object] = {}
    monkeypatch.setattr(exploration, "resume", lambda path, **options: told.update(options))
    machine = Machine(backend, "Reference", 1)
    explore(recipe(1), [Path("1.safetensors")], directory, machine, print)
    del told["progress"]
    known = None if backend == "auto" else backend
    assert told == {"backend": known, "platform": "Reference", "threads": 1}


def test_finished_rounds_are_not_taken_back(tmp_path: Path) -> None:
    open_or_create(tmp_path, {"max_rounds": 3})
    for number in (1, 2, 3):
        round_directory(tmp_path, number)
    for number in (1, 2):
        mark_done(round_directory(tmp_path, number).path, {"round": number})
    for allowed in (5, 2):
        open_or_create(tmp_path, {"max_rounds": allowed})
    with pytest.raises(RunDirectoryError, match="max_rounds: 1 is fewer than the 2 rounds"):
        open_or_create(tmp_path, {"max_rounds": 1})


def liquid(n_waters: int = 30, n_solute: int = 4) -> Liquid:
    """A linear solute at the corner of the cell and waters along the diagonal, ever farther."""
    solute = np.asarray([[0.0, 1.5 * i, 0.0] for i in range(n_solute)]).reshape(-1, 3)
    water = np.asarray([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    shifts = [np.full(3, 2.0 + 0.3 * index) for index in range(n_waters)]
    positions = np.concatenate([solute, *(water + shift for shift in shifts)])
    numbers = np.asarray([6] * n_solute + [8, 1, 1] * n_waters)
    waters = n_solute + np.arange(3 * n_waters).reshape(-1, 3)
    return Liquid(None, positions, numbers, np.arange(n_solute), waters, CELL)


@pytest.mark.parametrize("atom", [1, 4, 6, 4 + 3 * 3])
def test_an_atom_at_the_solute_is_cut_with_the_solute(atom: int) -> None:
    frame = liquid()
    numbers, positions = cut(frame, atom, [5, 5], np.random.default_rng(0))
    assert numbers.tolist() == [6] * 4 + [8, 1, 1] * 5
    np.testing.assert_allclose(positions[:4], frame.start[:4])


def test_a_water_far_away_is_cut_with_its_own_neighbours() -> None:
    frame = liquid()
    row = 15
    numbers, positions = cut(frame, int(frame.waters[row, 2]), [5, 5], np.random.default_rng(0))
    assert numbers.tolist() == [8, 1, 1] * 5
    np.testing.assert_allclose(positions[:3], frame.start[frame.waters[row]])
    kept = sorted(positions[::3, 0].tolist())
    np.testing.assert_allclose(kept, frame.start[frame.waters[row - 2 : row + 3, 0], 0])


def test_the_number_of_waters_is_drawn_and_a_whole_frame_stays_whole() -> None:
    rng = np.random.default_rng(1)
    sizes = {len(cut(liquid(), 0, [3, 6], rng)[0]) for _ in range(60)}
    assert sizes == {4 + 3 * n for n in (3, 4, 5, 6)}
    numbers, positions = cut(liquid(), 0, None, rng)
    assert len(numbers) == len(positions) == 4 + 90
    pure = liquid(n_solute=0)
    assert len(cut(pure, 40, [4, 4], rng)[0]) == 12


def recipe(trajectories: int) -> ActiveRecipe:
    return ActiveRecipe.model_validate(
        {
            "name": "x",
            "system": "s",
            "protocol": "p",
            "committee": ["a", "b", "c"],
            "data": ["d"],
            "dynamics": {"compare_every": "5 fs", "trajectories": trajectories},
            "selection": {"above": "1 kcal/mol/A"},
            "training": {},
        }
    )


def test_members_drive_in_turn_across_rounds() -> None:
    found = [driver_of(recipe(2), (number, k), 3) for number in (1, 2, 3) for k in (1, 2)]
    assert found == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize(
    ("row", "last", "expected"),
    [
        ({"n_selected": 0, "n_labelled": 0, "n_unstable": 0}, False, CONVERGED),
        ({"n_selected": 0, "n_labelled": 0, "n_unstable": 0, "n_frames": 0}, False, "no frame was"),
        ({"n_selected": 0, "n_labelled": 0, "n_unstable": 2, "n_frames": 0}, False, "2 trajector"),
        ({"n_selected": 5, "n_labelled": 4, "n_unstable": 1}, False, UNDER_WAY),
        ({"n_selected": 5, "n_labelled": 4, "n_unstable": 0}, True, "ended after max_rounds"),
        ({"n_selected": 5, "n_labelled": 0, "n_unstable": 0}, False, "none of the 5 selected"),
        ({"n_selected": 0, "n_labelled": 0, "n_unstable": 2}, False, "2 trajectories became"),
    ],
)
def test_what_a_round_means(row: dict[str, int], last: bool, expected: str) -> None:
    assert expected in round_state({"n_frames": 9, "n_above": row["n_selected"], **row}, last)


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ("gfn2", None),
        ("GFN1-xTB", "GFN2-xTB is not the level of theory of the data"),
        ("", "do not state the level of theory of their labels"),
    ],
)
def test_new_labels_must_fit_the_data(level: str, message: str | None, tmp_path: Path) -> None:
    """Training refuses a mixture, too, but only after dynamics and labels have been paid for."""
    item = unlabelled([8, 1, 1], np.eye(3), "water", "w")
    labelled = replace(item, energy=-1.0, forces=np.zeros((3, 3)))
    write_conformations(tmp_path / "data.h5", [labelled], FileHeader("here", level))
    values = {
        "name": "levels",
        "system": "s.yaml",
        "protocol": "p.yaml",
        "committee": "c.json",
        "data": [str(tmp_path / "data.h5")],
        "dynamics": {"compare_every": "1 fs"},
        "selection": {"above": "2 kcal/mol/A"},
        "training": {"budget": {"max_steps": 1}},
    }
    recipe = ActiveRecipe.model_validate(values)
    if message is None:
        _check_level(recipe)
        return
    with pytest.raises(ConfigError, match=message):
        _check_level(recipe)


def test_retraining_finds_its_files_from_a_linked_directory(tmp_path: Path) -> None:
    """On a cluster `runs` is often a link to another file system."""
    elsewhere = tmp_path / "scratch" / "of" / "me"
    elsewhere.mkdir(parents=True)
    (tmp_path / "runs").symlink_to(elsewhere)
    folder = tmp_path / "runs" / "round-01"
    folder.mkdir()
    (tmp_path / "store").touch()
    (tmp_path / "data.h5").symlink_to("store")
    (folder / "labels.h5").touch()
    for file in (tmp_path / "data.h5", folder / "labels.h5"):
        found = relative_to(folder, file)
        assert (folder.resolve() / found).samefile(file)
        assert Path(found).name == file.name


def test_test_files_lie_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = replace(unlabelled([1, 8], np.eye(2, 3), "pair", "s"), energy=-1.0)
    for name in ("data.h5", "test.h5"):
        write_conformations(tmp_path / name, [item], FileHeader("here", "GFN2-xTB"))
    save_potential(new_potential(TripConfig.preset("trip-s")), tmp_path / "m.safetensors")
    values = {
        "system": "s",
        "protocol": "p",
        "committee": "c.json",
        "data": ["data.h5"],
        "dynamics": {"compare_every": "1 fs"},
        "selection": {"above": "2 kcal/mol/A"},
        "training": {"data": {"test_files": ["test.h5"]}, "budget": {"max_steps": 1}},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    recipe = load_active_recipe(tmp_path / "r.yaml")
    directory = round_directory(tmp_path, 1)
    configurations = []

    def stopped(config: Path, *arguments: object, **settings: object) -> Path:
        configurations.append(load_training_config(config))
        raise KeyboardInterrupt

    monkeypatch.setattr(retraining, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        retrain(recipe, [tmp_path / "m.safetensors"], [Path(recipe.data[0])], directory, print)
    (found,) = configurations[0].data.test_files
    assert found.samefile(tmp_path / "test.h5")
    (tmp_path / "test.h5").unlink()
    with pytest.raises(ConfigError, match=r"training\.data\.test_files: .*test\.h5: no such file"):
        load_active_recipe(tmp_path / "r.yaml")
