"""`trip-mm scan`: water, pairs, dimers and bonds along rigid paths, any potentials side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trip_mm.cli.console import console, print_table, reporting_errors

if TYPE_CHECKING:
    from trip_mm.surfaces.curve import Curve
    from trip_mm.surfaces.path import RigidPath
    from trip_mm.surfaces.smoothness import Smoothness
    from trip_mm.surfaces.subjects import Subject
    from trip_mm.surfaces.water import Surface, SurfaceError

app = typer.Typer(help="Rigid scans: water, pairs, dimers, bonds.", no_args_is_help=True)

_DEFAULT_POTENTIALS = ["gfn2", "trip-gfn2-s"]
_REGIONS = ("close", "bound", "one torn", "both torn")

Potentials = Annotated[
    list[str] | None,
    typer.Option("--potential", help="Repeat for several; the first one is the reference."),
]
SwitchOff = Annotated[
    list[str] | None,
    typer.Option("--switch-off", help="Also without this term of TrIP: zbl, bump, lone-atoms."),
]
First = Annotated[float, typer.Option("--from", help="Shortest distance, A.")]
Last = Annotated[float, typer.Option("--to", help="Longest distance, A.")]
Step = Annotated[float, typer.Option("--step", help="Step, A.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")]


@app.command("water")
@reporting_errors
def water(
    potential: Annotated[
        list[str] | None, typer.Option("--potential", help="Repeat for several.")
    ] = None,
    switch_off: SwitchOff = None,
    first: First = 0.5,
    last: Last = 4.5,
    step: Step = 0.1,
    out: Out = Path("water-scan"),
) -> None:
    """Scan both O-H distances of water at 104.5 degrees, beside wB97x/6-31G*."""
    from trip_mm.surfaces.output import write_surfaces
    from trip_mm.surfaces.path import distance_grid
    from trip_mm.surfaces.plots import plot_surfaces
    from trip_mm.surfaces.water import check_grid, compare, compute_surfaces, reference_surfaces

    grid = distance_grid(first, last, step)
    references = reference_surfaces()
    for reference in references:
        check_grid(grid, reference)  # refuses before anything runs
    subjects = _subjects(potential, switch_off)
    surfaces = compute_surfaces(grid, subjects, out, _announce)
    errors = {
        surface.label: {reference.label: compare(surface, reference) for reference in references}
        for surface in surfaces
    }
    together = (*references, *surfaces)
    write_surfaces(together, errors, out)
    plot_surfaces(together, out / "surfaces.png")
    _print_surfaces(surfaces, references, errors)
    console.print(f"{out}: surfaces.png, surfaces.csv, scan.json", soft_wrap=True)


@app.command("diatomic")
@reporting_errors
def diatomic(
    pair: Annotated[str, typer.Argument(help="Two element symbols, as O-H.")],
    potential: Potentials = None,
    switch_off: SwitchOff = None,
    first: First = 0.5,
    last: Last = 5.0,
    step: Step = 0.02,
    out: Out = Path("diatomic-scan"),
) -> None:
    """Pull two bare atoms apart."""
    from trip_mm.surfaces.diatomic import diatomic_path
    from trip_mm.surfaces.path import distance_grid

    path = diatomic_path(pair, distance_grid(first, last, step))
    _scan_curves(path, _subjects(potential, switch_off), out)


@app.command("dimer")
@reporting_errors
def dimer(
    molecule: Annotated[str, typer.Argument(help="The first: file or SMILES.")],
    other: Annotated[str, typer.Argument(help="The second: file or SMILES.")],
    contact: Annotated[
        str, typer.Option(help="Atoms that face each other, one of each, from 0, as 1,0.")
    ] = "0,0",
    potential: Potentials = None,
    switch_off: SwitchOff = None,
    first: First = 0.5,
    last: Last = 5.0,
    step: Step = 0.02,
    out: Out = Path("dimer-scan"),
) -> None:
    """Pull two molecules apart along the line through their centres and the contact atoms."""
    from trip_mm.geometry.molecule import read_molecule
    from trip_mm.surfaces.bond import parse_atoms
    from trip_mm.surfaces.dimer import dimer_path
    from trip_mm.surfaces.path import distance_grid

    i, j = parse_atoms(contact)
    grid = distance_grid(first, last, step)
    path = dimer_path(read_molecule(molecule), read_molecule(other), (i, j), grid)
    _scan_curves(path, _subjects(potential, switch_off), out)


@app.command("bond")
@reporting_errors
def bond(
    molecule: Annotated[str, typer.Argument(help="SDF, MOL, PDB or XYZ file, or SMILES.")],
    atoms: Annotated[str, typer.Option(help="The bond, counted from 0; the second moves.")] = "0,1",
    potential: Potentials = None,
    switch_off: SwitchOff = None,
    first: First = 0.5,
    last: Last = 5.0,
    step: Step = 0.02,
    out: Out = Path("bond-scan"),
) -> None:
    """Stretch and compress a bond of MOLECULE, all else rigid."""
    from trip_mm.geometry.molecule import read_molecule
    from trip_mm.surfaces.bond import bond_path, parse_atoms
    from trip_mm.surfaces.path import distance_grid

    i, j = parse_atoms(atoms)
    path = bond_path(read_molecule(molecule), (i, j), distance_grid(first, last, step))
    _scan_curves(path, _subjects(potential, switch_off), out)


def _announce(line: str) -> None:
    console.print("  " + line, markup=False, soft_wrap=True)


def _subjects(potential: list[str] | None, switch_off: list[str] | None) -> "tuple[Subject, ...]":
    from trip_mm.geometry.potentials import parse_potential
    from trip_mm.surfaces.subjects import subjects_of

    specs = [parse_potential(text) for text in potential or _DEFAULT_POTENTIALS]
    return subjects_of(specs, switch_off or [])


def _scan_curves(path: "RigidPath", subjects: "Sequence[Subject]", out: Path) -> None:
    from trip_mm.surfaces.curve import compute_curves
    from trip_mm.surfaces.output import write_curves
    from trip_mm.surfaces.plots import plot_curves
    from trip_mm.surfaces.smoothness import smoothness

    console.print(f"{path.name}, {path.quantity}", markup=False)
    curves = compute_curves(path, subjects, out, _announce)
    figures = {curve.label: smoothness(curve) for curve in curves}
    write_curves(path, curves, figures, out)
    plot_curves(path, curves, out / "curves.png")
    _print_curves(path, curves, figures)
    console.print(f"{out}: curves.png, curves.csv, scan.json", soft_wrap=True)


def _print_curves(
    path: "RigidPath", curves: "Sequence[Curve]", figures: "dict[str, Smoothness]"
) -> None:
    from rich import box
    from rich.table import Table

    from trip_mm.surfaces.smoothness import false_wells, mean_absolute_error

    table = Table(
        title=f"kcal/mol; MAE and false wells against {curves[0].label}, the first potential",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("potential", no_wrap=True)
    for header in ("MAE", "tortuosity", "flips", "jump", "conserved", "repulsion"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("false wells", no_wrap=True)
    known = figures[curves[0].label].wells
    for curve in curves:
        found = figures[curve.label]
        wells = false_wells(found.wells, known)
        conserved = found.conservation_kcal_per_mol
        error = mean_absolute_error(curve, curves[0], path.zero)
        table.add_row(
            curve.label,
            "" if curve is curves[0] or error is None else f"{error:.2f}",
            f"{found.tortuosity:.3f}",
            "" if found.force_flips is None else str(found.force_flips),
            f"{found.energy_jump_kcal_per_mol:.2f}",
            "" if conserved is None else f"{conserved:.3f}",
            "none" if found.repulsion is None else f"{found.repulsion:+.3f}",
            "\n".join(
                f"{well.distance_angstrom:.2f} A, {well.depth_kcal_per_mol:.1f} deep"
                for well in wells
            )
            or "none",
        )
    print_table(table)


def _print_surfaces(
    surfaces: "Sequence[Surface]",
    references: "Sequence[Surface]",
    errors: "dict[str, dict[str, SurfaceError]]",
) -> None:
    from rich.table import Table

    for reference in references:
        table = Table(title=f"mean absolute error against {reference.label}, kcal/mol")
        for header in (
            "potential",
            "all",
            "close",
            "bound",
            "one torn",
            "both torn",
            "false wells",
        ):
            table.add_column(header, justify="left" if header == "potential" else "right")
        for surface in surfaces:
            error = errors[surface.label][reference.label]
            regions = [error.mae_by_region.get(name) for name in _REGIONS]
            cells = ["" if value is None else f"{value:.1f}" for value in regions]
            table.add_row(surface.label, f"{error.mae:.1f}", *cells, str(len(error.false_wells)))
        print_table(table)
