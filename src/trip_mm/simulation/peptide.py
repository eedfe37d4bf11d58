"""A peptide from its sequence: all atoms, standard names, polyproline-II backbone."""

from typing import Any

import numpy as np
from openmm import app
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers, rdMolTransforms

from trip_mm.errors import UnsupportedSystemError
from trip_mm.simulation.solute import FloatArray, Solute, add_hydrogens
from trip_mm.units import ANGSTROM_TO_NM

MAX_RESIDUES = 30
_PHI_DEGREES = -75.0
_PSI_DEGREES = 145.0
_OMEGA_DEGREES = 180.0
_TORSION_FORCE_CONSTANT = 100.0
"""kcal/mol/rad^2; holds the backbone while side chains relax."""

_RELAXATION_STEPS = 500


def build_peptide(sequence: str, termini: str, ph: float, seed: int) -> Solute:
    """Builds a peptide with an extended (polyproline II) backbone and trans peptide bonds.

    Heavy atoms come from RDKit's distance geometry with the backbone set and the side chains
    relaxed by MMFF94; hydrogens from OpenMM at the pH.

    Args:
        sequence: one-letter codes from N to C terminus.
        termini: `zwitterion` (amino acid ends, charged at pH 7) or `capped` (ACE and NME).
        ph: of the hydrogens.
        seed: of the distance geometry.

    Raises:
        UnsupportedSystemError: the sequence is too long to build from nothing.
    """
    if len(sequence) > MAX_RESIDUES:
        raise UnsupportedSystemError(
            f"structure.sequence: {len(sequence)} residues are too many to fold from nothing; "
            f"give a PDB file for more than {MAX_RESIDUES}"
        )
    capped = termini == "capped"
    molecule = Chem.MolFromSequence(f"G{sequence}G" if capped else sequence)
    molecule = Chem.AddHs(molecule)
    parameters: Any = rdDistGeom.ETKDGv3()
    parameters.randomSeed = seed
    parameters.useRandomCoords = True
    if rdDistGeom.EmbedMolecule(molecule, parameters) != 0:
        raise UnsupportedSystemError(
            f"structure.sequence: no geometry found for {sequence}; give a PDB file"
        )
    _set_backbone(molecule)
    topology, positions = _heavy_atoms(molecule, capped)
    return add_hydrogens(topology, positions, ph, seed)


def _set_backbone(molecule: Chem.Mol) -> None:
    """Turns backbone torsions to their targets, then relaxes everything else around them."""
    conformer = molecule.GetConformer()
    atoms = {
        (info.GetResidueNumber(), info.GetName().strip()): atom.GetIdx()
        for atom in molecule.GetAtoms()
        if (info := atom.GetPDBResidueInfo()) is not None
    }
    residues = sorted({number for number, _ in atoms})
    torsions = []
    for number in residues:
        before, after = number - 1, number + 1
        names = [
            ([(before, "C"), (number, "N"), (number, "CA"), (number, "C")], _PHI_DEGREES),
            ([(number, "N"), (number, "CA"), (number, "C"), (after, "N")], _PSI_DEGREES),
            ([(number, "CA"), (number, "C"), (after, "N"), (after, "CA")], _OMEGA_DEGREES),
        ]
        torsions += [
            ([atoms[name] for name in quartet], angle)
            for quartet, angle in names
            if all(name in atoms for name in quartet)
        ]
    rings = molecule.GetRingInfo()
    torsions = [t for t in torsions if rings.NumBondRings(_bond(molecule, t[0][1], t[0][2])) == 0]
    for (a, b, c, d), angle in torsions:
        rdMolTransforms.SetDihedralDeg(conformer, a, b, c, d, angle)
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule)
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(molecule, properties)
    for quartet, angle in torsions:
        field.MMFFAddTorsionConstraint(*quartet, False, angle, angle, _TORSION_FORCE_CONSTANT)
    field.Minimize(maxIts=_RELAXATION_STEPS)


def _bond(molecule: Chem.Mol, first: int, second: int) -> int:
    return int(molecule.GetBondBetweenAtoms(first, second).GetIdx())


def _heavy_atoms(molecule: Chem.Mol, capped: bool) -> tuple[app.Topology, FloatArray]:
    """Writes the heavy atoms as a topology with standard bonds; end glycines become caps."""
    coordinates = molecule.GetConformer().GetPositions()
    last = max(
        info.GetResidueNumber()
        for atom in molecule.GetAtoms()
        if (info := atom.GetPDBResidueInfo()) is not None
    )
    names_of_cap = {
        1: ("ACE", {"CA": "CH3", "C": "C", "O": "O"}),
        last: ("NME", {"N": "N", "CA": "C"}),
    }
    topology = app.Topology()
    chain = topology.addChain("A")
    residue = None
    kept = []
    for atom in molecule.GetAtoms():
        if atom.GetAtomicNum() == 1:
            continue
        info = atom.GetPDBResidueInfo()
        number, atom_name, residue_name = (
            info.GetResidueNumber(),
            info.GetName().strip(),
            info.GetResidueName(),
        )
        if capped and number in names_of_cap:
            residue_name, renamed = names_of_cap[number]
            if atom_name not in renamed:
                continue
            atom_name = renamed[atom_name]
        if residue is None or residue.id != str(number):
            residue = topology.addResidue(residue_name, chain, str(number))
        element = app.Element.getByAtomicNumber(atom.GetAtomicNum())
        topology.addAtom(atom_name, element, residue)
        kept.append(atom.GetIdx())
    topology.createStandardBonds()
    return topology, np.asarray(coordinates[kept], dtype=np.float64) * ANGSTROM_TO_NM
