"""Every notebook in analysis/ runs from top to bottom on tiny data."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "analysis").glob("*.py"))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(notebook: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    (run_dir / "04-production").mkdir(parents=True)
    shutil.copy(ROOT / "tests/data/ala3/ala3.pdb", run_dir / "topology.pdb")
    shutil.copy(ROOT / "tests/data/ala3/ala3.xtc", run_dir / "04-production" / "trajectory.xtc")
    done = subprocess.run(
        [sys.executable, str(notebook)],
        cwd=tmp_path,
        env={**os.environ, "TRIP_MM_RUN": str(run_dir), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "60 frames, residues ALA2" in done.stdout


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_jupytext_reads_the_cells(notebook: Path) -> None:
    jupytext = pytest.importorskip("jupytext")
    cells = jupytext.read(notebook).cells
    assert {cell.cell_type for cell in cells} == {"markdown", "code"}
