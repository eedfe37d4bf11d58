"""`trip-mm torsion drive`, `fetch` and `reference`: torsion benchmarks over sets of molecules."""

from pathlib import Path
from typing import Annotated

import typer

from trip_mm.cli.console import console, reporting_errors


def _announce(line: str) -> None:
    console.print("  " + line, markup=False, soft_wrap=True)


@reporting_errors
def reference(
    recipe: Annotated[Path, typer.Argument(help="YAML file, see recipes/torsion-reference.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")],
    processes: Annotated[int, typer.Option(min=1, help="Processes to work with.")] = 1,
    scheduler: Annotated[str, typer.Option(help="Address of a Dask scheduler instead.")] = "",
) -> None:
    """Make a reference set: drive the molecules of RECIPE; run it again to continue."""
    from trip_mm.torsion.executors import Workers
    from trip_mm.torsion.reference import load_recipe, make_reference

    result = make_reference(load_recipe(recipe), out, Workers(processes, scheduler), _announce)
    console.print(
        f"{result.path}: {len(result.records)} torsions, {len(result.skipped)} skipped",
        soft_wrap=True,
    )
