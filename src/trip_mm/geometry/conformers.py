"""Conformers of a molecule by distance geometry."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from trip_mm.errors import UnsupportedSystemError
from trip_mm.geometry.molecule import Molecule

_SEED = 1
_PRUNE_ANGSTROM = 0.3
_MAX_ITERATIONS = 1000


def embed_conformers(molecule: Molecule, n_conformers: int) -> list[NDArray[np.float64]]:
    """Embeds conformers of the same stereoisomer (ETKDGv3, fixed seed; MMFF94 where it applies).

    Args:
        molecule: with its RDKit molecule; stereocentres are those of its geometry.
        n_conformers: how many to embed; those within 0.3 A (heavy atoms) of another are dropped.

    Returns:
        positions in A, `[n_atoms, 3]` each, lowest MMFF94 energy first.

    Raises:
        UnsupportedSystemError: no bond orders are known, or nothing could be embedded.
    """
    name = molecule.name or "molecule"
    if molecule.rdkit is None:
        raise UnsupportedSystemError(
            f"{name}: conformers need bond orders; give SMILES or an SDF file"
        )
    mol: Any = Chem.Mol(molecule.rdkit)
    mol.GetConformer().SetPositions(np.ascontiguousarray(molecule.positions))
    Chem.AssignStereochemistryFrom3D(mol)
    parameters: Any = rdDistGeom.ETKDGv3()
    parameters.randomSeed = _SEED
    parameters.pruneRmsThresh = _PRUNE_ANGSTROM
    ids = list(rdDistGeom.EmbedMultipleConfs(mol, n_conformers, parameters))
    if not ids:
        raise UnsupportedSystemError(f"{name}: no conformer could be embedded")
    energies = [0.0] * len(ids)
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
        found = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(mol, maxIters=_MAX_ITERATIONS)
        energies = [energy for _, energy in found]
    order = np.argsort(energies, kind="stable")
    return [np.array(mol.GetConformer(ids[i]).GetPositions(), dtype=np.float64) for i in order]
