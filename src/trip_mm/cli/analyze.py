"""`trip-mm analyze`: what a finished or interrupted run shows."""

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trip_mm.cli.analyze_liquid import StageOption, density_command, rdf_command
from trip_mm.cli.console import console, print_table, reporting_errors
from trip_mm.errors import ConfigError
from trip_mm.files import make_directory

if TYPE_CHECKING:
    from rich.table import Table

    from trip_mm.analysis.ramachandran import RamachandranResult
    from trip_mm.analysis.statistics import TorsionStatistics

app = typer.Typer(help="Analyse runs.", no_args_is_help=True)
app.command("rdf")(rdf_command)
app.command("density")(density_command)


class StateSetName(StrEnum):
    """The sets of Ramachandran states on offer."""

    TILED = "tiled"
    THESIS = "thesis"


@app.callback()
def _analyze() -> None:
    """Analyse runs."""


@app.command("ramachandran")
@reporting_errors
def ramachandran_command(
    run_dir: Annotated[
        Path | None,
        typer.Argument(help="Directory of a run; the files are written into it."),
    ] = None,
    topology: Annotated[
        Path | None, typer.Option(help="Structure file, to analyse any trajectory.")
    ] = None,
    trajectory: Annotated[
        Path | None, typer.Option(help="Trajectory file that goes with --topology.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory for the files of --topology and --trajectory.  [default: .]"),
    ] = None,
    stage: StageOption = None,
    states: Annotated[
        StateSetName,
        typer.Option(help="Ramachandran states: tiling the map, or as the TrIP thesis prints."),
    ] = StateSetName.TILED,
) -> None:
    """Tables and draws phi and psi of every residue that has both.

    Writes ramachandran.csv (every frame), .json and .png, and prints the population, mean and
    standard deviation of each state.
    """
    from trip_mm.analysis.ramachandran import analyze_run, ramachandran, write_results
    from trip_mm.analysis.states import state_set
    from trip_mm.analysis.statistics import too_short_text

    if run_dir is not None:
        if topology is not None or trajectory is not None or out is not None:
            raise ConfigError(
                "RUN_DIR and --topology, --trajectory, --out exclude each other; give one or the "
                "others"
            )
        result = analyze_run(run_dir, states.value, stage)
    else:
        if stage is not None:
            raise ConfigError("--stage chooses a stage of a RUN_DIR; leave it out")
        if topology is None or trajectory is None:
            raise ConfigError("give a RUN_DIR, or both --topology and --trajectory")
        result = ramachandran(topology, trajectory)
        directory = Path() if out is None else out
        make_directory(directory)
        write_results(result, directory, state_set(states.value))
    print_table(states_table(result, states.value))
    pooled = result.pooled_statistics(state_set(states.value))
    if pooled.is_too_short:
        text = f"{too_short_text(pooled.n_changes)}; run longer"
        console.print(text, markup=False, soft_wrap=True)


def states_table(result: "RamachandranResult", state_set_name: str) -> "Table":
    """Returns the table of state statistics, per residue and, where there are several, pooled."""
    from rich import box
    from rich.table import Table

    from trip_mm.analysis.states import state_set

    states = state_set(state_set_name)
    table = Table(
        title=f"Ramachandran states ({states.name}), {result.extent}, of {result.trajectory}",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        caption="dphi, dpsi: circular standard deviations; +-: standard error of P",
    )
    for heading in ("residue", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("phi (deg)", "psi (deg)", "dphi (deg)", "dpsi (deg)", "P (%)", "+-"):
        table.add_column(heading, justify="right", no_wrap=True)
    for residue, statistics in result.residue_statistics(states).items():
        _add_rows(table, residue, statistics)
    if len(result.residues) > 1:
        _add_rows(table, "all", result.pooled_statistics(states))
    return table


def _add_rows(table: "Table", residue: str, statistics: "TorsionStatistics") -> None:
    for index, row in enumerate(statistics.states):
        angles = (row.phi_mean_deg, row.psi_mean_deg, row.phi_spread_deg, row.psi_spread_deg)
        table.add_row(
            residue if index == 0 else "",
            row.state,
            *(f"{angle:.1f}" if row.n_points else "-" for angle in angles),
            f"{100 * row.population:.1f}",
            "-" if math.isnan(row.standard_error) else f"{100 * row.standard_error:.1f}",
        )
    for name, share in (
        ("unassigned", statistics.unassigned),
        ("overlap", statistics.overlapping),
    ):
        if name == "unassigned" or share > 0:
            table.add_row("", f"[dim]{name}[/]", "", "", "", "", f"[dim]{100 * share:.1f}[/]", "")
    table.add_section()
