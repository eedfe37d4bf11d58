"""`trip-mm evaluate` and the analyses of liquids as a user calls them."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from trip_mm.cli.main import app
from trip_mm.evaluation.journal import Predicted
from trip_mm.evaluation.predictors import SinglePredictor

FIXTURE = Path(__file__).parents[1] / "data" / "comp6_fixture.h5"


def call(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


def test_table_of_comp6(tmp_path: Path) -> None:
    status, out, err = call("evaluate", "trip-gfn2-s", FIXTURE, "--out", tmp_path / "e")
    assert status == 0, err
    document = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    errors = document["potentials"][0]["errors"]["s66x8"]
    energy, force = (
        errors[name] for name in ("energy_kcal_per_mol", "force_kcal_per_mol_per_angstrom")
    )
    row = next(line for line in out.splitlines() if line.strip().startswith("TrIP trip-gfn2-s"))
    assert f"{energy['mae']:.2f}/{energy['rmse']:.2f}" in row
    assert f"{force['mae']:.2f}/{force['rmse']:.2f}" in row
    assert any(line.split()[:2] == ["ANI-1x", "published"] for line in out.splitlines())
    assert "level of theory GFN2-xTB, labels wb97x/6-31g*" in out
    assert "Interaction energies along the dimers" in out
    assert "…" not in out
    assert {path.name for path in (tmp_path / "e").iterdir()} == {
        "evaluation.json",
        "evaluation.md",
        "parity.png",
        "interactions.csv",
        "interactions.png",
        "predictions.sqlite",
    }
    assert errors["n_conformations"] == 16
    # The model stands for another level; a sign error in the forces would triple this.
    assert force["mae"] < 8.0


def test_failures_of_a_reference_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(
        self: SinglePredictor,
        atomic_numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        n_unpaired: NDArray[np.int64],
    ) -> list[Predicted]:
        shape = (len(atomic_numbers), 3)
        if len(atomic_numbers) == 9:
            return [Predicted.failed(9, "SCF did not converge") for _ in positions]
        return [Predicted(-100.0, np.zeros(shape)) for _ in positions]

    monkeypatch.setattr(SinglePredictor, "check", lambda self, dataset: None)
    monkeypatch.setattr(SinglePredictor, "predict", predict)
    status, out, err = call("evaluate", "trip-gfn2-s", FIXTURE, "--reference", "gfn2")
    assert status == 0, err
    assert "GFN2-xTB failed on 8 conformations (SCF did not converge), which are left out" in out
    assert "1 of 2 dimers left out: a separation has no label." in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gfn2",), "no data are named"),
        (("trip-gfn2-s", "absent.h5"), "absent.h5: no such file"),
        (("nonsense", FIXTURE), "'nonsense' is unknown"),
        (("absent.safetensors", FIXTURE), "neither a registered model"),
        (("amber14", FIXTURE), "s66x8/mol01"),
        (("trip-gfn2-s", FIXTURE, "--device", "tpu"), "device 'tpu' is unknown"),
        (("gfn2", FIXTURE, "--offsets", "some"), "--offsets 'some' is unknown"),
    ],
)
def test_one_clear_error(arguments: tuple[object, ...], message: str) -> None:
    status, out, err = call("evaluate", *arguments)
    assert (status, out) == (2, "")
    assert "error: " in err
    assert message in err


def test_density_and_missing_runs(tmp_path: Path) -> None:
    stage = tmp_path / "01-npt"
    stage.mkdir()
    (tmp_path / "run.json").write_text('{"stages": [{"name": "npt", "kind": "npt"}]}')
    rng = np.random.default_rng(0)
    rows = [f"{k},{k * 0.1},{1.0 + 0.01 * rng.normal()}" for k in range(400)]
    header = '#"Step","Time (ps)","Density (g/mL)"'
    (stage / "log.csv").write_text("\n".join([header, *rows]) + "\n")
    status, out, _ = call("analyze", "density", tmp_path)
    assert status == 0
    mean = json.loads((tmp_path / "density.json").read_text())["stages"][0]["mean_g_per_ml"]
    assert f"{mean:.4f}" in out
    assert call("analyze", "rdf", tmp_path)[0] == 2
    status, _, err = call("analyze", "density", tmp_path / "nowhere")
    assert status == 2
    assert "nowhere: no such directory" in err
