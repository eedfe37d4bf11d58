"""`trip-mm export`: a model as TorchScript that runs without trip-mm."""

from pathlib import Path
from typing import Annotated

import typer

from trip_mm.cli.console import console
from trip_mm.errors import ConfigError


def command(
    model: Annotated[str, typer.Argument(help="Registered model or checkpoint file.")],
    out: Annotated[Path, typer.Argument(help="File to write; .pt is added if missing.")],
    precision: Annotated[
        str, typer.Option("--precision", help="Of the network: single or double.")
    ] = "single",
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write MODEL as TorchScript, checked against the original.

    The file needs only torch (`torch.jit.load`, also in C++). It is called with positions in A,
    atomic numbers and a cell in A or None, and returns the energy in eV.
    """
    dtypes = {"single": "float32", "double": "float64"}
    if precision not in dtypes:
        raise ConfigError(f"--precision {precision!r} is unknown; use single or double")
    target = out if out.suffix == ".pt" else out.with_name(out.name + ".pt")
    if target.is_dir():
        raise ConfigError(f"{target}: is a directory; name a file")
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent}: no such directory; make it first")
    if target.exists() and not force:
        raise ConfigError(f"{target}: exists already; use --force to replace it")
    from trip_mm.checkpoint import file_sha256, load_potential
    from trip_mm.export import save_torchscript

    written = save_torchscript(load_potential(model, dtype=dtypes[precision]), target)
    console.print(f"{written}: written, sha256 {file_sha256(written)}", soft_wrap=True)
