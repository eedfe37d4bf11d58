"""A small molecule from SMILES or an SDF file: atoms, bonds and a first geometry from RDKit."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from trip_mm.errors import UnsupportedSystemError
from trip_mm.simulation.solute import Solute
from trip_mm.units import ANGSTROM_TO_NM

_RESIDUE_NAME = "MOL"
_logger = logging.getLogger("trip_mm")
_BOND_TYPES = {
    Chem.BondType.SINGLE: (app.Single, 1),
    Chem.BondType.DOUBLE: (app.Double, 2),
    Chem.BondType.TRIPLE: (app.Triple, 3),
    Chem.BondType.AROMATIC: (app.Aromatic, None),
}


def build_from_smiles(smiles: str, seed: int) -> Solute:
    """Builds one molecule from SMILES, as written (no pH is applied).

    What the SMILES leaves open of the configuration is named in a warning of the log.

    Raises:
        UnsupportedSystemError: not a SMILES string, several molecules, unpaired electrons,
            isotopes, or no geometry found.
    """
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles.strip())
    where = f"structure.smiles: {smiles.strip()[:60]}"
    if molecule is None:
        raise UnsupportedSystemError(f"{where} is not valid SMILES; correct it")
    return _solute(_with_geometry(Chem.AddHs(molecule), seed, where), where)


def build_from_sdf(path: Path, seed: int) -> Solute:
    """Builds the one molecule of an SDF or MOL file.

    Three-dimensional coordinates are kept; a flat drawing gets a geometry, and hydrogens that
    are not written are added. What a drawing leaves open of the configuration is named in a
    warning of the log.

    Raises:
        UnsupportedSystemError: unreadable, not exactly one molecule, unpaired electrons, isotopes,
            or no geometry found.
    """
    where = f"structure.file: {path.name}"
    supplier = Chem.SDMolSupplier()
    with rdBase.BlockLogs():
        supplier.SetData(path.read_text(errors="replace"), removeHs=False)
        records = list(supplier)
    if len(records) != 1 or records[0] is None:
        found = f"{len(records)} records" if len(records) != 1 else "a record that cannot be read"
        raise UnsupportedSystemError(f"{where} holds {found}; give a file with one molecule")
    molecule = records[0]
    if molecule.GetNumConformers() and molecule.GetConformer().Is3D():
        return _solute(Chem.AddHs(molecule, addCoords=True), where)
    return _solute(_with_geometry(Chem.AddHs(molecule), seed, where), where)


def _with_geometry(molecule: Chem.Mol, seed: int, where: str) -> Chem.Mol:
    """Embeds by distance geometry (ETKDGv3), relaxed by MMFF94 where that knows all atoms.

    The seed decides what the molecule leaves open of the configuration; a warning says so.
    """
    open_parts = _open_configuration(molecule)
    parameters: Any = rdDistGeom.ETKDGv3()
    parameters.randomSeed = seed
    if rdDistGeom.EmbedMolecule(molecule, parameters) != 0:
        raise UnsupportedSystemError(f"{where}: no geometry found; give an SDF file with one")
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule):
        rdForceFieldHelpers.MMFFOptimizeMolecule(molecule, maxIters=1000)
    if open_parts:
        _logger.warning(
            "%s leaves the configuration of %s open: %s is built, which the seed decides; write "
            "the isomer that is meant",
            where,
            ", ".join(open_parts),
            _isomeric_smiles(molecule),
        )
    return molecule


def _open_configuration(molecule: Chem.Mol) -> list[str]:
    """Names stereocentres and double bonds without a configuration: `C2`, `C3=C4`."""
    names = _atom_names(molecule)
    parts = []
    for stereo in Chem.FindPotentialStereo(molecule):
        if stereo.specified == Chem.StereoSpecified.Specified:
            continue
        if stereo.type.name.startswith("Bond"):
            bond = molecule.GetBondWithIdx(stereo.centeredOn)
            parts.append(f"{names[bond.GetBeginAtomIdx()]}={names[bond.GetEndAtomIdx()]}")
        else:
            parts.append(names[stereo.centeredOn])
    return parts


def _isomeric_smiles(molecule: Chem.Mol) -> str:
    """Returns the SMILES with the configuration that the coordinates have."""
    copy = Chem.Mol(molecule)
    Chem.AssignStereochemistryFrom3D(copy)
    return str(Chem.MolToSmiles(Chem.RemoveHs(copy)))


def _atom_names(molecule: Chem.Mol) -> list[str]:
    """Numbers the atoms of each element from 1: `C1`, `C2`, `H1`."""
    count: dict[str, int] = {}
    names = []
    for atom in molecule.GetAtoms():
        symbol = atom.GetSymbol().upper()
        count[symbol] = count.get(symbol, 0) + 1
        names.append(f"{symbol}{count[symbol]}")
    return names


def _refuse_unpaired_electrons(molecule: Chem.Mol, where: str) -> None:
    """Refuses radicals: potentials are not told the spin, and learn molecules as closed shells."""
    unpaired = [atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms()]
    if any(unpaired):
        names = [n for n, count in zip(_atom_names(molecule), unpaired, strict=True) if count]
        total = sum(unpaired)
        raise UnsupportedSystemError(
            f"{where} has {total} unpaired electron{'s' if total > 1 else ''} "
            f"({', '.join(names)}), and potentials are not told the spin; give a closed-shell "
            "molecule, with all its hydrogens"
        )


def _refuse_isotopes(molecule: Chem.Mol, where: str) -> None:
    """Refuses labels of isotopes, whose masses a topology does not keep."""
    labelled = [atom for atom in molecule.GetAtoms() if atom.GetIsotope()]
    if labelled:
        names = dict.fromkeys(f"{atom.GetIsotope()}{atom.GetSymbol()}" for atom in labelled)
        raise UnsupportedSystemError(
            f"{where} names isotopes ({', '.join(names)}), and every atom gets "
            "the mean mass of its element; leave them out (for heavier hydrogens set "
            "hydrogen_mass in the protocol)"
        )


def _solute(molecule: Chem.Mol, where: str) -> Solute:
    n_fragments = len(Chem.GetMolFrags(molecule))
    if n_fragments != 1:
        raise UnsupportedSystemError(
            f"{where} holds {n_fragments} separate molecules; give one (no salts or complexes)"
        )
    _refuse_unpaired_electrons(molecule, where)
    _refuse_isotopes(molecule, where)
    topology = app.Topology()
    is_water = Chem.MolToSmiles(Chem.RemoveHs(molecule)) == "O"
    residue = topology.addResidue("HOH" if is_water else _RESIDUE_NAME, topology.addChain("A"))
    atoms = []
    for atom, numbered in zip(molecule.GetAtoms(), _atom_names(molecule), strict=True):
        name = "O" if is_water and numbered == "O1" else numbered
        element = app.Element.getByAtomicNumber(atom.GetAtomicNum())
        atoms.append(topology.addAtom(name, element, residue, formalCharge=atom.GetFormalCharge()))
    for bond in molecule.GetBonds():
        kind, order = _BOND_TYPES.get(bond.GetBondType(), (None, None))
        topology.addBond(atoms[bond.GetBeginAtomIdx()], atoms[bond.GetEndAtomIdx()], kind, order)
    positions = np.asarray(molecule.GetConformer().GetPositions(), dtype=np.float64)
    charge = Chem.GetFormalCharge(molecule)
    isomer = None if is_water else _isomeric_smiles(molecule)
    return Solute(topology, positions * ANGSTROM_TO_NM, charge, isomeric_smiles=isomer)
