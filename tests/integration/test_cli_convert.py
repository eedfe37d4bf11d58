"""`trip-mm convert`: a published checkpoint becomes a model, and nothing is unpickled."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from trip_mm.checkpoint import file_sha256, import_published, load_potential
from trip_mm.cli.main import app

ORACLE = Path(__file__).parents[1] / "data" / "oracle" / "trip_small_partial_random.npz"

needs_oracle = pytest.mark.skipif(
    not ORACLE.is_file(), reason="weights of the published program are not here"
)


def call(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def published_content() -> dict[str, Any]:
    """What the published program saves."""
    arrays = dict(np.load(ORACLE))
    kwargs = json.loads(str(arrays.pop("kwargs_json")))
    arrays.pop("decay_json", None)
    kwargs["energy_std"] = float(arrays.pop("energy_std"))
    kwargs["si_tensor"] = torch.from_numpy(arrays.pop("si_tensor"))
    state_dict = {key: torch.from_numpy(np.asarray(value)) for key, value in arrays.items()}
    return {
        "state_dict": state_dict,
        "kwargs": kwargs,
        "optimizer_state_dict": {"state": {}, "param_groups": []},
        "epoch": 10,
    }


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / "original.pth"
    torch.save(published_content(), path)
    return path


@needs_oracle
def test_converted_model_gives_the_energies_of_the_import(original: Path, tmp_path: Path) -> None:
    status, out, err = call(original, tmp_path / "model")
    assert status == 0, err
    written = tmp_path / "model.safetensors"
    assert file_sha256(written) in out
    content = published_content()
    arrays = {key: tensor.numpy() for key, tensor in content["state_dict"].items()}
    expected = import_published(arrays, content["kwargs"])
    converted = load_potential(written, dtype="float64")
    assert converted.config == expected.config
    assert converted.metadata["converted_from"] == {
        "file": "original.pth",
        "sha256": file_sha256(original),
    }
    positions = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    numbers = np.array([8, 1, 1])
    ours, theirs = (p.energy_and_forces(positions, numbers) for p in (converted, expected))
    assert ours[0] == theirs[0]
    np.testing.assert_array_equal(ours[1], theirs[1])


@needs_oracle
def test_nothing_is_overwritten_unasked(original: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.safetensors"
    target.write_bytes(b"precious")
    status, _, err = call(original, target)
    assert status == 2
    assert "exists already; use --force" in err
    assert target.read_bytes() == b"precious"
    assert call(original, target, "--force")[0] == 0
    assert load_potential(target).config.numerics == "published"


class Attack:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("writer", [torch.save, lambda obj, path: path.write_bytes(obj)])
def test_code_in_a_checkpoint_is_not_run(writer: Any, tmp_path: Path) -> None:
    content: Any = {"state_dict": {}, "kwargs": {"si_tensor": Attack(tmp_path / "touched")}}
    if writer is not torch.save:
        content = pickle.dumps(content)
    original = tmp_path / "evil.pth"
    writer(content, original)
    status, _, err = call(original, tmp_path / "model")
    assert status == 2
    assert "does not run code" in err
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "tensor", "incomplete"])
def test_files_that_are_no_published_checkpoint(kind: str, tmp_path: Path) -> None:
    original = tmp_path / "original.pth"
    if kind == "empty":
        original.touch()
    elif kind == "text":
        original.write_text("hello")
    elif kind == "tensor":
        torch.save(torch.zeros(3), original)
    elif kind == "incomplete":
        torch.save({"state_dict": {}, "kwargs": {}}, original)
    status, _, err = call(original, tmp_path / "model")
    assert status == 2
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("*.safetensors"))
