"""`trip-mm torsion`: relaxed scans of dihedral angles with any potential."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trip_mm.cli import torsion_drive
from trip_mm.cli.console import console, print_table, reporting_errors
from trip_mm.errors import ConfigError

if TYPE_CHECKING:
    from trip_mm.torsion.comparison import ScanResult

app = typer.Typer(help="Torsion scans with any potential.", no_args_is_help=True)
app.command("drive")(torsion_drive.drive)
app.command("fetch")(torsion_drive.fetch)
app.command("reference")(torsion_drive.reference)


@app.command("scan")
@reporting_errors
def scan(
    molecule: Annotated[str, typer.Argument(help="SDF, MOL, PDB or XYZ file, or SMILES.")],
    dihedral: Annotated[
        str | None, typer.Option(help="Four atom indices counted from 0, as 5,4,2,1.")
    ] = None,
    smarts: Annotated[
        str | None, typer.Option(help="Pattern of four atoms that matches one dihedral.")
    ] = None,
    all_rotors: Annotated[
        bool, typer.Option("--all-rotors", help="Scan every rotatable bond, one after the other.")
    ] = False,
    potential: Annotated[
        list[str] | None,
        typer.Option(
            help="Relaxes its own profile; repeat for several, the reference last. See "
            "docs/torsions.md."
        ),
    ] = None,
    single_point: Annotated[
        list[str] | None,
        typer.Option(
            help="Evaluated at the geometries of the first potential; repeatable. The last one is "
            "the reference, in place of the last potential."
        ),
    ] = None,
    step: Annotated[int, typer.Option(help="Grid step, whole degrees that divide 360.")] = 10,
    strategy: Annotated[
        str,
        typer.Option(
            help="both: up and down, the lower counts. wavefront: until none lowers. batched: as "
            "wavefront, all angles at once."
        ),
    ] = "both",
    conformers: Annotated[
        int,
        typer.Option(min=0, help="Conformers to start from besides MOLECULE; needs batched."),
    ] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")] = Path(
        "torsion-scan"
    ),
) -> None:
    """Scan a dihedral of MOLECULE, relaxing all else, with one or more potentials.

    The same command continues after an interruption. The last --single-point, else the last
    --potential, is the reference of the errors printed.
    """
    if sum((dihedral is not None, smarts is not None, all_rotors)) != 1:
        raise ConfigError("give exactly one of --dihedral, --smarts and --all-rotors")
    from trip_mm.geometry.molecule import read_molecule
    from trip_mm.geometry.potentials import parse_potential
    from trip_mm.torsion import dihedrals
    from trip_mm.torsion.batched import BATCHED
    from trip_mm.torsion.comparison import ScanSettings, compare_potentials
    from trip_mm.torsion.scan import STRATEGIES, grid_angles

    strategies = (*STRATEGIES, BATCHED)
    if strategy not in strategies:
        raise ConfigError(f"--strategy {strategy!r} is unknown; use {', '.join(strategies)}")
    if conformers and strategy != BATCHED:
        raise ConfigError("--conformers needs --strategy batched, which starts from all at once")
    grid_angles(step)
    read = read_molecule(molecule)
    if dihedral is not None:
        chosen = [dihedrals.dihedral_from_indices(read, dihedral)]
    elif smarts is not None:
        chosen = [dihedrals.dihedral_from_smarts(read, smarts)]
    else:
        chosen = dihedrals.all_rotors(read)
    relaxed = tuple(parse_potential(text) for text in potential or ["trip-gfn2-s"])
    points = tuple(parse_potential(text) for text in single_point or [])
    for atoms in chosen:
        name = dihedrals.describe(read, atoms)
        directory = out / name if all_rotors else out
        console.print(f"{read.name} ({read.formula}), {name}", markup=False)
        result = compare_potentials(
            read,
            ScanSettings(atoms, relaxed, points, step, strategy, conformers),
            directory,
            lambda line: console.print("  " + line, markup=False, soft_wrap=True),
        )
        _print_table(result, "single point" if points else "potential")
        console.print(f"{directory}: profiles.png, profiles.csv, scan.json, *.xyz", soft_wrap=True)


def _print_table(result: "ScanResult", compared: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    from trip_mm.units import EV_TO_KCAL_PER_MOL

    title = "kcal/mol"
    if result.deviations:
        title = f"errors against {result.reference}, the last {compared}; kcal/mol"
    table = Table(title=escape(title))
    for header in ("potential", "barrier", "RMSE", "MAE", "barrier error", "shift (degrees)"):
        table.add_column(header, justify="left" if header == "potential" else "right")
    for profile in result.profiles:
        barrier = (
            f"{float(profile.energies.max() - profile.energies.min()) * EV_TO_KCAL_PER_MOL:.2f}"
        )
        found = result.deviations.get(profile.label)
        if found is None:
            table.add_row(profile.label, barrier, "reference", "", "", "")
            continue
        table.add_row(
            profile.label,
            barrier,
            f"{found.rmse_kcal_per_mol:.2f}",
            f"{found.mae_kcal_per_mol:.2f}",
            f"{found.barrier_error_kcal_per_mol:+.2f}",
            f"{found.barrier_shift_deg:+.0f}",
        )
    print_table(table)
