"""Torsion records: a molecule, the dihedral that was driven, reference geometries and energies."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Geometry import Point3D

from trip_mm.errors import DataError
from trip_mm.geometry.dihedral import dihedral_angle, wrapped
from trip_mm.geometry.molecule import Molecule, molecule_from_rdkit
from trip_mm.torsion.dihedrals import Dihedral
from trip_mm.torsion.profile import Profile

NOT_STATED = "not stated"
"""Level of theory of records whose source does not name it."""

_GRID_TOLERANCE_DEG = 0.1


@dataclass(frozen=True)
class DrivenPoints:
    """Geometries and energies along a dihedral.

    Attributes:
        angles_deg: ascending, degrees in (-180, 180], `[n_points]`.
        energies: eV, `[n_points]`.
        positions: A, `[n_points, n_atoms, 3]`.
    """

    angles_deg: NDArray[np.float64]
    energies: NDArray[np.float64]
    positions: NDArray[np.float64]

    @property
    def n_points(self) -> int:
        """Number of grid points."""
        return len(self.angles_deg)

    def sorted(self) -> "DrivenPoints":
        """Returns the points by ascending angle, each within (-180, 180]."""
        angles = np.array(
            [a if -180.0 < a <= 180.0 else wrapped(a) for a in self.angles_deg.tolist()]
        )
        order = np.argsort(angles, kind="stable")
        return DrivenPoints(angles[order], self.energies[order], self.positions[order])


@dataclass(frozen=True)
class TorsionRecord:
    """One torsion drive of a reference set.

    Attributes:
        record_id: identifier, unique in its source.
        source: file or collection.
        smiles: mapped SMILES; the atom of map number i + 1 is atom i everywhere else.
        dihedral: four atom indices from 0; None while only the molecule is known.
        points: reference geometries and energies; None where they are not at hand.
        level_of_theory: of the energies, such as `B3LYP-D3BJ/DZVP`.
        geometry_level: that the geometries were relaxed at.
        name: for tables; the record id where there is none.
    """

    record_id: str
    source: str
    smiles: str
    dihedral: Dihedral | None = None
    points: DrivenPoints | None = field(default=None, repr=False)
    level_of_theory: str = NOT_STATED
    geometry_level: str = NOT_STATED
    name: str = ""

    @property
    def label(self) -> str:
        """Name for tables and pictures."""
        return self.name or self.record_id

    @property
    def level(self) -> str:
        """Level of energies and geometries as `ENERGY//GEOMETRY`, one name where they agree."""
        if self.geometry_level == self.level_of_theory:
            return self.level_of_theory
        return f"{self.level_of_theory}//{self.geometry_level}"

    def molecule(self, index: int = 0) -> Molecule:
        """Returns the molecule in the reference geometry of one grid point.

        Raises:
            DataError: the record has no geometries, or its SMILES cannot be read.
            UnsupportedSystemError: several separate molecules.
        """
        if self.points is None:
            raise DataError(f"record {self.record_id}: has no geometries")
        return placed(mol_from_mapped_smiles(self.smiles), self.points.positions[index], self.label)

    def profile(self) -> Profile:
        """Returns the reference profile.

        Raises:
            DataError: the record has no energies.
        """
        if self.points is None:
            raise DataError(f"record {self.record_id}: has no energies")
        return Profile(self.level, self.points.angles_deg, self.points.energies)


def mol_from_mapped_smiles(smiles: str) -> Chem.Mol:
    """Returns the RDKit molecule with atoms in the order of their map numbers.

    Raises:
        DataError: not SMILES, or the map numbers are not 1 to n, hydrogens included.
    """
    parameters: Any = Chem.SmilesParserParams()
    parameters.removeHs = False
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles, parameters)
    if mol is None or mol.GetNumAtoms() == 0:
        raise DataError(f"{smiles[:80]!r}: not SMILES")
    numbers = [atom.GetAtomMapNum() for atom in mol.GetAtoms()]
    if sorted(numbers) != list(range(1, len(numbers) + 1)) or any(
        atom.GetTotalNumHs() for atom in mol.GetAtoms()
    ):
        raise DataError(
            f"{smiles[:80]!r}: every atom, hydrogens included, needs a map number from 1 to "
            f"{len(numbers)}"
        )
    return Chem.RenumberAtoms(mol, [int(i) for i in np.argsort(numbers)])


def measured_angle(positions: NDArray[np.float64], dihedral: Dihedral) -> float:
    """Returns the angle of a geometry in degrees, a whole number where it is within 0.1 of one.

    Grids are of whole degrees, and files hold positions with few decimals.
    """
    angle = dihedral_angle(positions, dihedral)
    whole = round(angle)
    return wrapped(float(whole) if abs(angle - whole) <= _GRID_TOLERANCE_DEG else angle)


def mapped_smiles(mol: Chem.Mol) -> str:
    """Returns SMILES that carry the atom order; `mol` holds all hydrogens."""
    copy = Chem.Mol(mol)
    for atom in copy.GetAtoms():
        atom.SetAtomMapNum(atom.GetIdx() + 1)
    return str(Chem.MolToSmiles(copy))


def placed(mol: Chem.Mol, positions: NDArray[np.float64], name: str) -> Molecule:
    """Returns a graph of RDKit as a molecule in the geometry `[n_atoms, 3]`, A.

    Raises:
        DataError: another number of atoms.
        UnsupportedSystemError: several separate molecules.
    """
    if positions.shape != (mol.GetNumAtoms(), 3):
        raise DataError(
            f"{name}: {mol.GetNumAtoms()} atoms in the molecule, positions of shape "
            f"{positions.shape}"
        )
    copy = Chem.Mol(mol)
    copy.RemoveAllConformers()
    conformer = Chem.Conformer(copy.GetNumAtoms())
    for index, (x, y, z) in enumerate(positions.tolist()):
        conformer.SetAtomPosition(index, Point3D(x, y, z))
    copy.AddConformer(conformer, assignId=True)
    return molecule_from_rdkit(copy, name)
