"""`trip-mm frequencies`: harmonic vibrations of a molecule with any potential."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trip_mm.cli.console import console, print_table
from trip_mm.files import make_directory

if TYPE_CHECKING:
    from trip_mm.geometry.frequencies import Frequencies
    from trip_mm.geometry.vibrations import MatchedModes


def command(
    molecule: Annotated[str, typer.Argument(help="SDF, MOL, PDB or XYZ file, or SMILES.")],
    potential: Annotated[
        str, typer.Option(help="As in `trip-mm torsion scan`; see docs/geometry.md.")
    ] = "trip-gfn2-s",
    reference: Annotated[
        str | None, typer.Option(help="Potential whose frequencies are compared, such as gfn2.")
    ] = None,
    hessian: Annotated[
        str, typer.Option(help="analytic (TrIP only), differences (of forces) or auto.")
    ] = "auto",
    as_is: Annotated[
        bool, typer.Option("--as-is", help="At the given geometry, without relaxing first.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Directory for JSON, Molden and XYZ files.")
    ] = None,
) -> None:
    """Compute the harmonic frequencies of MOLECULE, relaxed with each potential.

    Imaginary frequencies print as 123i. With --reference, modes are paired by what moves.
    """
    from trip_mm.geometry.frequencies import frequencies_at, relaxed_frequencies, write_frequencies
    from trip_mm.geometry.hessian import bind_hessian
    from trip_mm.geometry.molecule import read_molecule
    from trip_mm.geometry.potentials import parse_potential
    from trip_mm.geometry.relax import require_geometric
    from trip_mm.geometry.vibrations import match_modes

    compute = frequencies_at if as_is else relaxed_frequencies
    read = read_molecule(molecule)
    spec = parse_potential(potential)
    other = parse_potential(reference) if reference is not None else None
    # Analytic where there is one: --hessian analytic is about TrIP.
    reference_hessian = "auto" if hessian == "analytic" else hessian
    if other is not None:
        bind_hessian(other, read, reference_hessian)  # refuses before anything runs
    if not as_is and read.n_atoms > 1:
        require_geometric()  # before the directory is made
    if out is not None:
        make_directory(out)
    found = compute(read, spec, hessian)
    compared = compute(read, other, reference_hessian) if other is not None else None
    pairs = match_modes(found.vibrations, compared.vibrations) if compared is not None else None
    _print_table(found, compared, pairs)
    for result in (found, compared):
        if result is not None:
            _print_summary(result)
    if pairs is not None and pairs.mae is not None:
        console.print(
            f"difference of paired modes: MAE {pairs.mae:.1f} cm^-1, RMSE {pairs.rmse:.1f} cm^-1"
        )
    if out is not None:
        files = write_frequencies(out, found, compared)
        console.print(f"{out}: {', '.join(path.name for path in files)}", soft_wrap=True)


def _wavenumber(value: float) -> str:
    return f"{-value:.1f}i" if value < 0.0 else f"{value:.1f}"


def _print_table(
    found: "Frequencies", compared: "Frequencies | None", pairs: "MatchedModes | None"
) -> None:
    from rich.markup import escape
    from rich.table import Table

    molecule = found.vibrations.molecule
    name = escape(molecule.name)  # SMILES have atoms in brackets
    table = Table(title=f"{name} ({molecule.formula}): harmonic wavenumbers, cm^-1")
    headers = ["mode", found.spec.label, "reduced mass (u)"]
    if compared is not None:
        headers += [compared.spec.label, "difference", "overlap"]
    for header in headers:
        table.add_column(header, justify="right")
    for index, value in enumerate(found.vibrations.wavenumbers):
        mass = found.vibrations.reduced_masses[index]
        row = [str(index + 1), _wavenumber(value), f"{mass:.2f}"]
        if compared is not None and pairs is not None and pairs.partners[index] >= 0:
            partner = compared.vibrations.wavenumbers[pairs.partners[index]]
            row += [_wavenumber(partner), f"{pairs.differences[index]:+.1f}"]
            row += [f"{pairs.overlaps[index]:.2f}"]
        table.add_row(*row)
    print_table(table)


def _print_summary(result: "Frequencies") -> None:
    vibrations = result.vibrations
    console.print(
        f"{result.spec.label}: zero-point energy {vibrations.zero_point_kcal_per_mol:.2f} "
        f"kcal/mol, {len(vibrations.imaginary)} imaginary, Hessian {result.hessian}, translations "
        f"and rotations below {vibrations.largest_external:.1f} cm^-1",
        soft_wrap=True,
    )
    if not result.is_stationary:
        console.print(
            f"{result.spec.label}: the largest force is {result.largest_force:.2f} eV/A, so this "
            "is no stationary point and the wavenumbers mean little; leave out --as-is",
            soft_wrap=True,
        )
