"""`trip-mm torsion drive`, `fetch` and `reference`: what a user sees, kills, processes, Dask."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trip_mm.cli.main import app
from trip_mm.geometry.dihedral import set_dihedral
from trip_mm.geometry.molecule import read_molecule
from trip_mm.torsion.record_files import write_json
from trip_mm.torsion.records import DrivenPoints, TorsionRecord, mapped_smiles

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("tblite")

MAIN = "from trip_mm.cli.main import app; app()"
ANGLES = np.arange(-120.0, 181.0, 60.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hydrogen peroxide and an ion, with made-up energies."""
    molecule = read_molecule("OO")
    positions = np.array([set_dihedral(molecule, (2, 0, 1, 3), angle) for angle in ANGLES])
    points = DrivenPoints(ANGLES, 0.1 * np.cos(np.radians(ANGLES)), positions)
    smiles = mapped_smiles(molecule.rdkit)
    ion = DrivenPoints(ANGLES, ANGLES * 0.0, positions[:, :2])
    records = [
        TorsionRecord("hooh", "made up", smiles, (2, 0, 1, 3), points, "A/B", "A/B"),
        TorsionRecord("ion", "made up", "[H:1][O-:2]", (0, 1, 0, 1), ion, "A/B", "A/B"),
    ]
    path = tmp_path_factory.mktemp("set") / "set.json"
    write_json(path, records)
    return path


def drive(dataset: Path, out: Path, *more: str) -> list[str]:
    return ["torsion", "drive", str(dataset), "--potential", "gfn1", "--out", str(out), *more]


def scores(out: Path) -> list[dict[str, object]]:
    rows = pq.read_table(out / "results.parquet").to_pylist()
    return [{k: v for k, v in row.items() if v == v} for row in rows]  # NaN: not defined


def test_drive_of_two_potentials(dataset: Path, tmp_path: Path) -> None:
    more = ["--potential", "gfn2", "--mode", "single-point"]
    result = CliRunner().invoke(app, drive(dataset, tmp_path / "d", *more))
    assert result.exit_code == 0, result.output
    assert "2 records read" in result.output
    assert "1 skipped: net charge" in result.output
    assert "against A/B" in result.output
    report = (tmp_path / "d" / "report.md").read_text()
    assert "## Against A/B" in report
    assert "--potential gfn1 --potential gfn2 --mode single-point" in report
    assert "hooh" in (tmp_path / "d" / "profiles.html").read_text()


def test_collection_without_geometries_says_how_to_get_them(tmp_path: Path) -> None:
    entries = [{"type": "torsion", "record_id": "1", "cmiles": "[H:1][O:2][O:3][H:4]"}]
    path = tmp_path / "a set.json"
    path.write_text(json.dumps({"entries": {"https://example.org/": entries}}))
    cache = ["--cache", str(tmp_path / "cache")]
    result = CliRunner().invoke(app, drive(path, tmp_path / "d", *cache))
    assert result.exit_code == 2
    assert "1 skipped: no reference geometry" in result.output
    assert f"trip-mm torsion fetch '{path}'" in result.output
    assert (tmp_path / "d" / "report.md").is_file()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--mode", "fast"], "fast"),
        (["--elements", "H,Zz"], "Zz"),
        (["--potential", "nothing"], "nothing"),
        (["--processes", "2", "--scheduler", "tcp://localhost:1"], "leave --processes out"),
    ],
)
def test_mistakes_give_one_clear_line(
    dataset: Path, tmp_path: Path, more: list[str], named: str
) -> None:
    result = CliRunner().invoke(app, drive(dataset, tmp_path / "d", *more))
    assert result.exit_code == 2
    assert named in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "d").exists()


def test_kill_and_repeat_with_processes_loses_nothing(dataset: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAIN, *drive(dataset, tmp_path / "killed")]
    journal = tmp_path / "killed" / "gfn1.relax.journal"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_text().count("\n") >= 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = journal.read_text().splitlines()[:3]
    again = [*drive(dataset, tmp_path / "killed"), "--processes", "2"]
    result = CliRunner().invoke(app, again)
    assert result.exit_code == 0, result.output
    assert journal.read_text().splitlines()[:3] == kept
    assert journal.read_text().count("\n") == 1 + len(ANGLES)
    CliRunner().invoke(app, drive(dataset, tmp_path / "whole"))
    assert scores(tmp_path / "killed") == scores(tmp_path / "whole")


def test_dask_scheduler(dataset: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    more = ["--mode", "single-point"]
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        result = CliRunner().invoke(
            app, drive(dataset, tmp_path / "d", *more, "--scheduler", address)
        )
        assert result.exit_code == 0, result.output
    CliRunner().invoke(app, drive(dataset, tmp_path / "e", *more))
    assert scores(tmp_path / "d") == scores(tmp_path / "e")


def test_a_scheduler_that_is_not_there(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("trip_mm.workers._CONNECT_TIMEOUT_S", 1)
    more = ["--mode", "single-point", "--scheduler", "tcp://127.0.0.1:9"]
    result = CliRunner().invoke(app, drive(dataset, tmp_path / "d", *more))
    assert result.exit_code == 2
    assert "no answer" in result.output


def test_reference_recipe(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("record_id,smiles,dihedral,step_deg\nhooh,OO,[H]OO[H],60\n")
    (tmp_path / "r.yaml").write_text("name: own\nmolecules: m.csv\n")
    command = ["torsion", "reference", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "o")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "1 torsions, 0 skipped" in result.output
    own = drive(tmp_path / "o" / "own.h5", tmp_path / "d", "--mode", "single-point")
    assert CliRunner().invoke(app, own).exit_code == 0
    assert "GFN2-xTB" in (tmp_path / "d" / "report.md").read_text()
