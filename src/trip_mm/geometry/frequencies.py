"""Harmonic frequencies of a molecule with a potential: relaxed, computed, compared, written."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trip_mm import __version__
from trip_mm.elements import symbols_of
from trip_mm.files import make_directory, write_atomically
from trip_mm.geometry.hessian import bind_hessian
from trip_mm.geometry.molecule import Molecule, to_xyz
from trip_mm.geometry.potentials import PotentialSpec, bind
from trip_mm.geometry.relax import relax, require_geometric
from trip_mm.geometry.vibrations import MatchedModes, Vibrations, harmonic_analysis, match_modes
from trip_mm.units import ANGSTROM_TO_BOHR

STATIONARY_BELOW = 0.02
"""Largest force on an atom that counts as none, eV/A; beyond it wavenumbers mean little."""


@dataclass(frozen=True)
class Frequencies:
    """Harmonic vibrations of a molecule with one potential.

    Attributes:
        spec: the potential.
        vibrations: normal modes, with the geometry.
        energy: eV.
        largest_force: largest force on an atom, eV/A.
        hessian: `analytic` or `central differences`.
    """

    spec: PotentialSpec
    vibrations: Vibrations
    energy: float
    largest_force: float
    hessian: str

    @property
    def is_stationary(self) -> bool:
        """Whether the forces vanish, without which the analysis has no meaning."""
        return self.largest_force < STATIONARY_BELOW

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers by name."""
        molecule = self.vibrations.molecule
        return {
            "potential": str(self.spec),
            "energy_ev": self.energy,
            "largest_force_ev_per_angstrom": self.largest_force,
            "hessian": self.hessian,
            "symbols": symbols_of(molecule.atomic_numbers),
            "positions_angstrom": molecule.positions.tolist(),
            "wavenumbers_per_cm": self.vibrations.wavenumbers.tolist(),
            "n_imaginary": len(self.vibrations.imaginary),
            "reduced_masses_u": self.vibrations.reduced_masses.tolist(),
            "zero_point_energy_kcal_per_mol": self.vibrations.zero_point_kcal_per_mol,
            "largest_external_per_cm": self.vibrations.largest_external,
            "displacements": self.vibrations.displacements.tolist(),
        }


def relaxed_frequencies(
    molecule: Molecule, spec: PotentialSpec, hessian: str = "auto"
) -> Frequencies:
    """Relaxes the molecule with the potential, then computes its vibrations.

    Args:
        molecule: where the relaxation starts.
        spec: the potential.
        hessian: as `bind_hessian`.

    Raises:
        TripError: as `bind_hessian`, `relax` and `frequencies_at`.
    """
    if molecule.n_atoms > 1:
        require_geometric()
    bind_hessian(spec, molecule, hessian)  # refuses before anything runs
    found = relax(molecule, bind(spec, molecule))
    return frequencies_at(molecule.at(found.positions), spec, hessian)


def frequencies_at(molecule: Molecule, spec: PotentialSpec, hessian: str = "auto") -> Frequencies:
    """Computes the vibrations at the geometry as it is.

    Raises:
        TripError: as `bind_hessian`.
        EvaluationError: the potential fails at the geometry or beside it.
    """
    bound = bind_hessian(spec, molecule, hessian)
    energy, forces = bind(spec, molecule)(molecule.positions)
    vibrations = harmonic_analysis(molecule, bound.evaluate(molecule.positions))
    largest = float(np.linalg.norm(forces, axis=1).max())
    return Frequencies(spec, vibrations, energy, largest, bound.origin)


def write_frequencies(out: Path, found: Frequencies, reference: Frequencies | None) -> list[Path]:
    """Writes `frequencies.json`, `modes.molden` and `geometry.xyz` to a directory.

    Args:
        out: made if missing.
        found: what the files are about.
        reference: written beside it, with the pairs of modes; None for none.

    Returns:
        the files.
    """
    document: dict[str, Any] = {"trip_mm": __version__, **found.to_dict()}
    if reference is not None:
        pairs = match_modes(found.vibrations, reference.vibrations)
        document["reference"] = reference.to_dict()
        document["comparison"] = comparison_dict(pairs)
    make_directory(out)
    comment = f"energy_ev={found.energy:.8f} potential={found.spec}"
    contents = {
        "frequencies.json": json.dumps(document, indent=1, allow_nan=False) + "\n",
        "modes.molden": to_molden(found.vibrations),
        "geometry.xyz": to_xyz(found.vibrations.molecule, comment),
    }
    for name, text in contents.items():
        write_atomically(out / name, text.encode())
    return [out / name for name in contents]


def comparison_dict(pairs: MatchedModes) -> dict[str, Any]:
    """Returns pairs of modes by name; None where a mode, or all, have no partner."""
    matched = pairs.partners >= 0
    return {
        "partners": [int(p) if ok else None for p, ok in zip(pairs.partners, matched, strict=True)],
        "overlaps": [
            float(v) if ok else None for v, ok in zip(pairs.overlaps, matched, strict=True)
        ],
        "differences_per_cm": [
            float(v) if ok else None for v, ok in zip(pairs.differences, matched, strict=True)
        ],
        "mae_per_cm": pairs.mae,
        "rmse_per_cm": pairs.rmse,
    }


def to_molden(vibrations: Vibrations) -> str:
    """Returns geometry and normal modes in Molden format, which Jmol, Avogadro and Molden show.

    Lengths are in bohr, imaginary wavenumbers negative.
    """
    molecule = vibrations.molecule
    symbols = symbols_of(molecule.atomic_numbers)
    atoms = [
        f"{symbol:2s} {x:14.8f} {y:14.8f} {z:14.8f}"
        for symbol, (x, y, z) in zip(symbols, molecule.positions * ANGSTROM_TO_BOHR, strict=True)
    ]
    lines = ["[Molden Format]", "[FREQ]", *(f"{value:12.4f}" for value in vibrations.wavenumbers)]
    lines += ["[FR-COORD]", *atoms, "[FR-NORM-COORD]"]
    for index, mode in enumerate(vibrations.displacements, start=1):
        lines.append(f"vibration {index}")
        lines += [f"{x:14.8f} {y:14.8f} {z:14.8f}" for x, y, z in mode]
    return "\n".join(lines) + "\n"
