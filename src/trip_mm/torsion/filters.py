"""Which records a benchmark takes, and the reasons why others are left out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rdkit import Chem

from trip_mm.elements import SYMBOLS, atomic_number
from trip_mm.errors import ConfigError, DataError, TripError, UnsupportedElementError
from trip_mm.geometry.dihedral import dihedral_angle, wrapped
from trip_mm.torsion.dihedrals import Dihedral
from trip_mm.torsion.records import DrivenPoints, TorsionRecord, mol_from_mapped_smiles

DEFAULT_ELEMENTS = "H,C,N,O"

ELEMENT = "element outside the set"
CHARGE = "net charge"
RADICAL = "unpaired electrons"
SEVERAL = "several separate molecules"
UNREADABLE = "unreadable"
NO_GEOMETRY = "no reference geometry"
NO_PROFILE = "fewer than three grid points"
REPEATED = "a grid angle more than once"
OFF_GRID = "geometries not at their grid angles"

_OFF_GRID_DEG = 5.0
"""Constrained optimizers keep a dihedral angle within a degree; more is another dihedral."""


@dataclass(frozen=True)
class Skipped:
    """A record that is left out.

    Attributes:
        record: the record.
        reason: one of a few, under which it is counted.
        detail: what exactly.
    """

    record: TorsionRecord
    reason: str
    detail: str


def parse_elements(text: str) -> frozenset[int]:
    """Reads element symbols separated by commas, such as `H,C,N,O`, as atomic numbers.

    Raises:
        ConfigError: a symbol that is none.
    """
    try:
        return frozenset(atomic_number(word) for word in text.replace(" ", "").split(","))
    except UnsupportedElementError as error:
        raise ConfigError(f"--elements {text!r}: {error}") from error


def admit(
    records: Sequence[TorsionRecord], elements: frozenset[int]
) -> tuple[list[TorsionRecord], list[Skipped]]:
    """Separates the records that can be benchmarked from those that cannot, with the reason.

    The first of these that holds counts: unreadable, an element outside the set, a net charge,
    unpaired electrons, several molecules, no reference geometry, fewer than three grid points,
    a grid angle more than once, geometries whose dihedral angle is not that of the grid.

    Raises:
        ConfigError: two records have the same id.
    """
    twice = [key for key, n in Counter(r.record_id for r in records).items() if n > 1]
    if twice:
        raise ConfigError(f"record id {twice[0]!r} occurs more than once; make the ids unique")
    admitted, skipped = [], []
    for record in records:
        found = _objection(record, elements)
        if found is None:
            admitted.append(record)
        else:
            skipped.append(Skipped(record, *found))
    return admitted, skipped


def _objection(record: TorsionRecord, elements: frozenset[int]) -> tuple[str, str] | None:
    try:
        mol = mol_from_mapped_smiles(record.smiles)
    except DataError as error:
        return UNREADABLE, str(error)
    foreign = {atom.GetAtomicNum() for atom in mol.GetAtoms()} - elements
    if foreign:
        return ELEMENT, ", ".join(SYMBOLS[number] for number in sorted(foreign))
    charge = Chem.GetFormalCharge(mol)
    if charge != 0:
        return CHARGE, f"{charge:+d}"
    n_unpaired = sum(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
    if n_unpaired:
        return RADICAL, str(n_unpaired)
    n_parts = len(Chem.GetMolFrags(mol))
    if n_parts > 1:
        return SEVERAL, str(n_parts)
    if record.points is None or record.dihedral is None:
        return NO_GEOMETRY, "only the molecule is at hand"
    if record.points.n_points < 3:
        return NO_PROFILE, str(record.points.n_points)
    if not np.isfinite(record.points.energies).all():
        return UNREADABLE, "an energy is not finite"
    repeated = [angle for angle, n in Counter(record.points.angles_deg.tolist()).items() if n > 1]
    if repeated:
        return REPEATED, ", ".join(f"{angle:g}" for angle in repeated)
    try:
        record.molecule()
    except TripError as error:
        return UNREADABLE, str(error)
    return _off_grid(record.points, record.dihedral)


def _off_grid(points: DrivenPoints, dihedral: Dihedral) -> tuple[str, str] | None:
    """Catches dihedrals counted from 1, whose drive would be another one."""
    atoms = ",".join(map(str, dihedral))
    n_atoms = points.positions.shape[1]
    if len(set(dihedral)) != 4 or not all(0 <= atom < n_atoms for atom in dihedral):
        return UNREADABLE, f"dihedral {atoms} with {n_atoms} atoms, counted from 0"
    for angle, positions in zip(points.angles_deg.tolist(), points.positions, strict=True):
        own = dihedral_angle(positions, dihedral)
        if not abs(wrapped(own - angle)) <= _OFF_GRID_DEG:
            return OFF_GRID, f"dihedral {atoms}, counted from 0, is {own:.1f} at {angle:g} degrees"
    return None


def counts_by_reason(reasons: Iterable[str]) -> dict[str, int]:
    """Returns how often each reason occurs, the most frequent first."""
    return dict(Counter(reasons).most_common())
