"""Molecules written to SDF, PDB or XYZ files."""

from collections.abc import Sequence
from pathlib import Path

from rdkit import Chem
from rdkit.Geometry import Point3D

from trip_mm.errors import ConfigError
from trip_mm.files import write_atomically
from trip_mm.geometry.molecule import Molecule, to_xyz

SUFFIXES = (".sdf", ".pdb", ".xyz")


def check_target(path: Path) -> None:
    """Refuses files that cannot be written.

    Raises:
        ConfigError: the suffix is none of SUFFIXES, or there is no such directory.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: cannot write this format; use {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: no directory {path.parent}; make it first")


def write_molecules(
    path: Path, molecules: Sequence[Molecule], properties: Sequence[dict[str, str]]
) -> None:
    """Writes molecules with their geometries, atomically.

    Args:
        path: the suffix chooses the format; a PDB file gets one model for each molecule.
        molecules: what to write.
        properties: text by name, for each molecule: data fields of SDF, the comment line of XYZ.

    Raises:
        ConfigError: as `check_target`.
    """
    check_target(path)
    blocks = []
    for index, (molecule, fields) in enumerate(zip(molecules, properties, strict=True), start=1):
        if path.suffix.lower() == ".xyz":
            blocks.append(to_xyz(molecule, " ".join(f"{k}={v}" for k, v in fields.items())))
            continue
        mol = _rdkit(molecule)
        if path.suffix.lower() == ".sdf":
            data = "".join(f">  <{k}>\n{v}\n\n" for k, v in fields.items())
            blocks.append(Chem.MolToMolBlock(mol) + data + "$$$$\n")
        else:
            block = Chem.MolToPDBBlock(mol)
            several = len(molecules) > 1
            blocks.append(f"MODEL {index:8d}\n{block}ENDMDL\n" if several else block)
    write_atomically(path, "".join(blocks).encode())


def _rdkit(molecule: Molecule) -> Chem.Mol:
    """Returns RDKit's molecule in the geometry of ours."""
    mol = Chem.Mol(molecule.rdkit)
    mol.SetProp("_Name", molecule.name)
    conformer = mol.GetConformer()
    for index, (x, y, z) in enumerate(molecule.positions.tolist()):
        conformer.SetAtomPosition(index, Point3D(x, y, z))
    return mol
