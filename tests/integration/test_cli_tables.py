"""Tables of commands whose output goes to a file: every figure is whole."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from trip_mm import checkpoint
from trip_mm.active_learning import rounds
from trip_mm.active_learning.rounds import Outcome
from trip_mm.active_learning.summary import COLUMNS
from trip_mm.cli.main import app

SYSTEM = "structure: {smiles: O}\npotential: trip:trip-gfn2-s\n"
PROTOCOL = """
defaults: {timestep: 0.5 fs}
stages:
  - kind: nvt
    name: a-stage-with-a-long-name
    duration: 100 fs
    temperature: {start: 100 K, end: 298.15 K}
"""


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")


def test_models_and_card() -> None:
    result = CliRunner().invoke(app, ["models"])
    for card in checkpoint.registry().values():
        for text in (card.description, card.level_of_theory, card.sha256[:12]):
            assert text in result.stdout
    for name, card in checkpoint.registry().items():
        result = CliRunner().invoke(app, ["models", name])
        assert result.stdout.count(card.sha256) >= 2
        assert "…" not in result.stdout


def test_plan_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "water.yaml").write_text(SYSTEM)
    (tmp_path / "one.yaml").write_text(PROTOCOL)
    arguments = ["run", str(tmp_path / "water.yaml"), "--protocol", str(tmp_path / "one.yaml")]
    result = CliRunner().invoke(app, [*arguments, "--dry-run", "--threads", "1"])
    assert result.exit_code == 0, result.output
    for text in ("a-stage-with-a-long-name (nvt)", "trip:trip-gfn2-s", "100 -> 298.15 K"):
        assert text in result.stdout
    assert "temperature" in result.stdout


def test_rounds_of_active_learning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        key: 1234 if column.form == "d" else 1234.5678 + number
        for number, (key, column) in enumerate(COLUMNS.items())
    }
    monkeypatch.setattr(rounds, "active_learn", lambda *_: Outcome("done", (), (row,)))
    result = CliRunner().invoke(app, ["active-learn", "r.yaml", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    for key, column in COLUMNS.items():
        assert format(row[key], column.form) in result.stdout
        assert column.short in result.stdout
