"""Making the last stage of a run longer: the same run as one planned that long."""

import json
import shutil
from pathlib import Path

import MDAnalysis
import pytest

import trip_mm
from trip_mm.errors import ConfigError, RunDirectoryError
from trip_mm.files import read_json
from trip_mm.simulation import extension
from trip_mm.simulation.plan import RunOptions, RunPlan
from trip_mm.simulation.progress import logging_progress
from trip_mm.simulation.reporters import read_table
from trip_mm.workflow import prepare_run, start

SYSTEM = """
solvent: {edge: 10 A, n_waters: 20}
potential: {amber14: tip3pfb}
"""
PROTOCOL = """
defaults: {temperature: 298 K, timestep: 1 fs, friction: 1/ps, trajectory_interval: 10 fs,
           log_interval: 20 fs, checkpoint_interval: 70 fs}
stages:
  - {kind: minimize, max_iterations: 50}
  - {kind: nvt, duration: 0.2 ps}
"""
LAST = "02-nvt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("longer")
    (path / "water.yaml").write_text(SYSTEM)
    (path / "short.yaml").write_text(PROTOCOL)
    return path


def _run(folder: Path, name: str, *overrides: str) -> Path:
    options = RunOptions(platform="Reference", threads=1, overrides=overrides)
    prepared = prepare_run(folder / "water.yaml", folder / "short.yaml", options)
    return start(prepared, folder / name, logging_progress())


@pytest.fixture(scope="module")
def short(folder: Path) -> Path:
    return _run(folder, "short")


@pytest.fixture(scope="module")
def long(folder: Path) -> Path:
    return _run(folder, "long", "stages.nvt.duration=0.5 ps")


@pytest.fixture(scope="module")
def lengthened(short: Path, folder: Path) -> Path:
    out = folder / "lengthened"
    shutil.copytree(short, out, symlinks=True)
    assert trip_mm.resume(out, until="0.3 ps") == out
    return trip_mm.resume(out, until="500 fs")


def _copy(run: Path, to: Path) -> Path:
    shutil.copytree(run, to, symlinks=True)
    return to


def test_a_lengthened_run_equals_one_planned_that_long(lengthened: Path, long: Path) -> None:
    for file in ("trajectory.xtc", "monitor.csv", "state.xml"):
        ours, theirs = lengthened / LAST / file, long / LAST / file
        assert ours.read_bytes() == theirs.read_bytes(), file
    ours, theirs = (read_table(run / LAST / "log.csv") for run in (lengthened, long))
    for column in ("Step", "Potential Energy (kJ/mole)", "Temperature (K)"):
        assert ours[column].tolist() == theirs[column].tolist()


def test_the_products_at_the_top_are_those_of_the_whole_stage(lengthened: Path) -> None:
    universe = MDAnalysis.Universe(
        str(lengthened / "topology.pdb"), str(lengthened / "trajectory.xtc")
    )
    steps = [frame.data["step"] for frame in universe.trajectory]
    assert steps == list(range(10, 501, 10))


def test_every_record_says_the_longer_duration(lengthened: Path, short: Path, long: Path) -> None:
    record, before = read_json(lengthened / "run.json"), read_json(short / "run.json")
    assert (
        RunPlan.from_dict(record).stages == RunPlan.from_dict(read_json(long / "run.json")).stages
    )
    assert record["protocol"]["stages"][-1]["duration"] == "0.5 ps"
    assert record["created"] == before["created"]
    assert [(e["stage"], e["from_ps"], e["to_ps"]) for e in record["extensions"]] == [
        ("nvt", 0.2, 0.3),
        ("nvt", 0.3, 0.5),
    ]
    assert (lengthened / "methods.md").read_text() == (long / "methods.md").read_text()
    done = read_json(lengthened / LAST / "done.json")
    assert (done["steps"], done["frames"]) == (500, 50)
    assert read_json(lengthened / "summary.json")["stages"][-1] == done


def test_a_run_that_is_long_enough_is_left_alone(
    lengthened: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same command again, as a batch system gives it, does nothing."""
    before = {path: path.stat().st_mtime_ns for path in lengthened.rglob("*") if path.is_file()}
    with caplog.at_level("INFO", logger="trip_mm"):
        trip_mm.resume(lengthened, until="0.5 ps")
    assert "nothing to resume" in caplog.text
    files = [path for path in lengthened.rglob("*") if path.is_file() and path.name != ".lock"]
    assert {path: before[path] for path in files} == {p: p.stat().st_mtime_ns for p in files}


def test_killed_while_it_is_made_longer_it_is_the_run_it_was(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = _copy(short, tmp_path / "run")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(extension, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        trip_mm.resume(out, until="0.3 ps")
    monkeypatch.undo()
    assert not (out / "summary.json").exists()
    trip_mm.resume(out)
    for file in ("trajectory.xtc", "monitor.csv", "state.xml", "log.csv"):
        assert (out / LAST / file).read_bytes() == (short / LAST / file).read_bytes(), file
    assert read_json(out / LAST / "done.json")["steps"] == 200
    trip_mm.resume(out, until="0.3 ps")
    assert read_json(out / LAST / "done.json")["steps"] == 300


def test_an_unfinished_run_is_lengthened_too(short: Path, long: Path, tmp_path: Path) -> None:
    out = _copy(short, tmp_path / "run")
    shutil.rmtree(out / LAST)
    (out / "summary.json").unlink()
    trip_mm.resume(out, until="0.5 ps")
    assert (out / LAST / "state.xml").read_bytes() == (long / LAST / "state.xml").read_bytes()


@pytest.mark.parametrize(
    ("until", "message"),
    [
        ("500", "--until: 500 has no unit; write 500 ps"),
        ("0.1 ps", r"--until: stage nvt is planned for 0.2 ps in total, more than 0.1 ps"),
        ("0.2001 ps", r"--until: 0.2001 ps is no whole number of 1 fs steps; use 0.2 ps or"),
    ],
)
def test_a_duration_that_cannot_be_is_refused(until: str, message: str, short: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        trip_mm.resume(short, until=until)
    assert (short / "summary.json").exists()


def test_a_stage_whose_temperature_changes_keeps_its_duration(folder: Path, tmp_path: Path) -> None:
    out = _run(folder, str(tmp_path / "ramp"), "stages.nvt.temperature={start: 100 K, end: 298 K}")
    with pytest.raises(ConfigError, match=r"goes from 100 K to 298 K over its duration"):
        trip_mm.resume(out, until="0.3 ps")
    assert (out / "summary.json").exists()


def test_a_minimization_has_no_duration(short: Path, tmp_path: Path) -> None:
    out = _copy(short, tmp_path / "run")
    record = read_json(out / "run.json")
    record["stages"].pop()
    record["protocol"]["stages"].pop()
    (out / "run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="minimize, is a minimization and has no duration"):
        trip_mm.resume(out, until="0.3 ps")


@pytest.mark.parametrize("file", ["checkpoint", "trajectory.xtc"])
def test_a_stage_that_cannot_go_on_stays_finished(file: str, short: Path, tmp_path: Path) -> None:
    out = _copy(short, tmp_path / "run")
    (out / LAST / file).unlink()
    with pytest.raises(RunDirectoryError, match=rf"{LAST}/{file}: is (missing|shorter)"):
        trip_mm.resume(out, until="0.3 ps")
    assert (out / "summary.json").exists()
    assert (out / LAST / "done.json").exists()
