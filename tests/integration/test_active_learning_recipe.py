"""The water hexamer of recipes/ from the first geometry to a committee that is sure of it."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trip_mm.cli.main import app

RECIPE = Path(__file__).parents[2] / "recipes" / "water-hexamer"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_the_hexamer_becomes_certain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tblite", reason="labels by GFN2-xTB need tblite")
    shutil.copytree(RECIPE, tmp_path / "recipe")
    monkeypatch.chdir(tmp_path / "recipe")
    run("sample", "start.yaml", "--out", "start.geometries.h5")
    run("label", "start.geometries.h5", "--out", "start.h5")
    run("train", "train.yaml", "--out", "start")
    out = tmp_path / "hexamer"
    run("active-learn", "active-learn.yaml", "--out", str(out), "--threads", "1")
    rounds = json.loads((out / "summary.json").read_text())["rounds"]
    assert rounds[0]["n_labelled"] >= 10
    assert rounds[-1]["n_labelled"] < rounds[0]["n_labelled"]
    medians = [row["median_kcal_per_mol_per_angstrom"] for row in rounds]
    assert medians[-1] < 0.8 * medians[0]
    assert rounds[-1]["n_unstable"] <= rounds[0]["n_unstable"]
    assert (out / "committee.json").is_file()
