"""`trip-mm sample`: geometries from a recipe."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from trip_mm.cli.console import console


def command(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of geometries to write (HDF5).")],
    data: Annotated[
        Path | None,
        typer.Option(help="Directory that geometry files named in the recipe are relative to."),
    ] = None,
) -> None:
    """Sample geometries as a recipe says: clusters, conformers, pairs, stretched bonds."""
    from trip_mm.training.sampling import sample_recipe

    count = sample_recipe(
        recipe, out, data, lambda kind, found: console.print(f"{kind}: {found} geometries")
    )
    name = out.stem.removesuffix(".geometries")
    labels = out.with_name(f"{name}.labels.h5" if name == out.stem else f"{name}.h5")
    console.print(
        f"{out}: {count} geometries; next: "
        + shlex.join(["trip-mm", "label", str(out), "--method", "gfn2", "--out", str(labels)]),
        soft_wrap=True,
        markup=False,
    )
