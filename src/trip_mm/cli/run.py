"""`trip-mm run`: builds a system and runs a protocol on it."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    system: Annotated[
        str, typer.Argument(help="System file, or the name of one that comes with trip-mm.")
    ],
    protocol: Annotated[
        str, typer.Option(help="Protocol file, or the name of one that comes with trip-mm.")
    ] = "quick",
    out: Annotated[
        Path | None,
        typer.Option(help="New run directory.  [default: runs/SYSTEM-POTENTIAL-PROTOCOL]"),
    ] = None,
    potential: Annotated[
        str | None,
        typer.Option(
            help="In place of the system's: amber14, trip:NAME, openmm-ml:NAME, or the name or "
            "file of a TrIP model."
        ),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="Force backend of TrIP: auto, torch, python, pythontorch.")
    ] = "auto",
    platform: Annotated[
        str | None, typer.Option(help="OpenMM platform.  [default: the fastest]")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="single, mixed or double; tf32 or bf16 for the network's products, after a check."
            "  [default: single, on GPUs mixed]"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of all random numbers.  [default: the protocol's]")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.  [default: all]")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY.PATH=VALUE",
            help='Change a setting, for example stages.1.duration="2 ps". Repeatable.',
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show plan, atoms and estimated time; run nothing.")
    ] = False,
) -> None:
    """Build a system, minimize, equilibrate, run and analyse it.

    Ctrl-C or SIGTERM writes a checkpoint first; `trip-mm resume` then continues to the exact step.
    """
    from trip_mm.cli.run_output import listener, show_plan, show_summary
    from trip_mm.simulation.plan import RunOptions
    from trip_mm.workflow import prepare_run, run_path, start

    overrides = [*(set_ or []), *([f"seed={seed}"] if seed is not None else [])]
    options = RunOptions(
        potential=potential,
        backend=backend,
        platform=platform,
        precision=precision,
        threads=threads,
        overrides=tuple(overrides),
    )
    prepared = prepare_run(system, protocol, options)
    path = run_path(prepared, out)
    if dry_run:
        show_plan(prepared, path)
        return
    show_summary(start(prepared, path, listener()))
