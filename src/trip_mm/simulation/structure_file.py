"""The built structure in a file: every name, bond and coordinate exactly, for resumption.

A PDB file rounds coordinates, numbers residues modulo 10,000 and loses bonds of residues it does
not know; `structure.json` loses nothing. `topology.pdb` (or `.cif`) stands beside it for viewers.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app, unit

from trip_mm.errors import RunDirectoryError
from trip_mm.files import read_json, write_atomically
from trip_mm.simulation.building import BuiltStructure

_FORMAT_VERSION = 1
_LARGEST_PDB = 99_999
_PDB_RESIDUE_DIGITS = 4
_BOND_TYPES = {
    str(kind): kind for kind in (app.Single, app.Double, app.Triple, app.Aromatic, app.Amide)
}


def save_structure(path: Path, structure: BuiltStructure) -> None:
    """Writes a built structure as JSON, exactly.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    box = structure.box_vectors
    content = {
        "format_version": _FORMAT_VERSION,
        "n_solute_atoms": structure.n_solute_atoms,
        "net_charge": structure.net_charge,
        "added_atoms": list(structure.added_atoms),
        "isomeric_smiles": structure.isomeric_smiles,
        "box_vectors_nm": None if box is None else np.asarray(box).tolist(),
        "positions_nm": np.asarray(structure.positions, dtype=np.float64).tolist(),
        **_topology_to_dict(structure.topology),
    }
    write_atomically(path, (json.dumps(content, separators=(",", ":")) + "\n").encode())


def load_structure(path: Path) -> BuiltStructure:
    """Reads what `save_structure` wrote.

    Raises:
        RunDirectoryError: the file is missing, damaged, or of another format version.
    """
    content = read_json(path)
    if content.get("format_version") != _FORMAT_VERSION:
        raise RunDirectoryError(
            f"{path}: has format version {content.get('format_version')}, this trip-mm reads "
            f"{_FORMAT_VERSION}; continue the run with the version of trip-mm named in run.json"
        )
    try:
        box = content["box_vectors_nm"]
        topology = _topology_from_dict(content)
        if box is not None:
            topology.setPeriodicBoxVectors(np.asarray(box, dtype=np.float64) * unit.nanometer)
        return BuiltStructure(
            topology=topology,
            positions=np.asarray(content["positions_nm"], dtype=np.float64),
            box_vectors=None if box is None else np.asarray(box, dtype=np.float64),
            n_solute_atoms=content["n_solute_atoms"],
            net_charge=content["net_charge"],
            # Runs of earlier versions have neither of these.
            added_atoms=tuple(content.get("added_atoms", ())),
            isomeric_smiles=content.get("isomeric_smiles"),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RunDirectoryError(f"{path}: is damaged ({error!r}); restore it") from error


def _topology_to_dict(topology: app.Topology) -> dict[str, Any]:
    return {
        "chains": [chain.id for chain in topology.chains()],
        "residues": [
            [residue.name, residue.id, residue.insertionCode, residue.chain.index]
            for residue in topology.residues()
        ],
        "atoms": [
            [
                atom.name,
                None if atom.element is None else atom.element.symbol,
                atom.id,
                atom.residue.index,
                atom.formalCharge,
            ]
            for atom in topology.atoms()
        ],
        "bonds": [
            [
                bond.atom1.index,
                bond.atom2.index,
                None if bond.type is None else str(bond.type),
                bond.order,
            ]
            for bond in topology.bonds()
        ],
    }


def _topology_from_dict(content: dict[str, Any]) -> app.Topology:
    topology = app.Topology()
    chains = [topology.addChain(identifier) for identifier in content["chains"]]
    residues = [
        topology.addResidue(name, chains[chain], identifier, insertion)
        for name, identifier, insertion, chain in content["residues"]
    ]
    atoms = [
        topology.addAtom(
            name,
            None if symbol is None else app.Element.getBySymbol(symbol),
            residues[residue],
            identifier,
            charge,
        )
        for name, symbol, identifier, residue, charge in content["atoms"]
    ]
    for first, second, kind, order in content["bonds"]:
        bond_type = None if kind is None else _BOND_TYPES[kind]
        topology.addBond(atoms[first], atoms[second], bond_type, order)
    return topology


def write_topology(directory: Path, structure: BuiltStructure) -> Path:
    """Writes `topology.pdb`, or `topology.cif` where a PDB file cannot count the atoms.

    Returns:
        The file written.
    """
    text = io.StringIO()
    positions = np.asarray(structure.positions) * unit.nanometer
    if structure.topology.getNumAtoms() > _LARGEST_PDB:
        path = directory / "topology.cif"
        app.PDBxFile.writeFile(structure.topology, positions, text, keepIds=True)
    else:
        path = directory / "topology.pdb"
        app.PDBFile.writeFile(structure.topology, positions, text, keepIds=_ids_fit(structure))
    write_atomically(path, text.getvalue().encode())
    return path


def _ids_fit(structure: BuiltStructure) -> bool:
    """Whether chain and residue identifiers fit the columns that a PDB file has for them."""
    return all(len(chain.id) <= 1 for chain in structure.topology.chains()) and all(
        len(residue.id) <= _PDB_RESIDUE_DIGITS for residue in structure.topology.residues()
    )
