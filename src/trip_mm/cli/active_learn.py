"""`trip-mm active-learn`: teaches a committee what its own dynamics meets."""

from pathlib import Path
from typing import Annotated

import typer

from trip_mm.cli.console import console, print_table, require_training_packages


def command(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML).")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Directory; the same again to continue.")
    ],
    processes: Annotated[int, typer.Option(min=1, help="Processes that label.")] = 1,
    backend: Annotated[
        str, typer.Option(help="Force backend of TrIP: auto, torch, python, pythontorch.")
    ] = "auto",
    platform: Annotated[
        str | None, typer.Option(help="OpenMM platform.  [default: the fastest]")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of the dynamics.  [default: all]")
    ] = None,
) -> None:
    """Run a committee's dynamics, label where it disagrees, retrain; round by round.

    It ends with the first round that finds nothing. Stopped or killed, the same command continues.
    """
    require_training_packages()
    from rich.box import SIMPLE
    from rich.table import Table

    from trip_mm.active_learning.exploration import Machine
    from trip_mm.active_learning.rounds import active_learn
    from trip_mm.active_learning.summary import COLUMNS, cells
    from trip_mm.simulation.interruption import RunInterrupted

    def report(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    machine = Machine(backend, platform, threads, processes)
    try:
        outcome = active_learn(recipe, out, machine, report)
    except RunInterrupted as error:
        raise RunInterrupted(
            f"stopped; continue with `trip-mm active-learn {recipe} --out {out}`",
            error.signal_number,
        ) from error
    table = Table(
        title=f"{out}: force disagreement of frames, and held-out force MAE, in kcal/mol/A",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for column in COLUMNS.values():
        table.add_column(column.short, justify="right", no_wrap=True)
    for row in outcome.rows:
        table.add_row(*cells(row))
    print_table(table)
    report(outcome.state)
    for member in outcome.committee:
        report(f"  {member}")
