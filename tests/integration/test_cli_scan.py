"""`trip-mm scan`: what a user sees."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trip_mm.cli.main import app

COARSE = ["--step", "0.1"]


def test_scan_of_a_bond_with_a_term_switched_off(tmp_path: Path) -> None:
    out = tmp_path / "scan"
    command = ["scan", "bond", "O", *COARSE, "--from", "0.5", "--to", "5", "--switch-off", "zbl"]
    result = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "MAE and false wells against GFN2-xTB, the first potential" in result.output
    curves = json.loads((out / "scan.json").read_text())["curves"]
    assert [c["potential"].split(", ")[-1] for c in curves] == [
        "GFN2-xTB",
        "TrIP trip-gfn2-s",
        "no ZBL",
    ]
    assert curves[1]["false_wells"] == []
    assert len(curves[2]["false_wells"]) == 1
    rows = list(csv.reader((out / "curves.csv").open()))
    assert rows[0][0] == "O0-H1 distance (A)"
    assert len(rows) == 47
    assert (out / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("command", "column"),
    [
        (["diatomic", "O-H"], "O-H distance (A)"),
        (["dimer", "O", "O", "--contact", "1,0"], "H1...O3 distance (A)"),
    ],
)
def test_scan_of_pairs(command: list[str], column: str, tmp_path: Path) -> None:
    options = ["--from", "1", "--to", "3", *COARSE, "--potential", "gfn2", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, ["scan", *command, *options])
    assert result.exit_code == 0, result.output
    rows = list(csv.reader((tmp_path / "curves.csv").open()))
    assert rows[0][0] == column
    assert len(rows) == 22


def test_scan_of_water(tmp_path: Path) -> None:
    options = ["--step", "0.5", "--potential", "gfn2", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, ["scan", "water", *options])
    assert result.exit_code == 0, result.output
    assert "ground state" in result.output
    document = json.loads((tmp_path / "scan.json").read_text())
    assert len(document["surfaces"]) == 3
    (errors,) = (s["errors_kcal_per_mol"] for s in document["surfaces"] if s["errors_kcal_per_mol"])
    assert set(errors) == {"ωB97x/6-31G*, singlet", "ωB97x/6-31G*, ground state"}
    assert (tmp_path / "surfaces.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["bond", "C1CC1"], "ring"),
        (["bond", "O", "--atoms", "1,2"], "not bonded"),
        (["bond", "O", "--atoms", "0"], "0,1"),
        (["bond", "O", "--switch-off", "everything"], "zbl"),
        (["bond", "O", "--potential", "gfn2", "--switch-off", "zbl"], "no potential is a TrIP"),
        (["bond", "O", "--from", "3", "--to", "1"], "first"),
        (["bond", "[NH4+]"], "charge"),
        (["diatomic", "OH"], "hyphen"),
        (["diatomic", "S-H"], "S"),
        (["dimer", "O", "O", "--contact", "7,0"], "atoms 0 to 2"),
        (["water", "--step", "0.3"], "divide"),
    ],
)
def test_mistakes_give_one_clear_line(arguments: list[str], named: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["scan", *arguments, "--out", str(out)])
    assert result.exit_code == 2, result.output
    assert named in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not out.exists()
