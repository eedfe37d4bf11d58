"""`trip-mm torsion scan`: what a user sees, and what a kill leaves behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trip_mm.cli.main import app

MAIN = "from trip_mm.cli.main import app; app()"
SCAN = ["torsion", "scan", "OO", "--dihedral", "2,0,1,3", "--step", "60", "--potential", "gfn2"]


def test_scan_of_hydrogen_peroxide(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*SCAN, "--potential", "gfn1", "--out", str(tmp_path / "s")])
    assert result.exit_code == 0, result.output
    assert "H2-O0-O1-H3" in result.output
    assert "RMSE" in result.output
    assert "errors against GFN1-xTB, the last potential; kcal/mol" in result.output
    assert (tmp_path / "s" / "profiles.png").stat().st_size > 10_000


def test_reference_is_the_last_single_point(tmp_path: Path) -> None:
    arguments = [*SCAN, "--single-point", "gfn1", "--out", str(tmp_path / "s")]
    result = CliRunner().invoke(app, [*arguments, "--strategy", "batched"])
    assert result.exit_code == 0, result.output
    named = "errors against GFN1-xTB at GFN2-xTB geometries, the last single point; kcal/mol"
    assert named in result.output


def test_batched_scan_gives_the_profile_of_the_others(tmp_path: Path) -> None:
    profiles = []
    for strategy in ("both", "batched"):
        out = tmp_path / strategy
        result = CliRunner().invoke(app, [*SCAN, "--strategy", strategy, "--out", str(out)])
        assert result.exit_code == 0, result.output
        rows = (out / "profiles.csv").read_text().splitlines()[1:]
        profiles.append([[float(cell) for cell in row.split(",")] for row in rows])
    for one, other in zip(*profiles, strict=True):
        assert one == pytest.approx(other, abs=0.01)


def test_a_finished_scan_is_drawn_again_without_geometric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*SCAN, "--step", "120", "--out", str(tmp_path / "s")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (tmp_path / "s" / "profiles.png").unlink()
    monkeypatch.setitem(sys.modules, "geometric", None)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "s" / "profiles.png").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "exactly one"),
        (["--dihedral", "2,0,1,3", "--all-rotors"], "exactly one"),
        (["--dihedral", "2,0,1"], "four"),
        (["--dihedral", "2,0,1,3", "--step", "7"], "divide 360"),
        (["--dihedral", "2,0,1,3", "--strategy", "random"], "random"),
        (["--dihedral", "2,0,1,3", "--potential", "nothing"], "nothing"),
        (["--smarts", "C-C-C-C"], "matches nothing"),
    ],
)
def test_mistakes_give_one_clear_line(arguments: list[str], named: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["torsion", "scan", "OO", *arguments, "--out", str(out)])
    assert result.exit_code == 2
    assert named in result.output
    assert "Traceback" not in result.output
    assert not out.exists()


def test_kill_and_repeat_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAIN, *SCAN, "--out", str(tmp_path / "killed")]
    journal = tmp_path / "killed" / "gfn2.journal"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_text().count("\n") >= 4):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = journal.read_text().splitlines()[:4]
    result = CliRunner().invoke(app, [*SCAN, "--out", str(tmp_path / "killed")])
    assert result.exit_code == 0, result.output
    assert journal.read_text().splitlines()[:4] == kept
    CliRunner().invoke(app, [*SCAN, "--out", str(tmp_path / "whole")])
    tables = [(tmp_path / name / "profiles.csv").read_text() for name in ("killed", "whole")]
    assert tables[0] == tables[1]
