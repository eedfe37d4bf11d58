"""Stages with multiple time steps: exact resume, the barostat, what is recorded and refused."""

import json
import signal
from pathlib import Path

import pytest
import torch

import trip_mm
from trip_mm.errors import ConfigError
from trip_mm.simulation.interruption import Interruption, RunInterrupted
from trip_mm.simulation.plan import RunOptions
from trip_mm.simulation.progress import logging_progress
from trip_mm.simulation.schema import ResolvedStage, load_protocol
from trip_mm.workflow import prepare_run, start

SYSTEM = """
solvent: {edge: 10 A, n_waters: 20}
potential: {trip: trip-gfn2-s}
"""
PROTOCOL = """
defaults: {temperature: 298 K, timestep: 0.5 fs, trajectory_interval: 2 fs, log_interval: 2 fs,
           checkpoint_interval: 3 fs}
stages:
  - {kind: minimize, potential: amber14, max_iterations: 20}
  - {kind: nvt, duration: 12 fs, temperature: {start: 100 K, end: 298 K}, timestep: 1 fs,
     multiple_timesteps: {inner: amber14, steps: 2}}
  - {kind: nve, duration: 6 fs, timestep: 1 fs,
     multiple_timesteps: {inner: amber14, steps: 4}}
  - {kind: npt, duration: 12 fs, pressure: 1 bar, barostat_interval: 2, timestep: 1 fs,
     multiple_timesteps: {inner: 'trip:SMALL', steps: 2}}
"""
RECIPE = Path(__file__).parents[2] / "recipes/multiple-timesteps/protocol.yaml"
EXACT = ("02-nvt", "03-nve")
"""The barostat adapts its trial step, which OpenMM does not keep: npt continues with another."""
FILES = ("state.xml", "trajectory.xtc", "monitor.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("multiple")
    near = trip_mm.load_potential("trip-gfn2-s")
    with torch.no_grad():
        for weights in near.parameters():
            weights.mul_(0.999)
    path = trip_mm.save_potential(near, folder / "near.safetensors")
    (folder / "water.yaml").write_text(SYSTEM)
    (folder / "split.yaml").write_text(PROTOCOL.replace("SMALL", str(path)))
    return folder


def prepare(folder: Path, *overrides: str):
    options = RunOptions(
        platform="Reference", backend="python", threads=1, overrides=tuple(overrides)
    )
    return prepare_run(folder / "water.yaml", folder / "split.yaml", options)


@pytest.fixture(scope="module")
def uninterrupted(folder: Path) -> Path:
    out = folder / "whole"
    start(prepare(folder), out, logging_progress())
    return out


def test_a_run_stopped_in_every_stage_ends_as_an_uninterrupted_one(
    folder: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder / "stopped"
    stretches: list[int] = []

    def one_step(step: int, stage: ResolvedStage, seconds: float | None) -> int:
        stretches.append(step)
        return step + 1

    def after_every_fifth_stretch(self: Interruption) -> bool:
        if len(stretches) == 0 or len(stretches) % 5 > 0:
            return False
        self.signal_number = signal.SIGTERM
        return True

    monkeypatch.setattr("trip_mm.simulation.dynamics.next_stop", one_step)
    monkeypatch.setattr(Interruption, "requested", property(after_every_fifth_stretch))
    with pytest.raises(RunInterrupted):
        start(prepare(folder), out, logging_progress())
    stops = 1
    while stops < 20 and not (out / "summary.json").exists():
        try:
            trip_mm.resume(out)
        except RunInterrupted:
            stops += 1
    assert stops >= len(EXACT) + 1
    for stage in EXACT:
        for file in FILES:
            ours, theirs = out / stage / file, uninterrupted / stage / file
            assert ours.read_bytes() == theirs.read_bytes(), f"{stage}/{file}"


def test_the_barostat_changes_the_box(uninterrupted: Path) -> None:
    rows = (uninterrupted / "04-npt" / "log.csv").read_text().splitlines()
    column = rows[0].split(",").index('"Box Volume (nm^3)"')
    assert len({row.split(",")[column] for row in rows[1:]}) > 1


def test_the_run_directory_records_the_inner_potential(uninterrupted: Path) -> None:
    record = json.loads((uninterrupted / "run.json").read_text())
    assert [stage["multiple_timesteps"] is not None for stage in record["stages"]] == [
        False, True, True, True,
    ]  # fmt: skip
    inner = record["stages"][3]["multiple_timesteps"]
    assert inner["n_steps"] == 2
    kept = record["models"][inner["inner"]]["file"]
    assert (uninterrupted / kept).is_file()
    methods = (uninterrupted / "methods.md").read_text()
    assert "In nvt, nve Amber14 with tip3pfb water, bonds and water flexible, acted" in methods
    assert "BAOAB-RESPA integrator, 2 inner steps in each, with a friction" in methods
    assert "r-RESPA integrator, 4 inner steps in each." in methods
    for author in ("M. Tuckerman", "L. Lagardere", "J. A. Maier", "U. Essmann"):
        assert author in methods
    assert "Z. Zhang" not in methods, "LangevinMiddle is in no stage"


def test_the_recipe_loads() -> None:
    stages = load_protocol(RECIPE).resolve("trip")
    assert [stage.multiple_timesteps is not None for stage in stages] == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "stages.npt.multiple_timesteps.inner='trip:trip-gfn2-s'",
            "stage npt: multiple_timesteps.inner: .* is the potential of the stage itself",
        ),
        (
            "potential='amber14'",
            "stage nvt: multiple_timesteps: does not apply to amber14, which is cheap",
        ),
    ],
)
def test_an_inner_potential_that_saves_nothing_is_refused(
    folder: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(folder, override)
