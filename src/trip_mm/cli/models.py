"""`trip-mm models`: the models that come with trip-mm."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trip_mm.cli.console import console, print_table
from trip_mm.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from trip_mm.checkpoint import ModelCard


def command(
    name: Annotated[
        str | None, typer.Argument(help="Model to show in full, with its checksum verified.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """List the models that come with trip-mm, or show and verify one."""
    from trip_mm.checkpoint import registry, suggest_model

    cards = registry()
    if name is None:
        _list(list(cards.values()), as_json)
        return
    if name not in cards:
        raise ConfigError(f"model {name!r} is not registered{suggest_model(name)}")
    verify(cards[name])
    _show(cards[name], as_json)


def verify(card: "ModelCard") -> None:
    """Compares the file of a model with its registered SHA-256 digest.

    Raises:
        CheckpointError: the file is missing or is another one.
    """
    from trip_mm.checkpoint import file_sha256

    if not card.path.is_file():
        raise CheckpointError(f"{card.path}: the file of model {card.name!r} is missing; reinstall")
    digest = file_sha256(card.path)
    if digest != card.sha256:
        raise CheckpointError(
            f"{card.path}: sha256 is {digest}, registered is {card.sha256}; reinstall trip-mm"
        )


def _list(cards: "list[ModelCard]", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([_as_dict(card) for card in cards], indent=2))
    elif cards:
        print_table(_table(cards))
    else:
        console.print("No models are registered in this installation.")


def _show(card: "ModelCard", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**_as_dict(card), "verified": True}, indent=2))
        return
    for key, value in _as_dict(card).items():
        text = " ".join(value) if isinstance(value, list) else str(value)
        console.print(f"{key:<16} {text}", markup=False, soft_wrap=True)
    console.print(f"{'checksum':<16} verified")
    if card.card.is_file():
        from trip_mm.cli.document import print_document

        console.print()
        print_document(card.card.read_text(encoding="utf-8"))


def _as_dict(card: "ModelCard") -> dict[str, Any]:
    return {
        "name": card.name,
        "version": card.version,
        "description": card.description,
        "level_of_theory": card.level_of_theory,
        "elements": list(card.elements),
        "licence": card.licence,
        "path": str(card.path),
        "sha256": card.sha256,
    }


def _table(cards: "list[ModelCard]") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("version", no_wrap=True)
    table.add_column("description")
    for heading in ("level of theory", "elements", "sha256"):
        table.add_column(heading, no_wrap=True)
    for card in cards:
        elements = " ".join(card.elements)
        cells = (card.description, card.level_of_theory, elements, card.sha256[:12])
        table.add_row(card.name, str(card.version), *cells)
    return table
