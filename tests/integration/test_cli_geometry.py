"""`trip-mm minimize` and `trip-mm frequencies`: what a user sees."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trip_mm.cli.main import app
from trip_mm.geometry.dihedral import dihedral_angle
from trip_mm.geometry.molecule import read_molecule
from trip_mm.geometry.superposition import rmsd


def test_frequencies_of_carbon_dioxide_with_reference(tmp_path: Path) -> None:
    arguments = ["frequencies", "O=C=O", "--potential", "gfn1", "--reference", "gfn2"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "co2")])
    assert result.exit_code == 0, result.output
    for text in ("GFN1-xTB", "GFN2-xTB", "zero-point energy", "0 imaginary", "MAE"):
        assert text in result.output
    document = json.loads((tmp_path / "co2" / "frequencies.json").read_text())
    assert len(document["wavenumbers_per_cm"]) == 4


def test_frequencies_away_from_a_minimum_say_so(tmp_path: Path) -> None:
    path = tmp_path / "h2.xyz"
    path.write_text("2\n\nH 0 0 0\nH 0 0 0.95\n")
    result = CliRunner().invoke(app, ["frequencies", str(path), "--potential", "gfn2", "--as-is"])
    assert result.exit_code == 0, result.output
    assert "no stationary point" in result.output


def test_minimize_writes_what_it_found(tmp_path: Path) -> None:
    for suffix in (".sdf", ".pdb", ".xyz"):
        out = tmp_path / f"peroxide{suffix}"
        arguments = ["minimize", "OO", "--potential", "gfn2", "--hold", "2,0,1,3=90"]
        result = CliRunner().invoke(app, [*arguments, "--out", str(out)])
        assert result.exit_code == 0, result.output
        assert "evaluations" in result.output
        found = read_molecule(out)
        assert dihedral_angle(found.positions, (2, 0, 1, 3)) == pytest.approx(90.0, abs=0.2)
    again = tmp_path / "again.xyz"
    CliRunner().invoke(
        app,
        [
            "minimize",
            str(tmp_path / "peroxide.sdf"),
            "--potential",
            "gfn2",
            "--hold",
            "2,0,1,3=90",
            "--out",
            str(again),
        ],
    )
    assert rmsd(read_molecule(again).positions, found.positions) < 1e-3
    assert np.isfinite(read_molecule(again).positions).all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["minimize", "O", "--out", "water.mol2"], "mol2"),
        (["minimize", "O", "--out", "absent/water.sdf", "--potential", "gfn2"], "absent"),
        (["minimize", "OO", "--hold", "2,0,1=60"], "four atom indices"),
        (["minimize", "OO", "--hold", "2,0,1,3"], "four atom indices"),
        (["minimize", "OO", "--hold", "2,0,1,9=60"], "0 to 3"),
        (["minimize", "[NH4+]", "--potential", "trip-gfn2-s"], "charge"),
        (["frequencies", "O", "--potential", "nothing"], "nothing"),
        (["frequencies", "O", "--potential", "gfn2", "--hessian", "analytic"], "no analytic"),
    ],
)
def test_mistakes_give_one_clear_line(
    arguments: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert named in result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []
