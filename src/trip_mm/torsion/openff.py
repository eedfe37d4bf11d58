"""Torsion drives that live as molecules of openff-toolkit."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trip_mm.errors import DataError
from trip_mm.torsion.dihedrals import Dihedral
from trip_mm.torsion.records import NOT_STATED, DrivenPoints, TorsionRecord
from trip_mm.units import HARTREE_TO_EV


def record_from_openff(
    molecule: Any,
    dihedral: Dihedral,
    angles_deg: Sequence[float],
    energies_hartree: Sequence[float],
    record_id: str,
    level_of_theory: str = NOT_STATED,
) -> TorsionRecord:
    """Takes over a molecule of openff-toolkit whose conformers are the points of a drive.

    That is the form in which `TorsionDriveResultCollection.to_records()` of OpenFF QCSubmit hands
    out drives. Only `to_smiles(mapped=True)` and `conformers` are used.

    Args:
        molecule: `openff.toolkit.Molecule`.
        dihedral: atom indices from 0.
        angles_deg: grid angle of each conformer.
        energies_hartree: energy of each conformer.
        record_id: identifier.
        level_of_theory: of the energies and of the geometries.

    Raises:
        DataError: not one conformer for each angle and energy.
    """
    conformers = molecule.conformers or []
    if not len(conformers) == len(angles_deg) == len(energies_hartree) > 0:
        raise DataError(
            f"record {record_id}: {len(conformers)} conformers, {len(angles_deg)} angles and "
            f"{len(energies_hartree)} energies; they must be equal in number"
        )
    positions = [np.asarray(one.m_as("angstrom"), dtype=np.float64) for one in conformers]
    points = DrivenPoints(
        np.asarray(angles_deg, dtype=np.float64),
        np.asarray(energies_hartree, dtype=np.float64) * HARTREE_TO_EV,
        np.array(positions),
    )
    return TorsionRecord(
        record_id,
        "openff-toolkit",
        str(molecule.to_smiles(mapped=True)),
        dihedral,
        points.sorted(),
        level_of_theory,
        level_of_theory,
    )
