"""Active learning from a recipe: rounds, resuming, convergence, refusals, selection."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from trip_mm.active_learning.exploration import Machine
from trip_mm.active_learning.recipe import load_active_recipe
from trip_mm.active_learning.retraining import fixed_keys
from trip_mm.active_learning.rounds import CONVERGED, Outcome, active_learn
from trip_mm.checkpoint import load_potential, save_potential
from trip_mm.cli.main import app
from trip_mm.committee import load_committee
from trip_mm.errors import BackendError, ConfigError, RunDirectoryError
from trip_mm.simulation.committee_reporter import LARGEST_COLUMN
from trip_mm.simulation.reporters import read_table
from trip_mm.training.dataset import Dataset, FixedKeys
from trip_mm.training.formats_write import FileHeader, write_conformations
from trip_mm.training.labels_methods import find_method, lone_atom_energies
from trip_mm.training.sampling_geometry import unlabelled
from trip_mm.training.trainer import train

MACHINE = Machine(backend="python", platform="Reference", threads=1)
NUMBERS = np.asarray([8, 1, 1, 8, 1, 1])
DIMER = np.asarray(
    [
        [0.0, 0.0, 0.0],
        [0.96, 0.0, 0.0],
        [-0.24, 0.93, 0.0],
        [2.9, 0.0, 0.0],
        [3.2, 0.6, 0.68],
        [3.2, 0.6, -0.68],
    ]
)
MODEL = {
    "elements": ["H", "O"],
    "n_channels": 4,
    "l_max": 1,
    "n_layers": 1,
    "n_heads": 1,
    "cutoff": 3.5,
    "radial_hidden": 8,
    "edge_features": "bessel",
    "n_scalars": 4,
    "readout_hidden": 8,
}
TRAINING = {
    "optimizer": {"learning_rate": 5e-3, "force_gradient": "central-difference"},
    "schedule": {"warmup_steps": 2},
    "batch": {"n_conformations": 8},
    "budget": {"max_steps": 4},
    "validation": {"every_steps": 2},
    "ema_decay": 0.9,
    "n_threads": 1,
}
PROTOCOL = """
defaults: {temperature: 1000 K, timestep: 0.25 fs, log_interval: 1 fs, checkpoint_interval: 1 fs}
stages:
  - {kind: nvt, duration: 2 fs, friction: 10/ps}
"""
RECIPE = {
    "name": "dimer",
    "seed": 3,
    "system": "dimer.yaml",
    "protocol": "explore.yaml",
    "committee": ["start-1/m.safetensors", "start-2/m.safetensors"],
    "data": ["start.h5"],
    "dynamics": {"trajectories": 2, "compare_every": "0.5 fs"},
    "selection": {"above": "0.05 kcal/mol/A", "max_frames": 4, "spacing": "1 fs"},
    "labels": {"method": "gfn2", "chunk": 2},
    "training": {**TRAINING, "data": {"split": {"validation_fraction": 0.4}}},
    "max_rounds": 2,
}

CALM = {"protocol": "short.yaml", "selection": {"above": "1000 kcal/mol/A"}, "max_rounds": 5}


def write_pdb(path: Path) -> None:
    lines = []
    for index, position in enumerate(DIMER):
        name = ("O", "H1", "H2")[index % 3]
        x, y, z = position
        lines.append(
            f"ATOM  {index + 1:5d}  {name:<3} HOH A{index // 3 + 1:4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           {name[0]}"
        )
    path.write_text("\n".join([*lines, "END", ""]))


@pytest.fixture(scope="module", autouse=True)
def _no_training_pictures() -> Iterator[None]:
    """Spares the two pictures of each of a dozen trainings, tested elsewhere: half of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plot_learning_curve", "plot_parity"):
            patch.setattr(f"trip_mm.training.plots.{name}", lambda data, path: path.touch())
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A water dimer, forty labels of it, and two tiny models that learned from them."""
    pytest.importorskip("tblite", reason="labels by GFN2-xTB need tblite")
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("dimer")
    write_pdb(folder / "dimer.pdb")
    (folder / "dimer.yaml").write_text("structure: {file: dimer.pdb}\npotential: {trip: none}\n")
    (folder / "explore.yaml").write_text(PROTOCOL)
    (folder / "short.yaml").write_text(PROTOCOL.replace("duration: 2 fs", "duration: 0.5 fs"))
    write_labels(folder / "start.h5")
    for seed in (1, 2):
        values = {
            **TRAINING,
            "name": "m",
            "seed": seed,
            "model": MODEL,
            "data": {"files": ["start.h5"], "split": {"validation_fraction": 0.2}},
            "budget": {"max_steps": 30},
            "validation": {"every_steps": 30},
        }
        (folder / f"start-{seed}.yaml").write_text(yaml.safe_dump(values))
        train(folder / f"start-{seed}.yaml", folder / f"start-{seed}", report=lambda line: None)
    return folder


def write_labels(path: Path) -> None:
    rng = np.random.default_rng(0)
    method = find_method("gfn2")
    items = []
    for index in range(40):
        positions = DIMER + rng.normal(scale=0.05, size=DIMER.shape)
        found = method.calculate(NUMBERS, positions, 0)
        item = unlabelled(NUMBERS, positions, "dimer", f"source-{index % 5}")
        changed = {"energy": found.energy, "forces": found.forces, "geometry_id": index}
        items.append(type(item)(**{**item.__dict__, **changed}))
    lone = lone_atom_energies(method, (1, 8))
    write_conformations(path, items, FileHeader("test", method.name, lone, {}, {"dimer": "source"}))


def write_recipe(folder: Path, name: str = "recipe", **changes: object) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return path


def silent(line: str) -> None:
    assert line


@pytest.fixture(scope="module")
def whole(folder: Path) -> tuple[Path, Outcome]:
    out = folder / "whole"
    return out, active_learn(write_recipe(folder), out, MACHINE, silent)


def test_rounds_add_what_they_find_and_retrain(whole: tuple[Path, Outcome]) -> None:
    out, outcome = whole
    assert outcome.state.startswith("ended after max_rounds")
    assert [row["n_selected"] for row in outcome.rows] == [4, 4]
    assert [row["n_labelled"] for row in outcome.rows] == [4, 4]
    for number in (1, 2):
        folder = out / f"round-{number:02d}"
        finished = [folder, folder / "dynamics", folder / "selected", folder / "member-1"]
        assert all((path / "done.json").is_file() for path in finished)
        labels = Dataset.open(folder / "labels.h5")
        assert len(labels) == 4
        assert np.isfinite([item.energy for item in labels]).all()
        record = json.loads((folder / "member-2" / "train.json").read_text())
        assert record["n_train"] + record["n_validation"] == 40 + 4 * number
    drivers = [
        end["driver"]
        for end in json.loads((out / "round-02/dynamics/done.json").read_text())["ends"]
    ]
    assert drivers == [1, 2]
    final = load_committee(out / "committee.json")
    assert [Path(member.path) for member in final.members] == list(outcome.committee)
    assert outcome.committee[0].parts[-3:-1] == ("round-02", "member-1")
    table = (out / "summary.md").read_text()
    assert table.count("\n| ") == 2
    assert (out / "disagreement.png").stat().st_size > 5_000


def test_the_selected_frames_are_the_most_uncertain_and_labelled_where_they_are(
    whole: tuple[Path, Outcome],
) -> None:
    folder = whole[0] / "round-01"
    tables = [read_table(path) for path in sorted(folder.glob("dynamics/*/*/committee.csv"))]
    assert len(tables) == 2
    assert all(table["Step"].tolist() == [2, 4, 6, 8] for table in tables)
    rows = np.genfromtxt(
        folder / "selected" / "frames.csv", delimiter=",", names=True, dtype=None, encoding="utf-8"
    )
    chosen = rows["disagreement_kcal_per_mol_per_angstrom"]
    assert chosen.max() == max(table[LARGEST_COLUMN].max() for table in tables)
    for trajectory in (1, 2):
        times = rows["time_ps"][rows["trajectory"] == trajectory]
        assert (np.diff(times) > 0.00099).all()
    geometries = Dataset.open(folder / "selected" / "geometries.h5")
    assert {item.source for item in geometries} <= {
        f"dimer/round-01/trajectory-0{n}" for n in (1, 2)
    }
    committee = load_committee([whole[0].parent / name for name in RECIPE["committee"]])
    found = [
        committee.predict(item.positions, item.atomic_numbers).max_force_disagreement * 23.0605
        for item in geometries
    ]
    np.testing.assert_allclose(sorted(found), sorted(chosen), rtol=0.1)  # frames are rounded


def test_nothing_that_was_trained_on_is_held_out_later(
    whole: tuple[Path, Outcome], folder: Path
) -> None:
    out = whole[0]
    files = [folder / "start.h5", out / "round-01" / "labels.h5", out / "round-02" / "labels.h5"]
    for member in (1, 2):
        records = [folder / f"start-{member}" / "train.json"]
        records += [out / f"round-{k:02d}" / f"member-{member}" / "train.json" for k in (1, 2)]
        held: set[str] = set()
        trained: set[str] = set()
        for number, record in enumerate(map(json.loads, map(Path.read_text, records))):
            keys = Dataset.open(*files[: number + 1]).split_keys()
            now = set(record["split"]["held_out"])
            assert now
            assert held <= now
            assert not trained & now
            if number:
                fixed = record["config"]["data"]["split"]
                assert (set(fixed["hold_out"]), set(fixed["train_only"])) == (held, trained)
            held, trained = now, set(keys - now)
        assert any(key.startswith("visited/dimer/round-0") for key in held)


def test_a_committee_of_unknown_training_is_reported(folder: Path) -> None:
    for name in RECIPE["committee"]:
        source = folder / name
        unnamed = folder / f"{source.parent.name}.safetensors"
        save_potential(load_potential(str(source)), unnamed, metadata={})
    names = ["start-1.safetensors", "start-2.safetensors"]
    assert fixed_keys(folder / names[0], [folder / "start.h5"]) == FixedKeys()
    lines: list[str] = []
    recipe = write_recipe(folder, "unknown", **{**CALM, "committee": names})
    active_learn(recipe, folder / "unknown", MACHINE, lines.append)
    said = "start-1.safetensors, start-2.safetensors do not say which formulas and sources"
    assert any(said in line for line in lines)
    assert said in (folder / "unknown" / "summary.md").read_text()


class InterruptedHereError(RuntimeError):
    pass


def test_interrupted_anywhere_it_continues_to_the_same_result(
    whole: tuple[Path, Outcome], folder: Path
) -> None:
    marks = [
        "02-",
        "of 4 geometries labelled",
        "round 1: member 2",
        "step 2 ",
        "round 2: dynamics",
    ]
    out = folder / "parts"

    def interrupting(line: str) -> None:
        if marks and marks[0] in line:
            marks.pop(0)
            raise InterruptedHereError

    marks[0] = "trajectory-02"
    sessions = 0
    while True:
        sessions += 1
        try:
            outcome = active_learn(write_recipe(folder), out, MACHINE, interrupting)
        except InterruptedHereError:
            continue
        break
    assert sessions == 6
    assert (out / "summary.json").read_bytes() == (whole[0] / "summary.json").read_bytes()
    assert outcome.state == whole[1].state


def test_a_trajectory_goes_on_after_a_technical_failure(
    whole: tuple[Path, Outcome], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder / "failing"
    step, steps_left = openmm.app.Simulation.step, [3]

    def failing(simulation: openmm.app.Simulation, steps: int) -> None:
        steps_left[0] -= 1
        if not steps_left[0]:
            raise openmm.OpenMMException("Error invoking kernel: CUDA_ERROR_LAUNCH_FAILED (719)")
        step(simulation, steps)

    monkeypatch.setattr(openmm.app.Simulation, "step", failing)
    once = write_recipe(folder, "failing", max_rounds=1)
    with pytest.raises(BackendError, match=r"CUDA_ERROR_LAUNCH_FAILED .*fix the cause"):
        active_learn(once, out, MACHINE, silent)
    trajectory = out / "round-01" / "dynamics" / "trajectory-01"
    table = trajectory / "01-nvt" / "committee.csv"
    before = len(read_table(table)["Step"])
    assert not (trajectory / "ended.json").exists()
    assert not (trajectory / "01-nvt" / "crash").exists()
    active_learn(once, out, MACHINE, silent)
    found, expected = (
        read_table(path)[LARGEST_COLUMN] for path in (table, whole[0] / table.relative_to(out))
    )
    assert len(found) > before
    n_common = min(len(found), len(expected))
    np.testing.assert_array_equal(found[:n_common], expected[:n_common])
    end = json.loads((trajectory / "ended.json").read_text())
    assert "in the session before" not in end["message"]


KILLED_AFTER_TRAINING = """
import os, signal, sys
from trip_mm.active_learning import exploration, retraining, rounds
from trip_mm.training import plots

plots.plot_learning_curve = plots.plot_parity = lambda data, path: path.touch()
done = retraining.mark_done

def killed(folder, record):
    if folder.name == "member-2":
        os.kill(os.getpid(), signal.SIGKILL)
    return done(folder, record)

retraining.mark_done = killed
machine = exploration.Machine(backend="python", platform="Reference", threads=1)
rounds.active_learn(sys.argv[1], sys.argv[2], machine, lambda line: None)
"""


def test_killed_between_training_and_its_mark_it_keeps_what_was_trained(folder: Path) -> None:
    """The training is finished then, and active learning does not know it yet."""
    out, recipe = folder / "killed", write_recipe(folder, "killed", max_rounds=1)
    command = [sys.executable, "-c", KILLED_AFTER_TRAINING, str(recipe), str(out)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    member = out / "round-01" / "member-2"
    assert (out / "round-01" / "member-1" / "done.json").is_file()
    assert not (member / "done.json").exists()
    trained = load_file(member / "member-2.safetensors")
    outcome = active_learn(recipe, out, MACHINE, silent)
    assert outcome.state.startswith("ended after max_rounds")
    assert outcome.committee[1] == member / "member-2.safetensors"
    after = load_file(outcome.committee[1])
    assert all(torch.equal(after[name], value) for name, value in trained.items())
    assert len(load_committee(out / "committee.json")) == 2


def test_a_round_that_finds_nothing_ends_it(folder: Path) -> None:
    recipe = write_recipe(folder, "calm", **CALM)
    outcome = active_learn(recipe, folder / "calm", MACHINE, silent)
    assert outcome.state == CONVERGED
    assert len(outcome.rows) == 1
    assert outcome.rows[0]["n_above"] == 0
    assert not (folder / "calm" / "round-01" / "labels.h5").exists()
    again = active_learn(recipe, folder / "calm", MACHINE, silent)
    assert again == outcome


def test_without_a_label_it_ends_and_says_so(folder: Path) -> None:
    recipe = write_recipe(
        folder,
        "violent",
        dynamics={"trajectories": 1, "compare_every": "0.5 fs", "stop_above": "0.1 kcal/mol/A"},
        labels={"method": "gfn2", "max_force": 1e-6},
    )
    outcome = active_learn(recipe, folder / "violent", MACHINE, silent)
    assert outcome.state.startswith("ended: none of the 1 selected geometries could be labelled")
    (row,) = outcome.rows
    assert (row["n_disagreement"], row["n_frames"], row["n_labelled"]) == (1, 1, 0)
    assert row["failures"] == {"visited: force above 1e-06 eV/A": 1}
    assert outcome.committee == tuple(folder / name for name in RECIPE["committee"])
    end = json.loads((folder / "violent/round-01/dynamics/trajectory-01/ended.json").read_text())
    assert end["reason"] == "disagreement"


def test_another_recipe_does_not_continue(whole: tuple[Path, Outcome], folder: Path) -> None:
    changed = write_recipe(folder, "changed", seed=4)
    with pytest.raises(RunDirectoryError, match="was begun with another seed"):
        active_learn(changed, whole[0], MACHINE, silent)
    (folder / "foreign").mkdir(exist_ok=True)
    (folder / "foreign" / "x").touch()
    with pytest.raises(RunDirectoryError, match="is not empty"):
        active_learn(write_recipe(folder), folder / "foreign", MACHINE, silent)


@pytest.mark.parametrize("name", ["dimer.yaml", "dimer.pdb", "short.yaml"])
def test_edited_files_do_not_continue(name: str, folder: Path, tmp_path: Path) -> None:
    recipe, out = write_recipe(folder, "calm", **CALM), tmp_path / "out"
    active_learn(recipe, out, MACHINE, silent)
    before = (folder / name).read_text()
    kind = {"dimer.yaml": "system", "dimer.pdb": "structure", "short.yaml": "protocol"}[name]
    try:
        (folder / name).write_text(f"{before}\n")
        with pytest.raises(RunDirectoryError, match=f"another content of the {kind} file; restore"):
            active_learn(recipe, out, MACHINE, silent)
        record = json.loads((out / "active.json").read_text())
        del record[f"{kind}_sha256"]  # as an earlier version left it
        (out / "active.json").write_text(json.dumps(record))
        active_learn(recipe, out, MACHINE, silent)
        assert f"{kind}_sha256" in json.loads((out / "active.json").read_text())
    finally:
        (folder / name).write_text(before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 3}, "rounds: unknown key; did you mean 'max_rounds'?"),
        ({"committee": "a.safetensors"}, "committee: names one model; name at least two"),
        ({"data": ["missing.h5"]}, "data: .*missing.h5: no such file"),
        ({"selection": {"above": "3"}}, "selection.above: 3 has no unit"),
        (
            {"selection": {"above": "3 eV/A", "n_waters": [9, 4]}},
            "selection.n_waters: 9 to 4 is no range",
        ),
        (
            {"dynamics": {"compare_every": "0.5 fs", "stop_above": "0.01 kcal/mol/A"}},
            "dynamics.stop_above: is smaller than selection.above",
        ),
        ({"training": {**TRAINING, "initial": "x"}}, "training.initial: is set by active learning"),
        ({"training": {**TRAINING, "bugdet": {}}}, "training: bugdet: unknown key"),
        ({"training": {"data": {"files": ["x"]}}}, "training.data.files: are those of `data`"),
        (
            {"training": {**TRAINING, "data": {"split": {"by": "random"}}}},
            "training.data.split.by: would hold out what earlier rounds have trained on",
        ),
        (
            {"training": {**TRAINING, "data": {"split": {"train_only": ["x"]}}}},
            "training.data.split.train_only: is set by active learning",
        ),
        ({"training": {**TRAINING, "data": {"split": 1}}}, "training.data.split: is the number 1"),
        ({"training": {}}, "training: budget: is required"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_said(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "start.h5").touch()
    path = write_recipe(tmp_path, **changes)
    with pytest.raises(ConfigError, match=message) as error:
        load_active_recipe(path)
    assert str(error.value).startswith(str(path))


def test_labels_of_another_level_are_refused(folder: Path) -> None:
    recipe = write_recipe(folder, "level", labels={"method": "gfn1"})
    with pytest.raises(ConfigError, match="is not the level of theory of the data"):
        active_learn(recipe, folder / "level", MACHINE, silent)
    assert not (folder / "level").exists()


def test_a_device_that_is_not_there_is_refused_before_the_dynamics(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    recipe = write_recipe(folder, "device", training={**TRAINING, "device": "cuda"})
    with pytest.raises(ConfigError, match="device: torch finds no CUDA device here"):
        active_learn(recipe, folder / "device", MACHINE, silent)
    assert not (folder / "device").exists()


def test_the_command_prints_the_table_or_one_error(folder: Path) -> None:
    recipe = write_recipe(folder, "calm", **CALM)
    arguments = ["active-learn", str(recipe), "--platform", "Reference", "--threads", "1"]
    options = ["--backend", "python", "--out", str(folder / "calm")]
    result = CliRunner().invoke(app, [*arguments, *options], env={**os.environ, "COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert CONVERGED in result.output
    result = CliRunner().invoke(app, ["active-learn", str(folder / "none.yaml"), "--out", "x"])
    assert result.exit_code == 2
    assert "no such file" in result.output
