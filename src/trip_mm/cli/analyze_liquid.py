"""`trip-mm analyze rdf` and `trip-mm analyze density`: what a run says of its liquid."""

from pathlib import Path
from typing import Annotated

import typer

from trip_mm.cli.console import console, print_table, reporting_errors

RunDirectoryArgument = Annotated[
    Path, typer.Argument(help="Directory of a run; the files are written into it.")
]

StageOption = Annotated[
    str | None,
    typer.Option(help="Name of a stage, such as nvt; the last one with a trajectory by default."),
]


@reporting_errors
def rdf_command(
    run_dir: RunDirectoryArgument,
    stage: StageOption = None,
    first: Annotated[
        str,
        typer.Option(
            help="MDAnalysis selection, made in the first frame; oxygens of water by default."
        ),
    ] = "water and name O*",
    second: Annotated[
        str | None, typer.Option(help="Neighbours of --first; the same atoms by default.")
    ] = None,
    skip: Annotated[
        float, typer.Option(help="Time to leave out at the begin of the trajectory, ps.")
    ] = 0.0,
    r_max: Annotated[
        float | None, typer.Option(help="A; half the shortest cell height, at most 10, if absent.")
    ] = None,
    bin_width: Annotated[float, typer.Option(help="A.")] = 0.05,
) -> None:
    """Compute the radial distribution function over a stage.

    Writes rdf.csv, rdf.json and rdf.png. Pairs within one residue do not count.
    """
    from trip_mm.analysis.liquid_output import rdf_summary, write_rdf
    from trip_mm.analysis.radial import RadialSettings, radial_distribution
    from trip_mm.analysis.run_directory import stage_trajectory, topology_file

    settings = RadialSettings(first, second or first, bin_width, r_max, skip)
    topology, trajectory = topology_file(run_dir), stage_trajectory(run_dir, stage)
    result = radial_distribution(topology, trajectory, settings)
    write_rdf(result, run_dir)
    summary = rdf_summary(result)
    peak, minimum = summary["peak"], summary["first_minimum"]
    error = peak["g_standard_error"]
    spread = "" if error is None else f" +- {error:.2f}"
    console.print(
        f"{summary['trajectory']}: {result.n_frames:,} frames, {result.n_first} and "
        f"{result.n_second} atoms",
        markup=False,
    )
    console.print(
        f"highest peak: g = {peak['g']:.2f}{spread} at {peak['distance_angstrom']:.2f} A; minimum: "
        f"g = {minimum['g']:.2f} at {minimum['distance_angstrom']:.2f} A, "
        f"{minimum['coordination_number']:.2f} neighbours up to there",
        markup=False,
        soft_wrap=True,
    )


@reporting_errors
def density_command(
    run_dir: RunDirectoryArgument,
    skip: Annotated[
        float | None,
        typer.Option(help="Time to leave out at the begin of each stage, ps; found if absent."),
    ] = None,
) -> None:
    """Average the density over the stages at constant pressure.

    Writes density.csv, density.json and density.png. Errors follow from the autocorrelation.
    """
    from rich import box
    from rich.table import Table

    from trip_mm.analysis.density import run_densities
    from trip_mm.analysis.liquid_output import UNTRUSTED, write_density

    results = run_densities(run_dir, skip)
    write_density(results, run_dir)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for heading in ("density (g/mL)", "error", "from (ps)", "to (ps)", "tau (ps)", "n indep."):
        table.add_column(heading, justify="right", no_wrap=True)
    for own in results:
        table.add_row(
            own.stage,
            f"{own.mean.mean:.4f}",
            f"{own.mean.standard_error:.4f}",
            f"{own.times_ps[own.mean.n_discarded]:.4g}",
            f"{own.times_ps[-1]:.4g}",
            f"{own.correlation_time_ps:.3g}",
            f"{own.mean.n_effective:.1f}",
        )
    print_table(table)
    for own in results:
        if not own.is_converged:
            console.print(f"{own.stage}: {UNTRUSTED}; run longer", markup=False, soft_wrap=True)
