"""From a system's settings to atoms in a box."""

from dataclasses import dataclass

import numpy as np
from openmm import app, unit

from trip_mm.simulation.molecule import build_from_sdf, build_from_smiles
from trip_mm.simulation.peptide import build_peptide
from trip_mm.simulation.solute import ION_CHARGES, WATER_NAMES, FloatArray, Solute
from trip_mm.simulation.solvation import solvate
from trip_mm.simulation.structures import build_from_file
from trip_mm.simulation.system_config import SystemConfig


@dataclass(frozen=True)
class BuiltStructure:
    """A complete system: every atom, every bond, positions and box.

    Attributes:
        topology: with all covalent bonds, water included, and the box.
        positions: nm `[n_atoms, 3]`.
        box_vectors: nm `[3, 3]`, rows are lattice vectors; None if not periodic.
        n_solute_atoms: the first atoms, those that are neither water nor ion.
        net_charge: formal charge in e, ions included.
        added_atoms: heavy atoms that the structure file lacks, as `CB of ALA 2 of chain A`; their
            positions are modelled.
        isomeric_smiles: of a small molecule, with the configuration that was built; else None.
    """

    topology: app.Topology
    positions: FloatArray
    box_vectors: FloatArray | None
    n_solute_atoms: int
    net_charge: int
    added_atoms: tuple[str, ...] = ()
    isomeric_smiles: str | None = None


def build_structure(config: SystemConfig, seed: int) -> BuiltStructure:
    """Builds the system that the settings describe; the same seed gives the same coordinates.

    Args:
        config: structure, pH and solvent.
        seed: of geometry search, hydrogen placement and choice of waters.

    Raises:
        UnsupportedSystemError: the structure cannot be built; what, where and what to do.
    """
    solute = _build_solute(config, seed)
    added_atoms, isomeric_smiles = solute.added_atoms, solute.isomeric_smiles
    if config.solvent is not None:
        solute = solvate(solute, config.solvent, seed)
    if solute.box_vectors is not None:
        solute.topology.setPeriodicBoxVectors(solute.box_vectors * unit.nanometer)
    else:
        solute.topology.setPeriodicBoxVectors(None)
    return BuiltStructure(
        solute.topology,
        solute.positions,
        solute.box_vectors,
        _count_solute_atoms(solute.topology),
        solute.net_charge,
        added_atoms,
        isomeric_smiles,
    )


def _build_solute(config: SystemConfig, seed: int) -> Solute:
    structure = config.structure
    if structure is None:
        return Solute(app.Topology(), np.zeros((0, 3)), 0)
    if structure.sequence is not None:
        return build_peptide(structure.sequence, structure.termini, config.ph, seed)
    if structure.smiles is not None:
        return build_from_smiles(structure.smiles, seed)
    assert structure.file is not None
    if structure.file.suffix.lower() in (".sdf", ".mol"):
        return build_from_sdf(structure.file, seed)
    return build_from_file(structure.file, config.ph, seed, keeps_box=config.solvent is None)


def _count_solute_atoms(topology: app.Topology) -> int:
    count = 0
    for residue in topology.residues():
        if residue.name in WATER_NAMES or residue.name in ION_CHARGES:
            break
        count += len(residue)
    return count
