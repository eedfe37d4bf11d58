"""`trip-mm models`: the listing, the card and the checksum."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trip_mm import checkpoint
from trip_mm.checkpoint import ModelCard
from trip_mm.cli.main import app


def call(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["models", *arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelCard:
    """The only registered model."""
    path, text = tmp_path / "tiny.safetensors", tmp_path / "tiny.md"
    path.write_bytes(b"weights")
    text.write_text("# tiny\n\nTrained on nothing.\n")
    card = ModelCard(
        name="tiny",
        version=3,
        path=path,
        sha256=hashlib.sha256(b"weights").hexdigest(),
        description="smallest model",
        level_of_theory="GFN2-xTB",
        elements=("H", "O"),
        licence="MIT",
        card=text,
    )
    monkeypatch.setattr(checkpoint, "registry", lambda: {"tiny": card})
    return card


def test_list(card: ModelCard) -> None:
    status, out, _ = call()
    assert status == 0
    for text in ("tiny", "smallest model", "GFN2-xTB", "H O", card.sha256[:12]):
        assert text in out


def test_list_as_json(card: ModelCard) -> None:
    status, out, _ = call("--json")
    assert status == 0
    assert json.loads(out) == [
        {
            "name": "tiny",
            "version": 3,
            "description": "smallest model",
            "level_of_theory": "GFN2-xTB",
            "elements": ["H", "O"],
            "licence": "MIT",
            "path": str(card.path),
            "sha256": card.sha256,
        }
    ]


def test_card(card: ModelCard) -> None:
    status, out, _ = call("tiny")
    assert status == 0
    assert card.sha256 in out
    assert "verified" in out
    assert "Trained on nothing." in out
    status, out, _ = call("tiny", "--json")
    assert status == 0
    assert json.loads(out)["verified"] is True


def test_another_file_is_noticed(card: ModelCard) -> None:
    card.path.write_bytes(b"other weights")
    status, _, err = call("tiny")
    assert status == 2
    assert card.sha256 in err
    assert hashlib.sha256(b"other weights").hexdigest() in err
    card.path.unlink()
    status, _, err = call("tiny")
    assert status == 2
    assert "missing" in err


def test_unknown_name(card: ModelCard) -> None:
    status, _, err = call("huge")
    assert status == 2
    assert err == "error: model 'huge' is not registered; models that come with trip-mm: tiny\n"


def test_nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "registry", dict)
    assert call()[:2] == (0, "No models are registered in this installation.\n")
    assert json.loads(call("--json")[1]) == []


def test_every_shipped_model_is_what_it_claims_to_be() -> None:
    for name, card in checkpoint.registry().items():
        assert call(name)[0] == 0
        assert card.card.is_file()
        potential = checkpoint.load_potential(name)
        assert potential.sha256 == card.sha256


def test_waiting_threads_are_told_to_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "1")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    assert CliRunner().invoke(app, ["models"]).exit_code == 0
    assert os.environ["GOMP_SPINCOUNT"] == "2000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert CliRunner().invoke(app, ["models"]).exit_code == 0
    assert os.environ["GOMP_SPINCOUNT"] == "7"
