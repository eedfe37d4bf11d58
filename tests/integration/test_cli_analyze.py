"""`trip-mm analyze ramachandran` as a user calls it."""

import json
import shutil
from pathlib import Path

import MDAnalysis
import pytest
from MDAnalysis.coordinates.XTC import XTCWriter
from typer.testing import CliRunner

from trip_mm.cli.main import app

DATA = Path(__file__).parents[1] / "data" / "ala3"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "run"
    (directory / "03-production").mkdir(parents=True)
    shutil.copy(DATA / "ala3.pdb", directory / "topology.pdb")
    shutil.copy(DATA / "ala3.xtc", directory / "03-production" / "trajectory.xtc")
    return directory


def call(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["analyze", "ramachandran", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_run_directory(run_dir: Path) -> None:
    status, out, _ = call(run_dir)
    assert status == 0
    summary = json.loads((run_dir / "ramachandran.json").read_text())
    states = summary["state_sets"]["tiled"]["pooled"]["states"]
    for name, row in states.items():
        rows = [line.split() for line in out.splitlines()]
        printed = next(cells for cells in rows if len(cells) >= 7 and cells[-7] == name)
        assert printed[-2] == f"{row['population_percent']:.1f}"
        error = row["population_standard_error_percent"]
        assert printed[-1] == ("-" if error is None else f"{error:.1f}")
    assert "unassigned" in out
    assert "overlap" not in out
    assert "60 frames, 2 to 120 ps" in out
    assert "too short" not in out


def test_a_run_in_one_state_is_called_too_short(run_dir: Path, tmp_path: Path) -> None:
    universe = MDAnalysis.Universe(str(DATA / "ala3.pdb"), str(DATA / "ala3.xtc"))
    universe.trajectory[0]
    with XTCWriter(str(run_dir / "03-production" / "trajectory.xtc"), 33) as writer:
        writer.write(universe.atoms)
        writer.write(universe.atoms)
    status, out, _ = call(run_dir)
    assert status == 0
    assert "no change of state was seen: too short for populations" in " ".join(out.split())


def test_thesis_states_report_their_overlap(run_dir: Path) -> None:
    status, out, _ = call(run_dir, "--states", "thesis")
    assert status == 0
    assert next(line for line in out.splitlines() if "overlap" in line).split()[-1] == "5.0"


def test_any_files(tmp_path: Path) -> None:
    for name in ("ala3.pdb", "ala3.xtc"):
        shutil.copy(DATA / name, tmp_path)
    out_dir = tmp_path / "a" / "b"
    files = ("--topology", tmp_path / "ala3.pdb", "--trajectory", tmp_path / "ala3.xtc")
    status, out, _ = call(*files, "--out", out_dir)
    assert status == 0
    assert "ALA2" in out
    assert sorted(path.name for path in out_dir.iterdir()) == [
        "ramachandran.csv",
        "ramachandran.json",
        "ramachandran.png",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a RUN_DIR"),
        (("--topology", "a.pdb"), "give a RUN_DIR, or both"),
        (("run", "--topology", "a.pdb"), "exclude each other"),
        (("nowhere",), "nowhere: no such directory"),
        (("--topology", "a.pdb", "--trajectory", "a.xtc"), "a.pdb: no such file"),
    ],
)
def test_one_clear_error(arguments: tuple[str, ...], message: str) -> None:
    status, out, err = call(*arguments)
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert len(err.strip().splitlines()) == 1
