"""`trip-mm check-precision`: whether tf32 or bf16 is accurate enough for a system."""

from pathlib import Path
from typing import Annotated

import typer

from trip_mm.cli.console import console


def command(
    system: Annotated[
        str, typer.Argument(help="System file, or the name of one that comes with trip-mm.")
    ],
    precision: Annotated[str, typer.Argument(help="tf32 or bf16.")],
    potential: Annotated[
        str | None, typer.Option(help="TrIP model in place of the system's: a name or a file.")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="Force backend of the run: auto, torch, python, pythontorch.")
    ] = "auto",
    platform: Annotated[
        str | None, typer.Option(help="OpenMM platform of the run.  [default: the fastest]")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.  [default: all]")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="JSON file for the numbers.")
    ] = None,
) -> None:
    """Compare forces and energy conservation of a reduced precision with float32.

    A run with that precision makes the same check first. Exits with 1 if it does not pass.
    """
    from trip_mm.cli.run_output import listener
    from trip_mm.errors import ConfigError
    from trip_mm.files import write_json
    from trip_mm.simulation.plan import RunOptions
    from trip_mm.simulation.precision_checks import check_potential
    from trip_mm.simulation.system_config import REDUCED_PRECISIONS
    from trip_mm.workflow import prepare_run

    if precision not in REDUCED_PRECISIONS:
        raise ConfigError(f"{precision!r} is not one of {', '.join(REDUCED_PRECISIONS)}")
    options = RunOptions(
        potential=potential, backend=backend, platform=platform, precision=precision,
        threads=threads,
    )  # fmt: skip
    # Every protocol gives the same check; this one asks for no other potential than the system's.
    prepared = prepare_run(system, "gas", options)
    progress = listener()
    try:
        check = check_potential(
            prepared.plan, prepared.plan.potential, prepared.structure, progress
        )
    finally:
        progress.stopped()
    if out is not None:
        write_json(out, check.to_dict())
    if not check.passed:
        console.print(f"{precision} does not pass; use float32", style="bold red")
        raise typer.Exit(1)
    console.print(f"{precision} passes", style="green")
