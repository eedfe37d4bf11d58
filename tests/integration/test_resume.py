"""Killing runs in the middle of every stage, and continuing them to the exact step."""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import MDAnalysis
import numpy as np
import pytest

import trip_mm
from trip_mm.errors import RunDirectoryError
from trip_mm.files import read_json
from trip_mm.simulation.checkpoints import read_checkpoint
from trip_mm.simulation.interruption import RunInterrupted
from trip_mm.simulation.monitor import BondFindings, BondWatch
from trip_mm.simulation.plan import RunOptions
from trip_mm.simulation.progress import logging_progress
from trip_mm.simulation.reporters import read_table
from trip_mm.simulation.run_directory import StageDirectory
from trip_mm.workflow import prepare_run, start

SYSTEM = """
solvent: {edge: 10 A, n_waters: 20}
potential: {amber14: tip3pfb}
"""
PROTOCOL = """
defaults: {temperature: 298 K, timestep: 1 fs, friction: 1/ps, trajectory_interval: 10 fs,
           log_interval: 20 fs, checkpoint_interval: 70 fs}
stages:
  - {kind: minimize, tolerance: 0.001 kJ/mol/nm, max_iterations: 1500}
  - {kind: nvt, duration: 0.6 ps, temperature: {start: 100 K, end: 298 K}}
  - {kind: nve, duration: 0.6 ps}
  - {kind: npt, duration: 0.6 ps, pressure: 1 bar, barostat_interval: 5}
"""
N_STEPS = 600
DYNAMICS = ("02-nvt", "03-nve", "04-npt")
TIMEOUT_S = 300.0


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "water.yaml").write_text(SYSTEM)
    (folder / "short.yaml").write_text(PROTOCOL)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(inputs: Path) -> Path:
    out = inputs / "uninterrupted"
    _run(str(inputs), str(out))
    return out


def _run(inputs: str, out: str) -> None:
    options = RunOptions(platform="Reference", threads=1)
    prepared = prepare_run(f"{inputs}/water.yaml", f"{inputs}/short.yaml", options)
    start(prepared, out, logging_progress())


def _resume(out: str) -> None:
    trip_mm.resume(out)


def _kill_when(condition: Callable[[], bool], target: Callable[..., None], *args: str) -> bool:
    """Runs a function in a new process and kills it when a condition holds; False: it ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=target, args=args)
    process.start()
    deadline = time.monotonic() + TIMEOUT_S
    while process.is_alive() and not condition():
        assert time.monotonic() < deadline, "the stage never came to the middle"
        time.sleep(0.001)
    assert process.pid is not None
    killed = process.is_alive()
    if killed:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return killed and process.exitcode == -signal.SIGKILL


def _past_a_checkpoint(stage: Path) -> Callable[[], bool]:
    """True when a stage has a checkpoint and frames that may be newer."""

    def condition() -> bool:
        trajectory = stage / "trajectory.xtc"
        return (
            (stage / "checkpoint").exists()
            and trajectory.exists()
            and trajectory.stat().st_size > 5_000
        )

    return condition


def _minimizing(stage: Path) -> Callable[[], bool]:
    log = stage / "log.csv"
    return lambda: log.exists() and log.stat().st_size > 200


@pytest.fixture(scope="module")
def killed_everywhere(inputs: Path) -> Path:
    """A run that was killed once in each of its stages, then finished."""
    out = inputs / "killed"
    middle = _minimizing(out / "01-minimize")
    assert _kill_when(middle, _run, str(inputs), str(out))
    assert not (out / "01-minimize" / "done.json").exists()
    for name in DYNAMICS:
        condition = _past_a_checkpoint(out / name)
        assert _kill_when(condition, _resume, str(out)), f"{name} ended before it was killed"
        assert not (out / name / "done.json").exists(), f"{name} was over when it was killed"
    trip_mm.resume(out)
    return out


def test_no_frame_is_lost_or_doubled(killed_everywhere: Path) -> None:
    for name in DYNAMICS:
        stage = killed_everywhere / name
        universe = MDAnalysis.Universe(
            str(killed_everywhere / "topology.pdb"), str(stage / "trajectory.xtc")
        )
        steps = [frame.data["step"] for frame in universe.trajectory]
        assert steps == list(range(10, N_STEPS + 1, 10))
        times = [frame.time for frame in universe.trajectory]
        np.testing.assert_allclose(times, np.asarray(steps) * 0.001, rtol=1e-5)
        for table in ("log.csv", "monitor.csv"):
            rows = read_table(stage / table)
            assert rows["Step"].tolist() == list(range(20, N_STEPS + 1, 20))
            np.testing.assert_allclose(rows["Time (ps)"], rows["Step"] * 0.001, rtol=1e-5)


@pytest.mark.parametrize("name", ["02-nvt", "03-nve"])
def test_a_killed_run_equals_an_uninterrupted_one(
    name: str, killed_everywhere: Path, uninterrupted: Path
) -> None:
    ours, theirs = killed_everywhere / name, uninterrupted / name
    assert (ours / "trajectory.xtc").read_bytes() == (theirs / "trajectory.xtc").read_bytes()
    assert (ours / "monitor.csv").read_bytes() == (theirs / "monitor.csv").read_bytes()
    assert (ours / "state.xml").read_bytes() == (theirs / "state.xml").read_bytes()


def test_a_stage_at_constant_energy_remembers_the_temperature_it_began_at(
    killed_everywhere: Path, uninterrupted: Path
) -> None:
    """It is what a runaway is measured against."""
    runs = (killed_everywhere, uninterrupted)
    ours, theirs = (read_checkpoint(StageDirectory(run / "03-nve")) for run in runs)
    assert ours is not None
    assert theirs is not None
    assert theirs.progress.initial_temperature_k is not None
    assert ours.progress.initial_temperature_k == theirs.progress.initial_temperature_k


def test_a_finished_run_says_so(uninterrupted: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")}
    with caplog.at_level("INFO", logger="trip_mm"):
        assert trip_mm.resume(uninterrupted) == uninterrupted
    assert "nothing to resume" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")}


def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    command = [sys.executable, "-c", "from trip_mm.cli.main import app; app()", "run"]
    command += [str(inputs / "water.yaml"), "--protocol", str(inputs / "short.yaml")]
    command += ["--out", str(out), "--platform", "Reference", "--threads", "1"]
    command += ["--set", "stages.nvt.duration=600 ps", "--set", "stages.minimize.max_iterations=20"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + TIMEOUT_S
    while not _past_a_checkpoint(out / "02-nvt")():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    assert f"trip-mm resume {out}" in " ".join(stderr.split()).replace("- ", "-")
    assert "02-nvt: 600000 steps" in stdout
    assert "Traceback" not in stderr


def test_a_signal_stops_the_run_at_a_whole_step(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler acts between two stretches of steps; resuming starts at that very step."""

    class Stopper:
        def message(self, text: str) -> None: ...

        def stage_started(self, label: str, n_steps: int, step: int, unit: str = "") -> None:
            starts.append((label, step))

        def stage_advanced(self, step: int, ns_per_day: float, detail: str) -> None:
            if label_is_nvt() and step >= 200:
                os.kill(os.getpid(), signal.SIGINT)

        def stage_finished(self, text: str) -> None: ...

        def stopped(self) -> None: ...

    def label_is_nvt() -> bool:
        return starts[-1][0] == "02-nvt"

    before = signal.getsignal(signal.SIGINT)
    starts: list[tuple[str, int]] = []
    out = tmp_path / "run"
    options = RunOptions(
        platform="Reference", threads=1, overrides=("stages.minimize.max_iterations=20",)
    )
    prepared = prepare_run(inputs / "water.yaml", inputs / "short.yaml", options)
    transferred = BondFindings((), ((0, 3), (1, 6), (2, 9)), np.ones(1), 1.0, 0)
    monkeypatch.setattr(BondWatch, "inspect", lambda *_: transferred)
    with pytest.raises(RunInterrupted) as stop:
        start(prepared, out, Stopper())
    assert stop.value.signal_number == signal.SIGINT
    step = int(re.search(r"stopped at step (\d+) of 600", str(stop.value))[1])  # type: ignore[index]
    assert step >= 200
    checkpoint = read_checkpoint(StageDirectory(out / "02-nvt"))
    assert checkpoint is not None
    assert checkpoint.progress.transferred_protons == 3
    monkeypatch.undo()  # no further proton leaves, and those that left are not forgotten
    with pytest.raises(RunInterrupted):
        trip_mm.resume(out, progress=Stopper())
    assert starts[-1] == ("02-nvt", step)
    checkpoint = read_checkpoint(StageDirectory(out / "02-nvt"))
    assert checkpoint is not None
    assert checkpoint.progress.transferred_protons == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_what_it_was_continued_on_is_recorded(uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out, symlinks=True)
    trip_mm.resume(out, until="0.61 ps")
    assert "continuations" not in read_json(out / "run.json")
    assert "All stages ran on OpenMM's Reference platform" in (out / "methods.md").read_text()
    trip_mm.resume(out, until="0.62 ps", platform="CPU", threads=1)
    trip_mm.resume(out, until="0.63 ps")
    first, second = read_json(out / "run.json")["continuations"]
    assert (first["stage"], first["step"], first["platform"]["name"]) == ("npt", 610, "CPU")
    assert (second["stage"], second["step"], second["platform"]["name"]) == (
        "npt",
        620,
        "Reference",
    )
    text = (out / "methods.md").read_text()
    assert "The run began on OpenMM's Reference platform in double precision." in text
    assert "From step 610 of npt on it ran on OpenMM's CPU platform with 1 threads." in text
    assert "0.63 ps" in text


def test_what_cannot_be_resumed_says_why(uninterrupted: Path, tmp_path: Path, inputs: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(uninterrupted, broken, symlinks=True)
    (broken / "summary.json").unlink()
    (broken / "04-npt" / "done.json").unlink()
    (broken / "04-npt" / "checkpoint").write_bytes(b"nonsense")
    with pytest.raises(RunDirectoryError, match=r"04-npt/checkpoint: is damaged"):
        trip_mm.resume(broken)
    shutil.rmtree(broken / "04-npt")
    (broken / "03-nve" / "state.xml").unlink()
    with pytest.raises(RunDirectoryError, match=r"03-nve/state.xml: cannot be read"):
        trip_mm.resume(broken)
    (broken / "run.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match=r"run\.json: is damaged"):
        trip_mm.resume(broken)
    with pytest.raises(RunDirectoryError, match="no such directory"):
        trip_mm.resume(tmp_path / "missing")
