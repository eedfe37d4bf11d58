"""`trip-mm train` from a configuration to a model: resume, learning, refusals."""

import csv
import io
import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from trip_mm import load_committee, load_potential, new_potential, save_potential
from trip_mm.checkpoint import file_sha256
from trip_mm.cli.main import app
from trip_mm.elements import formula
from trip_mm.errors import CheckpointError, ConfigError, DataError, RunDirectoryError
from trip_mm.locking import locked
from trip_mm.training import callbacks, fit, plots, preparation
from trip_mm.training.ablation import VARIANTS, ablate, variant_config
from trip_mm.training.config import load_training_config
from trip_mm.training.dataset import Dataset
from trip_mm.training.evaluate import accuracies
from trip_mm.training.formats_write import FileHeader, write_conformations
from trip_mm.training.groups import Conformation
from trip_mm.training.preparation import load_data, resolve_model_config
from trip_mm.training.processes import Processes
from trip_mm.training.progress import TrainingBar
from trip_mm.training.record import Place
from trip_mm.training.statistics import energy_statistics
from trip_mm.training.trainer import train

LONE = {1: -10.0, 8: -100.0}


def morse(positions):
    """Energy and forces of all pairs, 2 eV deep at 1.2 A."""
    vectors = positions[None] - positions[:, None]
    lengths = np.linalg.norm(vectors, axis=-1) + np.eye(len(positions))
    decay = np.exp(-1.5 * (lengths - 1.2)) * (1 - np.eye(len(positions)))
    energy = 0.5 * 2.0 * (decay**2 - 2 * decay).sum()
    slopes = 2.0 * 1.5 * (-2 * decay**2 + 2 * decay)
    return energy, (slopes[..., None] * vectors / lengths[..., None]).sum(axis=1)


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "labels.h5"
    rng = np.random.default_rng(0)
    grid = np.asarray([[0, 0, 0], [1.2, 0, 0], [0, 1.3, 0], [0.9, 0.9, 1.0]])
    conformations = []
    for i in range(60):
        numbers = np.asarray([[1, 1, 8], [1, 1, 8, 8], [1, 8, 8], [1, 1, 1, 8]][i % 4])
        positions = grid[: len(numbers)] + rng.normal(scale=0.08, size=(len(numbers), 3))
        energy, forces = morse(positions)
        energy += sum(LONE[int(z)] for z in numbers)
        if i == 8:
            energy = np.nan
        conformations.append(
            Conformation(numbers, positions, energy, forces, "molecule", formula(numbers), "m")
        )
    write_conformations(path, conformations, FileHeader("test", "morse", LONE))
    return path


def write_config(path: Path, data_file: Path, **changes) -> Path:
    values = {
        "name": "tiny",
        "seed": 3,
        "data": {"files": [str(data_file)], "split": {"validation_fraction": 0.4}},
        "model": {
            "elements": ["H", "O"],
            "n_channels": 4,
            "l_max": 1,
            "n_layers": 1,
            "n_heads": 1,
            "cutoff": 3.0,
            "radial_hidden": 8,
            "edge_features": "bessel",
            "n_scalars": 4,
            "readout_hidden": 8,
        },
        "optimizer": {"learning_rate": 1e-2, "force_gradient": "central-difference"},
        "schedule": {"warmup_steps": 2},
        "batch": {"n_conformations": 8},
        "budget": {"max_steps": 12},
        "validation": {"every_steps": 4},
        "checkpoint_interval": "0.0001 s",
        **changes,
    }
    path.write_text(yaml.safe_dump(values))
    return path


class InterruptedHereError(RuntimeError):
    pass


def interrupt_at(step):
    def report(line):
        if line.startswith(f"step {step} "):
            raise InterruptedHereError

    return report


def silent(line):
    assert line


def test_resume_equals_uninterrupted_to_the_last_bit(tmp_path, data_file):
    config = write_config(tmp_path / "train.yaml", data_file)
    whole = train(config, tmp_path / "whole", report=silent)
    with pytest.raises(InterruptedHereError):
        train(config, tmp_path / "parts", report=interrupt_at(8))
    parts = train(config, tmp_path / "parts", resume=True, report=silent)

    assert_same_weights(whole, parts)
    logs = [read_rows(tmp_path / name / "log.csv") for name in ("whole", "parts")]
    timed = {"elapsed_s", "conformations_per_s"}
    assert [{k: v for k, v in row.items() if k not in timed} for row in logs[0]] == [
        {k: v for k, v in row.items() if k not in timed} for row in logs[1]
    ]
    assert [row["step"] for row in logs[0]] == ["4", "8", "12"]


def test_a_run_continues_where_the_regression_rounds_otherwise(tmp_path, data_file, monkeypatch):
    """Another processor gives self energies that differ in the last digit."""
    config = write_config(tmp_path / "train.yaml", data_file, loss="thesis")
    values = yaml.safe_load(config.read_text())
    values["model"]["lone_atoms"] = "trained"
    config.write_text(yaml.safe_dump(values))
    with pytest.raises(InterruptedHereError):
        train(config, tmp_path / "run", report=interrupt_at(8))

    def on_another_processor(*arguments):
        found = energy_statistics(*arguments)
        moved = {z: float(np.nextafter(own, 0.0)) for z, own in found.self_energies.items()}
        return replace(found, self_energies=moved)

    monkeypatch.setattr(preparation, "energy_statistics", on_another_processor)
    assert train(config, tmp_path / "run", resume=True, report=silent).is_file()


def test_two_processes_do_not_train_the_same_run(tmp_path, data_file):
    config = write_config(tmp_path / "train.yaml", data_file)
    out = tmp_path / "run"
    out.mkdir()
    with locked(out), pytest.raises(RunDirectoryError, match="is in use by process"):
        train(config, out, report=silent)
    train(config, out, report=silent)
    with locked(out), pytest.raises(RunDirectoryError, match="is in use by process"):
        train(config, out, resume=True, report=silent)


def test_a_run_killed_while_it_exports_gives_the_same_model(tmp_path, data_file, monkeypatch):
    changes = {"budget": {"max_steps": 10}, "checkpoint_interval": "1 h"}
    config = write_config(tmp_path / "train.yaml", data_file, **changes)
    whole = train(config, tmp_path / "whole", report=silent)
    with monkeypatch.context() as patch:
        patch.setattr(fit, "save_potential", raise_interrupted)
        with pytest.raises(InterruptedHereError):
            train(config, tmp_path / "killed", report=silent)
    resumed = train(config, tmp_path / "killed", resume=True, report=silent)

    assert_same_weights(whole, resumed)
    logs = [read_rows(tmp_path / name / "log.csv") for name in ("whole", "killed")]
    assert [[row["step"] for row in rows] for rows in logs] == [["4", "8", "10"]] * 2


def test_a_run_killed_while_it_draws_still_gets_its_pictures(tmp_path, data_file, monkeypatch):
    config = write_config(tmp_path / "train.yaml", data_file, budget={"max_steps": 4})
    with monkeypatch.context() as patch:
        patch.setattr(plots, "plot_learning_curve", raise_interrupted)
        with pytest.raises(InterruptedHereError):
            train(config, tmp_path / "out", report=silent)
    train(config, tmp_path / "out", resume=True, report=silent)
    for name in ("tiny.safetensors", "accuracy.json", "learning_curve.png", "parity.png"):
        assert (tmp_path / "out" / name).is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_stopped_by_a_signal_does_not_look_finished(tmp_path, data_file, monkeypatch, number):
    config = write_config(tmp_path / "train.yaml", data_file)
    out = tmp_path / "out"

    def killed(predictions):
        os.kill(os.getpid(), number)
        return accuracies(predictions)

    # a program that a shell began in the background ignores SIGINT
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(callbacks, "accuracies", killed)
            result = CliRunner().invoke(app, ["train", str(config), "--out", str(out)])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 128 + number
    assert f"stopped by {number.name} after step 4" in result.output
    assert not (out / "tiny.safetensors").exists()
    whole = train(config, tmp_path / "whole", report=silent)
    assert_same_weights(train(config, out, resume=True, report=silent), whole)


def test_what_slurm_left_of_another_run_is_not_continued(tmp_path, data_file, monkeypatch):
    """Under SLURM, Lightning looks for a checkpoint of its own where it was started."""
    config = write_config(tmp_path / "train.yaml", data_file, budget={"max_steps": 4})
    slurm = {"JOB_ID": 1, "JOB_NAME": "x", "NNODES": 1, "NTASKS": 1}
    for name, value in {**slurm, "NODEID": 0, "PROCID": 0, "LOCALID": 0}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"of another run")
    assert train(config, tmp_path / "out", report=silent).is_file()


def raise_interrupted(*arguments, **settings):
    raise InterruptedHereError


def test_a_finished_run_is_left_alone(tmp_path, data_file):
    config = write_config(tmp_path / "train.yaml", data_file)
    model = train(config, tmp_path / "out", report=silent)
    before = model.read_bytes(), model.stat().st_mtime_ns
    lines: list[str] = []
    assert train(config, tmp_path / "out", resume=True, report=lines.append) == model
    assert any(line.startswith("finished before") for line in lines)
    assert (model.read_bytes(), model.stat().st_mtime_ns) == before


@pytest.mark.parametrize("spent", ["time", "patience"])
def test_a_run_that_has_ended_takes_no_more_steps(tmp_path, data_file, monkeypatch, spent):
    if spent == "time":
        changes = {"budget": {"max_time": "1 s"}}
    else:
        changes = {
            "budget": {"max_steps": 1000},
            "validation": {"every_steps": 1, "early_stopping": 1},
            "optimizer": {"learning_rate": 0.5, "force_gradient": "central-difference"},
        }
    config = write_config(tmp_path / "train.yaml", data_file, **changes)
    with monkeypatch.context() as patch:
        patch.setattr(fit, "save_potential", raise_interrupted)
        with pytest.raises(InterruptedHereError):
            train(config, tmp_path / "out", report=silent)
    ended = read_rows(tmp_path / "out" / "log.csv")
    assert int(ended[-1]["step"]) < 1000
    train(config, tmp_path / "out", resume=True, report=silent)
    again = read_rows(tmp_path / "out" / "log.csv")
    assert [row["step"] for row in again] == [row["step"] for row in ended]
    assert again[-1]["validation_loss"] == ended[-1]["validation_loss"]


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_model_learns_and_is_exported_with_its_record(tmp_path, data_file):
    config = write_config(
        tmp_path / "train.yaml",
        data_file,
        budget={"max_epochs": 20},
        validation={"every_steps": 25},
        checkpoint_interval="1 h",
        ema_decay=0.9,
        data={
            "files": [str(data_file)],
            "test_files": [str(data_file)],
            "split": {"validation_fraction": 0.4},
        },
    )
    lines: list[str] = []
    path = train(config, tmp_path / "out", report=lines.append)
    out = tmp_path / "out"
    record = json.loads((out / "train.json").read_text())
    assert record["left_out"] == {"missing_energy": 1, "missing_forces": 0, "large_force": 0}
    assert record["n_train"] + record["n_validation"] == 59
    assert any("left out: 1 without" in line for line in lines)
    rows = read_rows(out / "log.csv")
    assert float(rows[-1]["train_loss"]) < 0.8 * float(rows[0]["train_loss"])
    for name in ("learning_curve.png", "parity.png", "last.ckpt", "accuracy.json"):
        assert (out / name).stat().st_size > 100
    assert list((out / "tensorboard").glob("events*"))
    potential = load_potential(path)
    training = potential.metadata["training"]
    assert training["split"]["sha256"]
    assert training["accuracy"]["held out"]["all"]["n_conformations"] == record["n_validation"]
    assert training["accuracy"]["test files"]["molecule"]["n_conformations"] == 59
    energy, _ = potential.energy_and_forces(np.zeros((1, 3)), np.asarray([8]))
    assert energy == pytest.approx(-100.0, abs=1e-6)


def test_held_out_formulas_are_not_trained_on(tmp_path, data_file):
    config = load_training_config(write_config(tmp_path / "train.yaml", data_file))
    place = Place(tmp_path / "out", False, Processes(), silent)
    data = load_data(config, resolve_model_config(config), place)

    def formulas(store):
        bounds = zip(store.atom_offsets[:-1], store.atom_offsets[1:], strict=True)
        return {formula(store.atomic_numbers[a:b]) for a, b in bounds}

    assert formulas(data.validation)
    assert not formulas(data.train) & formulas(data.validation)


def test_holding_out_everything_is_refused(tmp_path, data_file):
    data = {"files": [str(data_file)], "split": {"by": "random", "validation_fraction": 0.999}}
    config = write_config(tmp_path / "train.yaml", data_file, data=data)
    with pytest.raises(DataError, match=r"every conformation .* is held out"):
        train(config, tmp_path / "out", report=silent)


def test_lone_atoms_can_be_trained(tmp_path, data_file):
    config = write_config(tmp_path / "train.yaml", data_file, budget={"max_steps": 2})
    values = yaml.safe_load(config.read_text())
    values["model"]["lone_atoms"] = "trained"
    values["loss"] = "thesis"
    values["schedule"] = {"kind": "step", "factor": 0.5}
    config.write_text(yaml.safe_dump(values))
    assert train(config, tmp_path / "out", report=silent).is_file()


def test_trained_lone_atoms_are_kept_where_training_goes_on(tmp_path, data_file):
    """Data of one molecule cannot say what an atom of each element is worth."""
    config = write_config(tmp_path / "train.yaml", data_file, budget={"max_steps": 2})
    values = yaml.safe_load(config.read_text())
    values["model"]["lone_atoms"] = "trained"
    config.write_text(yaml.safe_dump(values))
    first = load_potential(str(train(config, tmp_path / "out", report=silent)))
    dataset = Dataset.open(data_file)
    rows = [item for item in dataset if item.formula == dataset[0].formula]
    header = FileHeader("one", dataset.level_of_theory, dataset.lone_atom_energies)
    write_conformations(tmp_path / "one.h5", rows, header)
    values["initial"] = str(tmp_path / "out" / "tiny.safetensors")
    values["data"] = {"files": [str(tmp_path / "one.h5")], "split": {"by": "random"}}
    values["data"]["split"]["validation_fraction"] = 0.3
    values["optimizer"] = {"learning_rate": 1e-12, "weight_decay": 0.0}
    del values["model"]
    config.write_text(yaml.safe_dump(values))
    second = load_potential(str(train(config, tmp_path / "tuned", report=silent)))
    assert torch.equal(second.self_energies, first.self_energies)
    item = next(item for item in dataset if item.formula != dataset[0].formula)
    before, after = (
        p.energy_and_forces(item.positions, item.atomic_numbers)[0] for p in (first, second)
    )
    assert after == pytest.approx(before, abs=1e-4)
    write_conformations(tmp_path / "one.h5", rows, replace(header, level_of_theory="GFN1-xTB"))
    with pytest.raises(ConfigError, match="initial: its isolated atoms were trained at morse"):
        train(config, tmp_path / "other", report=silent)


def test_training_ends_with_its_time(tmp_path, data_file):
    config = write_config(
        tmp_path / "train.yaml", data_file, budget={"max_time": "0.2 s", "max_steps": 100000}
    )
    train(config, tmp_path / "out", report=silent)
    assert int(read_rows(tmp_path / "out" / "log.csv")[-1]["step"]) < 1000


def test_run_directories_are_checked(tmp_path, data_file):
    config = write_config(tmp_path / "train.yaml", data_file, budget={"max_steps": 2})
    out = tmp_path / "out"
    with pytest.raises(RunDirectoryError, match=r"no last\.ckpt"):
        train(config, out, resume=True, report=silent)
    train(config, out, report=silent)
    with pytest.raises(RunDirectoryError, match="not empty"):
        train(config, out, report=silent)
    changed = write_config(
        tmp_path / "other.yaml", data_file, optimizer={"learning_rate": 1e-3, "clip": 2.0}
    )
    with pytest.raises(RunDirectoryError, match="`optimizer`"):
        train(changed, out, resume=True, report=silent)
    # A record of a version without these settings.
    record = json.loads((out / "train.json").read_text())
    del record["n_processes"], record["config"]["precision"], record["config"]["data"]["storage"]
    (out / "train.json").write_text(json.dumps(record))
    longer = write_config(tmp_path / "longer.yaml", data_file, budget={"max_steps": 3})
    train(longer, out, resume=True, report=silent)
    assert load_potential(out / "tiny.safetensors").metadata["training"]["steps"] == 3


def test_a_run_killed_before_its_first_checkpoint_resumes_at_the_start(tmp_path, data_file):
    config = write_config(tmp_path / "train.yaml", data_file, checkpoint_interval="1 h")
    whole = train(config, tmp_path / "whole", report=silent)
    with pytest.raises(InterruptedHereError):
        train(config, tmp_path / "parts", report=interrupt_at(4))
    assert not (tmp_path / "parts" / "last.ckpt").exists()
    parts = train(config, tmp_path / "parts", resume=True, report=silent)
    assert_same_weights(whole, parts)
    assert [row["step"] for row in read_rows(tmp_path / "parts" / "log.csv")] == ["4", "8", "12"]


def test_data_on_disk_train_the_same_model(tmp_path, data_file):
    config = write_config(tmp_path / "train.yaml", data_file, checkpoint_interval="1 h")
    memory = train(config, tmp_path / "memory", report=silent)
    changed = {"files": [str(data_file)], "split": {"validation_fraction": 0.4}, "storage": "disk"}
    config = write_config(
        tmp_path / "disk.yaml", data_file, data=changed, checkpoint_interval="0.0001 s"
    )
    with pytest.raises(InterruptedHereError):
        train(config, tmp_path / "disk", report=interrupt_at(8))
    disk = train(config, tmp_path / "disk", resume=True, report=silent)
    one, other = load_file(memory), load_file(disk)
    for name in one:
        # The files hold float32: only the order of equal distances may differ.
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5)
    record = json.loads((tmp_path / "disk" / "train.json").read_text())
    assert record["left_out"]["missing_energy"] == 1


def assert_same_weights(one, other):
    one, other = load_file(one), load_file(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_committee_is_trained_resumed_and_loaded(tmp_path, data_file):
    config = write_config(tmp_path / "train.yaml", data_file, committee=2)
    whole = train(config, tmp_path / "whole", report=silent)
    lines: list[str] = []

    def interrupted(line):
        lines.append(line)
        if line.startswith("step 8 ") and sum(x.startswith("step 8 ") for x in lines) == 2:
            raise InterruptedHereError

    with pytest.raises(InterruptedHereError):
        train(config, tmp_path / "parts", report=interrupted)
    lines.clear()
    parts = train(config, tmp_path / "parts", resume=True, report=lines.append)
    assert sum(line.startswith("finished before") for line in lines) == 1
    one, other = load_committee(whole), load_committee(parts)
    for k in range(2):
        name = f"member-{k}/tiny-{k}.safetensors"
        assert_same_weights(tmp_path / "whole" / name, tmp_path / "parts" / name)
        assert one.members[k].metadata["training"]["config"]["seed"] == 3 + k
    positions, numbers = np.asarray([[0.0, 0, 0], [1.2, 0, 0], [0, 1.1, 0]]), np.asarray([8, 1, 1])
    found = other.predict(positions, numbers)
    assert found.max_force_disagreement > 0.0
    np.testing.assert_array_equal(found.energies, one.predict(positions, numbers).energies)

    # A finished member with other settings does not stand beside new ones.
    changed = write_config(tmp_path / "changed.yaml", data_file, committee=2, loss="thesis")
    with pytest.raises(RunDirectoryError, match="`loss`"):
        train(changed, tmp_path / "parts", resume=True, report=silent)

    # Fine-tuning the committee: each member from its own weights.
    tuned = write_config(
        tmp_path / "tune.yaml",
        data_file,
        committee=2,
        initial=str(whole),
        budget={"max_steps": 1},
        optimizer={"learning_rate": 1e-12},
    )
    tuned = load_committee(train(tuned, tmp_path / "tuned", report=silent))
    for before, after in zip(one.members, tuned.members, strict=True):
        np.testing.assert_allclose(
            before.energy_and_forces(positions, numbers)[1],
            after.energy_and_forces(positions, numbers)[1],
            atol=1e-4,
        )


def test_frozen_parts_keep_their_weights(tmp_path, data_file):
    config = write_config(tmp_path / "train.yaml", data_file, budget={"max_steps": 2})
    first = train(config, tmp_path / "first", report=silent)
    values = yaml.safe_load(config.read_text())
    values.update(initial=str(first), frozen=["embedding", "blocks.0.convolution"])
    del values["model"]
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(values))
    lines: list[str] = []
    second = train(tmp_path / "tune.yaml", tmp_path / "second", report=lines.append)
    assert any("frozen" in line for line in lines)
    before, after = load_file(first), load_file(second)
    frozen = [n for n in before if n.startswith(("model.embedding", "model.blocks.0.convolution"))]
    assert len(frozen) > 5
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(before["model.readout.0.weight"], after["model.readout.0.weight"])
    assert not torch.equal(
        before["model.blocks.0.project.maps.0.weight"],
        after["model.blocks.0.project.maps.0.weight"],
    )
    training = load_potential(second).metadata["training"]
    assert training["initial"] == {"file": "tiny.safetensors", "sha256": file_sha256(first)}
    assert str(tmp_path) not in json.dumps(training)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frozen": ["embeding"]}, r"no part 'embeding'; it has blocks\.0, embedding"),
        ({"frozen": ["blocks", "embedding", "norms", "readout", "last_convolution",
                     "self_interaction"]}, "nothing is left"),
        ({"model": {"preset": "trip-s"}}, "another model configuration"),
        ({"initial": "absent.safetensors"}, "absent.safetensors: neither a registered"),
    ],
)  # fmt: skip
def test_fine_tuning_is_checked_before_the_data_are_read(tmp_path, data_file, changes, message):
    config = write_config(tmp_path / "train.yaml", data_file, budget={"max_steps": 1})
    values = {**yaml.safe_load(config.read_text()), "initial": "start.safetensors"}
    potential = new_potential(resolve_model_config(load_training_config(config)))
    save_potential(potential, tmp_path / "start.safetensors")
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump({**values, **changes}))
    with pytest.raises((ConfigError, CheckpointError), match=message):
        train(tmp_path / "tune.yaml", tmp_path / "out", report=silent)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_mixed_precision_trains_float32_weights(tmp_path, data_file):
    exact = {"force_gradient": "double-backward"}
    weights = []
    for precision in ("float32", "bf16-mixed"):
        config = write_config(
            tmp_path / "train.yaml",
            data_file,
            precision=precision,
            optimizer=exact,
            budget={"max_steps": 2},
            validation={"every_steps": 2},
            schedule={"kind": "plateau", "patience": 0},
        )
        weights.append(load_file(train(config, tmp_path / precision, report=silent)))
    one, other = weights
    assert {name: tensor.dtype for name, tensor in one.items()} == {
        name: tensor.dtype for name, tensor in other.items()
    }
    name = "model.readout.0.weight"
    assert not torch.equal(one[name], other[name])
    torch.testing.assert_close(one[name], other[name], rtol=0.0, atol=0.02)


def test_early_stopping_ends_a_run(tmp_path, data_file):
    config = write_config(
        tmp_path / "train.yaml",
        data_file,
        optimizer={"learning_rate": 1.0},
        budget={"max_steps": 500},
        validation={"every_steps": 2, "early_stopping": 2},
    )
    lines: list[str] = []
    train(config, tmp_path / "out", report=lines.append)
    assert any("stopping early" in line for line in lines)
    rows = read_rows(tmp_path / "out" / "log.csv")
    losses = [float(row["validation_loss"]) for row in rows]
    assert len(rows) < 250
    assert min(losses) == losses[-3]


def test_what_the_budget_ends_before_is_named_at_the_start(tmp_path, data_file):
    config = write_config(
        tmp_path / "train.yaml",
        data_file,
        schedule={"kind": "plateau", "patience": 2, "warmup_steps": 2},
        validation={"every_steps": 4, "early_stopping": 2},
    )
    lines: list[str] = []
    train(config, tmp_path / "out", report=lines.append)
    named = [i for i, line in enumerate(lines) if line.startswith("beyond the budget: ")]
    assert ["schedule.patience" in lines[i] for i in named] == [True, False]
    assert "validation.early_stopping" in lines[named[1]]
    assert named[-1] < min(i for i, line in enumerate(lines) if line.startswith("step "))


def test_cuda_that_is_absent_is_refused(tmp_path, data_file):
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is there")
    config = write_config(tmp_path / "train.yaml", data_file, device="cuda")
    with pytest.raises(ConfigError, match="no CUDA device"):
        train(config, tmp_path / "out", report=silent)


def test_test_files_are_opened_before_training(tmp_path, data_file):
    data = {"files": [str(data_file)], "test_files": ["missing.h5"]}
    config = write_config(tmp_path / "train.yaml", data_file, data=data)
    with pytest.raises(DataError, match=r"data\.test_files: .*missing\.h5: no such file"):
        train(config, tmp_path / "out", report=silent)
    assert not (tmp_path / "out" / "log.csv").exists()


def test_test_files_that_cannot_be_evaluated_are_refused_before_training(tmp_path, data_file):
    data = {"files": [str(data_file)], "test_files": ["test.h5"]}
    config = load_training_config(write_config(tmp_path / "train.yaml", data_file, data=data))
    place = Place(tmp_path / "out", False, Processes(), silent)
    good = next(iter(Dataset.open(data_file)))
    for changes, message in (
        ({"energy": np.nan}, "no conformation has energy and forces"),
        ({"energy": np.inf}, "molecule/.*infinite energies or forces"),
        ({"atomic_numbers": np.full(len(good.atomic_numbers), 6), "formula": "C3"}, "holds C"),
    ):
        bad = replace(good, **changes)
        write_conformations(tmp_path / "test.h5", [bad], FileHeader("test", "morse", LONE))
        with pytest.raises(DataError, match=rf"^data\.test_files: .*{message}"):
            load_data(config, resolve_model_config(config), place)


def test_elements_outside_the_model_name_the_group(tmp_path, data_file):
    config = write_config(tmp_path / "train.yaml", data_file)
    values = yaml.safe_load(config.read_text())
    values["model"]["elements"] = ["H", "C"]
    (tmp_path / "link.h5").symlink_to(data_file)
    values["data"]["files"] = ["../x/../x/link.h5".replace("x", tmp_path.name)]
    config.write_text(yaml.safe_dump(values))
    place = re.escape(str(tmp_path / "link.h5"))
    with pytest.raises(DataError, match=rf"^{place}: molecule/\w+: holds O"):
        train(config, tmp_path / "out", report=silent)


@pytest.mark.parametrize("start", [train, ablate])
@pytest.mark.parametrize("key", ["files", "test_files"])
def test_missing_data_name_the_configuration_and_the_key(tmp_path, data_file, start, key):
    (tmp_path / "recipes").mkdir()
    data = {"files": [str(data_file)], key: ["../recipes/../data/absent.h5"]}
    config = write_config(tmp_path / "recipes" / "train.yaml", data_file, data=data)
    with pytest.raises(DataError) as raised:
        start(config, tmp_path / "out", report=silent)
    assert str(raised.value) == (
        f"{config}: data.{key}: {tmp_path}/data/absent.h5: no such file; make it with trip-mm "
        "label, or correct the name"
    )
    assert not (tmp_path / "out").exists()


def test_four_networks_are_compared_and_the_comparison_resumes(tmp_path, data_file):
    changes = {"budget": {"max_steps": 2}, "validation": {"every_steps": 1}}
    config = write_config(tmp_path / "ablate.yaml", data_file, **changes)
    values = yaml.safe_load(config.read_text())
    values["model"].update(n_heads=2)
    config.write_text(yaml.safe_dump(values))
    out = tmp_path / "out"
    lines: list[str] = []

    def interrupt(line):
        if line.startswith("step 1 ") and (out / "trip-one-head").exists():
            raise InterruptedHereError

    with pytest.raises(InterruptedHereError):
        ablate(config, out, report=interrupt)
    results = ablate(config, out, resume=True, report=lines.append)
    assert [result.variant for result in results] == list(VARIANTS)
    assert {result.steps for result in results} == {2}
    sizes = {result.variant: result.n_parameters for result in results}
    # Heads share out the same weights; attention has keys and queries.
    assert sizes["trip"] == sizes["trip-one-head"] > sizes["trip-equivariant"]
    configs = {v: load_potential(out / v / f"tiny-{v}.safetensors").config for v in VARIANTS}
    assert (configs["trip"].n_heads, configs["trip-one-head"].n_heads) == (2, 1)
    assert configs["trip-equivariant"].interaction == "convolution"
    assert (configs["trip"].l_max, configs["trip-invariant"].l_max) == (1, 0)
    table = (out / "ablations.md").read_text()
    found = results[3].accuracy
    assert f"| {found.energy_mae_kcal_per_mol:.2f}/{found.energy_rmse_kcal_per_mol:.2f} " in table
    assert "| 5.30/8.05 " in table
    assert "held out" in table
    assert len(json.loads((out / "ablations.json").read_text())) == 4
    values["committee"] = 2
    config.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="committee"):
        ablate(config, out, report=silent)


def test_a_reduced_preset_reduces_all_four_networks(tmp_path, data_file):
    config = write_config(tmp_path / "ablate.yaml", data_file, model={"preset": "trip-s"})
    base = load_training_config(config)
    found = {v: resolve_model_config(variant_config(base, v)) for v in VARIANTS}
    assert {c.n_channels for c in found.values()} == {8}
    assert {c.n_layers for c in found.values()} == {2}
    assert [c.n_heads for c in found.values()] == [2, 1, 2, 2]
    assert found["trip-invariant"].l_max == 0


def test_progress_is_told(tmp_path, data_file, monkeypatch):
    monkeypatch.setattr("trip_mm.training.progress._INTERVAL_S", 0.0)
    config = write_config(tmp_path / "train.yaml", data_file)
    told = []
    train(config, tmp_path / "out", report=silent, tell=told.append)
    assert [advance.step for advance in told] == list(range(1, 13))
    assert told[-1].share == 1.0
    assert told[5].share == pytest.approx(0.5)
    assert all(advance.conformations_per_s > 0 and advance.loss > 0 for advance in told)
    with TrainingBar(Console(file=io.StringIO(), force_terminal=True)) as bar:
        bar.report("a line")
        bar.tell(told[3])


def test_the_command_reports_errors_in_one_line(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("name: x\nbudget: {max_steps: 1}\ndata: {files: [nothing.h5]}\n")
    result = CliRunner().invoke(app, ["train", str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "nothing.h5" in result.output
    assert "Traceback" not in result.output
