"""Torsion drives in SDF: one record of the file for each grid point, tags for the rest.

| tag | meaning |
|---|---|
| `record_id` | same for all points of a drive; the title where the tag is missing |
| `dihedral` | four atom indices from 0, separated by spaces or commas |
| `energy_ev`, `energy_hartree`, `energy_kcal_per_mol` or `energy_kj_per_mol` | one of them |
| `angle_deg` | grid angle; measured where the tag is missing |
| `level_of_theory`, `geometry_level` | of energies and geometries |

The dihedral and the levels are those of the first point; others repeat them or leave out the tag.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np
from rdkit import Chem, rdBase

from trip_mm.errors import DataError
from trip_mm.geometry.dihedral import wrapped
from trip_mm.torsion.dihedrals import Dihedral
from trip_mm.torsion.records import (
    NOT_STATED,
    DrivenPoints,
    TorsionRecord,
    mapped_smiles,
    measured_angle,
)
from trip_mm.units import HARTREE_TO_EV, KCAL_PER_MOL_TO_EV, KJ_PER_MOL_TO_EV

_ENERGY_TAGS = {
    "energy_ev": 1.0,
    "energy_hartree": HARTREE_TO_EV,
    "energy_kcal_per_mol": KCAL_PER_MOL_TO_EV,
    "energy_kj_per_mol": KJ_PER_MOL_TO_EV,
}


def read_sdf(path: Path) -> list[TorsionRecord]:
    """Reads torsion drives from SDF with tags.

    Raises:
        DataError: a point that cannot be read, lacks a tag, or differs from others of its drive
            in its atoms, dihedral or levels.
    """
    drives: dict[str, list[tuple[int, Chem.Mol]]] = defaultdict(list)
    supplier = Chem.SDMolSupplier()
    with rdBase.BlockLogs():
        supplier.SetData(path.read_text(errors="replace"), removeHs=False)
        for number, mol in enumerate(supplier):
            if mol is None:
                raise DataError(f"{path}: record {number + 1} cannot be read")
            key = _tag(mol, "record_id") or _tag(mol, "_Name")
            if not key:
                raise DataError(f"{path}: record {number + 1} has neither record_id nor title")
            drives[key].append((number + 1, mol))
    if not drives:
        raise DataError(f"{path}: holds no records")
    return [_record(path, key, points) for key, points in drives.items()]


def _record(path: Path, key: str, members: list[tuple[int, Chem.Mol]]) -> TorsionRecord:
    first = members[0][1]
    dihedral = _dihedral(path, members[0][0], first)
    smiles, graph = mapped_smiles(first), _graph(first)
    angles, energies, positions = [], [], []
    for number, mol in members:
        if _graph(mol) != graph:
            raise DataError(f"{path}: record {number}: other atoms or order than in drive {key}")
        _check_same_drive(path, number, mol, first, key)
        geometry = np.array(mol.GetConformer().GetPositions(), dtype=np.float64)
        positions.append(geometry)
        energies.append(_energy(path, number, mol))
        stated = _tag(mol, "angle_deg")
        measured = measured_angle(geometry, dihedral)
        angles.append(wrapped(_number(path, number, "angle_deg", stated)) if stated else measured)
    level = _tag(first, "level_of_theory") or NOT_STATED
    points = DrivenPoints(np.array(angles), np.array(energies), np.array(positions)).sorted()
    geometry_level = _tag(first, "geometry_level") or level
    return TorsionRecord(key, path.name, smiles, dihedral, points, level, geometry_level)


def _check_same_drive(path: Path, number: int, mol: Chem.Mol, first: Chem.Mol, key: str) -> None:
    """Refuses a point of another drive of the same name, so that their energies never mix."""
    for tag in ("dihedral", "level_of_theory", "geometry_level"):
        stated, expected = (_tag(one, tag).replace(",", " ").split() for one in (mol, first))
        if stated and stated != expected:
            raise DataError(
                f"{path}: record {number}: another {tag} than in drive {key}; give each drive a "
                "record_id of its own"
            )


def _graph(mol: Chem.Mol) -> str:
    """Returns mapped SMILES without E and Z, which may change along a drive (an amidine's N-H)."""
    copy = Chem.Mol(mol)
    for bond in copy.GetBonds():
        bond.SetStereo(Chem.BondStereo.STEREONONE)
        bond.SetBondDir(Chem.BondDir.NONE)
    return mapped_smiles(copy)


def _tag(mol: Chem.Mol, name: str) -> str:
    return str(mol.GetProp(name)).strip() if mol.HasProp(name) else ""


def _number(path: Path, number: int, tag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{path}: record {number}: {tag} {text!r} is not a number") from None


def _energy(path: Path, number: int, mol: Chem.Mol) -> float:
    found = [tag for tag in _ENERGY_TAGS if mol.HasProp(tag)]
    if len(found) != 1:
        raise DataError(
            f"{path}: record {number}: has {len(found)} energies; give one of "
            + ", ".join(_ENERGY_TAGS)
        )
    return _number(path, number, found[0], _tag(mol, found[0])) * _ENERGY_TAGS[found[0]]


def _dihedral(path: Path, number: int, mol: Chem.Mol) -> Dihedral:
    words = _tag(mol, "dihedral").replace(",", " ").split()
    if len(words) != 4 or not all(
        word.isdigit() and int(word) < mol.GetNumAtoms() for word in words
    ):
        raise DataError(
            f"{path}: record {number}: tag dihedral needs four atom indices from 0 to "
            f"{mol.GetNumAtoms() - 1}"
        )
    a, b, c, d = (int(word) for word in words)
    return a, b, c, d
