"""`trip-mm convert`: published TrIP checkpoints to trip-mm's own format."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trip_mm.cli.console import console
from trip_mm.errors import ConfigError

if TYPE_CHECKING:
    from trip_mm.model.trip import TripConfig


def command(
    original: Annotated[Path, typer.Argument(help="Published TrIP checkpoint (.pth).")],
    out: Annotated[Path, typer.Argument(help="File to write; .safetensors is added if missing.")],
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Convert a published TrIP checkpoint to a trip-mm model.

    Only tensors and plain values are read; a checkpoint that needs code to be unpickled is refused.
    """
    target = out if out.suffix == ".safetensors" else out.with_name(out.name + ".safetensors")
    if target.is_dir():
        raise ConfigError(f"{target}: is a directory; name a file")
    if target.exists() and not force:
        raise ConfigError(f"{target}: exists already; use --force to replace it")
    from trip_mm.checkpoint import (
        file_sha256,
        import_published,
        read_published_checkpoint,
        save_potential,
    )

    state_dict, kwargs = read_published_checkpoint(original)
    arrays = {key: tensor.detach().cpu().numpy() for key, tensor in state_dict.items()}
    potential = import_published(arrays, kwargs)
    source = {"file": original.name, "sha256": file_sha256(original)}
    written = save_potential(potential, target, metadata={"converted_from": source})
    n_parameters = sum(parameter.numel() for parameter in potential.parameters())
    console.print(
        f"{original}: {n_parameters:,} parameters, elements {_elements(potential.config)}"
    )
    console.print(f"{written}: written, sha256 {file_sha256(written)}", soft_wrap=True)


def _elements(config: "TripConfig") -> str:
    from trip_mm.elements import symbols_of

    return " ".join(symbols_of(config.elements))
