"""The `trip-mm` command: one module per subcommand, each with argument parsing only."""

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from trip_mm import __version__
from trip_mm.cli import (
    ablate,
    active_learn,
    analyze,
    bench,
    check_precision,
    convert,
    doctor,
    evaluate,
    export,
    frequencies,
    label,
    minimize,
    models,
    resume,
    run,
    sample,
    scan,
    torsion,
    train,
)
from trip_mm.cli.console import reporting_errors

app = typer.Typer(
    name="trip-mm",
    help="Machine-learned molecular dynamics of solvated peptides in OpenMM with TrIP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

# Waiting threads of torch spin for milliseconds by default. That takes the core from the kernels'
# and OpenMM's threads, or from other processes: on two cores a step took 87 ms instead of 67, and
# over a second with another process beside it (docs/running.md).
_SPINS_BEFORE_SLEEP = "2000"


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"trip-mm {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Machine-learned molecular dynamics of solvated peptides in OpenMM with TrIP."""
    # Read when torch is first imported, which every subcommand does later.
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS_BEFORE_SLEEP)


def _register(name: str, command: Callable[..., Any]) -> None:
    app.command(name)(reporting_errors(command))


_register("run", run.command)
_register("resume", resume.command)
_register("models", models.command)
_register("convert", convert.command)
_register("export", export.command)
_register("doctor", doctor.command)
_register("sample", sample.command)
_register("label", label.command)
_register("train", train.command)
_register("ablate", ablate.command)
_register("evaluate", evaluate.command)
_register("active-learn", active_learn.command)
_register("minimize", minimize.command)
_register("frequencies", frequencies.command)
_register("bench", bench.command)
_register("check-precision", check_precision.command)
app.add_typer(analyze.app, name="analyze")
app.add_typer(scan.app, name="scan")
app.add_typer(torsion.app, name="torsion")
