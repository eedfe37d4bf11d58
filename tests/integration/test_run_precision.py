"""Runs in reduced precision: asked for in YAML, checked first, recorded, refused."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import trip_mm
from trip_mm import workflow
from trip_mm.cli.main import app
from trip_mm.errors import ConfigError, PrecisionError, RunDirectoryError
from trip_mm.precision import CheckSettings, PrecisionCheck, check
from trip_mm.simulation import platforms, progress
from trip_mm.simulation.plan import RunOptions
from trip_mm.simulation.schema import PotentialConfig

SYSTEM = """
structure: {smiles: O}
potential: {trip: trip-gfn2-s, precision: bf16}
"""
PROTOCOL = """
defaults: {temperature: 298 K, timestep: 0.5 fs}
stages:
  - {kind: nve, duration: 2 fs}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "water.yaml").write_text(SYSTEM)
    (tmp_path / "short.yaml").write_text(PROTOCOL)
    few = CheckSettings(n_steps=40, n_blocks=4, relax_iterations=20, thermal_steps=20)
    monkeypatch.setattr(check, "CheckSettings", lambda: few)
    # Three atoms have no work for a second thread, and would wait for it where others compute.
    monkeypatch.setattr(platforms, "usable_cpus", lambda: 1)
    return tmp_path


def test_potential_reads_and_writes_its_precision() -> None:
    potential = PotentialConfig.model_validate({"trip": "a.safetensors", "precision": "tf32"})
    assert str(potential) == "trip:a.safetensors@tf32"
    assert PotentialConfig.model_validate(str(potential)) == potential
    assert PotentialConfig.model_validate(potential.model_dump()) == potential
    assert str(PotentialConfig.model_validate({"trip": "x", "precision": "single"})) == "trip:x"
    for value, message in (
        ({"trip": "x", "precision": "fp8"}, "not one of single, tf32, bf16"),
        ({"trip": "x", "precision": "double"}, "--precision double"),
        ({"amber14": "tip3pfb", "precision": "bf16"}, "not of amber14"),
    ):
        with pytest.raises(ValueError, match=message):
            PotentialConfig.model_validate(value)


def test_run_is_checked_first_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrecisionCheck, "drift_passes", True)  # three atoms, few steps
    monkeypatch.setattr(PrecisionCheck, "forces_pass", True)
    out = trip_mm.run(
        folder / "water.yaml", folder / "short.yaml", folder / "out", backend="python"
    )
    record = json.loads((out / "run.json").read_text())
    found = record["precision_checks"]["trip:trip-gfn2-s@bf16"]
    assert found["precision"] == "bf16"
    assert found["n_steps"] == 40
    assert 0.0 < found["force_error_share_of_thermal_force"] < 0.1
    methods = (out / "methods.md").read_text()
    assert "bfloat16 operands" in methods
    assert "of the thermal force" in methods
    assert (out / "summary.json").exists()


def test_run_is_refused_with_the_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrecisionCheck, "forces_pass", False)
    with pytest.raises(PrecisionError, match=r"% of the thermal force.*use float32"):
        trip_mm.run(folder / "water.yaml", folder / "short.yaml", folder / "out")
    assert not (folder / "out" / "run.json").exists()


def test_command_says_whether_it_passes(folder: Path) -> None:
    arguments = [
        "check-precision",
        str(folder / "water.yaml"),
        "bf16",
        "-o",
        str(folder / "c.json"),
    ]
    result = CliRunner().invoke(app, arguments)
    found = json.loads((folder / "c.json").read_text())
    assert result.exit_code == (0 if found["passed"] else 1)
    assert "of the thermal force" in result.output
    assert CliRunner().invoke(app, ["check-precision", "x", "fp8"]).exit_code == 2


def test_command_shows_how_far_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)
    result = CliRunner().invoke(app, ["check-precision", str(folder / "water.yaml"), "bf16"])
    lines = result.output.splitlines()
    for part in (
        "relaxing: 20 force evaluations",
        "thermal force: done",
        "thermalising: done",
        "run with float32 forces: 45 force evaluations",  # 40 steps, the start, 4 frames
        "run with reduced forces: 49 force evaluations",
        "run with reduced forces: done",
    ):
        assert part in lines, result.output
    assert any(line.startswith("run with reduced forces: step 40/49, ") for line in lines)
    assert all(line.endswith(" s left") for line in lines if ": step " in line)


def test_interrupted_check_leaves_the_terminal_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    stopped = []
    listener = progress.logging_progress()
    monkeypatch.setattr(listener, "stopped", lambda: stopped.append(True))
    monkeypatch.setattr(check, "check_precision", interrupted)
    prepared = workflow.prepare_run(folder / "water.yaml", folder / "short.yaml", RunOptions())
    with pytest.raises(KeyboardInterrupt):
        workflow.start(prepared, folder / "out", listener)
    assert stopped


def test_failure_behind_the_check_leaves_the_terminal_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RunDirectoryError("the disk is full")

    stopped = []
    listener = progress.logging_progress()
    monkeypatch.setattr(listener, "stopped", lambda: stopped.append(True))
    monkeypatch.setattr(workflow, "with_precision_checks", lambda plan, *_: plan)
    monkeypatch.setattr(workflow, "prepare", full)
    prepared = workflow.prepare_run(folder / "water.yaml", folder / "short.yaml", RunOptions())
    with pytest.raises(RunDirectoryError):
        workflow.start(prepared, folder / "out", listener)
    assert stopped


def test_command_needs_no_parameters_of_amber14(folder: Path) -> None:
    (folder / "water.yaml").write_text(SYSTEM.replace("smiles: O", "smiles: CO"))
    result = CliRunner().invoke(app, ["check-precision", str(folder / "water.yaml"), "bf16"])
    assert "of the thermal force" in result.output, result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_tf32_without_a_gpu_is_refused_before_anything_runs(folder: Path) -> None:
    command = ["run", str(folder / "water.yaml"), "--precision", "tf32"]
    result = CliRunner().invoke(
        app, [*command, "--protocol", str(folder / "short.yaml"), "--out", str(folder / "out")]
    )
    assert result.exit_code == 2
    assert "NVIDIA" in result.output
    assert not (folder / "out" / "run.json").exists()


def test_double_contradicts_a_reduced_precision(folder: Path) -> None:
    with pytest.raises(ConfigError, match="contradicts trip:trip-gfn2-s@bf16"):
        trip_mm.run(folder / "water.yaml", folder / "short.yaml", precision="double")


@pytest.mark.parametrize(
    ("outer", "inner"),
    [("trip-gfn2-s@bf16", "amber14"), ("trip-gfn2-s", "trip:other.safetensors@bf16")],
)
def test_multiple_timesteps_take_float32(folder: Path, outer: str, inner: str) -> None:
    split = f"{{inner: '{inner}', steps: 2}}"
    (folder / "split.yaml").write_text(
        PROTOCOL.replace("duration: 2 fs", f"duration: 2 fs, multiple_timesteps: {split}")
    )
    with pytest.raises(ConfigError, match="leave the precision or the multiple time steps out"):
        trip_mm.run(folder / "water.yaml", folder / "split.yaml", potential=f"trip:{outer}")
