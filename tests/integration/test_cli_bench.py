"""`trip-mm bench`: a sitting from the command line to table and JSON."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trip_mm.benchmark import session
from trip_mm.cli.main import app

BENCH = ["bench", "--threads", "1", "--rounds", "2", "--steps", "1", "--warm-up", "1"]


def test_a_sitting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(session._PACKAGES, "nequip", "no_such_package")
    arguments = ["--system", "water:96", "--model", "new:trip-s", "--backend", "direct"]
    arguments += ["--form", "kernels", "--form", "plain", "--peer", "nequip"]
    result = CliRunner().invoke(app, [*BENCH, *arguments, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "new:trip-s direct" in result.output
    document = json.loads((tmp_path / "bench.json").read_text())
    kernels, plain, peer = document["cases"]
    assert len(kernels["step_seconds"]) == len(plain["step_seconds"]) == 2
    assert kernels["n_edges"] == plain["n_edges"] > 1000
    assert kernels["energy_ev"] == pytest.approx(plain["energy_ev"], rel=1e-5)
    assert kernels["peak_memory_mib"] > 100
    assert 0.0 < kernels["share_of_step"]["neighbors"] < 1.0
    assert "no_such_package" in peer["problem"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--system", "nothing"], "nothing"),
        (["--timestep", "1"], "unit"),
        (["--rounds", "0"], "rounds"),
        (["--peer", "nothing"], "nothing"),
    ],
)
def test_mistakes_give_one_clear_line(arguments: list[str], named: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "error:" in result.output
    assert named in result.output
