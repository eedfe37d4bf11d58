"""Torsion targets of ForceBalance and output of torsiondrive: scan.xyz, qdata.txt, metadata.json.

`qdata.txt` holds geometries (A) and energies (Ha). The dihedral comes from `metadata.json`
(ForceBalance, indices from 0) or `dihedrals.txt` (torsiondrive, indices from 1 unless the file
says `#zero_based_numbering`); the bonds from the mapped SMILES of `metadata.json`, an SDF file
beside it, or the distances in the first frame of a neutral molecule.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import rdDetermineBonds

from trip_mm.errors import DataError
from trip_mm.geometry.dihedral import wrapped
from trip_mm.torsion.dihedrals import Dihedral
from trip_mm.torsion.records import (
    NOT_STATED,
    DrivenPoints,
    TorsionRecord,
    mapped_smiles,
    measured_angle,
    mol_from_mapped_smiles,
)
from trip_mm.units import HARTREE_TO_EV

_SMILES_ATTRIBUTE = "canonical_isomeric_explicit_hydrogen_mapped_smiles"


def is_target(directory: Path) -> bool:
    """Tells whether a directory holds `scan.xyz` and `qdata.txt`."""
    return (directory / "scan.xyz").is_file() and (directory / "qdata.txt").is_file()


def read_target(directory: Path) -> TorsionRecord:
    """Reads one target directory.

    Raises:
        DataError: a file is missing or malformed, or the files disagree.
    """
    symbols, frames = _read_xyz(directory / "scan.xyz")
    positions, energies = _read_qdata(directory / "qdata.txt")
    if positions.shape != frames.shape or np.abs(positions - frames).max() > 1e-3:
        raise DataError(f"{directory}: scan.xyz and qdata.txt hold other geometries")
    metadata = _metadata(directory)
    smiles = _smiles(directory, metadata, symbols, frames[0])
    dihedral = _dihedral(directory, metadata, len(symbols))
    grid = metadata.get("torsion_grid_ids")
    if grid is None:
        angles = [measured_angle(frame, dihedral) for frame in frames]
    else:
        angles = [wrapped(float(np.ravel(key)[0])) for key in grid]
    if len(angles) != len(frames):
        raise DataError(f"{directory}: {len(angles)} grid angles, {len(frames)} geometries")
    points = DrivenPoints(np.array(angles), energies * HARTREE_TO_EV, positions).sorted()
    level = str(metadata.get("level_of_theory", NOT_STATED))
    return TorsionRecord(
        directory.name, directory.parent.name, smiles, dihedral, points, level, level
    )


def _read_xyz(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    first: list[str] = []
    frames, start = [], 0
    try:
        while start < len(lines) and lines[start].strip():
            end = start + 2 + int(lines[start])
            rows = [line.split() for line in lines[start + 2 : end]]
            symbols = [row[0] for row in rows]
            first = first or symbols
            if symbols != first or len(rows) != end - start - 2:
                raise DataError(f"{path}: line {start + 1}: atoms differ from the first frame")
            frames.append([[float(word) for word in row[1:4]] for row in rows])
            start = end
    except (ValueError, IndexError) as error:
        raise DataError(f"{path}: line {start + 1}: not XYZ ({error})") from error
    if not frames:
        raise DataError(f"{path}: holds no geometry")
    return first, np.array(frames)


def _read_qdata(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    positions, energies = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        key, _, rest = line.strip().partition(" ")
        try:
            if key == "COORDS":
                positions.append(np.array(rest.split(), dtype=np.float64).reshape(-1, 3))
            elif key == "ENERGY":
                energies.append(float(rest))
        except ValueError as error:
            raise DataError(f"{path}: line {number}: {error}") from error
    if not positions or len(positions) != len(energies):
        raise DataError(f"{path}: {len(positions)} geometries, {len(energies)} energies")
    return np.array(positions), np.array(energies)


def _metadata(directory: Path) -> dict[str, Any]:
    path = directory / "metadata.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: not a mapping")
    return found


def _smiles(
    directory: Path, metadata: dict[str, Any], symbols: list[str], frame: NDArray[np.float64]
) -> str:
    attributes = metadata.get("attributes")
    if isinstance(attributes, dict) and _SMILES_ATTRIBUTE in attributes:
        smiles = str(attributes[_SMILES_ATTRIBUTE])
        mol = mol_from_mapped_smiles(smiles)
    else:
        mol = _mol_of_file(directory) or _mol_of_distances(directory, symbols, frame)
        smiles = mapped_smiles(mol)
    if [atom.GetSymbol() for atom in mol.GetAtoms()] != symbols:
        raise DataError(f"{directory}: the molecule and scan.xyz have other atoms or another order")
    return smiles


def _mol_of_file(directory: Path) -> Chem.Mol | None:
    files = sorted(directory.glob("*.sdf"))
    if not files:
        return None
    with rdBase.BlockLogs():
        mol = Chem.MolFromMolFile(str(files[0]), removeHs=False)
    if mol is None:
        raise DataError(f"{files[0]}: cannot be read")
    return mol


def _mol_of_distances(directory: Path, symbols: list[str], frame: NDArray[np.float64]) -> Chem.Mol:
    rows = [f"{s} {x:.8f} {y:.8f} {z:.8f}" for s, (x, y, z) in zip(symbols, frame, strict=True)]
    mol = Chem.MolFromXYZBlock("\n".join([str(len(symbols)), "", *rows]))
    try:
        rdDetermineBonds.DetermineBonds(mol, charge=0)
    except ValueError as error:
        raise DataError(
            f"{directory}: no bonds of a neutral molecule fit the first frame; put an SDF file "
            "with the same order of atoms beside scan.xyz"
        ) from error
    return mol


def _dihedral(directory: Path, metadata: dict[str, Any], n_atoms: int) -> Dihedral:
    driven = metadata.get("dihedrals")
    if driven is None:
        driven = _read_dihedrals(directory / "dihedrals.txt")
    try:
        if len(driven) != 1:
            raise DataError(f"{directory}: drives {len(driven)} dihedrals, not one")
        a, b, c, d = (int(index) for index in driven[0])
    except (TypeError, ValueError) as error:
        raise DataError(f"{directory}: its dihedral is not four indices: {driven!r}") from error
    if not all(0 <= index < n_atoms for index in (a, b, c, d)):
        raise DataError(f"{directory}: dihedral {a},{b},{c},{d} with {n_atoms} atoms")
    return a, b, c, d


def _read_dihedrals(path: Path) -> list[list[int]]:
    if not path.is_file():
        raise DataError(f"{path.parent}: needs metadata.json or dihedrals.txt to name the dihedral")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    offset = 0 if any("zero_based_numbering" in line for line in lines) else 1
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    try:
        return [[int(word) - offset for word in row[:4]] for row in rows]
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
