"""`trip-mm bench`: speed of models, backends and peers, in one sitting."""

from pathlib import Path
from typing import Annotated

import typer

from trip_mm.cli.console import console, error_console, print_table


def command(
    system: Annotated[
        list[str] | None,
        typer.Option(help="water:ATOMS, a shipped system or a system YAML; repeat for several."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Registered model, checkpoint, or new:PRESET (random weights)."),
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="direct, torch or python; repeatable.")
    ] = None,
    form: Annotated[
        list[str] | None, typer.Option(help="kernels or plain (with direct only); repeatable.")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help="mace-off23-small, mace-off23-medium, nequip, or openmm-ml:NAME."),
    ] = None,
    peer_python: Annotated[
        list[str] | None,
        typer.Option(help="Interpreter that has a peer's package; repeatable."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
    rounds: Annotated[int, typer.Option(help="Turns of each case.")] = 5,
    steps: Annotated[int, typer.Option(help="At most so many steps in a turn.")] = 10,
    seconds: Annotated[float, typer.Option(help="A turn ends after this time.")] = 5.0,
    warm_up: Annotated[int, typer.Option(help="Steps before the clock starts.")] = 3,
    timestep: Annotated[str, typer.Option(help="Timestep behind ns/day.")] = "0.5 fs",
    precision: Annotated[
        str,
        typer.Option(
            help="single or double, of the network; bf16 with --backend direct --form plain."
        ),
    ] = "single",
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")] = Path("bench"),
) -> None:
    """Measure how long a step takes: systems times models, backends and forms, and peers.

    All cases of a system take turns. Writes bench.json and, with several sizes, scaling.png.
    """
    from trip_mm.benchmark.cases import Settings, expand
    from trip_mm.benchmark.report import exponents, plot_scaling, tables, write_json
    from trip_mm.benchmark.session import run_session
    from trip_mm.errors import ConfigError
    from trip_mm.files import make_directory
    from trip_mm.simulation.platforms import usable_cpus
    from trip_mm.simulation.quantities import TIMESTEP, parse_quantity

    try:
        timestep_fs = parse_quantity(timestep, TIMESTEP)
    except ValueError as error:
        raise ConfigError(f"--timestep: {error}") from None
    models = model or ([] if peer else ["trip-gfn2-s"])
    cases = expand(
        system or ["trialanine"], models, backend or ["torch"], form or ["kernels"], peer or []
    )
    if precision == "bf16" and any((c.backend, c.form) != ("direct", "plain") for c in cases):
        raise ConfigError(
            "--precision bf16 is measured with --backend direct --form plain, without peers: "
            "kernels have no bf16, and a force inside OpenMM is checked first"
        )
    settings = Settings(
        threads=threads or usable_cpus(), warm_up=warm_up, rounds=rounds, steps=steps,
        seconds=seconds, timestep_fs=timestep_fs, precision=precision,
        peer_pythons=tuple(peer_python or []),
    )  # fmt: skip
    make_directory(out)
    found = run_session(
        cases,
        settings,
        lambda line: error_console.print(line, markup=False, style="dim"),
        lambda so_far: write_json(out / "bench.json", so_far, settings),
    )
    for table in tables(found, settings):
        print_table(table)
    for label, power in exponents(found).items():
        console.print(f"{label}: time grows as atoms to the power {power:.2f}", markup=False)
    written = ["bench.json"]
    if plot_scaling(found, out / "scaling.png"):
        written.append("scaling.png")
    console.print(f"{out}: {', '.join(written)}", soft_wrap=True)
    if all(measurement.problem is not None for measurement in found):
        raise typer.Exit(1)
