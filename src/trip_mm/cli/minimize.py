"""`trip-mm minimize`: relaxes one molecule with any potential."""

from pathlib import Path
from typing import Annotated

import typer

from trip_mm.cli.console import console


def command(
    molecule: Annotated[str, typer.Argument(help="SDF, MOL, PDB or XYZ file, or SMILES.")],
    potential: Annotated[
        str, typer.Option(help="As in `trip-mm torsion scan`; see docs/geometry.md.")
    ] = "trip-gfn2-s",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File to write: .sdf, .pdb or .xyz.")
    ] = Path("minimized.sdf"),
    hold: Annotated[
        str | None,
        typer.Option(help="Dihedral to hold: four atom indices from 0 and degrees, 5,4,2,1=60."),
    ] = None,
) -> None:
    """Relax MOLECULE until the tight criteria of Gaussian hold, and write it."""
    from trip_mm.geometry.minimize import minimize, parse_held
    from trip_mm.geometry.molecule import read_molecule
    from trip_mm.geometry.molecule_file import check_target, write_molecules
    from trip_mm.geometry.potentials import parse_potential

    check_target(out)
    spec = parse_potential(potential)
    read = read_molecule(molecule)
    found = minimize(read, spec, None if hold is None else parse_held(read, hold))
    fields = {"potential": str(spec), "energy_ev": f"{found.energy:.8f}"}
    write_molecules(out, [found.molecule], [fields])
    console.print(
        f"{read.name} ({read.formula}), {spec.label}: energy {found.energy:.6f} eV, "
        f"{found.energy_change_kcal_per_mol:+.2f} kcal/mol from the start",
        markup=False,
        soft_wrap=True,
    )
    console.print(
        f"largest force {found.largest_force:.4f} eV/A, atoms moved {found.rmsd:.3f} A (RMSD), "
        f"{found.n_evaluations} evaluations",
        soft_wrap=True,
    )
    console.print(str(out), soft_wrap=True, markup=False)
