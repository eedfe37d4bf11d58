"""Data that a model was trained on are not passed off as a test of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from trip_mm.checkpoint import new_potential, save_potential
from trip_mm.cli.main import app
from trip_mm.evaluation.predictors import TripPredictor
from trip_mm.evaluation.seen import describe_seen
from trip_mm.geometry.potentials import PotentialSpec
from trip_mm.model.config import TripConfig
from trip_mm.training.dataset import Dataset
from trip_mm.training.formats_write import FileHeader, write_conformations
from trip_mm.training.groups import Conformation

LONE = {1: -13.0, 8: -2000.0}


def write_data(path: Path) -> None:
    """Three conformations of H2O2 and two of H3O2, and three clusters of two trajectories."""
    rng = np.random.default_rng(0)
    items = [
        Conformation(
            np.array([1] * n_hydrogens + [8, 8]),
            rng.normal(size=(n_hydrogens + 2, 3)) * 2.0,
            -4030.0,
            np.zeros((n_hydrogens + 2, 3)),
            system_class,
            f"H{n_hydrogens}O2",
            source,
        )
        for n_hydrogens, system_class, source in (
            *[(2, "molecule", "m")] * 3,
            *[(3, "molecule", "m")] * 2,
            *[(4, "cluster", "one")] * 2,
            (4, "cluster", "two"),
        )
    ]
    split_by = {"molecule": "formula", "cluster": "source"}
    write_conformations(path, items, FileHeader("made", "made", LONE, split_by=split_by))


def record(by: str = "formula", files: tuple[str, ...] = ("a.h5", "b.h5")) -> dict[str, Any]:
    return {
        "data_files": list(files),
        "config": {"data": {"split": {"by": by}}},
        "split": {"held_out": ["formula/H2O2", "cluster/two", "formula/C9H9"]},
    }


def test_a_file_of_the_training_is_named_with_what_is_held_out_in_it(tmp_path: Path) -> None:
    for name in ("a.h5", "other.h5"):
        write_data(tmp_path / name)
    dataset = Dataset.open(tmp_path / "a.h5", tmp_path / "other.h5")
    assert describe_seen("TrIP x", record(), dataset) == [
        f"TrIP x: was trained on a.h5. If that is {tmp_path / 'a.h5'}, 4 of its 8 conformations "
        "were held out; errors of the others are those of training data."
    ]
    (line,) = describe_seen("TrIP x", record(by="random"), dataset)
    assert "an unrecorded part of its 8 conformations was held out" in line
    assert describe_seen("TrIP x", record(files=("c.h5",)), dataset) == []
    assert describe_seen("TrIP x", {}, dataset) == []
    assert describe_seen("TrIP x", {"data_files": "a.h5"}, dataset) == []
    for config in ({"config": None}, {"config": {"data": "a.h5"}}, {"split": ["a"]}, {"split": {}}):
        (line,) = describe_seen("TrIP x", {**record(), **config}, dataset)
        assert "an unrecorded part" in line


def test_a_directory_of_the_training_is_recognized(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    write_data(tmp_path / "labels" / "part-1.h5")
    (line,) = describe_seen("x", record(files=("labels",)), Dataset.open(tmp_path / "labels"))
    assert line.startswith(f"x: was trained on labels. If that is {tmp_path / 'labels'}/part-1.h5,")


def test_metadata_of_another_shape_say_nothing(tmp_path: Path) -> None:
    small = TripConfig(elements=(1, 8), n_channels=4, l_max=0, n_layers=1, n_heads=1, n_scalars=4)
    path = tmp_path / "m.safetensors"
    save_potential(new_potential(small), path, metadata={"training": "on my data"})
    assert TripPredictor(PotentialSpec("trip", str(path)), "cpu").training == {}


@pytest.mark.parametrize("trained_on", ["a.h5", "c.h5"])
def test_every_output_says_so(tmp_path: Path, trained_on: str) -> None:
    write_data(tmp_path / "a.h5")
    small = TripConfig(elements=(1, 8), n_channels=4, l_max=0, n_layers=1, n_heads=1, n_scalars=4)
    metadata = {"training": record(files=(trained_on,))}
    save_potential(new_potential(small), tmp_path / "m.safetensors", metadata=metadata)
    out = tmp_path / "out"
    arguments = ["evaluate", str(tmp_path / "m.safetensors"), str(tmp_path / "a.h5"), "--out"]
    done = CliRunner().invoke(app, [*arguments, str(out)])
    assert done.exit_code == 0, done.output
    (potential,) = json.loads((out / "evaluation.json").read_text())["potentials"]
    notes = "\n".join(potential["notes"])
    for text in (notes, done.stdout, (out / "evaluation.md").read_text()):
        assert ("4 of its 8 conformations were held out" in text) == (trained_on == "a.h5")
