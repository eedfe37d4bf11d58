"""Training on two gloo processes, started by torchrun and as by SLURM, against one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import trip_mm
from trip_mm import load_committee
from trip_mm.training.config import load_training_config
from trip_mm.training.formats_write import FileHeader, write_conformations
from trip_mm.training.groups import Conformation
from trip_mm.training.loader import BatchStream
from trip_mm.training.module import TrainingModule, loss_settings
from trip_mm.training.preparation import (
    initial_potentials,
    prepare,
    resolve_model_config,
    set_statistics,
)
from trip_mm.training.processes import Processes
from trip_mm.training.record import Place

LONE = {1: -10.0, 8: -100.0}
MODEL = {
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
}
N_STEPS = 3
PLACE = Place(Path("unused"), False, Processes(), lambda line: None)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    rng = np.random.default_rng(0)
    grid = np.asarray([[0, 0, 0], [1.2, 0, 0], [0, 1.3, 0], [0.9, 0.9, 1.0]])
    conformations = []
    for i in range(48):
        numbers = np.asarray([[1, 1, 8], [1, 1, 8, 8], [1, 8, 8], [1, 1, 1, 8]][i % 4])
        positions = grid[: len(numbers)] + rng.normal(scale=0.1, size=(len(numbers), 3))
        energy = sum(LONE[int(z)] for z in numbers) + rng.normal()
        forces = rng.normal(size=positions.shape)
        name = "x" * (1 + i % 4)
        conformations.append(Conformation(numbers, positions, energy, forces, "m", name, "s"))
    write_conformations(folder / "labels.h5", conformations, FileHeader("t", "t", LONE))
    config = {
        "name": "tiny",
        "data": {"files": ["labels.h5"], "split": {"validation_fraction": 0.4}},
        "model": MODEL,
        "optimizer": {"learning_rate": 1e-2, "clip": 1e6, "force_gradient": "central-difference"},
        "schedule": {"kind": "constant", "warmup_steps": 0},
        "batch": {"n_conformations": 6},
        "budget": {"max_steps": N_STEPS, "max_time": "1 h"},
        "validation": {"every_steps": 2},
        "checkpoint_interval": "0.0001 s",
        "ema_decay": 0.0,
        "n_threads": 1,
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def averaged_gradients(config_file: Path) -> dict[str, torch.Tensor]:
    """Weights after the steps of two processes, computed by one: the mean of both gradients."""
    config = load_training_config(config_file)
    model_config = resolve_model_config(config)
    prepared = prepare(config, model_config, PLACE)
    (potential,) = initial_potentials(config, model_config)
    set_statistics(potential, config, prepared.statistics)
    module = TrainingModule(
        potential, config, loss_settings(config.loss, prepared.statistics.energy_std), 1, N_STEPS
    )
    streams = [
        iter(
            BatchStream(
                prepared.data.train,
                config.batch,
                config.seed,
                N_STEPS,
                torch.float32,
                None,
                Processes(2, 1, rank),
            )
        )
        for rank in range(2)
    ]
    optimizer = module.configure_optimizers()
    for group in optimizer.param_groups:
        group["lr"] = config.optimizer.learning_rate
    for _ in range(N_STEPS):
        optimizer.zero_grad()
        for stream in streams:
            (module.training_step(next(stream), 0) / 2).backward()
        optimizer.step()
    return dict(potential.model.named_parameters())


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def clean_environment() -> dict[str, str]:
    source = str(Path(trip_mm.__file__).parents[1])
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "TORCHELASTIC"))}
    return {**kept, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}


PROGRAM = "from trip_mm.cli.main import app; app()"


def by_torchrun(config_file: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    script = config_file.with_name("main.py")
    script.write_text(PROGRAM)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    place = ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    command = [*launcher, *place, str(script), "train", str(config_file), "--out", str(out)]
    return subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=clean_environment(),
    )


def by_slurm(config_file: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Starts two tasks with the variables that `srun --ntasks 2` sets on one node."""
    shared = {
        **clean_environment(),
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NAME": "train",
        "SLURM_NODELIST": "localhost",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    command = [sys.executable, "-c", PROGRAM, "train", str(config_file), "--out", str(out)]
    tasks = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**shared, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        )
        for rank in range(2)
    ]
    outputs = [task.communicate(timeout=300)[0] for task in tasks]
    code = max(task.returncode for task in tasks)
    return subprocess.CompletedProcess(command, code, "".join(outputs), "")


@pytest.mark.slow
@pytest.mark.parametrize("start", [by_torchrun, by_slurm])
def test_two_processes_average_their_gradients(config_file, tmp_path, start):
    done = start(config_file, tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 processes" in done.stdout
    found = load_file(tmp_path / "out" / "tiny.safetensors")
    # The best validation may be that of an earlier step: compare the last state.
    state = torch.load(tmp_path / "out" / "last.ckpt", weights_only=True)["state_dict"]
    for name, parameter in averaged_gradients(config_file).items():
        torch.testing.assert_close(
            state[f"potential.model.{name}"], parameter.detach(), rtol=1e-4, atol=1e-6
        )
        assert f"model.{name}" in found
    record = json.loads((tmp_path / "out" / "train.json").read_text())
    assert record["n_processes"] == 2
    assert done.stdout.count("\nstep 2 ") == 1


@pytest.mark.slow
def test_two_processes_resume(config_file, tmp_path):
    whole = by_torchrun(config_file, tmp_path / "whole")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    values = yaml.safe_load(config_file.read_text())
    values["budget"]["max_steps"] = 2
    short = config_file.with_name("short.yaml")
    short.write_text(yaml.safe_dump(values))
    for config, options in ((short, ()), (config_file, ("--resume",))):
        done = by_torchrun(config, tmp_path / "parts", *options)
        assert done.returncode == 0, done.stdout + done.stderr
    states = [
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    alone = subprocess.run(
        [sys.executable, "-c", PROGRAM, "train", str(config_file), "--resume",
         "--out", str(tmp_path / "parts")],
        capture_output=True, text=True, check=False, env=clean_environment(),
    )  # fmt: skip
    assert alone.returncode == 2
    assert "n_processes differs" in alone.stderr


@pytest.mark.slow
def test_two_processes_train_a_committee_from_data_on_disk(config_file, tmp_path):
    values = yaml.safe_load(config_file.read_text())
    values["committee"] = 2
    values["data"]["storage"] = "disk"
    config = config_file.with_name("committee.yaml")
    config.write_text(yaml.safe_dump(values))
    done = by_torchrun(config, tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    committee = load_committee(tmp_path / "out" / "tiny.json")
    assert len(committee) == 2
    found = committee.predict(np.eye(3) * 1.2, np.asarray([8, 1, 1]))
    assert found.max_force_disagreement > 0.0
    assert (tmp_path / "out" / "conformations" / "header.json").is_file()


def test_processes_take_different_minibatches(config_file):
    config = load_training_config(config_file)
    prepared = prepare(config, resolve_model_config(config), PLACE)

    def batches(processes, n_steps):
        store, batch = prepared.data.train, config.batch
        return list(BatchStream(store, batch, 0, n_steps, torch.float32, None, processes))

    together = batches(Processes(), 6)
    shares = [batches(Processes(2, 1, rank), 3) for rank in range(2)]
    for step in range(3):
        for rank in range(2):
            assert torch.equal(shares[rank][step].positions, together[2 * step + rank].positions)


def test_a_single_process_is_recognised(monkeypatch):
    from trip_mm.training.processes import launched_processes

    for name in list(os.environ):
        if name.startswith(("SLURM", "TORCHELASTIC")):
            monkeypatch.delenv(name)
    assert launched_processes() == Processes(1, 1, 0)
