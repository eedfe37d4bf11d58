"""Files of a scan: tables as CSV, figures as JSON, each written whole or not at all."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from trip_mm import __version__
from trip_mm.files import write_atomically, write_json
from trip_mm.surfaces.curve import Curve
from trip_mm.surfaces.path import RigidPath
from trip_mm.surfaces.smoothness import Smoothness, false_wells, mean_absolute_error
from trip_mm.surfaces.water import ANGLE_DEG, Surface, SurfaceError


def write_curves(
    path: RigidPath, curves: Sequence[Curve], figures: Mapping[str, Smoothness], out: Path
) -> None:
    """Writes `curves.csv` and `scan.json`.

    Args:
        path: what was scanned.
        curves: the first one is the reference of errors and false wells.
        figures: of each curve, by label.
        out: directory.
    """
    known = figures[curves[0].label].wells
    document = {
        "trip_mm": __version__,
        "system": path.name,
        "distance": path.quantity,
        "zero_angstrom": path.zero,
        "reference": curves[0].label,
        "curves": [
            {
                "potential": curve.label,
                **figures[curve.label].to_dict(),
                "false_wells": [
                    asdict(well) for well in false_wells(figures[curve.label].wells, known)
                ],
                "mae_kcal_per_mol": mean_absolute_error(curve, curves[0], path.zero),
                "n_points": len(curve.energies),
                "failures": list(curve.failures),
            }
            for curve in curves
        ],
    }
    write_atomically(out / "curves.csv", _curve_table(path, curves).encode())
    write_json(out / "scan.json", document)


def write_surfaces(
    surfaces: Sequence[Surface],
    errors: Mapping[str, Mapping[str, SurfaceError]],
    out: Path,
) -> None:
    """Writes `surfaces.csv`, one row for each geometry of each surface, and `scan.json`.

    Args:
        surfaces: of all potentials and references.
        errors: by label of the surface, then of the reference.
        out: directory.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["potential", "O-H 1 (A)", "O-H 2 (A)", "energy (eV)", "energy above minimum (kcal/mol)"]
    )
    for surface in surfaces:
        relative = surface.kcal_per_mol_above_minimum
        for i, j in zip(*np.triu_indices(len(surface.distances)), strict=True):
            if np.isfinite(surface.energies[i, j]):
                writer.writerow(
                    [
                        surface.label,
                        f"{surface.distances[i]:.4f}",
                        f"{surface.distances[j]:.4f}",
                        f"{surface.energies[i, j]:.6f}",
                        f"{relative[i, j]:.4f}",
                    ]
                )
    document = {
        "trip_mm": __version__,
        "system": "water",
        "angle_deg": ANGLE_DEG,
        "surfaces": [
            {
                "potential": surface.label,
                "wells_angstrom": surface.wells(),
                "failures": list(surface.failures),
                "errors_kcal_per_mol": {
                    reference: _error_document(error)
                    for reference, error in errors.get(surface.label, {}).items()
                },
            }
            for surface in surfaces
        ],
    }
    write_atomically(out / "surfaces.csv", buffer.getvalue().encode())
    write_json(out / "scan.json", document)


def _error_document(error: SurfaceError) -> dict[str, Any]:
    return {
        "n_points": error.n_points,
        "mae": error.mae,
        "mae_by_region": error.mae_by_region,
        "false_wells_angstrom": error.false_wells,
    }


def _curve_table(path: RigidPath, curves: Sequence[Curve]) -> str:
    """One row for each distance; a curve that failed there leaves its cells empty."""
    rows: dict[float, list[str]] = {float(d): [f"{d:.4f}"] for d in path.distances}
    header = [f"{path.quantity} (A)"]
    for curve in curves:
        header += [f"{curve.label} energy (eV)", f"{curve.label} force (eV/A)"]
        cells: dict[float, list[str]] = {}
        for index, distance in enumerate(curve.distances):
            force = "" if curve.forces is None else f"{curve.forces[index]:.6f}"
            cells[float(distance)] = [f"{curve.energies[index]:.8f}", force]
        for distance, row in rows.items():
            row += cells.get(distance, ["", ""])
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows.values())
    return buffer.getvalue()
