"""The parts of a system before solvent: topology, positions, formal charge.

`BuiltStructure` (the finished system) stands in `building`; what leads to it are `Solute`s from
`peptide` (sequence), `molecule` (SMILES, SDF) and `structures` (PDB, mmCIF).
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

FloatArray = NDArray[np.float64]

WATER_NAMES = frozenset({"HOH", "WAT", "SOL", "TIP3", "H2O"})
ION_CHARGES = {"NA": 1, "K": 1, "LI": 1, "RB": 1, "CS": 1, "CL": -1, "BR": -1, "F": -1, "I": -1}

# fmt: off
_NEUTRAL_HYDROGENS = {
    "ALA": 5, "ARG": 12, "ASN": 6, "ASP": 5, "CYS": 5, "GLN": 8, "GLU": 7, "GLY": 3, "HIS": 7,
    "ILE": 11, "LEU": 11, "LYS": 12, "MET": 9, "PHE": 9, "PRO": 7, "SER": 5, "THR": 7, "TRP": 10,
    "TYR": 9, "VAL": 9, "ACE": 3, "NME": 4, "NH2": 2, "HOH": 2,
}
"""Number of hydrogens of each residue in the middle of a chain, in its uncharged form."""
# fmt: on

AMINO_ACID_NAMES = frozenset(_NEUTRAL_HYDROGENS) - {"ACE", "NME", "NH2", "HOH"}
CAP_NAMES = frozenset({"ACE", "NME", "NH2"})


@dataclass(frozen=True)
class Solute:
    """Molecules with hydrogens, before solvent.

    Attributes:
        topology: atoms and every covalent bond.
        positions: nm `[n_atoms, 3]`.
        net_charge: formal charge in e.
        box_vectors: nm `[3, 3]`, rows are lattice vectors; None without a box.
        added_atoms: heavy atoms that the structure file lacks, as `CB of ALA 2 of chain A`.
        isomeric_smiles: of a small molecule, with the configuration that was built; else None.
    """

    topology: app.Topology
    positions: FloatArray
    net_charge: int
    box_vectors: FloatArray | None = None
    added_atoms: tuple[str, ...] = ()
    isomeric_smiles: str | None = None


def positions_nm(positions: unit.Quantity) -> FloatArray:
    """Returns OpenMM positions as nm `[n_atoms, 3]`, empty for no atoms."""
    values = [tuple(v) for v in positions.value_in_unit(unit.nanometer)]
    return np.asarray(values, dtype=np.float64).reshape(-1, 3)


def add_hydrogens(topology: app.Topology, positions: FloatArray, ph: float, seed: int) -> Solute:
    """Adds the hydrogens that amino acids carry at a pH; hydrogens that are there stay.

    OpenMM draws the first guess of their positions from Python's global random numbers; these are
    seeded for the call and restored after it. The Reference platform makes the relaxation of the
    hydrogens the same on every machine.

    Args:
        topology: standard residues, at least all heavy atoms.
        positions: nm `[n_atoms, 3]`.
        ph: decides the protonation of ASP, GLU, HIS, LYS and CYS; TYR, ARG and the termini have
            one form at every pH.
        seed: of the random numbers.
    """
    modeller = app.Modeller(topology, positions * unit.nanometer)
    with _seeded_random(seed):
        modeller.addHydrogens(pH=ph, platform=openmm.Platform.getPlatformByName("Reference"))
    charge = sum(residue_charge(residue) for residue in modeller.topology.residues())
    return Solute(modeller.topology, positions_nm(modeller.positions), charge)


def residue_charge(residue: app.topology.Residue) -> int:
    """Returns the formal charge in e of a standard residue, from its hydrogens.

    Each hydrogen more than in the uncharged form is one charge. An uncharged amino terminus has
    one hydrogen more than a residue inside the chain, an uncharged carboxyl terminus (with OXT)
    too; a cysteine in a disulfide bridge has one less.

    Raises:
        KeyError: not a standard residue, water or monatomic ion.
    """
    if residue.name in ION_CHARGES:
        return ION_CHARGES[residue.name]
    name = "HOH" if residue.name in WATER_NAMES else residue.name
    neutral = _NEUTRAL_HYDROGENS[name]
    atoms = {atom.name: atom for atom in residue.atoms()}
    n_hydrogens = sum(atom.element is app.element.hydrogen for atom in residue.atoms())
    external = [
        (one, other)
        for pair in residue.external_bonds()
        for one, other in (pair, pair[::-1])
        if one.residue is residue
    ]
    if name in AMINO_ACID_NAMES:
        neutral += all(one.name != "N" for one, _ in external)
        neutral += "OXT" in atoms
        neutral -= any(one.name == "SG" for one, _ in external)
    return n_hydrogens - neutral


@contextmanager
def _seeded_random(seed: int) -> Iterator[None]:
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def atom_label(atom: app.topology.Atom) -> str:
    """Names an atom for messages: `CA of ALA 2 (atom 7)`; atoms count from 0."""
    return f"{atom.name} of {atom.residue.name} {atom.residue.id} (atom {atom.index})"
