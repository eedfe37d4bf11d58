"""One molecule relaxed with a potential, and what that changed."""

from dataclasses import dataclass

import numpy as np

from trip_mm.errors import ConfigError
from trip_mm.geometry.dihedral import check_dihedral
from trip_mm.geometry.molecule import Molecule
from trip_mm.geometry.potentials import PotentialSpec, bind
from trip_mm.geometry.relax import HeldDihedral, relax, require_geometric
from trip_mm.geometry.superposition import rmsd
from trip_mm.units import EV_TO_KCAL_PER_MOL


@dataclass(frozen=True)
class Minimized:
    """A relaxed molecule.

    Attributes:
        molecule: in its new geometry.
        energy: eV.
        energy_change: from the given geometry, eV.
        largest_force: largest force on an atom, eV/A; with a held dihedral its own is left.
        rmsd: how far the atoms moved, superposed, A.
        n_evaluations: evaluations of the potential.
    """

    molecule: Molecule
    energy: float
    energy_change: float
    largest_force: float
    rmsd: float
    n_evaluations: int

    @property
    def energy_change_kcal_per_mol(self) -> float:
        """Energy change in kcal/mol."""
        return self.energy_change * EV_TO_KCAL_PER_MOL


def minimize(
    molecule: Molecule, spec: PotentialSpec, held: HeldDihedral | None = None
) -> Minimized:
    """Relaxes a molecule with a potential.

    Args:
        molecule: where to start.
        spec: the potential.
        held: a dihedral angle to hold.

    Raises:
        TripError: as `bind` and `relax`.
    """
    if molecule.n_atoms > 1:
        require_geometric()
    energy_function = bind(spec, molecule)
    before, _ = energy_function(molecule.positions)
    found = relax(molecule, energy_function, held)
    return Minimized(
        molecule.at(found.positions),
        found.energy,
        found.energy - before,
        float(np.linalg.norm(found.forces, axis=1).max()),
        rmsd(found.positions, molecule.positions),
        found.n_evaluations,
    )


def parse_held(molecule: Molecule, text: str) -> HeldDihedral:
    """Reads a held dihedral such as `5,4,2,1=60`: indices from 0, then degrees.

    Raises:
        ConfigError: not of this form, or indices that name no four atoms.
        UnsupportedSystemError: as `check_dihedral`.
    """
    indices, _, angle = text.partition("=")
    words = indices.replace(",", " ").split()
    try:
        value = float(angle)
    except ValueError:
        value = float("nan")
    if len(words) != 4 or not all(word.isdigit() for word in words) or not np.isfinite(value):
        raise ConfigError(f"hold {text!r}: write four atom indices and degrees, as 5,4,2,1=60")
    a, b, c, d = (int(word) for word in words)
    if len({a, b, c, d}) != 4 or max(a, b, c, d) >= molecule.n_atoms:
        raise ConfigError(
            f"hold {text!r}: the indices must differ and lie in 0 to {molecule.n_atoms - 1}"
        )
    return HeldDihedral(check_dihedral(molecule, (a, b, c, d)), value)
